import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createResolver, type Exit, exitConfig } from '../../src/egress/index.ts'
import type { ExitCircuit } from '../../src/relaying/index.ts'
import { Namespace } from '../support/namespace.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { type ClientTcp, PacketClient } from '../support/packet-client.ts'
import { netstackExit } from '../support/packet-exit.ts'
import { packetPorts } from '../support/packet-servers.ts'
import type { Program } from '../support/processes.ts'
import { beyondHosts, startBeyond, tunNatWorld } from '../support/tun-nat-world.ts'

const reason = (await Namespace.reasonAgainst()) ?? enterOwnNetwork()
const never = new AbortController().signal
const MTU = 1420
const [server4, server6] = beyondHosts
/** Nobody is there, and nobody says so. */
const SILENT = '11.7.7.7'

/** What no exit reaches, whatever its policy: metadata services, private and special networks, and every form that wraps one. */
const refusedPlaces = [
  '169.254.169.254',
  'fd00:ec2::254',
  '100.100.100.200',
  '168.63.129.16',
  '192.0.0.192',
  '10.0.0.1',
  '172.16.0.1',
  '192.168.1.1',
  '100.64.0.1',
  '127.0.0.1',
  '0.0.0.0',
  '255.255.255.255',
  '::1',
  '::',
  'fe80::1',
  'fc00::1',
  'ff02::1',
  '::ffff:169.254.169.254',
  '::a00:1',
  '64:ff9b::a9fe:a9fe',
  '64:ff9b::a00:1',
  '64:ff9b:1::a00:1',
  '2002:a9fe:a9fe::1',
  '2002:c0a8:101::1',
  '2001:0:1:2:3:4:5601:5601',
  '2606:4700::5efe:a9fe:a9fe',
  '2001:db8::1',
]

/** A connection, by whatever way it goes. */
interface Connection {
  write(text: string): void
  readonly received: number
  readonly isOver: boolean
  close(): void
}

/** One of the three ways out of an exit. */
interface Way {
  /** @throws Error when it is refused, or when nothing comes of it in time */
  connect(host: string, port: number): Promise<Connection>
}

interface World {
  readonly exit: Exit
  stop(): Promise<void>
}

const ways: Readonly<Record<string, { start(keys: Record<string, unknown>): Promise<World>; way(circuit: ExitCircuit): Promise<Way> }>> = {
  'kernel sockets': {
    start: (keys) => netstackExit(keys),
    way: async (circuit) => ({ connect: async (host, port) => overSocket((await circuit.connect({ host, port }, never)).socket) }),
  },
  netstack: { start: (keys) => netstackExit(keys), way: overPackets },
  TUN: { start: (keys) => tunNatWorld(keys), way: overPackets },
}

async function overPackets(circuit: ExitCircuit): Promise<Way> {
  const client = new PacketClient(await circuit.openPackets(MTU, never))
  return {
    async connect(host, port) {
      const flow = client.dial(host, port)
      const late = setTimeout(() => flow.abort(), 2500)
      await flow.connected.finally(() => clearTimeout(late))
      return overFlow(flow)
    },
  }
}

function overSocket(socket: Duplex): Connection {
  let received = 0
  socket.on('data', (bytes: Uint8Array) => {
    received += bytes.length
  })
  socket.on('error', () => {})
  return {
    write: (text) => void socket.write(text),
    get received() {
      return received
    },
    get isOver() {
      return socket.destroyed
    },
    close: () => socket.destroy(),
  }
}

function overFlow(flow: ClientTcp): Connection {
  return {
    write: (text) => flow.write(text),
    get received() {
      return flow.received
    },
    get isOver() {
      return flow.reason !== null
    },
    close: () => flow.abort(),
  }
}

describe.skipIf(reason !== null)(`what every way out of an exit keeps to${reason === null ? '' : ` (${reason})`}`, () => {
  let beyond: Program
  beforeAll(async () => {
    beyond = await startBeyond()
  })
  afterAll(async () => {
    await beyond.stop('SIGKILL')
  })

  describe.each(Object.keys(ways))('%s', (name) => {
    let world: World | null = null
    let circuit: ExitCircuit | null = null
    afterEach(async () => {
      circuit?.close()
      await world?.stop()
      world = null
    })

    async function open(keys: Record<string, unknown> = {}): Promise<Way> {
      world = await ways[name]!.start({ policy: ['reject *:25', 'accept *:*'], ...keys })
      circuit = world.exit.openCircuit()
      return ways[name]!.way(circuit)
    }

    it('the mail port is closed, and the others are not', async () => {
      const way = await open()
      for (const host of [server4, server6]) {
        await expect(way.connect(host, packetPorts.mail)).rejects.toThrow()
        ;(await way.connect(host, packetPorts.echo)).close()
      }
    })

    it('nothing leads to metadata services, private and special networks, in whatever form', async () => {
      const way = await open()
      const reached: string[] = []
      await Promise.all(
        refusedPlaces.map((place) =>
          way.connect(place, 80).then(
            () => reached.push(place),
            () => {},
          ),
        ),
      )
      expect(reached).toEqual([])
      // Refused by the policy, that is, and not because nobody was there.
      const { refused, packets } = world!.exit.counts
      expect((refused.policy ?? 0) + (packets?.dropped.policy ?? 0)).toBeGreaterThan(refusedPlaces.length / 2)
    })

    it('connections of a circuit are bounded', async () => {
      const way = await open({ maxStreamsPerCircuit: 4, tun: { maxFlows: 4 } })
      const connections: Connection[] = []
      for (let i = 0; i < 4; i++) connections.push(await way.connect(server4, packetPorts.echo))
      await expect(way.connect(server4, packetPorts.echo)).rejects.toThrow()
      connections[0]!.write('still open')
      await until(() => connections[0]!.received === 10)
    })

    it('new connections a second are bounded', async () => {
      const way = await open({ connectsPerSecond: 1, connectBurst: 6, tun: { newFlowsPerSecond: 1, newFlowBurst: 6 } })
      const tried = await Promise.allSettled(Array.from({ length: 16 }, () => way.connect(server4, packetPorts.echo)))
      const made = tried.filter(({ status }) => status === 'fulfilled').length
      // A kernel's burst is not right to one. A SYN that was dropped is sent again after a second, and may then be one of the next.
      expect(made).toBeGreaterThanOrEqual(3)
      expect(made).toBeLessThan(12)
    })

    it('bytes a second of a circuit are bounded', async () => {
      const way = await open({ rateBytesPerSecondPerCircuit: 200_000 })
      const connection = await way.connect(server4, packetPorts.source)
      const from = performance.now()
      connection.write(`${4 << 20}\n`)
      await until(() => connection.received > 150_000, 5000)
      await sleep(500)
      const seconds = (performance.now() - from) / 1000
      // What is in buffers between counts twice at most.
      expect(connection.received).toBeLessThan(400_000 * seconds + 300_000)
    })

    it('a connection that nobody answers is given up in time', async () => {
      const way = await open({ connectTimeoutMs: 700 })
      const from = performance.now()
      await expect(way.connect(SILENT, 80)).rejects.toThrow()
      expect(performance.now() - from).toBeLessThan(3000)
      await until(() => world!.exit.counts.streams === 0)
      if (name === 'TUN') await until(() => !flows().includes(SILENT), 3000)
    })

    it('a connection that stands still is ended', async () => {
      const way = await open({ streamIdleTimeoutMs: 500 })
      const connection = await way.connect(server4, packetPorts.echo)
      if (name === 'TUN') {
        await until(() => !flows().includes(`dport=${packetPorts.echo}`), 6000)
        // It is not taken up again in its middle: the client is told.
        connection.write('late')
      }
      await until(() => connection.isOver, 6000)
    })
  })

  it('a name that leads to such a place is refused after it was resolved', async () => {
    for (const place of refusedPlaces) {
      const config = exitConfig.parse({})
      const resolver = createResolver({
        config,
        now: () => performance.now(),
        source: { addresses: async () => ({ value: [place], ttlSeconds: 60 }), names: async () => [], maxRunning: 4 },
      })
      const { exit, stop } = await netstackExit({}, { exit: { resolver } })
      const circuit = exit.openCircuit()
      await expect(circuit.connect({ host: 'rebind.example', port: 80 }, never), place).rejects.toMatchObject({ reason: 'policy' })
      await expect(circuit.resolve('rebind.example', never), place).rejects.toMatchObject({ reason: 'policy' })
      circuit.close()
      await stop()
    }
  })
})

function flows(): string {
  return shellOk('conntrack -L 2>/dev/null')
}

async function until(condition: () => boolean, ms = 3000): Promise<void> {
  const end = Date.now() + ms
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited ${ms} ms in vain`)
    await sleep(10)
  }
}
