import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { formatIp, ShallotError, silentLogger } from '../../../../src/base/index.ts'
import { exitConfig, type PacketUse, type TunNatOptions, type TunNatSystem } from '../../../../src/egress/index.ts'
import { TunNatBackend } from '../../../../src/egress/tun-nat/index.ts'
import { batchOfPackets, type MemoryPort, memoryPortPair, type PacketBatch } from '../../../../src/packet/index.ts'
import type { TunOptions } from '../../../../src/tun/index.ts'
import { echoPacket, udpPacket } from '../../../support/packet-client.ts'

/** A machine that does as it is told, and writes down what. */
class FakeSystem implements TunNatSystem {
  platform = 'linux'
  readonly did: string[] = []
  readonly rules: string[] = []
  networks: string[] = ['198.51.100.7/24']
  flowsOf: Record<string, number> = {}
  /** What a step fails with. */
  failing: Partial<Record<'tun' | 'rules' | 'flows' | 'forget', Error>> = {}
  tuns: TunOptions[] = []
  /** The kernel's side of the device. */
  kernel: MemoryPort | null = null
  gone: () => void = () => {}
  readonly arrived: Uint8Array[] = []
  readonly sysctls = { read: () => '1', write: () => {}, defaultRouteInterfaces6: () => [] }
  async openTun(options: TunOptions) {
    if (this.failing.tun) throw this.failing.tun
    this.did.push('tun')
    this.tuns.push(options)
    const [ours, theirs] = memoryPortPair({ carry: setImmediate, mtu: options.mtu! })
    theirs.attach({
      packets: (batch: PacketBatch) => {
        for (let i = 0; i < batch.count; i++) this.arrived.push(batch.packet(i).slice())
      },
      drained: () => {},
      ended: () => void this.did.push('tun closed'),
    })
    this.kernel = theirs
    return ours
  }
  async applyRuleset(text: string) {
    this.did.push(text.split('\n').length > 10 ? 'rules' : 'rules removed')
    this.rules.push(text)
    if (this.failing.rules && text.includes('chain')) throw this.failing.rules
  }
  counted: Record<string, number> = {}
  async readCounters(table: string) {
    this.did.push(`counters of ${table}`)
    return this.counted
  }
  async watchTable(_name: string, gone: () => void) {
    this.gone = gone
    return () => {}
  }
  async openFlowTable() {
    if (this.failing.flows) throw this.failing.flows
    return {
      forget: async (of: readonly object[]) => {
        if (this.failing.forget) throw this.failing.forget
        this.did.push(`forget ${of.length}`)
      },
      count: async (address: { readonly bytes: Uint8Array; readonly family: 4 | 6 }) => this.flowsOf[formatIp(address)] ?? 0,
      close: () => {},
    }
  }
  interfaceNetworks() {
    return this.networks
  }
}

const use: PacketUse = {
  allows: (_address, port) => port !== 25,
  takeRate: () => true,
  connect: () => Promise.reject(new Error('no')),
  openDatagrams: () => {
    throw new Error('no')
  },
}
const never = new AbortController().signal
const soon = () => sleep(5)

describe('the TUN backend', () => {
  const backends: TunNatBackend[] = []
  afterEach(async () => {
    for (const one of backends.splice(0)) await one.stop()
  })

  function made(system: FakeSystem, keys: Record<string, unknown> = {}, more: Partial<TunNatOptions> = {}): TunNatBackend {
    const backend = new TunNatBackend({
      config: exitConfig.parse({ packets: 'tun', ...keys }),
      families: [4, 6],
      privateDestinations: [],
      ownAddresses: () => ['203.0.113.99'],
      now: () => performance.now(),
      logger: silentLogger,
      system,
      ...more,
    })
    backends.push(backend)
    return backend
  }

  /** A lease and what comes out of it. */
  async function leased(backend: TunNatBackend, mtu = 1420) {
    const lease = await backend.open(use, mtu, never)
    const packets: Uint8Array[] = []
    const ends: (string | null)[] = []
    lease.port.attach({
      packets: (batch) => {
        for (let i = 0; i < batch.count; i++) packets.push(batch.packet(i).slice())
      },
      drained: () => {},
      ended: (error) => ends.push(error?.code ?? null),
    })
    return { ...lease, packets, ends }
  }

  test('starts device, rules and flows in this order, and takes them back', async () => {
    const system = new FakeSystem()
    const backend = made(system)
    await backend.start()
    expect(system.did).toEqual(['tun', 'rules', 'forget 2'])
    expect(system.tuns[0]).toMatchObject({ name: 'shallot-exit', mtu: 1500, addresses: ['100.89.0.1/16', 'fd73:6861:6c6c:6578::1/64'] })
    expect(system.rules[0]).toContain('203.0.113.99')
    const { ends } = await leased(backend)
    await backend.stop()
    await soon()
    expect(system.did.slice(3)).toEqual(['forget 2', 'forget 2', 'rules removed', 'tun closed'])
    expect(ends).toEqual([null])
    await expect(backend.open(use, 1420, never)).rejects.toMatchObject({ reason: 'not-exit' })
  })

  test('a start that fails leaves nothing', async () => {
    for (const [step, error, code] of [
      ['tun', new ShallotError('tun-not-permitted', 'no', { kind: 'host', retry: 'never' }), 'exit-tun-not-permitted'],
      ['tun', new ShallotError('tun-unavailable', 'no', { kind: 'host', retry: 'later' }), 'exit-tun-unavailable'],
      ['rules', new ShallotError('exit-tun-no-nft', 'no', { kind: 'host', retry: 'never' }), 'exit-tun-no-nft'],
      ['flows', new ShallotError('exit-tun-unavailable', 'no', { kind: 'host', retry: 'later' }), 'exit-tun-unavailable'],
    ] as const) {
      const system = new FakeSystem()
      system.failing[step] = error
      await expect(made(system).start(), step).rejects.toMatchObject({ code })
      await soon()
      expect(system.did.includes('tun'), step).toBe(system.did.includes('tun closed'))
      expect(system.did.includes('rules'), step).toBe(system.did.includes('rules removed'))
    }
  })

  test('elsewhere than on Linux, and where a network is in the way, nothing is begun', async () => {
    const system = new FakeSystem()
    system.platform = 'darwin'
    await expect(made(system).start()).rejects.toMatchObject({ code: 'exit-tun-not-on-this-platform', retry: 'never' })
    system.platform = 'linux'
    system.networks.push('100.89.7.1/24')
    await expect(made(system).start()).rejects.toMatchObject({ code: 'exit-tun-network-in-use', kind: 'config' })
    expect(system.did).toEqual([])
  })

  test('a kernel without time-outs of its own is served without them', async () => {
    const system = new FakeSystem()
    const apply = system.applyRuleset.bind(system)
    system.applyRuleset = async (text) => {
      await apply(text)
      if (text.includes('ct timeout')) throw new ShallotError('exit-tun-unavailable', 'no such thing', { kind: 'host', retry: 'never' })
    }
    await made(system).start()
    expect(system.rules).toHaveLength(2)
    expect(system.rules[1]).not.toContain('ct timeout')
  })

  test("counts what the kernel's rules dropped, twice a minute at most, and over tables that were made anew", async () => {
    const system = new FakeSystem()
    let later = 0
    const backend = made(system, { packetIdleTimeoutMs: 1000 }, { now: () => performance.now() + later })
    await backend.start()
    system.counted = { flow_limit: 7, policy_refused: 0 }
    await sleep(300)
    expect(backend.counts.dropped).toEqual({})
    later = 30_000
    await vi.waitUntil(() => backend.counts.dropped['flow-limit'] === 7)
    expect(system.did.filter((done) => done.startsWith('counters'))).toEqual(['counters of shallot_exit'])
    system.gone!()
    await soon()
    system.counted = { flow_limit: 2, unasked: 1 }
    expect(backend.counts.dropped).toEqual({ 'flow-limit': 7 })
    later = 60_000
    await vi.waitUntil(() => backend.counts.dropped.unasked === 1)
    expect(backend.counts.dropped).toEqual({ 'flow-limit': 9, unasked: 1 })
  })

  test('each packet goes to the lease it is for, in order, and to nobody else', async () => {
    const system = new FakeSystem()
    const backend = made(system)
    await backend.start()
    const [one, two] = [await leased(backend), await leased(backend)]
    const to = (lease: { readonly address4: { readonly bytes: Uint8Array } | null }, number: number) =>
      udpPacket(
        { from: { family: 4, bytes: Uint8Array.of(1, 1, 1, 1) }, to: lease.address4!.bytes.join('.') },
        53,
        number,
        new Uint8Array(10),
      )
    const six = udpPacket(
      { from: { family: 6, bytes: new Uint8Array(16).fill(0x20) }, to: formatIp(two.address6!) },
      53,
      9,
      new Uint8Array(10),
    )
    system.kernel!.send(
      batchOfPackets([
        to(one, 1),
        to(two, 2),
        to(one, 3),
        six,
        udpPacket({ from: one.address4!, to: '100.89.9.9' }, 1, 1, new Uint8Array(4)),
        to(one, 4),
      ]),
    )
    await soon()
    const ports = (packets: readonly Uint8Array[]) => packets.map((packet) => packet[(packet[0]! >> 4 === 4 ? 20 : 40) + 3])
    expect([ports(one.packets), ports(two.packets)]).toEqual([
      [1, 3, 4],
      [2, 9],
    ])
    expect(backend.counts).toMatchObject({ leases: 2, packetsOut: 5, dropped: { 'no-lease': 1 } })
  })

  test('what is refused is told, what is not is written, together in one batch', async () => {
    const system = new FakeSystem()
    const backend = made(system)
    await backend.start()
    const one = await leased(backend)
    const from = one.address4!
    const packets = [
      udpPacket({ from, to: '1.1.1.1' }, 1, 53, new Uint8Array(4)),
      udpPacket({ from, to: '1.1.1.1' }, 1, 25, new Uint8Array(4)),
      echoPacket({ from, to: '1.1.1.1' }, 1, 1, new Uint8Array(4)),
    ]
    expect(one.port.send(batchOfPackets(packets))).toBe(3)
    await soon()
    expect(system.arrived).toEqual([packets[0], packets[2]])
    expect(one.packets).toHaveLength(1)
    // Destination unreachable, administratively prohibited, from the gateway.
    expect([one.packets[0]!.subarray(12, 16).join('.'), one.packets[0]![20], one.packets[0]![21]]).toEqual(['100.89.0.1', 3, 13])
    expect(backend.counts).toMatchObject({ packetsIn: 2, dropped: { policy: 1 } })
    expect(one.port.stats).toMatchObject({ sentPackets: 2, droppedPackets: 1 })
  })

  test('refusals are told up to a rate, and never of errors', async () => {
    const system = new FakeSystem()
    const backend = made(system)
    await backend.start()
    const one = await leased(backend)
    for (let i = 0; i < 200; i++)
      one.port.send(batchOfPackets([udpPacket({ from: one.address4!, to: '1.1.1.1' }, 1, 25, new Uint8Array(4))]))
    await soon()
    expect(one.packets.length).toBeGreaterThan(30)
    expect(one.packets.length).toBeLessThan(60)
  })

  test('a paused lease holds a bounded number, in order', async () => {
    const system = new FakeSystem()
    const backend = made(system)
    await backend.start()
    const one = await leased(backend)
    one.port.pause()
    for (let i = 0; i < 200; i++)
      system.kernel!.send(
        batchOfPackets([
          udpPacket({ from: { family: 4, bytes: Uint8Array.of(1, 1, 1, 1) }, to: formatIp(one.address4!) }, 53, i, new Uint8Array(4)),
        ]),
      )
    await soon()
    expect(one.packets).toEqual([])
    one.port.resume()
    await soon()
    expect(one.packets.map((packet) => packet[23])).toEqual(Array.from({ length: 128 }, (_, i) => i))
    expect(backend.counts.dropped.limit).toBe(72)
  })

  test('a server is told when a packet is larger than the circuit carries', async () => {
    const system = new FakeSystem()
    const backend = made(system)
    await backend.start()
    const one = await leased(backend, 1300)
    expect(one.port.mtu).toBe(1300)
    const large = udpPacket(
      { from: { family: 6, bytes: new Uint8Array(16).fill(0x20) }, to: formatIp(one.address6!) },
      53,
      9,
      new Uint8Array(1400),
    )
    system.kernel!.send(batchOfPackets([large]))
    await soon()
    expect(one.packets).toEqual([])
    const [told] = system.arrived
    // Packet too big, MTU 1300, from the lease to the server.
    expect([told![40], new DataView(told!.buffer).getUint32(44), told!.subarray(8, 24).join(), told!.subarray(24, 40).join()]).toEqual([
      2,
      1300,
      one.address6!.bytes.join(),
      large.subarray(8, 24).join(),
    ])
    await expect(backend.open(use, 1279, never)).rejects.toMatchObject({ reason: 'policy' })
  })

  test('an address whose flows could not be forgotten is not used again; others are, as late as can be', async () => {
    const system = new FakeSystem()
    const backend = made(system, { packetNetworkIpv4: '100.90.0.0/24' })
    await backend.start()
    const all = []
    for (let i = 0; i < 253; i++) all.push(await backend.open(use, 1420, never))
    await expect(backend.open(use, 1420, never)).rejects.toMatchObject({ reason: 'resource-limit' })
    system.failing.forget = new Error('no')
    all[3]!.port.close()
    await soon()
    await expect(backend.open(use, 1420, never)).rejects.toMatchObject({ reason: 'resource-limit' })
    delete system.failing.forget
    all[5]!.port.close()
    await soon()
    expect((await backend.open(use, 1420, never)).address4).toEqual(all[5]!.address4)
  })

  test('a silent lease ends, but not while the kernel has flows of it', async () => {
    const system = new FakeSystem()
    const backend = made(system, { packetIdleTimeoutMs: 60 })
    await backend.start()
    const [idle, busy] = [await leased(backend), await leased(backend)]
    system.flowsOf[formatIp(busy.address4!)] = 1
    await sleep(250)
    expect([idle.ends, busy.ends]).toEqual([['lease-idle'], []])
    system.flowsOf = {}
    await sleep(250)
    expect(busy.ends).toEqual(['lease-idle'])
  })

  test('while the rules are away nothing is written, and leases end when they cannot be made anew', async () => {
    const system = new FakeSystem()
    const backend = made(system)
    await backend.start()
    const one = await leased(backend)
    const packet = udpPacket({ from: one.address4!, to: '1.1.1.1' }, 1, 53, new Uint8Array(4))
    system.gone()
    one.port.send(batchOfPackets([packet]))
    await soon()
    one.port.send(batchOfPackets([packet]))
    await soon()
    expect([system.arrived.length, backend.counts.dropped.limit]).toEqual([1, 1])
    system.failing.rules = new ShallotError('exit-tun-not-permitted', 'no', { kind: 'host', retry: 'never' })
    system.gone()
    await soon()
    expect(one.ends).toEqual(['exit-tun-not-permitted'])
    await expect(backend.open(use, 1420, never)).rejects.toMatchObject({ reason: 'not-exit' })
  })
})
