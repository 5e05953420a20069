import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { silentLogger } from '../../../../src/base/index.ts'
import { type ControlServer, startControl } from '../../../../src/control/index.ts'
import { FakeNode } from '../../../support/fake-node.ts'
import { hasCommand, projectRoot, shallot, temporaryFolder, until } from '../../../support/processes.ts'

const folder = temporaryFolder('top')
const hasTerminal = (await hasCommand('script')) && process.platform === 'linux'
let runtimeDir: string | undefined
let node: FakeNode
let control: ControlServer

beforeAll(async () => {
  runtimeDir = process.env.XDG_RUNTIME_DIR
  process.env.XDG_RUNTIME_DIR = folder.path
  node = new FakeNode()
  control = await startControl(node, {
    config: { enabled: true, listen: '127.0.0.1:0' },
    dir: folder.path,
    logger: silentLogger,
    random: (length) => new Uint8Array(randomBytes(length)),
  })
})
afterAll(async () => {
  await control.close()
  if (runtimeDir === undefined) delete process.env.XDG_RUNTIME_DIR
  else process.env.XDG_RUNTIME_DIR = runtimeDir
  folder.remove()
})

/** `shallot top` on a terminal of its own. */
class OnTerminal {
  written = ''
  readonly ended: Promise<number | null>
  readonly #child: ReturnType<typeof spawn>

  constructor(env: Record<string, string> = {}) {
    const command = `stty cols 100 rows 20; exec sh ${join(projectRoot, 'bin', 'shallot')} top --interval 0.2 --dir ${folder.path}`
    this.#child = spawn('script', ['-qefc', command, '/dev/null'], {
      stdio: 'pipe',
      env: { ...process.env, TERM: 'xterm-256color', SHELL: '/bin/sh', NO_COLOR: '', ...env },
    })
    this.#child.stdout!.on('data', (chunk) => {
      this.written += String(chunk)
    })
    this.ended = new Promise((done) => this.#child.once('exit', done))
  }

  press(keys: string): void {
    this.#child.stdin!.write(keys)
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  /** The last page that was drawn, line by line. */
  page(): string[] {
    const pages = this.written.split('\x1b[H').slice(1)
    // The last may not be whole yet.
    const whole = pages.filter((page) => page.includes('\x1b[J'))
    return (whole.at(-1) ?? '').split('\x1b[J')[0]!.replaceAll('\x1b[K', '').split('\r\n')
  }
}

describe.skipIf(!hasTerminal)('shallot top on a terminal (Debian: bsdutils)', () => {
  test('takes the alternate screen, draws within its size, and gives it back on q', async () => {
    const top = new OnTerminal()
    try {
      await until('the stream is shown', 10_000, () => top.page().some((line) => line.includes('example.com:443')))
      expect(top.written.startsWith('\x1b[?1049h')).toBe(true)
      const page = top.page()
      expect(page.length).toBeLessThanOrEqual(20)
      for (const line of page) expect(stripVTControlCharacters(line).length).toBeLessThanOrEqual(100)
      expect(page[0]).toContain('\x1b[1mshallot 0.1.0')
      // An arrow, which the wheel sends too, ends nothing: what is pressed after it is still taken.
      top.press('\x1b[A')
      top.press(' ')
      await until('the page says that it stands', 10_000, () => top.page().some((line) => line.includes('(stopped)')))
      top.press(' ')
      await until('it goes on', 10_000, () => top.page().every((line) => !line.includes('(stopped)')))
      top.press('q')
      expect(await top.ended).toBe(0)
      expect(top.written.trimEnd().endsWith('\x1b[?25h\x1b[?1049l')).toBe(true)
    } finally {
      top.kill()
    }
  })

  test('shows no colours where NO_COLOR is set, asks for fresh circuits on n, and ends on Ctrl-C', async () => {
    const top = new OnTerminal({ NO_COLOR: '1' })
    try {
      await until('the circuit is shown', 10_000, () => top.page().some((line) => line.includes('rdGuard1 DE')))
      expect(top.page().join('')).not.toContain('\x1b[')
      top.press('n')
      await until('a fresh circuit is asked for', 10_000, () => node.asked.includes('newCircuit'))
      top.press('\x03')
      expect(await top.ended).toBe(0)
      expect(top.written.trimEnd().endsWith('\x1b[?1049l')).toBe(true)
    } finally {
      top.kill()
    }
  })
})

describe('shallot top elsewhere', () => {
  test('takes one look and prints it plainly', async () => {
    const { code, stdout } = await shallot(['top', '--dir', folder.path])
    expect(code).toBe(0)
    expect(stdout).toContain('example.com:443')
    expect(stdout).toContain('GUARD > MIDDLE > EXIT')
    expect(stdout).not.toContain('\x1b')
  })

  test('as JSON too; and says that no node runs', async () => {
    const { stdout } = await shallot(['top', '--json', '--dir', folder.path])
    expect(JSON.parse(stdout)).toMatchObject({ rates: { client: { down: 0, up: 0 } }, circuits: [{ id: 7, rate: { down: 0, up: 0 } }] })
    const { code, log } = await shallot(['top', '--dir', join(folder.path, 'nobody')])
    expect(code).toBe(1)
    expect(log).toMatch(/no node runs in/)
  })
})
