import { describe, expect, test } from 'vitest'
import { codeOf, importsOf, repositoryFiles } from '../support/repository.ts'

/** Rooms whose code is a function of its inputs: no clock, socket, file, await or randomness of its own. */
const pureRooms = ['onion', 'path', 'directory', 'packet', 'dns', 'netstack']

/** What such a room must not touch, and what to do instead. */
const banned: readonly (readonly [RegExp, string])[] = [
  [/\bDate\.now\b|\bnew Date\(\)|\bperformance\b|\bprocess\.hrtime\b|\bTemporal\.Now\b/, 'a clock: take `now` as an argument'],
  [
    /\bMath\.random\b|\bcrypto\.(getRandomValues|randomUUID)\b|\brandomBytes\b/,
    'randomness of its own: take a Random or the suite as an argument',
  ],
  [/\bset(Timeout|Interval|Immediate)\b|\bqueueMicrotask\b|\bprocess\.nextTick\b/, 'a timer: return a deadline'],
  [/\bawait\b|\basync\b|\bPromise\b/, 'asynchrony: return what is to be done'],
  [/\bprocess\.|\bconsole\./, 'the process: return a value'],
]
/** Modules of Node that are pure functions. */
const allowedModules = new Set(['node:net', 'node:url', 'node:assert'])
/** Of node:net only these. */
const allowedOfNet = /^import \{ (isIP|isIPv4|isIPv6)(, (isIP|isIPv4|isIPv6))* \} from 'node:net'$/m

const files = repositoryFiles().filter((file) => pureRooms.some((room) => file.startsWith(`src/${room}/`)) && file.endsWith('.ts'))

function offences(file: string, code: string): string[] {
  const found: string[] = []
  for (const [pattern, instead] of banned) {
    for (const [index, line] of code.split('\n').entries()) if (pattern.test(line)) found.push(`${file}:${index + 1} uses ${instead}`)
  }
  return found
}

describe('pure rooms', () => {
  test('touch no clock, timer, randomness or process', () => {
    expect(files.flatMap((file) => offences(file, codeOf(file)))).toEqual([])
  })

  test('import no module that does I/O', () => {
    const found = files.flatMap(importsOf).filter((one) => one.specifier.startsWith('node:') && !allowedModules.has(one.specifier))
    expect(found.map((one) => `${one.file}:${one.line} imports ${one.specifier}: a pure room does no I/O`)).toEqual([])
    for (const one of files.flatMap(importsOf).filter((each) => each.specifier === 'node:net')) {
      expect(codeOf(one.file).replace(/'\s+'/g, "'node:net'"), `${one.file} takes more than isIP from node:net`).toMatch(allowedOfNet)
    }
  })

  test('the test sees an offence', () => {
    expect(offences('x.ts', 'const at = Date.now()')).toHaveLength(1)
    expect(offences('x.ts', 'setTimeout(() => {}, 1)')).toHaveLength(1)
  })
})
