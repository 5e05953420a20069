import { spawnSync } from 'node:child_process'
import { chmodSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { loadConfig } from '../../../src/node/config.ts'
import { LiveConfig } from '../../../src/node/live-config.ts'
import { Settings } from '../../../src/node/settings.ts'
import { temporaryFolder } from '../../support/processes.ts'
import { root } from '../../support/repository.ts'

const relay = '12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw'
const text = `# mine
[node]
roles = ["client"]

[ingress.socks]
listen = ["127.0.0.1:9999"] # the port
credentials = [{ user = "u", password = "sesame" }]

[log]
level = "info" # loud enough
`
let folder: { path: string; remove(): void }
let file: string
let live: LiveConfig
let settings: Settings
beforeEach(async () => {
  folder = temporaryFolder('settings')
  file = join(folder.path, 'shallot.toml')
  writeFileSync(file, text, { mode: 0o640 })
  writeFileSync(join(folder.path, 'network.toml'), `bootstrap = ["/ip4/198.51.100.1/tcp/4460/p2p/${relay}"]\n`)
  live = new LiveConfig(await loadConfig(file))
  settings = new Settings(live)
})
afterEach(() => folder.remove())

const written = (): string => readFileSync(file, 'utf8')

describe('settings', () => {
  test('show each key that matters to the roles, with what it may be, and no password', async () => {
    const facts = await settings.facts()
    expect(facts).toMatchObject({ file, writable: true })
    const keys = facts.sections.flatMap((section) => section.keys)
    const key = (name: string) => keys.find((one) => one.key === name)!
    expect(key('log.level')).toMatchObject({ value: 'info', default: 'info', set: true, live: true, pending: false, secret: false })
    expect(key('log.level').schema).toMatchObject({ enum: ['error', 'warn', 'info', 'debug', 'trace'] })
    expect(key('ingress.socks.listen')).toMatchObject({ value: ['127.0.0.1:9999'], default: ['127.0.0.1:9250'], live: false })
    expect(key('ingress.socks.credentials')).toMatchObject({ secret: true, set: true })
    expect(JSON.stringify(facts)).not.toContain('sesame')
    expect(facts.sections.map(({ name }) => name)).toContain('path')
    expect(facts.sections.map(({ name }) => name)).not.toContain('exit')
    expect(keys.every(({ help, type }) => help !== '' && type !== '')).toBe(true)
  })

  test('are written with the comments that were there, and in force at once where they can be', async () => {
    let told = 0
    live.onChange('path', () => told++)
    const section = live.section('path')
    const answer = await settings.change({ set: { 'path.exclude_nodes': [relay], 'log.level': 'debug', 'ingress.http.listen': [] } })
    expect(answer).toEqual({
      changed: ['ingress.http.listen', 'path.exclude_nodes', 'log.level'],
      applied: ['path.exclude_nodes', 'log.level'],
      restart: ['ingress.http.listen'],
    })
    expect(written()).toContain('level = "debug" # loud enough')
    expect(written()).toContain('# the port')
    expect((await loadConfig(file)).path.excludeNodes).toEqual([relay])
    expect(section.excludeNodes).toEqual([relay])
    expect(live.current.log.level).toBe('debug')
    expect(live.current.ingress.http.listen).toEqual(['127.0.0.1:9280'])
    expect(told).toBe(1)
    const { sections } = await settings.facts()
    const http = sections.flatMap(({ keys }) => keys).find(({ key }) => key === 'ingress.http.listen')!
    expect(http).toMatchObject({ pending: true, set: true, value: ['127.0.0.1:9280'] })
    expect((await settings.change({ set: {} })).restart).toEqual(['ingress.http.listen'])
  })

  test('go back to their defaults with null', async () => {
    await settings.change({ set: { 'log.level': 'debug' } })
    expect(await settings.change({ set: { 'log.level': null } })).toMatchObject({ changed: ['log.level'], applied: ['log.level'] })
    expect(written()).not.toContain('level =')
    expect(live.current.log.level).toBe('info')
  })

  test('that are wrong are refused key by key, and nothing changes', async () => {
    const wrong = settings.change({ set: { 'log.level': 'loud', 'path.guards_in_use': 9, 'client.probe_after_ms': 200 } })
    await expect(wrong).rejects.toMatchObject({
      code: 'config-invalid',
      problems: [{ key: 'log.level', message: expect.stringContaining('one of "error"') }, { key: 'path.guards_in_use' }],
    })
    await expect(settings.change({ set: { 'log.levle': 'info', __proto__: 1, 'a\n[b]': 2 } })).rejects.toMatchObject({
      problems: [{ key: 'log.levle', message: expect.stringContaining('log.level') }, { key: 'a\n[b]' }],
    })
    await expect(settings.change({ set: { 'path.guards_primary': 2, 'path.guards_in_use': 3 } })).rejects.toMatchObject({
      problems: [{ key: 'path.guards_in_use' }],
    })
    let deep: unknown = 'x'
    for (let i = 0; i < 20; i++) deep = [deep]
    await expect(settings.change({ set: { 'log.level': deep } })).rejects.toMatchObject({ code: 'config-invalid' })
    expect(written()).toBe(text)
    expect(live.current.log.level).toBe('info')
  })

  test('can be asked for without changing anything', async () => {
    expect((await settings.change({ set: { 'log.level': 'debug' }, check: true })).applied).toEqual(['log.level'])
    expect(written()).toBe(text)
    expect(live.current.log.level).toBe('info')
  })

  test('text in values cannot break out of its line', async () => {
    await expect(settings.change({ set: { 'log.level': 'info"\n[exit]\nx = "' } })).rejects.toMatchObject({ code: 'config-invalid' })
    expect(written()).toBe(text)
  })

  test('are written anew where the form of the file does not let one key be edited', async () => {
    writeFileSync(file, `log = { level = "info" }\n${text.replace(/\[log\][\s\S]*/, '')}`)
    await settings.change({ set: { 'log.level': 'debug' } })
    expect(written()).toContain('Written anew')
    expect((await loadConfig(file)).log.level).toBe('debug')
    expect((await loadConfig(file)).ingress.socks.credentials).toEqual([{ user: 'u', password: 'sesame' }])
  })

  test('keep the mode of the file, and the link to it', async () => {
    chmodSync(file, 0o640)
    const link = join(folder.path, 'link.toml')
    symlinkSync(file, link)
    const linked = new Settings(new LiveConfig(await loadConfig(link)))
    await linked.change({ set: { 'log.level': 'debug' } })
    expect(statSync(file).mode & 0o777).toBe(0o640)
    expect(written()).toContain('"debug"')
  })

  test('that a person wrote meanwhile are kept, and come in force with a reload', async () => {
    writeFileSync(file, written().replace('"info"', '"warn"'))
    expect(await settings.change({ set: { 'client.build_attempts': 3 } })).toEqual({
      changed: ['client.build_attempts'],
      applied: ['client.build_attempts', 'log.level'],
      restart: [],
    })
    writeFileSync(file, written().replace('"warn"', '"error"'))
    expect(await settings.reload()).toEqual({ changed: ['log.level'], applied: ['log.level'], restart: [] })
    writeFileSync(file, '[log]\nlevel = 3\n')
    await expect(settings.reload()).rejects.toMatchObject({ code: 'config-invalid' })
    expect(live.current.log.level).toBe('error')
  })

  test('say when their file is not the node’s to write, and then nothing changes', () => {
    chmodSync(file, 0o644)
    chmodSync(folder.path, 0o755)
    const script = `
      const { loadConfig } = await import(${JSON.stringify(join(root, 'src/node/config.ts'))})
      const { LiveConfig } = await import(${JSON.stringify(join(root, 'src/node/live-config.ts'))})
      const { Settings } = await import(${JSON.stringify(join(root, 'src/node/settings.ts'))})
      const live = new LiveConfig(await loadConfig(${JSON.stringify(file)}))
      const settings = new Settings(live)
      const { writable } = await settings.facts()
      const failure = await settings.change({ set: { 'log.level': 'debug' } }).catch(({ code }) => code)
      console.log(JSON.stringify({ writable, failure, level: live.current.log.level }))`
    const asked = (uid: number): unknown => {
      const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { uid, cwd: root, encoding: 'utf8' })
      expect(stderr).toBe('')
      return JSON.parse(stdout)
    }
    const own = process.getuid!()
    if (own === 0) {
      expect(asked(65_534)).toEqual({ writable: false, failure: 'directory-unwritable', level: 'info' })
    } else {
      chmodSync(folder.path, 0o555)
      expect(asked(own)).toEqual({ writable: false, failure: 'directory-unwritable', level: 'info' })
      chmodSync(folder.path, 0o755)
    }
    expect(written()).toBe(text)
    expect(asked(own)).toMatchObject({ writable: true, level: 'debug' })
  })

  test('changes at the same time are all kept', async () => {
    await Promise.all(
      [1, 2, 3].map((n) =>
        settings.change({
          set: { [`client.${['build_attempts', 'connect_attempts', 'probe_after_ms'][n - 1]}`]: n * 4 + 92 * (n === 3 ? 2 : 0) },
        }),
      ),
    )
    expect(live.current.client).toMatchObject({ buildAttempts: 4, connectAttempts: 8, probeAfterMs: 196 })
  })
})
