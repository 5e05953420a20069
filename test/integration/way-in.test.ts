import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Control } from '../support/control.ts'
import { startNode, startShallot, startTestnet, type Testnet, temporaryFolder, until } from '../support/processes.ts'

/** An address where nothing listens. */
async function deadAddress(id: string): Promise<string> {
  const server = createServer()
  const port = await new Promise<number>((done) => server.listen(0, '127.0.0.1', () => done((server.address() as { port: number }).port)))
  await new Promise((done) => server.close(done))
  return `/ip4/127.0.0.1/tcp/${port}/p2p/${id}`
}

describe('the way into the network', () => {
  const folder = temporaryFolder('way-in')
  let testnet: Testnet
  let alive: string
  let dead: string

  beforeAll(async () => {
    testnet = await startTestnet({ relays: 5, exits: 1, processes: false })
    alive = /"(\/ip4[^"]*)"/.exec(readFileSync(join(testnet.dir, 'network.toml'), 'utf8'))![1]!
    dead = await deadAddress(alive.split('/').at(-1)!)
  })
  afterAll(async () => {
    await testnet?.stop()
    folder.remove()
  })

  /** A client whose network file names a bootstrap node that is gone. */
  function client(name: string, more: string): string {
    const dir = join(folder.path, name)
    mkdirSync(dir)
    writeFileSync(join(dir, 'network.toml'), readFileSync(join(testnet.dir, 'network.toml'), 'utf8').replace(alive, dead))
    const listen = ['socks', 'http', 'dns'].map((proxy) => `[ingress.${proxy}]\nlisten = ["127.0.0.1:0"]`).join('\n')
    writeFileSync(join(dir, 'shallot.toml'), `[node]\nroles = ["client"]\n${more}\n${listen}\n[control]\nlisten = "127.0.0.1:0"\n`)
    return join(dir, 'shallot.toml')
  }

  test.each([
    ['node.bootstrap', () => `bootstrap = ["${alive}"]`],
    ['a file that it names', () => `bootstrap = ["${dead}"]\nbootstrap_files = ["friends"]`],
  ])('is found by %s when the network file’s own nodes are gone', async (name, more) => {
    const config = client(name.replaceAll(' ', '-'), more())
    writeFileSync(join(config, '../friends'), `# friends\n${alive}\n`)
    const node = await startNode(config)
    try {
      expect((await new Control(node.ready.control!, node.dir).status()).warnings).toEqual([])
    } finally {
      await node.stop()
    }
  })

  test('is said to be missing, with what was tried; a node that was there before finds back by what it knows', async () => {
    const config = client('lost', '')
    const program = startShallot(['run', '--json', '--config', config])
    try {
      const [line] = await program.waitFor(/^\{"started":true.*\}$/m, 20_000)
      const { control } = JSON.parse(line) as { control: string }
      const asked = new Control(control, join(config, '..'))
      const warning = await until('the warning is there', 20_000, async () =>
        (await asked.status()).warnings.find(({ code }) => code === 'no-way-in'),
      )
      expect(warning.message).toMatch(
        /^no way into the network: nobody answered: network\.toml \(1 address: not reached\); it goes on trying; see that/,
      )
      expect(warning.message).not.toContain('127.0.0.1')
    } finally {
      await program.stop('SIGTERM')
    }
    // It joins once by another way, and is started again without it.
    const text = readFileSync(config, 'utf8')
    writeFileSync(config, text.replace('[node]', `[node]\nbootstrap = ["${alive}"]`))
    await (await startNode(config)).stop()
    writeFileSync(config, text)
    const again = await startNode(config)
    try {
      expect((await new Control(again.ready.control!, again.dir).status()).view.known.total).toBeGreaterThan(3)
    } finally {
      await again.stop()
    }
  })
})
