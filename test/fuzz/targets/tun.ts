import { parseIp, SeededRandom, silentLogger } from '../../../src/base/index.ts'
import type { ClientService, PacketLease } from '../../../src/client/index.ts'
import { TunIngress, tunConfig } from '../../../src/ingress/index.ts'
import {
  batchOfPackets,
  IpHeader,
  newPortStats,
  type PacketBatch,
  type PacketPort,
  type PacketPortHandlers,
  Protocol,
  transportChecksumHolds,
} from '../../../src/packet/index.ts'
import { echoPacket, errorPacket, otherPacket, tcpPacket, udpPacket } from '../../support/ip-packets.ts'
import { testHash } from '../../support/virtual-net.ts'
import type { FuzzTarget } from '../fuzzer.ts'

const own = ['10.83.104.2', 'fd73:6861:6c6c:6f74::2'] as const
const leased = ['100.89.0.2', 'fd99::2'] as const
const servers = ['11.0.0.1', '2a0b::1'] as const
const MTU = 1420

/** A port whose other side is the fuzzer. */
class FuzzPort implements PacketPort {
  readonly name = 'fuzz'
  readonly medium = 'ip'
  readonly mtu = MTU
  readonly stats = newPortStats()
  readonly #check: (batch: PacketBatch, from: number) => void
  handlers: PacketPortHandlers | null = null

  constructor(check: (batch: PacketBatch, from: number) => void) {
    this.#check = check
  }

  attach(handlers: PacketPortHandlers): void {
    this.handlers = handlers
  }

  send(batch: PacketBatch, from = 0): number {
    this.#check(batch, from)
    return batch.count - from
  }

  pause(): void {}
  resume(): void {}

  close(): void {
    this.handlers?.ended(null)
  }
}

/** A device and a lease that have lived; the first byte of an input says whether the machine or the exit sends the rest. */
class Target {
  #device: FuzzPort | null = null
  #lease: FuzzPort | null = null
  #ingress: TunIngress | null = null
  #count = 0
  #now = 0
  readonly #ip = new IpHeader()

  feed(bytes: Uint8Array): void {
    if (this.#device === null || this.#count++ % 5000 === 0) this.#make()
    this.#now += 3
    const packet = bytes.subarray(1)
    if (packet.length === 0) return
    const port = bytes[0]! % 2 === 0 ? this.#device : this.#lease
    port?.handlers?.packets(batchOfPackets([packet.slice(0, MTU), mended(packet.slice(0, MTU))]))
    const counts = this.#ingress!.counts
    if (counts.tcpFlows > 64 || counts.udpFlows > 64 || counts.bufferBytes > 16 << 20) throw new Error('beyond its limits')
  }

  #make(): void {
    void this.#ingress?.stop()
    this.#lease = null
    const never = new Promise<never>(() => {})
    // Answers at once, so that what comes by a lease is reached without a turn of the event loop.
    const opened = (): Promise<PacketLease> => {
      this.#lease = new FuzzPort((batch, from) => this.#look(batch, from, leased))
      const lease = { address4: parseIp(leased[0]), address6: parseIp(leased[1]), port: this.#lease }
      // biome-ignore lint/suspicious/noThenProperty: a promise that is kept at once
      const now = { then: (done: (lease: PacketLease) => void) => done(lease) }
      return now as unknown as Promise<PacketLease>
    }
    const client = { connect: () => never, openDatagrams: () => never, openPackets: opened } as unknown as ClientService
    const config = { ...tunConfig.parse({}), maxTcpFlows: 64, maxUdpFlows: 64, otherProtocols: 'packets' as const }
    this.#ingress = new TunIngress(config, {
      client,
      dns: { ask: () => never },
      logger: silentLogger,
      random: new SeededRandom(this.#count),
      now: () => this.#now,
      hash: testHash('fuzz'),
    })
    this.#device = new FuzzPort((batch, from) => this.#look(batch, from, null))
    this.#ingress.attach(this.#device, config.addresses)
    this.#device.handlers!.packets(batchOfPackets(seedsOf('machine')))
  }

  /** Whatever is sent is well formed and no larger than the link; to the exit, it is from the leased address alone. */
  #look(batch: PacketBatch, from: number, sources: readonly string[] | null): void {
    const ip = this.#ip
    for (let i = from; i < batch.count; i++) {
      const [start, end] = [batch.start(i), batch.end(i)]
      if (end - start > MTU || ip.parse(batch.view, start, end) !== null) throw new Error('it sent a malformed packet')
      if (sources === null) continue
      const wanted = parseIp(sources[ip.version === 4 ? 0 : 1]!).bytes
      for (let at = 0; at < wanted.length; at++)
        if (batch.bytes[ip.sourceAt + at] !== wanted[at]) throw new Error('it sent from another address')
    }
  }
}

/** With right checksums, as far as there are any to make right: what gets further. */
function mended(packet: Uint8Array): Uint8Array {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength)
  const is4 = packet[0]! >> 4 === 4
  const at = is4 ? (packet[0]! & 15) * 4 : 40
  if (packet.length < at + 8 || at < 20) return packet
  if (is4) {
    view.setUint16(2, packet.length)
    view.setUint16(10, 0)
    view.setUint16(10, sum(view, 0, at, 0))
  } else view.setUint16(4, packet.length - 40)
  const ip = new IpHeader()
  if (ip.parse(view, 0, packet.length) !== null || ip.isFragment || transportChecksumHolds(view, ip)) return packet
  const field = ip.payloadStart + ({ 6: 16, 17: 6, 1: 2, 58: 2 }[ip.protocol] ?? -1)
  if (field < ip.payloadStart || field + 2 > ip.end) return packet
  if (ip.protocol === Protocol.udp) view.setUint16(ip.payloadStart + 4, ip.end - ip.payloadStart)
  view.setUint16(field, 0)
  let first = 0
  if (ip.protocol !== Protocol.icmp) {
    for (let i = ip.sourceAt; i < ip.sourceAt + 2 * ip.addressBytes; i += 2) first += view.getUint16(i)
    first += ip.protocol + ip.end - ip.payloadStart
  }
  view.setUint16(field, sum(view, ip.payloadStart, ip.end, first) || 0xffff)
  return packet
}

function sum(view: DataView, start: number, end: number, first: number): number {
  let total = first
  for (let i = start; i + 1 < end; i += 2) total += view.getUint16(i)
  if ((end - start) % 2 === 1) total += view.getUint8(end - 1) << 8
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16)
  return ~total & 0xffff
}

function seedsOf(side: 'machine' | 'exit'): Uint8Array[] {
  return [0, 1].flatMap((family) => {
    const [me, server, lease] = [own[family]!, servers[family]!, leased[family]!]
    if (side === 'machine') {
      const fields = { from: me, to: server }
      return [
        tcpPacket({ ...fields, fromPort: 1000, toPort: 80 }),
        udpPacket({ ...fields, fromPort: 1000, toPort: 443, data: new Uint8Array(60) }),
        udpPacket({ ...fields, fromPort: 1000, toPort: 33_434, hopLimit: 5, data: new Uint8Array(30) }),
        udpPacket({ ...fields, fromPort: 1000, toPort: 53, data: new Uint8Array(30) }),
        echoPacket(fields),
        echoPacket({ ...fields, hopLimit: 1 }),
        otherPacket({ ...fields, protocol: 132, data: new Uint8Array(20) }),
        otherPacket({ ...fields, protocol: 44, data: new Uint8Array(40) }),
        errorPacket({ ...fields, kind: 'port-unreachable', quoted: udpPacket({ from: server, to: me, fromPort: 33_434, toPort: 1000 }) }),
      ]
    }
    const fields = { from: server, to: lease }
    return [
      echoPacket({ ...fields, kind: 'echo-reply' }),
      udpPacket({ ...fields, fromPort: 33_434, toPort: 1000 }),
      otherPacket({ ...fields, protocol: 132, data: new Uint8Array(20) }),
      errorPacket({
        ...fields,
        kind: 'time-exceeded',
        quoted: udpPacket({ from: lease, to: server, fromPort: 1000, toPort: 33_434, data: new Uint8Array(30) }),
      }),
    ]
  })
}

const target = new Target()

export const tunTargets: readonly FuzzTarget[] = [
  {
    name: 'packets of a TUN, and of the exit that its raw packets go to',
    decode: (bytes) => target.feed(bytes),
    seeds: () => [
      ...seedsOf('machine').map((packet) => Uint8Array.of(0, ...packet)),
      ...seedsOf('exit').map((packet) => Uint8Array.of(1, ...packet)),
    ],
  },
]
