import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { parseIp, silentLogger } from '../../../src/base/index.ts'
import {
  createExitService,
  type Exit,
  type ExitModules,
  exitConfig,
  KernelBackend,
  type PacketBackend,
  type PacketUse,
  type Resolver,
} from '../../../src/egress/index.ts'
import { type MemoryPort, memoryPortPair } from '../../../src/packet/index.ts'
import { ExitRefusal } from '../../../src/relaying/index.ts'

const never = new AbortController().signal
const exits: Exit[] = []
afterEach(() => {
  for (const exit of exits.splice(0)) exit.close()
})

const resolver: Resolver = {
  addresses: async () => {
    throw new ExitRefusal('resolve-failed', 'no names here')
  },
  names: async () => ({ value: ['pointer.example'], ttlSeconds: 60 }),
}

/** A backend that leases one end of a memory pair. */
class FakeBackend implements PacketBackend {
  readonly name = 'netstack'
  families: readonly (4 | 6)[] = [4]
  readonly uses: PacketUse[] = []
  readonly others: MemoryPort[] = []
  refusal: ExitRefusal | null = null
  gate: Promise<void> = Promise.resolve()
  readonly counts = { leases: 0, packetsIn: 0, packetsOut: 0, bytesIn: 0, bytesOut: 0, dropped: {}, stack: null }

  async start(): Promise<void> {}
  async stop(): Promise<void> {}

  async open(use: PacketUse, mtu: number) {
    await this.gate
    if (this.refusal) throw this.refusal
    const [port, other] = memoryPortPair({ carry: setImmediate, mtu })
    other.attach({ packets: () => {}, drained: () => {}, ended: () => {} })
    this.uses.push(use)
    this.others.push(other)
    return { address4: parseIp('100.89.0.2'), address6: null, port }
  }
}

function makeExit(config: object = {}, changes: Partial<ExitModules> = {}) {
  const packets = new FakeBackend()
  const exit = createExitService({
    config: exitConfig.parse({ connectTimeoutMs: 1000, attemptTimeoutMs: 500, families: 'ipv4', ...config }),
    backend: new KernelBackend(),
    packets,
    resolver,
    privateDestinations: ['127.0.0.0/8'],
    isRelayAddress: () => false,
    isOwnAddress: () => false,
    now: () => performance.now(),
    logger: silentLogger,
    ...changes,
  })
  exits.push(exit)
  return { exit, packets }
}

const silent = { packets: () => {}, drained: () => {}, ended: () => {} }

describe('packet leases of an exit', () => {
  it('are not given by an exit without a backend, or with one that serves no family', async () => {
    const { exit } = makeExit({}, { packets: null })
    expect([exit.servesPackets, exit.counts.packets]).toEqual([false, null])
    await expect(exit.openCircuit().openPackets(1420, never)).rejects.toMatchObject({ reason: 'not-exit' })
    const idle = makeExit()
    idle.packets.families = []
    expect(idle.exit.servesPackets).toBe(false)
    await expect(idle.exit.openCircuit().openPackets(1420, never)).rejects.toMatchObject({ reason: 'not-exit' })
  })

  it('are bounded per circuit and in all, and their places given back once', async () => {
    const { exit } = makeExit({ maxPacketLeases: 3, maxPacketLeasesPerCircuit: 2 })
    expect(exit.servesPackets).toBe(true)
    const [one, other] = [exit.openCircuit(), exit.openCircuit()]
    const first = await one.openPackets(1420, never)
    await one.openPackets(1420, never)
    await expect(one.openPackets(1420, never)).rejects.toMatchObject({ reason: 'resource-limit' })
    await other.openPackets(1420, never)
    await expect(other.openPackets(1420, never)).rejects.toMatchObject({ reason: 'resource-limit' })
    expect(exit.counts.refused).toEqual({ 'resource-limit': 2 })
    first.port.close()
    first.port.close()
    await other.openPackets(1420, never)
    await expect(one.openPackets(1420, never)).rejects.toMatchObject({ reason: 'resource-limit' })
    one.close()
    other.close()
    const third = exit.openCircuit()
    await third.openPackets(1420, never)
    await third.openPackets(1420, never)
  })

  it('give their place back when the backend ends them', async () => {
    const { exit, packets } = makeExit({ maxPacketLeases: 1 })
    const circuit = exit.openCircuit()
    let ended = 0
    const { port } = await circuit.openPackets(1420, never)
    port.attach({ ...silent, ended: () => ended++ })
    packets.others[0]!.close()
    await sleep(5)
    expect(ended).toBe(1)
    await circuit.openPackets(1420, never)
  })

  it('end with their circuit, also one that comes too late', async () => {
    const { exit, packets } = makeExit({ maxPacketLeases: 1 })
    const circuit = exit.openCircuit()
    let ended = 0
    const { port } = await circuit.openPackets(1420, never)
    port.attach({ ...silent, ended: () => ended++ })
    circuit.close()
    await sleep(5)
    expect(ended).toBe(1)
    let open: () => void = () => {}
    packets.gate = new Promise((resolve) => {
      open = resolve
    })
    const late = exit.openCircuit()
    const opening = late.openPackets(1420, never)
    late.close()
    open()
    const lease = await opening
    let lateEnded = 0
    lease.port.attach({ ...silent, ended: () => lateEnded++ })
    await sleep(5)
    expect(lease.port.send).toBeTypeOf('function')
    await expect(late.openPackets(1420, never)).rejects.toBeInstanceOf(ExitRefusal)
    packets.gate = Promise.resolve()
    await exit.openCircuit().openPackets(1420, never)
  })

  it('pass on what the backend refuses, and count it', async () => {
    const { exit, packets } = makeExit({ maxPacketLeases: 1 })
    packets.refusal = new ExitRefusal('resource-limit', 'no address left')
    const circuit = exit.openCircuit()
    await expect(circuit.openPackets(1420, never)).rejects.toBe(packets.refusal)
    expect(exit.counts.refused).toEqual({ 'resource-limit': 1 })
    packets.refusal = null
    await circuit.openPackets(1420, never)
  })

  it("come under the exit's policy", async () => {
    const { exit, packets } = makeExit({ policy: ['reject 9.9.9.0/24:*', 'reject 8.8.8.8:1-1024', 'reject *:25', 'accept *:*'] })
    await exit.openCircuit().openPackets(1420, never)
    const allows = (text: string, port: number | null) => packets.uses[0]!.allows(parseIp(text), port)
    expect([allows('1.1.1.1', 443), allows('1.1.1.1', 25), allows('1.1.1.1', null)]).toEqual([true, false, true])
    expect([allows('9.9.9.9', 443), allows('9.9.9.9', null)]).toEqual([false, false])
    // Some of its ports are let out: it may be pinged.
    expect([allows('8.8.8.8', 80), allows('8.8.8.8', null)]).toEqual([false, true])
    expect([allows('10.0.0.1', null), allows('169.254.169.254', null), allows('2a00::1', null)]).toEqual([false, false, false])
  })

  it("come under the circuit's limits and counts of streams, associations and bytes", async () => {
    const { exit, packets } = makeExit({ maxStreamsPerCircuit: 1, maxAssociationsPerCircuit: 1, rateBytesPerSecondPerCircuit: 1000 })
    await exit.openCircuit().openPackets(1420, never)
    const use = packets.uses[0]!
    await expect(use.connect({ address: parseIp('10.0.0.1'), port: 80 }, never)).rejects.toMatchObject({ reason: 'policy' })
    await expect(use.connect({ address: parseIp('127.0.0.1'), port: 1 }, never)).rejects.toMatchObject({ reason: 'refused' })
    expect(exit.counts).toMatchObject({ streams: 0, refused: { policy: 1, refused: 1 } })
    use.openDatagrams(() => {})
    expect(() => use.openDatagrams(() => {})).toThrow(ExitRefusal)
    expect(exit.counts.associations).toBe(1)
    // The burst is one read of a socket.
    expect([use.takeRate(60_000), use.takeRate(6000)]).toEqual([true, false])
  })
})

describe("streams to an exit's resolver", () => {
  it('are given until the circuit is over, and counted', async () => {
    const { exit } = makeExit()
    const circuit = exit.openCircuit()
    expect(exit.counts.dns).toBeNull()
    const stream = circuit.connectResolver()
    stream.on('error', () => {})
    expect(exit.counts.dns).toMatchObject({ streams: 1 })
    circuit.close()
    await sleep(5)
    expect([stream.destroyed, exit.counts.dns?.streams]).toEqual([true, 0])
    expect(() => circuit.connectResolver()).toThrow(ExitRefusal)
  })

  it('are bounded', () => {
    const { exit } = makeExit({ dns: { maxStreamsPerCircuit: 1 } })
    const circuit = exit.openCircuit()
    circuit.connectResolver().on('error', () => {})
    expect(() => circuit.connectResolver()).toThrow(ExitRefusal)
    expect(exit.counts.refused).toEqual({ 'resource-limit': 1 })
  })
})
