import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type NodeId, parseIp, ShallotError, silentLogger } from '../../../src/base/index.ts'
import type { NetcheckResult } from '../../../src/cli/commands/netcheck.ts'
import { type ControlServer, startControl } from '../../../src/control/index.ts'
import { type NatFacts, StunServer, stunServerConfig } from '../../../src/nat/index.ts'
import { FakeNode, fakeStatus } from '../../support/fake-node.ts'
import { shallot, temporaryFolder } from '../../support/processes.ts'

const folder = temporaryFolder('netcheck')
const peer = '12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw' as NodeId
let runtimeDir: string | undefined

const facts: NatFacts = {
  state: 'punchable',
  reasons: ['the NAT gives out one public port for all destinations, so holes can be punched', '2 relays hold a place for this node'],
  since: Date.now() - 60_000,
  ipv4: {
    local: ['192.168.1.5:4460'],
    public: '11.2.3.4:40000',
    kind: 'port-restricted cone',
    mapping: 'endpoint-independent',
    filtering: 'address-and-port-dependent',
    portPreserved: false,
    hairpin: false,
    bindingLifetimeMs: 125_000,
    dialBack: false,
  },
  ipv6: null,
  listening: ['/ip4/192.168.1.5/tcp/4460', '/ip4/192.168.1.5/tcp/4460/tls'],
  announced: ['/ip4/11.2.3.4/tcp/4460', '/ip4/11.2.3.4/tcp/4460/tls'],
  mapping: { protocol: 'nat-pmp', external: '11.2.3.4:50000', expiresAt: Date.now() + 3_000_500 },
  relays: [
    { relay: peer, since: Date.now() - 61_000, expiresAt: Date.now() + 3_500_000 },
    { relay: '12D3KooWGuardGuardGuardGuardGuardGuardGuardGuardGuard1' as NodeId, since: Date.now(), expiresAt: Date.now() + 1 },
  ],
  stun: [
    { server: '11.0.0.1:4460', verdict: 'believed', said: '11.2.3.4:40000' },
    { server: '11.0.0.2:4460', verdict: 'silent', said: null },
    { server: '11.0.0.3:4460', verdict: 'lying', said: '11.66.6.6:1\u001b[31m' },
  ],
  serves: [
    { role: 'guard', possible: false, why: 'a guard must be reachable directly: its relay would see who its clients are' },
    { role: 'middle', possible: true, why: 'neighbours come through a relay first, and directly a moment later' },
  ],
  advice: ["turn on UPnP or NAT-PMP in the router, or forward TCP port 4460 to this machine in the router's settings"],
  lost: ['no WebRTC: its library does not load here, so holes are punched by TCP only'],
}

beforeAll(() => {
  runtimeDir = process.env.XDG_RUNTIME_DIR
  process.env.XDG_RUNTIME_DIR = folder.path
})
afterAll(() => {
  if (runtimeDir === undefined) delete process.env.XDG_RUNTIME_DIR
  else process.env.XDG_RUNTIME_DIR = runtimeDir
  folder.remove()
})

const cli = (args: string[], env: Record<string, string> = {}) =>
  shallot(['netcheck', ...args], {
    env: { XDG_RUNTIME_DIR: folder.path, XDG_DATA_HOME: join(folder.path, 'data'), SHALLOT_DIR: undefined, NO_COLOR: '1', ...env },
    cwd: folder.path,
  })
const result = (stdout: string): NetcheckResult => JSON.parse(stdout)

describe('with a running node', () => {
  let node: FakeNode
  let control: ControlServer
  beforeEach(async () => {
    node = new FakeNode()
    node.natFacts = facts
    node.status = () => ({ ...fakeStatus, roles: ['middle'] })
    control = await startControl(node, {
      config: { enabled: true, listen: '127.0.0.1:0' },
      dir: folder.path,
      logger: silentLogger,
      random: (length) => new Uint8Array(randomBytes(length)),
    })
  })
  afterEach(() => control.close())

  test('netcheck says in plain words how it is reached, in 80 columns and without colours', async () => {
    const { code, stdout } = await cli([])
    expect(code).toBe(0)
    expect(stdout.split('\n').filter((line) => line.length > 80)).toEqual([])
    expect(stdout).not.toContain('\u001b')
    const text = stdout.replaceAll(/\s+/g, ' ')
    for (const part of [
      'Punchable: the NAT gives out one public port for all destinations',
      '2 relays hold a place for this node.',
      'port-restricted cone; seen at 11.2.3.4:40000; here 192.168.1.5:4460',
      'lets in only whom was sent to; changes port numbers; does not reach itself from inside; forgets after more than 2 min 5 s of silence',
      'peers from outside could not connect to it',
      'IPv6 none',
      '11.2.3.4:50000 by NAT-PMP, for another ',
      '…q8n15EPw for 1 min ',
      '11.0.0.3:4460 lying: it sees 11.66.6.6:1?[31m',
      'guard no a guard must be reachable directly',
      'middle yes neighbours come through a relay first',
      '- turn on UPnP or NAT-PMP in the router',
      '- no WebRTC',
    ])
      expect(text).toContain(part)
    expect(stdout).not.toContain('/tls')
  })

  test('--json is all of it, in the one shape', async () => {
    const { code, stdout } = await cli(['--json'])
    expect(code).toBe(0)
    expect(result(stdout)).toEqual({ running: true, nat: facts, why: null, peer: null })
  })

  test('a client has nothing to check', async () => {
    node.natFacts = null
    node.status = () => fakeStatus
    const { code, stdout } = await cli([])
    expect(code).toBe(0)
    expect(stdout.replaceAll('\n', ' ')).toMatch(/^A client dials out only; nothing to check: it needs no reachability\. /)
    expect(result((await cli(['--json'])).stdout)).toEqual({
      running: true,
      nat: null,
      why: 'a client dials out only; nothing to check: it needs no reachability',
      peer: null,
    })
  })

  test('a relay that is told to check nothing says so', async () => {
    node.natFacts = null
    expect((await cli([])).stdout).toMatch(/^Nat\.enabled is false|^nat\.enabled is false/)
  })

  test('--peer tells how a peer is reached', async () => {
    const { code, stdout } = await cli(['--peer', peer])
    expect(code).toBe(0)
    expect(stdout).toBe(
      `…${peer.slice(-8)} is reached directly, through a hole punched by TCP (reached after 120 ms, direct after 480 ms).\n   1  reached through a relay\n   2  punched by TCP\n`,
    )
    expect(node.asked).toEqual([`reach ${peer}`])
    expect(result((await cli(['--peer', peer, '--json'])).stdout)).toMatchObject({ running: true, nat: null, peer: { how: 'punched-tcp' } })
  })

  test('a peer that is not reached ends with 1', async () => {
    node.reach = async () => ({ peer, how: 'unreachable', reachedMs: null, upgradedMs: null, steps: ['no relay answered'] })
    const { code, stdout } = await cli(['--peer', peer])
    expect(code).toBe(1)
    expect(stdout).toContain('is reached not at all.')
  })

  test('a refusal of the node is told, and ends with 1', async () => {
    node.failure = new ShallotError('not-serving', 'this node is only a client', { kind: 'usage', retry: 'never' })
    const { code, log } = await cli(['--peer', peer])
    expect(code).toBe(1)
    expect(log).toContain('shallot: this node is only a client')
  })

  test.each([
    [['--peer', 'nobody'], /--peer takes the id of a node/],
    [['--peer', peer, '--probe'], /give one of them/],
  ])('%j is wrong use', async (args, message) => {
    const { code, log } = await cli(args)
    expect(log).toMatch(message)
    expect(code).toBe(2)
  })
})

describe('without a running node', () => {
  const dir = join(folder.path, 'alone')
  const configure = (bootstrap: readonly string[]): void => {
    mkdirSync(dir, { recursive: true })
    writeFileSync(join(dir, 'network.toml'), `name = "testnet"\nbootstrap = ${JSON.stringify(bootstrap)}\n`)
    writeFileSync(join(dir, 'shallot.toml'), '')
  }

  test('nor a configuration, it says what is missing', async () => {
    const { code, log } = await cli([])
    expect(code).toBe(1)
    expect(log).toMatch(/no node is running, and without one the STUN servers to ask are those of a configuration/)
  })

  test('at the address that was named, nothing is asked', async () => {
    const { code, log } = await cli(['--control', '127.0.0.1:1'])
    expect(code).toBe(1)
    expect(log).toMatch(/no node of this user/)
  })

  test('it asks the STUN servers of the network, and says that it does', async () => {
    const server = new StunServer({ config: stunServerConfig.parse({}), listen: [{ ip: parseIp('127.0.0.1'), port: 0 }] })
    await server.start()
    try {
      const port = server.endpoints[0]!.port
      configure([`/ip4/127.0.0.1/tcp/${port}/p2p/${peer}`])
      const { code, stdout, log } = await cli(['--dir', dir])
      expect(log).toMatch(/^Asking 1 STUN server of the network testnet; no node is involved\.\n/)
      expect(code).toBe(0)
      expect(stdout.replaceAll('\n', ' ')).toContain(`127.0.0.1:${port} alone: it sees 127.0.0.1:`)
      expect(stdout.replaceAll(/\s+/g, ' ')).toContain(
        'no node took part, so no port was mapped, no relay reserved and nobody asked to connect',
      )
      const found = result((await cli(['--dir', dir, '--json'])).stdout)
      expect(found).toMatchObject({ running: false, peer: null, nat: { announced: [], serves: [], stun: [{ verdict: 'alone' }] } })
      expect(server.stats().answers).toBeGreaterThan(0)
    } finally {
      await server.stop()
    }
  })

  test('with nobody to ask it says so', async () => {
    configure([`/ip4/127.0.0.1/tcp/1/p2p/${peer}`])
    writeFileSync(
      join(dir, 'shallot.toml'),
      '[node]\nroles = ["middle"]\n[link]\nlisten = ["/ip4/0.0.0.0/tcp/4460"]\n[nat.stun]\nbootstrap = false\n',
    )
    const { code, log } = await cli(['--dir', dir])
    expect(log).toMatch(/no STUN server is known/)
    expect(code).toBe(1)
  })
})
