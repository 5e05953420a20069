import { describe, expect, test } from 'vitest'
import { sensitive } from '../../../src/base/index.ts'
import { createLogger } from '../../../src/node/index.ts'

function capture(
  level: 'info' | 'debug' | 'trace' | 'error',
  format: 'text' | 'json' = 'json',
  subsystems: Record<string, 'debug' | 'trace' | 'error'> = {},
) {
  const lines: string[] = []
  const logger = createLogger({ level, format, subsystems }, { write: (line: string) => void lines.push(line) })
  return { logger, lines }
}

describe('the log', () => {
  test('shows sensitive values at debug and trace only, however deep they are', () => {
    const { logger, lines } = capture('trace')
    const secret = { address: sensitive('198.51.100.7'), deep: { list: [sensitive('name.example')] } }
    for (const level of ['error', 'warn', 'info'] as const) logger[level]('something', secret)
    expect(lines.join('')).not.toMatch(/198\.51|name\.example/)
    expect(lines.join('')).toContain('[scrubbed]')
    lines.length = 0
    for (const level of ['debug', 'trace'] as const) logger[level]('something', secret)
    expect(lines).toHaveLength(2)
    for (const line of lines) expect(line).toMatch(/198\.51.*name\.example/)
  })

  test('shows of an error above debug only its name and code', () => {
    const { logger, lines } = capture('trace')
    const error = Object.assign(new Error('connect ECONNREFUSED 198.51.100.7:80'), { code: 'ECONNREFUSED' })
    logger.warn('failed', { error })
    expect(lines[0]).toContain('ECONNREFUSED')
    expect(lines[0]).not.toContain('198.51')
    logger.debug('failed', { error })
    expect(lines[1]).toContain('198.51')
  })

  test('has levels for subsystems, the longest name first', () => {
    const { logger, lines } = capture('error', 'json', { link: 'debug', 'link.tls': 'error' })
    logger.info('no')
    logger.child('link').debug('yes')
    logger.child('link').child('dialer').debug('yes')
    logger.child('link').child('tls').debug('no')
    logger.child('linker').debug('no')
    expect(lines.map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual(['yes', 'yes'])
  })

  test('cannot be broken into lines or made to move a cursor by a value', () => {
    const { logger, lines } = capture('info', 'text')
    logger.info('got', { value: 'a\nb\x1b[2Jc', key: new Uint8Array(32), bytes: 5n, msg: 'other' })
    expect(lines).toHaveLength(1)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is the point
    expect(lines[0]!.slice(0, -1)).not.toMatch(/[\x00-\x1f]/)
    expect(lines[0]).toContain('(32 bytes)')
    expect(lines[0]).toMatch(/INFO {2}got /)
  })

  test('cuts long values and deep ones, and survives cycles', () => {
    const { logger, lines } = capture('info')
    const cycle: Record<string, unknown> = {}
    cycle.self = cycle
    logger.info('x', { long: 'y'.repeat(10_000), cycle })
    expect(lines[0]!.length).toBeLessThan(2000)
  })
})
