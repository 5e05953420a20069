import { once } from 'node:events'
import { afterEach, describe, expect, test } from 'vitest'
import { formatIp, SeededRandom, silentLogger } from '../../../src/base/index.ts'
import { CircuitPool, Client, clientConfig, type PacketLease } from '../../../src/client/index.ts'
import { BatchPool } from '../../../src/link/index.ts'
import { batchOfPackets, type PacketBatch } from '../../../src/packet/index.ts'
import { constraintsOf, GuardSample, PathViews, pathConfig } from '../../../src/path/index.ts'
import { ExitRefusal, type ExitService } from '../../../src/relaying/index.ts'
import { PortRecorder } from '../../compliance/packet-port.ts'
import { MemoryMesh, slowTime, suite } from '../../support/mesh-in-memory.ts'
import { PacketExit, resolverExit } from '../../support/packet-exits.ts'

interface World {
  readonly mesh: MemoryMesh
  readonly pool: CircuitPool
  readonly client: Client
}

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup()
})

/** Seven relays; the last two are exits, of which those of `servesPackets` say that they serve packets. */
function world(exit: ExitService, servesPackets: (index: number) => boolean = () => true, patient = false): World {
  const mesh = new MemoryMesh({ relays: 7, exits: 2, exit, servesPackets, now: patient ? () => performance.now() : slowTime })
  const view = mesh.view()
  const config = pathConfig.parse({ cleanCircuits: 1 })
  const pool = new CircuitPool({
    config,
    buildAttempts: 3,
    liveness: { probeAfterMs: 3_000, probeTimeoutMs: 3_000 },
    suite,
    random: new SeededRandom(7),
    view,
    paths: new PathViews(view, constraintsOf(config)),
    guards: new GuardSample(config),
    memory: new BatchPool(true),
    dialer: mesh.dialer(mesh.clientId, mesh.clientMeter),
    now: patient ? () => performance.now() : slowTime,
    wall: () => Date.now(),
    logger: silentLogger,
    guardsChanged: () => {},
    event: () => {},
  })
  const client = new Client({ config: clientConfig.parse({ circuitWaitMs: patient ? 60_000 : 1_000 }), pool, logger: silentLogger })
  cleanups.push(() => {
    client.stop()
    pool.stop()
    mesh.stop()
  })
  return { mesh, pool, client }
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const started = performance.now()
  while (!condition()) {
    if (performance.now() - started > 5_000) throw new Error(`never: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** A packet of either family with a number in its last bytes. */
function packetOf(source: string, number: number, length = 100): Uint8Array {
  const packet = new Uint8Array(length)
  const isIpv4 = !source.includes(':')
  packet[0] = isIpv4 ? 0x45 : 0x60
  const bytes = isIpv4 ? source.split('.').map(Number) : [0xfd, ...new Uint8Array(14), Number.parseInt(source.split('::')[1]!, 16)]
  const other = isIpv4 ? [192, 0, 2, 1] : [0x20, 0x01, 0x0d, 0xb8, ...new Uint8Array(11), 1]
  packet.set(bytes, isIpv4 ? 12 : 8)
  packet.set(other, isIpv4 ? 16 : 24)
  packet[length - 2] = number >> 8
  packet[length - 1] = number
  return packet
}

/** Numbers of the packets a lease gave out. */
class Numbers extends PortRecorder {
  readonly got: number[] = []

  override packets(batch: PacketBatch): void {
    for (let i = 0; i < batch.count; i++) this.got.push((batch.bytes[batch.end(i) - 2]! << 8) | batch.bytes[batch.end(i) - 1]!)
    super.packets(batch)
  }
}

function attached({ port }: PacketLease): Numbers {
  const numbers = new Numbers()
  port.attach(numbers)
  return numbers
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

describe('a packet lease', () => {
  test('goes through a circuit of its own to an exit that says it serves packets, and shows as what it is', async () => {
    const exit = new PacketExit()
    const { client, pool, mesh } = world(exit, (index) => index === 6)
    const lease = await client.openPackets({ isolation: 'a' })
    expect([formatIp(lease.address4!), formatIp(lease.address6!)]).toEqual(['100.64.0.2', 'fd00::2'])
    expect([lease.port.medium, lease.port.mtu]).toEqual(['ip', 1420])
    const numbers = attached(lease)
    lease.port.send(batchOfPackets(upTo(50).map((i) => packetOf(i % 2 === 0 ? '100.64.0.2' : 'fd00::2', i))))
    await until('all came back', () => numbers.got.length === 50)
    expect(numbers.got).toEqual(upTo(50))
    const own = pool.circuits().find(({ purpose }) => purpose === 'packets')!
    expect(own.choice.path[2]).toBe(mesh.relays[6]!.id)
    expect(own.circuit!.streams()).toMatchObject([{ kind: 'packets', target: null, state: 'open', bytesIn: 5000, bytesOut: 5000 }])
    expect(own.circuit!.bytesIn + own.circuit!.bytesOut).toBe(10_000)
    const other = await client.openPackets({ isolation: 'b' })
    expect(pool.circuits().filter(({ purpose }) => purpose === 'packets')).toHaveLength(2)
    for (const { port } of [lease, other]) port.close()
    await until('both given back', () => exit.open === 0)
    expect(own.circuit!.openStreams).toBe(0)
  })

  test('lets nothing out that comes from elsewhere, and nothing in that goes elsewhere', async () => {
    const exit = new PacketExit({ behind: () => {} })
    const { client } = world(exit)
    const lease = await client.openPackets({ isolation: 'a' })
    const numbers = attached(lease)
    const network = exit.leases[0]!
    const outside: string[] = []
    network.attach({
      packets: (batch) => {
        for (let i = 0; i < batch.count; i++) outside.push([...batch.packet(i).subarray(12, 16)].join('.'))
      },
      drained: () => {},
      ended: () => {},
    })
    const short = packetOf('fd00::2', 9, 100).subarray(0, 30)
    const packets = [packetOf('192.168.1.5', 0), packetOf('100.64.0.2', 1), short, packetOf('100.64.0.3', 2), packetOf('100.64.0.2', 3)]
    expect(lease.port.send(batchOfPackets(packets))).toBe(5)
    await until('two went out', () => outside.length === 2)
    expect(outside).toEqual(['100.64.0.2', '100.64.0.2'])
    expect(lease.port.stats).toMatchObject({ sentPackets: 2, droppedPackets: 3 })
    const back = (to: string, number: number): Uint8Array => {
      const packet = packetOf('192.0.2.1', number)
      packet.set(to.split('.').map(Number), 16)
      return packet
    }
    network.send(batchOfPackets([back('100.64.0.2', 1), back('100.64.0.3', 2), back('192.168.1.5', 3), back('100.64.0.2', 4)]))
    await until('two came in', () => numbers.got.length === 2)
    expect(numbers.got).toEqual([1, 4])
    expect(lease.port.stats).toMatchObject({ receivedPackets: 2, droppedPackets: 5 })
  })

  test('is asked for at another exit when one refuses, and the last refusal is told', async () => {
    let refusals = 0
    const good = new PacketExit()
    const sometimes: ExitService = {
      openCircuit: () => ({
        ...good.openCircuit(),
        openPackets: async (mtu, signal) => {
          if (refusals++ === 0) throw new ExitRefusal('resource-limit', 'no address left')
          return good.openCircuit().openPackets(mtu, signal)
        },
      }),
    }
    const { client, pool } = world(sometimes)
    const lease = await client.openPackets({ isolation: 'a' })
    expect(refusals).toBe(2)
    lease.port.close()
    const exits = new Set(pool.circuits().flatMap(({ purpose, choice }) => (purpose === 'packets' ? [choice.path[2]] : [])))
    expect(exits.size).toBe(2)
    const refusing = world(new PacketExit({ refuses: new ExitRefusal('policy', 'closed') }))
    await expect(refusing.client.openPackets({ isolation: 'a' })).rejects.toMatchObject({ code: 'policy' })
  })

  test('is not to be had where no exit serves packets, nor without a wait once given up', async () => {
    const { client } = world(new PacketExit(), () => false)
    const giveUp = new AbortController()
    const asked = client.openPackets({ isolation: 'a', signal: giveUp.signal })
    setTimeout(() => giveUp.abort(), 100)
    await expect(asked).rejects.toMatchObject({ code: 'aborted' })
  })

  test('where no exit serves packets that is said soon, not when patience ends', async () => {
    const { client } = world(new PacketExit(), () => false, true)
    await expect(client.openPackets({ isolation: 'a' })).rejects.toMatchObject({ code: 'not-exit' })
  }, 20_000)

  test('where every exit refused, nobody waits for another', async () => {
    const { client } = world(new PacketExit({ refuses: new ExitRefusal('policy', 'closed') }), () => true, true)
    await expect(client.openPackets({ isolation: 'a' })).rejects.toMatchObject({ code: 'policy' })
  }, 20_000)

  test('given up while it is opened is given back', async () => {
    const exit = new PacketExit()
    let serve = (): void => {}
    const slow: ExitService = {
      openCircuit: () => ({
        ...exit.openCircuit(),
        openPackets: async (mtu, signal) => {
          await new Promise<void>((resolve) => {
            serve = resolve
          })
          return exit.openCircuit().openPackets(mtu, signal)
        },
      }),
    }
    const mesh = new MemoryMesh({ exit: slow, now: slowTime })
    cleanups.push(() => mesh.stop())
    const circuit = await mesh.circuit()
    const giveUp = new AbortController()
    const asked = circuit.openPackets(giveUp.signal)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(circuit.streams()).toMatchObject([{ kind: 'packets', state: 'connecting' }])
    giveUp.abort()
    await expect(asked).rejects.toMatchObject({ code: 'aborted' })
    expect(circuit.openStreams).toBe(0)
    serve()
    await until('leased and given back', () => exit.leases.length === 1 && exit.open === 0)
    expect(circuit.ended).toBeNull()
  })

  test('ends when the exit ends it, and with its circuit, as what happened', async () => {
    const exit = new PacketExit()
    const { client, pool } = world(exit)
    const first = await client.openPackets({ isolation: 'a' })
    const second = await client.openPackets({ isolation: 'b' })
    const [one, two] = [attached(first), attached(second)]
    exit.leases[0]!.close()
    await until('the first has ended', () => one.ends.length > 0)
    expect(one.ends).toEqual([null])
    pool.closeAll()
    await until('the second has ended', () => two.ends.length > 0)
    expect(two.ends).toEqual([expect.objectContaining({ code: 'circuit-lost' })])
    expect(second.port.send(batchOfPackets([packetOf('100.64.0.2', 1)]))).toBe(1)
    await until('all given back', () => exit.open === 0)
  })

  test('keeps what comes while it is paused, in order, and gives it out in a later turn', async () => {
    const exit = new PacketExit()
    const { client } = world(exit)
    const lease = await client.openPackets({ isolation: 'a' })
    // Nothing is attached yet: that holds packets, too.
    lease.port.send(batchOfPackets([packetOf('100.64.0.2', 0)]))
    await new Promise((resolve) => setTimeout(resolve, 50))
    const numbers = attached(lease)
    expect(numbers.got).toEqual([])
    await until('the first', () => numbers.got.length === 1)
    numbers.onPackets = () => lease.port.pause()
    for (const i of upTo(40)) {
      lease.port.send(batchOfPackets([packetOf('100.64.0.2', i + 1)]))
      if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(numbers.got.length).toBeLessThan(40)
    numbers.onPackets = null
    lease.port.resume()
    const before = numbers.got.length
    await Promise.resolve()
    expect(numbers.got.length).toBe(before)
    await until('all of them', () => numbers.got.length === 41)
    expect(numbers.got).toEqual(upTo(41))
  })

  test('whose user does something with its circuit from within a delivery still sees its packets', async () => {
    const exit = new PacketExit()
    const mesh = new MemoryMesh({ exit, now: slowTime })
    cleanups.push(() => mesh.stop())
    const circuit = await mesh.circuit()
    const lease = await circuit.openPackets()
    const numbers = attached(lease)
    const pings: Promise<number>[] = []
    const seen: number[] = []
    numbers.packets = (batch) => {
      pings.push(circuit.ping())
      for (let i = 0; i < batch.count; i++) seen.push(batch.packet(i).at(-1)!)
    }
    lease.port.send(batchOfPackets(upTo(20).map((i) => packetOf('100.64.0.2', i))))
    await until('all of them', () => seen.length === 20)
    expect(seen).toEqual(upTo(20))
    await Promise.all(pings)
  })

  test('is probed when its packets get no answer: a lease that sends is one that waits', async () => {
    const exit = new PacketExit({ behind: (port) => port.attach({ packets: () => {}, drained: () => {}, ended: () => {} }) })
    const mesh = new MemoryMesh({ exit })
    cleanups.push(() => mesh.stop())
    const circuit = await mesh.circuit(mesh.relays, () => {}, { probeAfterMs: 50, probeTimeoutMs: 5_000 })
    const lease = await circuit.openPackets()
    await until('the first probes were answered', () => performance.now() - circuit.heardAt < 20)
    await until('it is silent', () => performance.now() - circuit.heardAt > 30)
    lease.port.send(batchOfPackets([packetOf('100.64.0.2', 1)]))
    const before = circuit.heardAt
    await until('it was probed', () => circuit.heardAt > before)
    lease.port.close()
  })
})

describe('a stream to the exit’s resolver', () => {
  const framed = (message: Uint8Array): Buffer => Buffer.concat([Uint8Array.of(message.length >> 8, message.length & 0xff), message])

  test('carries questions and answers of any size, and shows as what it is', async () => {
    const { client, pool } = world(resolverExit((question) => new Uint8Array(question[0]! * 250).fill(question[0]!)))
    const { stream } = await client.connectResolver({ isolation: 'a' })
    for (const size of [1, 200, 3]) stream.write(framed(Uint8Array.of(size, 7)))
    let got = Buffer.alloc(0)
    stream.on('data', (chunk: Uint8Array) => {
      got = Buffer.concat([got, chunk])
    })
    await until('all answers', () => got.length === 6 + 204 * 250)
    expect([got.readUInt16BE(0), got[2]]).toEqual([250, 1])
    expect([got.readUInt16BE(252), got[254]]).toEqual([50_000, 200])
    const own = pool.circuits().find(({ purpose }) => purpose === 'streams')!
    expect(own.circuit!.streams()).toMatchObject([{ kind: 'dns', target: null, state: 'open' }])
    stream.end()
    await once(stream, 'end')
    await until('it is over', () => own.circuit!.openStreams === 0)
  })

  test('holds a resolver back that answers faster than its answers are read', async () => {
    let answered = 0
    const { client } = world(
      resolverExit(() => {
        answered++
        return new Uint8Array(60_000)
      }),
    )
    const { stream } = await client.connectResolver({ isolation: 'a' })
    stream.pause()
    for (let i = 0; i < 100; i++) stream.write(framed(Uint8Array.of(1)))
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(answered).toBe(100)
    let got = 0
    stream.on('data', (chunk: Uint8Array) => {
      got += chunk.length
    })
    stream.resume()
    await until('everything', () => got === 100 * 60_002)
    stream.end()
  })

  test('is refused with the reason that the exit gives', async () => {
    const refusing: ExitService = {
      openCircuit: () => ({
        ...new PacketExit().openCircuit(),
        connectResolver: () => {
          throw new ExitRefusal('resource-limit', 'too many resolver streams')
        },
      }),
    }
    const { client } = world(refusing)
    await expect(client.connectResolver({ isolation: 'a' })).rejects.toMatchObject({ code: 'resource-limit' })
  })
})
