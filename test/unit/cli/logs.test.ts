import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/index.ts'
import { changed, lineText } from '../../../src/cli/commands/logs.ts'
import { type ControlServer, startControl } from '../../../src/control/index.ts'
import { LogBook, type LogLevels, type LogLine, noLogs } from '../../../src/node/index.ts'
import { FakeNode } from '../../support/fake-node.ts'
import { shallot, startShallot, temporaryFolder } from '../../support/processes.ts'

const folder = temporaryFolder('logs')
const book = new LogBook()
let levels: LogLevels = { level: 'info', subsystems: {} }
let runtimeDir: string | undefined
let control: ControlServer

beforeAll(async () => {
  runtimeDir = process.env.XDG_RUNTIME_DIR
  process.env.XDG_RUNTIME_DIR = folder.path
  const node = new FakeNode()
  Object.assign(node, {
    logs: {
      ...noLogs(),
      page: (query: Parameters<LogBook['page']>[0]) => book.page(query),
      get levels() {
        return levels
      },
      setLevels: (next: LogLevels) => {
        levels = next
      },
    },
  })
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

const write = (level: LogLine['level'], sub: string, message: string, fields: Record<string, unknown> = {}): void =>
  book.add({ at: 1_800_000_000_000, level, sub, message, fields }, message.length)
const cli = (...args: string[]) => shallot([...args, '--dir', folder.path], { env: { XDG_RUNTIME_DIR: folder.path } })

describe('shallot logs', () => {
  test('shows the last lines, by level and part, as text or as JSON', async () => {
    write('info', '', 'node started', { roles: 'client' })
    write('debug', 'link.dialer', 'dialled', { error: 'no way\u001b[31m' })
    write('warn', 'store', 'disk full')
    expect((await cli('logs')).stdout).toBe(
      '2027-01-15T08:00:00.000Z INFO  node started roles=client\n' +
        '2027-01-15T08:00:00.000Z DEBUG link.dialer: dialled error="no way\\u001b[31m"\n' +
        '2027-01-15T08:00:00.000Z WARN  store: disk full\n',
    )
    expect((await cli('logs', '--level', 'warn')).stdout).toMatch(/^\S+ WARN {2}store: disk full\n$/)
    expect((await cli('logs', '--sub', 'link')).stdout).toMatch(/^\S+ DEBUG link\.dialer: dialled .*\n$/)
    expect((await cli('logs', '--lines', '1', '--json')).stdout).toMatch(/^\{.*"message":"disk full".*\}\n$/)
    expect((await cli('logs', '--sub', 'nobody')).stdout).toBe('No such lines.\n')
    for (const wrong of [
      ['--level', 'loud'],
      ['--lines', '0'],
      ['--lines', '2001'],
    ])
      expect((await cli('logs', ...wrong)).code).toBe(2)
  })

  test('goes on with what comes, without a line lost or twice', async () => {
    const following = startShallot(['logs', '--follow', '--lines', '1', '--dir', folder.path], { env: { XDG_RUNTIME_DIR: folder.path } })
    await following.waitFor(/disk full/, 15_000)
    for (let i = 0; i < 300; i++) write('info', '', `line ${i}`)
    await following.waitFor(/line 299\n/, 15_000)
    expect([...following.stdout.matchAll(/line (\d+)\n/g)].map(([, i]) => Number(i))).toEqual(Array.from({ length: 300 }, (_, i) => i))
    await following.stop('SIGTERM')
  })

  test('shows a line as the node writes it, and nothing that moves a cursor', () => {
    const line: LogLine = {
      seq: 1,
      at: 0,
      level: 'error',
      sub: 'link',
      message: 'lost\u001b[2J',
      fields: { count: 3, why: 'a b', code: 'x' },
    }
    const text = lineText(line)
    expect(text).toMatch(/^1970-01-01T00:00:00\.000Z ERROR link: lost.*\[2J count=3 why="a b" code=x$/)
    expect(text).not.toContain('\u001b')
  })
})

describe('shallot log-level', () => {
  test('shows levels, sets them for all or for a part, and sets them back', async () => {
    expect((await cli('log-level')).stdout).toMatch(/^Written: info and above\n/)
    expect((await cli('log-level', 'debug', 'link')).stdout).toContain('\n  link: debug and above\n')
    expect(levels).toEqual({ level: 'info', subsystems: { link: 'debug' } })
    expect(JSON.parse((await cli('log-level', 'warn', '--json')).stdout)).toEqual({ level: 'warn', subsystems: { link: 'debug' } })
    await cli('log-level', 'default', 'link')
    expect(levels).toEqual({ level: 'warn', subsystems: {} })
    const refused = await cli('log-level', 'loud')
    expect([refused.code, refused.log]).toEqual([2, expect.stringContaining('Allowed choices')])
  })

  test('is one choice for the whole, and one for each part that differs', () => {
    const now: LogLevels = { level: 'info', subsystems: { link: 'trace', nat: 'debug' } }
    expect(changed(now, 'warn', null)).toEqual({ level: 'warn', subsystems: now.subsystems })
    expect(changed(now, 'default', null)).toEqual({ level: 'info', subsystems: {} })
    expect(changed(now, 'error', 'link')).toEqual({ level: 'info', subsystems: { link: 'error', nat: 'debug' } })
    expect(changed(now, 'default', 'link')).toEqual({ level: 'info', subsystems: { nat: 'debug' } })
    expect(changed(now, 'default', 'nobody')).toEqual(now)
  })
})
