import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SHELLS } from '../../../src/cli/commands/completion.ts'
import { buildProgram } from '../../../src/cli/program.ts'
import { everyCommand, modelOf } from '../../../src/cli/shells/command-model.ts'
import { hasCommand, shallot, temporaryFolder } from '../../support/processes.ts'
import { read } from '../../support/repository.ts'

const programs = ['bash', 'zsh', 'fish', 'groff', 'mandoc', 'man'] as const
const has = Object.fromEntries(await Promise.all(programs.map(async (name) => [name, await hasCommand(name)] as const))) as Record<
  (typeof programs)[number],
  boolean
>

const model = modelOf(buildProgram(() => {}))
const folder = temporaryFolder('shells')
beforeAll(() => {
  mkdirSync(join(folder.path, 'mesh'))
  writeFileSync(join(folder.path, 'network.toml'), '')
  for (const [shell, make] of Object.entries(SHELLS)) writeFileSync(join(folder.path, `completion.${shell}`), make(model))
})
afterAll(() => folder.remove())

function shell(program: string, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, {
    cwd: folder.path,
    encoding: 'utf8',
    env: { ...process.env, HOME: folder.path },
  })
  expect(status, stderr).toBe(0)
  expect(stderr).toBe('')
  return stdout
}

/** What is offered for the last word of a line; each with what it must hold and what it must not. */
const lines: readonly (readonly [line: string, offered: readonly string[], not: readonly string[]])[] = [
  ['shallot ', ['testnet', 'vpn', 'network', 'top', 'completion'], ['up', '--dir']],
  ['shallot vp', ['vpn'], ['status']],
  ['shallot vpn ', ['up', 'down', 'status', 'exec', 'repair'], ['testnet']],
  ['shallot vpn st', ['status'], ['up']],
  ['shallot relays --role ', ['guard', 'middle', 'exit', 'relay', 'bootstrap'], ['client', 'mesh']],
  ['shallot init --role ', ['client', 'guard', 'middle', 'exit', 'relay', 'bootstrap'], ['mesh']],
  ['shallot relays --role exit --', ['--country', '--json', '--dir'], ['exit']],
  ['shallot run --dir ', ['mesh'], ['network.toml', 'testnet']],
  ['shallot network sign --key mesh netw', ['network.toml'], ['mesh']],
  ['shallot network ', ['sign', 'check', 'keygen', 'update', 'show'], ['status']],
  ['shallot completion ', ['bash', 'zsh', 'fish'], ['mesh']],
]

/** "mesh/" and "mesh" are the same candidate. */
const words = (text: string): string[] => text.split(/\s+/).map((word) => word.replace(/\/$/, ''))

describe('completions', () => {
  test('hold every command and option that help shows, in every shell', () => {
    const all = everyCommand(model)
    expect(all.length).toBeGreaterThan(20)
    for (const make of Object.values(SHELLS)) {
      const text = make(model)
      for (const { path, options } of all) {
        expect(text).toContain(path.at(-1))
        for (const { flags } of options) for (const flag of flags) expect(text).toContain(flag.replace(/^--?/, ''))
      }
    }
  })

  test('are what the command prints', async () => {
    const { code, stdout } = await shallot(['completion', 'bash'])
    expect([code, stdout]).toEqual([0, SHELLS.bash(model)])
    expect((await shallot(['completion', 'tcsh'])).code).toBe(2)
  })

  test.skipIf(!has.bash).each(lines)('bash: %j', (line, offered, not) => {
    const script = `. ./completion.bash
read -ra COMP_WORDS <<< "$1"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
compopt() { :; }
_shallot
printf '%s\\n' "\${COMPREPLY[@]}"`
    const found = words(shell('bash', ['--norc', '-c', script, 'bash', line]))
    expect(found).toEqual(expect.arrayContaining([...offered]))
    expect(found.filter((word) => not.includes(word))).toEqual([])
  })

  test.skipIf(!has.fish).each(lines)('fish (Debian: fish): %j', (line, offered, not) => {
    // Without --no-config fish would read the machine's own completions.
    const out = shell('fish', ['--no-config', '-c', 'source completion.fish; complete -C $argv[1]', line])
    const found = words(
      out
        .split('\n')
        .map((one) => one.split('\t')[0])
        .join('\n'),
    )
    expect(found).toEqual(expect.arrayContaining([...offered]))
    expect(found.filter((word) => not.includes(word))).toEqual([])
  })

  test.skipIf(!has.zsh).each(lines)('zsh (Debian: zsh): %j', (line, offered, not) => {
    const out = shell('zsh', ['-f', join(import.meta.dirname, 'complete-in-zsh.zsh'), line])
    const found = words([...out.matchAll(/FOUND (\S*)/g)].map(([, word]) => word).join('\n'))
    expect(found, out).toEqual(expect.arrayContaining([...offered]))
    expect(found.filter((word) => not.includes(word))).toEqual([])
  })
})

describe('the manual', () => {
  const page = join(import.meta.dirname, '../../../man/shallot.1')

  test('has every command, option and example that help shows', () => {
    const text = read('man/shallot.1').replaceAll('\\-', '-')
    for (const { path, options } of everyCommand(model).slice(1)) {
      expect(text).toContain(`.SS ${path.slice(1).join(' ')}\n`)
      for (const { flags } of options) for (const flag of flags) expect(text).toContain(flag)
    }
    expect(text).toContain('$ shallot vpn exec -- curl https://example.com/')
  })

  test.skipIf(!has.groff)('is set by groff without a warning (Debian: groff)', () => {
    const out = shell('groff', ['-man', '-Tutf8', '-ww', page])
    expect(out).toContain('network keygen')
  })

  test.skipIf(!has.mandoc)('passes mandoc (Debian: mandoc)', () => {
    const { stdout, stderr } = spawnSync('mandoc', ['-Tlint', '-Wwarning', page], { encoding: 'utf8' })
    // Without a date: the page is the same whenever it is made.
    const problems = `${stdout}${stderr}`.split('\n').filter((line) => line !== '' && !line.includes('missing date'))
    expect(problems).toEqual([])
  })

  test.skipIf(!has.man)('is shown by man (Debian: man-db)', () => {
    const { status, stdout } = spawnSync('man', ['-l', page], {
      encoding: 'utf8',
      env: { ...process.env, MANWIDTH: '80', LC_ALL: 'C.UTF-8' },
    })
    expect(status).toBe(0)
    expect(stdout).toMatch(/NAME\s+shallot +- a decentralised/)
  })
})
