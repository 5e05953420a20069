import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/index.ts'
import { typedValue } from '../../../src/cli/commands/settings.ts'
import { type ControlServer, startControl } from '../../../src/control/index.ts'
import { FakeNode } from '../../support/fake-node.ts'
import { shallot, temporaryFolder } from '../../support/processes.ts'

let folder: { path: string; remove(): void }
let control: ControlServer
const node = new FakeNode()
const runtimeDir = process.env.XDG_RUNTIME_DIR
const key = { help: '', type: '', set: false, live: true, secret: false, change: 'session', pending: false } as const
beforeAll(async () => {
  folder = temporaryFolder('settings')
  process.env.XDG_RUNTIME_DIR = folder.path
  node.settingsFacts = {
    file: '/x/shallot.toml',
    writable: true,
    sections: [
      { name: 'log', help: '', keys: [{ ...key, key: 'log.level', schema: { type: 'string' }, value: 'info', set: true }] },
      {
        name: 'path',
        help: '',
        keys: [{ ...key, key: 'path.exit_countries', schema: { type: 'array', items: { type: 'string' } }, value: [], live: false }],
      },
    ],
  }
  control = await startControl(node, {
    config: { enabled: true, listen: 'unix:control.sock' },
    dir: folder.path,
    logger: silentLogger,
    random: (length) => new Uint8Array(randomBytes(length)),
  })
})
beforeEach(() => {
  node.asked.length = 0
})
afterAll(async () => {
  await control.close()
  if (runtimeDir === undefined) delete process.env.XDG_RUNTIME_DIR
  else process.env.XDG_RUNTIME_DIR = runtimeDir
  folder.remove()
})
const cli = (...args: string[]) => shallot([...args, '--dir', folder.path], { env: { XDG_RUNTIME_DIR: folder.path } })

describe('shallot settings', () => {
  test('shows each key, what is in force, and when a change counts', async () => {
    expect((await cli('settings')).stdout).toBe(
      'log.level = "info"  # live, in the file\npath.exit_countries = []  # restart\nThe file: /x/shallot.toml\n',
    )
    expect((await cli('settings', 'path')).stdout).not.toContain('log.level')
    expect((await cli('settings', '--set-only')).stdout).not.toContain('path')
    expect(JSON.parse((await cli('settings', 'log', '--json')).stdout).sections).toHaveLength(1)
    expect((await cli('settings', 'nobody')).stdout).toBe('No such keys.\n')
  })
})

describe('shallot set', () => {
  test('changes a key, takes it out of the file, or only asks', async () => {
    expect((await cli('set', 'path.exit_countries', 'DE, NL')).code).toBe(0)
    expect((await cli('set', 'log.level', '--default')).code).toBe(0)
    expect((await cli('set', 'log.level', 'debug', '--check')).stdout).toBe('log.level may be that.\n')
    expect(node.asked).toEqual([
      'changeSettings {"set":{"path.exit_countries":["DE","NL"]},"check":false}',
      'changeSettings {"set":{"log.level":null},"check":false}',
      'changeSettings {"set":{"log.level":"debug"},"check":true}',
    ])
  })

  test('wants a value or --default, not both and not neither', async () => {
    expect((await cli('set', 'log.level')).code).toBe(2)
    expect((await cli('set', 'log.level', 'info', '--default')).code).toBe(2)
    expect(node.asked).toEqual([])
  })

  const list = { type: 'array', items: { type: 'string' } }
  test.each<[string, Record<string, unknown>, unknown]>([
    ['debug', { type: 'string' }, 'debug'],
    ['"two words"', { type: 'string' }, 'two words'],
    ['5', { type: 'string' }, '5'],
    ['5', { type: 'integer' }, 5],
    ['1_000', { type: 'integer' }, 1000],
    ['true', { type: 'boolean' }, true],
    ['auto', { anyOf: [] }, 'auto'],
    ['false', { anyOf: [] }, false],
    ['DE,NL', list, ['DE', 'NL']],
    ['["DE"]', list, ['DE']],
    ['', list, []],
    ['50,132', { type: 'array', items: { type: 'integer' } }, [50, 132]],
    ['{ link = "debug" }', { type: 'object' }, { link: 'debug' }],
    ['[oops', list, '[oops'],
  ])('reads %j as %j takes it', (text, schema, value) => expect(typedValue(text, schema)).toEqual(value))
})

test('shallot reload has the file read again', async () => {
  expect((await cli('reload')).code).toBe(0)
  expect(node.asked).toEqual(['reload'])
})
