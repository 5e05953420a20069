import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { loadConfig } from '../../../src/node/index.ts'
import { shallot, temporaryFolder } from '../../support/processes.ts'

const id = '12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw'
const address = (host: number): string => `/ip4/198.51.100.${host}/tcp/4460/p2p/${id}`

let folder: { path: string; remove(): void }
let env: Record<string, string | undefined>
beforeEach(() => {
  folder = temporaryFolder('network')
  env = { XDG_RUNTIME_DIR: join(folder.path, 'run'), XDG_DATA_HOME: join(folder.path, 'data'), SHALLOT_DIR: undefined, NO_COLOR: '1' }
  mkdirSync(join(folder.path, 'run'))
  writeFileSync(at('network.toml'), `# ours\nname = "ours"\nbootstrap = ["${address(1)}"]\n`)
})
afterEach(() => folder.remove())

const at = (name: string): string => join(folder.path, name)
const cli = (...args: string[]) => shallot(args, { env, cwd: folder.path })
async function ok(...args: string[]): Promise<string> {
  const { code, stdout, log } = await cli(...args)
  expect(code, log).toBe(0)
  return stdout
}
const json = async (...args: string[]): Promise<Record<string, unknown>> => JSON.parse(await ok(...args, '--json'))
const problem = async (...args: string[]): Promise<string> => {
  const { code, log } = await cli(...args)
  expect(code, log).toBe(1)
  return log
}

async function publish(key = 'key'): Promise<string> {
  const { publisher } = existsSync(at(key)) ? { publisher: '' } : await json('network', 'keygen', key)
  const signed = await json('network', 'sign', 'network.toml', '--key', key)
  if (publisher !== '') expect(signed.publisher).toBe(publisher)
  return signed.publisher as string
}

describe('who publishes a network', () => {
  test('makes a key, signs, and can look at what was signed', async () => {
    const publisher = await publish()
    expect(statSync(at('key')).mode & 0o777).toBe(0o600)
    expect(readFileSync(at('network.toml'), 'utf8')).toMatch(
      new RegExp(`^# ours\\n[\\s\\S]*\\n# signature: ed25519 ${publisher} [0-9a-f]{128}\\n$`),
    )
    expect(await ok('network', 'check', 'network.toml', '--publisher', publisher)).toContain(`signed by ${publisher} at 20`)
    expect(await json('network', 'show', 'network.toml')).toMatchObject({ network: 'ours', publisher, bootstrap: [address(1)] })
    expect(await ok('network', 'show', 'network.toml')).toContain('198.51.100.1')
    expect((await cli('network', 'keygen', 'key')).log).toMatch(/exists/)
  })

  test('does not sign with a key that others can read', async () => {
    await publish()
    chmodSync(at('key'), 0o640)
    expect(await problem('network', 'sign', 'network.toml', '--key', 'key')).toMatch(/key can be read .*chmod 600 key/)
  })

  test('signs nothing that no node would read, and never with a damaged key', async () => {
    await publish()
    writeFileSync(at('network.toml'), 'nmae = "ours"\n')
    expect(await problem('network', 'sign', 'network.toml', '--key', 'key')).toMatch(/did you mean name/)
    writeFileSync(at('key'), readFileSync(at('key'), 'utf8').replace(/^[0-9a-f]{4}/m, '0000'))
    writeFileSync(at('network.toml'), 'name = "ours"\n')
    expect(await problem('network', 'sign', 'network.toml', '--key', 'key')).toMatch(/not that of the public key/)
    expect(readFileSync(at('network.toml'), 'utf8')).toBe('name = "ours"\n')
  })
})

describe('who joins', () => {
  test('is told that a file is not signed, and cannot demand it to be', async () => {
    expect(await ok('init', '--network', 'network.toml', '--dir', 'node')).toMatch(/network file is not signed/)
    const log = await problem('init', '--network', 'network.toml', '--dir', 'other', '--publisher', 'a'.repeat(64))
    expect(log).toMatch(/network.toml is not signed, and its publisher is to be aaaa/)
    expect(existsSync(at('other'))).toBe(false)
    expect((await cli('init', '--network', 'network.toml', '--publisher', 'me')).code).toBe(2)
  })

  test('holds to the publisher of the first file at every start', async () => {
    const publisher = await publish()
    expect(await ok('init', '--network', 'network.toml', '--dir', 'node')).toMatch(/Compare that key/)
    const config = join(at('node'), 'shallot.toml')
    expect((await loadConfig(config)).node.networkPublisher).toBe(publisher)
    expect((await loadConfig(config)).signature?.publisher).toBe(publisher)
    const file = join(at('node'), 'network.toml')
    const signed = readFileSync(file, 'utf8')
    writeFileSync(file, signed.replace('198.51.100.1', '198.51.100.66'))
    expect(await problem('run', '--dir', 'node')).toMatch(/its signature does not fit what it says/)
    writeFileSync(file, signed.replace(/# issued[\s\S]*/, ''))
    expect(await problem('check-config', config)).toMatch(/is not signed, and its publisher is to be/)
    expect(await problem('network', 'check', file, '--publisher', publisher)).toMatch(/not signed/)
  })

  test('refuses at once a file that was changed, or that somebody else signed', async () => {
    const publisher = await publish()
    const signed = readFileSync(at('network.toml'), 'utf8')
    writeFileSync(at('network.toml'), signed.replace('# ours', '# theirs'))
    expect(await problem('init', '--network', 'network.toml', '--dir', 'node')).toMatch(/changed after it was signed/)
    writeFileSync(at('network.toml'), signed)
    await publish('mallory')
    expect(await problem('init', '--network', 'network.toml', '--dir', 'node', '--publisher', publisher)).toMatch(
      /is signed by .* and its publisher is to be/,
    )
    expect(existsSync(at('node'))).toBe(false)
  })
})

describe('a newer network file', () => {
  async function node(): Promise<string> {
    await publish()
    await ok('init', '--network', 'network.toml', '--dir', 'node')
    return join(at('node'), 'network.toml')
  }
  const edit = (from: string, to: string): void =>
    writeFileSync(at('network.toml'), readFileSync(at('network.toml'), 'utf8').replace(from, to))

  test('of the same publisher is taken, and what it changes is said', async () => {
    const file = await node()
    expect(await ok('network', 'update', 'network.toml', '--dir', 'node')).toMatch(/is the same already/)
    edit(`"${address(1)}"]`, `"${address(2)}"]\n[work]\nbits = 20`)
    await publish()
    const said = await ok('network', 'update', 'network.toml', '--dir', 'node')
    expect(said).toContain(`+ bootstrap ${address(2)}`)
    expect(said).toContain(`- bootstrap ${address(1)}`)
    expect(said).toContain('~ work.bits 24 -> 20')
    expect(readFileSync(file, 'utf8')).toBe(readFileSync(at('network.toml'), 'utf8'))
    expect((await loadConfig(join(at('node'), 'shallot.toml'))).network.work.bits).toBe(20)
  })

  test('is refused when it is older, unsigned, of somebody else or of another network; the old one stays', async () => {
    const file = await node()
    const first = readFileSync(file, 'utf8')
    writeFileSync(at('old.toml'), first)
    await new Promise((resolve) => setTimeout(resolve, 1_100 - (Date.now() % 1_000)))
    await publish()
    await ok('network', 'update', 'network.toml', '--dir', 'node')
    const present = readFileSync(file, 'utf8')
    expect(await problem('network', 'update', 'old.toml', '--dir', 'node')).toMatch(/was signed at .* before the one that this node has/)
    writeFileSync(at('bare.toml'), first.replace(/# issued[\s\S]*/, ''))
    expect(await problem('network', 'update', 'bare.toml', '--dir', 'node')).toMatch(/bare.toml is not signed/)
    await publish('mallory')
    expect(await problem('network', 'update', 'network.toml', '--dir', 'node')).toMatch(/network.toml is signed by/)
    edit('"ours"', '"elsewhere"')
    await publish()
    expect(await problem('network', 'update', 'network.toml', '--dir', 'node')).toMatch(/is of the network elsewhere/)
    expect(readFileSync(file, 'utf8')).toBe(present)
  })

  test('mends a node whose file was damaged', async () => {
    const file = await node()
    writeFileSync(file, 'name = ')
    await ok('network', 'update', 'network.toml', '--dir', 'node')
    expect(readFileSync(file, 'utf8')).toBe(readFileSync(at('network.toml'), 'utf8'))
  })
})

describe('further bootstrap nodes', () => {
  test('come from the configuration and from files, in that order, and each mistake is named by its line', async () => {
    await ok('init', '--network', 'network.toml', '--dir', 'node')
    const config = join(at('node'), 'shallot.toml')
    const text = readFileSync(config, 'utf8')
    writeFileSync(config, text.replace('[node]', `[node]\nbootstrap = ["${address(2)}"]\nbootstrap_files = ["friends"]`))
    const { cautions } = await json('check-config', config)
    expect(cautions).toEqual([expect.stringMatching(/^the file of bootstrap nodes, .*friends, cannot be read: there is no such file$/)])
    expect(await ok('check-config', config)).toMatch(/caution +the file of bootstrap nodes/)
    writeFileSync(join(at('node'), 'friends'), `# of friends\n${address(3)}  # anna\n\n${address(4)}\n`)
    expect((await loadConfig(config)).bootstrap).toEqual([
      { name: 'network.toml', addresses: [address(1)] },
      { name: 'node.bootstrap', addresses: [address(2)] },
      { name: 'friends', addresses: [address(3), address(4)] },
    ])
    writeFileSync(join(at('node'), 'friends'), `${address(3)}\n/dns4/example.net/tcp/1\n`)
    expect(await problem('check-config', config)).toMatch(/friends:2: .*should be like/)
    writeFileSync(config, text.replace('[node]', '[node]\nbootstrap = ["anna.example"]'))
    expect(await problem('check-config', config)).toMatch(/node.bootstrap\[0\] is "anna.example": not the address of a bootstrap node/)
  })
})
