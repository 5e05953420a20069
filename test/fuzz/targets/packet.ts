import { parseIp, type Random, SeededRandom } from '../../../src/base/index.ts'
import type { Stack, TcpConnection } from '../../../src/netstack/index.ts'
import {
  batchOfPackets,
  IcmpHeader,
  IpHeader,
  PacketBatch,
  Protocol,
  TcpFlag,
  TcpHeader,
  UdpHeader,
  writeIp,
} from '../../../src/packet/index.ts'
import { endpoint, transfer, VirtualNet } from '../../support/virtual-net.ts'
import type { FuzzTarget } from '../fuzzer.ts'

const ip = new IpHeader()
const tcp = new TcpHeader()
const udp = new UdpHeader()
const icmp = new IcmpHeader()
const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

/** Offsets that a header gives lie within what it was read from. */
function within(from: number, to: number, end: number): void {
  if (from < 0 || from > to || to > end) throw new Error(`bounds ${from} to ${to} of ${end}`)
}

function decodeAll(bytes: Uint8Array): unknown {
  const view = viewOf(bytes)
  if (ip.parse(view, 0, bytes.length) !== null) return 'refused'
  within(ip.payloadStart, ip.end, bytes.length)
  within(ip.sourceAt, ip.destinationAt + ip.addressBytes, bytes.length)
  if (tcp.parse(view, ip.payloadStart, ip.end) === null) within(tcp.payloadStart, tcp.end, bytes.length)
  if (udp.parse(view, ip.payloadStart, ip.end, ip.version) === null) within(udp.payloadStart, udp.end, bytes.length)
  if (icmp.parse(view, ip.payloadStart, ip.end, ip.version) === null) within(icmp.bodyStart, icmp.end, bytes.length)
  return null
}

/** Packets of every kind that two stacks say to each other. */
function conversation(): Uint8Array[] {
  const packets: Uint8Array[] = []
  for (const v6 of [false, true]) {
    const net = new VirtualNet(3, { delayMs: 1, loss: 0.05 })
    const seen = new Set<string>()
    net.onPacket = (_side, packet) => {
      // One of each length of header and flags is enough.
      const kind = `${packet[0]} ${packet.length < 100 ? packet.length : 'data'} ${packet[v6 ? 53 : 33]}`
      if (!seen.has(kind)) packets.push(packet.slice())
      seen.add(kind)
    }
    const to = endpoint(v6 ? 'fd00::2' : '10.0.0.2', 53)
    const from = endpoint(v6 ? 'fd00::1' : '10.0.0.1', 99)
    net.a.sendDatagram({ from, to, data: new Uint8Array(20) }, net.now)
    net.a.sendDatagram({ from, to, data: new Uint8Array(3000) }, net.now)
    net.a.sendEcho('echo-request', { from: from.address, to: to.address, identifier: 1, sequence: 1, data: new Uint8Array(8) })
    net.onEvent = (_side, event) => void (event.type === 'datagram' && net.b.refuseDatagram(event, 'port-unreachable', net.now))
    net.settle()
    transfer(net, 20_000, 80, v6)
  }
  return packets
}

/** A stack that has lived: listeners, connections in several states. What is fed to it is made valid as far as checksums go. */
class Target {
  #net: VirtualNet | null = null
  #count = 0
  #dialed: readonly TcpConnection[] = []
  readonly #out = new PacketBatch(64, 64 * 1504)
  readonly #random = new SeededRandom(77)
  readonly #mended: boolean
  /** What the stack said last in each of its two connections: where a next segment would fit. By IP version. */
  readonly #numbers = new Map<number, { next: number; acknowledged: number }>()

  constructor(mended: boolean) {
    this.#mended = mended
  }

  feed(bytes: Uint8Array): void {
    if (this.#net === null || this.#count++ % 2000 === 0) this.#net = this.#begin()
    const { a } = this.#net
    if (this.#mended) mend(bytes, this.#numbers, this.#random)
    a.input(batchOfPackets([bytes]), this.#net.now)
    this.#drain(a)
    this.#net.now += this.#random.int(16) === 0 ? this.#random.int(1000) : this.#random.int(5)
    a.poll(this.#net.now)
    this.#drain(a)
    const { bufferBytes, connections, reassemblyBytes } = a.facts
    if (bufferBytes > 1 << 20 || connections > 100 || reassemblyBytes > 1 << 20) throw new Error('beyond its limits')
    for (const connection of this.#dialed) checkSense(connection)
  }

  #begin(): VirtualNet {
    const limits = { bufferBytes: 1 << 20, connections: 100, halfOpen: 20, reassemblyBytes: 1 << 20 }
    const net = new VirtualNet(
      3,
      { delayMs: 1 },
      { a: { limits, promiscuous: true }, b: { tcp: { timestamps: this.#count % 4000 === 1 } } },
    )
    net.a.listen({ address: null, port: null })
    net.onEvent = (side, event) => {
      if (event.type === 'incoming') event.connection.accept()
      if (event.type === 'connected' && side === 'a') event.connection.write(new Uint8Array(50_000))
    }
    this.#dialed = [
      net.a.dial(endpoint('10.0.0.2', 80), net.now, { address: parseIp('10.0.0.1'), port: 4000 }),
      net.a.dial(endpoint('fd00::2', 80), net.now, { address: parseIp('fd00::1'), port: 4000 }),
    ]
    net.b.listen({ address: null, port: 80 })
    net.run(() => false, 5)
    return net
  }

  #drain(stack: Stack): void {
    for (let event = stack.nextEvent(); event !== null; event = stack.nextEvent()) {
      if (event.type === 'incoming') event.connection.accept()
      else if (event.type === 'readable') event.connection.consume(this.#random.int(event.connection.readable + 1))
      else if (event.type === 'connected') event.connection.write(new Uint8Array(5000))
      else if (event.type === 'remote-end') event.connection.end()
    }
    this.#out.clear()
    stack.output(this.#out, this.#net!.now)
    for (let i = 0; i < this.#out.count; i++) {
      if (ip.parse(this.#out.view, this.#out.start(i), this.#out.end(i)) !== null) throw new Error('it sent a malformed packet')
      if (ip.protocol !== Protocol.tcp || tcp.parse(this.#out.view, ip.payloadStart, ip.end) !== null || tcp.sourcePort !== 4000) continue
      const length = tcp.payloadBytes + (tcp.flags & 1)
      this.#numbers.set(ip.version, { next: (tcp.sequence + length) | 0, acknowledged: tcp.acknowledgment })
    }
  }
}

/** What a connection says of itself fits together, whatever it was told. */
function checkSense(connection: TcpConnection): void {
  const { state, inFlight, unacknowledged, congestionWindow, mss, receiveWindow, memory, rtoMs } = connection.info
  if (state === 'closed') return
  // The FIN is no byte of the buffer.
  if (inFlight < 0 || inFlight > unacknowledged + 1) throw new Error(`${inFlight} bytes in flight of ${unacknowledged}`)
  if (!(congestionWindow >= mss && mss >= 100 && mss <= 1380)) throw new Error(`window ${congestionWindow}, segments of ${mss}`)
  if (!(receiveWindow >= 0 && receiveWindow <= 1 << 20 && connection.readable >= 0 && connection.readable <= memory))
    throw new Error(`window ${receiveWindow}, ${connection.readable} to read in ${memory}`)
  if (!(rtoMs >= 200 && rtoMs <= 60_000)) throw new Error(`time-out of ${rtoMs}`)
}

/** Makes length and checksums right, and ports and numbers mostly such that connections are met. */
function mend(bytes: Uint8Array, numbers: ReadonlyMap<number, { next: number; acknowledged: number }>, random: Random): void {
  const view = viewOf(bytes)
  if (bytes.length < 48) return
  const is4 = bytes[0]! >> 4 === 4
  const source = parseIp(is4 ? '10.0.0.2' : 'fd00::2').bytes
  const destination = parseIp(is4 ? '10.0.0.1' : 'fd00::1').bytes
  const protocol = bytes[is4 ? 9 : 6]!
  const fragment = is4 ? view.getUint16(6) : 0
  const at = is4 ? 20 : 40
  if (bytes.length < at + 20) return
  writeIp(bytes, view, 0, { source, destination, protocol, hopLimit: 9, identification: 7, dontFragment: false }, bytes.length - at)
  if (is4 && fragment !== 0) {
    view.setUint16(6, fragment)
    view.setUint16(10, 0)
    view.setUint16(10, fold(view, 0, 20, 0))
  }
  if (protocol === Protocol.tcp) {
    if (bytes[at]! % 4 !== 0) {
      view.setUint16(at, 80)
      view.setUint16(at + 2, 4000)
      const known = numbers.get(is4 ? 4 : 6)
      const near = () => [0, 0, 0, 0, -1, 1, -1000, 1000, random.int(100_000) - 50_000][random.int(9)]!
      if (known !== undefined && random.int(8) > 0) {
        view.setInt32(at + 4, (known.acknowledged + near()) | 0)
        view.setInt32(at + 8, (known.next + near()) | 0)
        if (random.int(4) > 0) bytes[at + 13] = TcpFlag.ack | (random.int(30) === 0 ? TcpFlag.fin : 0)
      }
    }
    view.setUint16(at + 16, 0)
    view.setUint16(at + 16, fold(view, at, bytes.length, pseudo(view, is4, protocol, bytes.length - at)))
  } else if (protocol === Protocol.icmp || protocol === Protocol.icmp6) {
    view.setUint16(at + 2, 0)
    view.setUint16(at + 2, fold(view, at, bytes.length, is4 ? 0 : pseudo(view, is4, protocol, bytes.length - at)))
  } else if (protocol === Protocol.udp) {
    view.setUint16(at + 4, bytes.length - at)
    view.setUint16(at + 6, 0)
    view.setUint16(at + 6, fold(view, at, bytes.length, pseudo(view, is4, protocol, bytes.length - at)))
  }
}

function pseudo(view: DataView, is4: boolean, protocol: number, length: number): number {
  let sum = protocol + length
  for (let at = is4 ? 12 : 8; at < (is4 ? 20 : 40); at += 2) sum += view.getUint16(at)
  return sum
}

function fold(view: DataView, from: number, to: number, seed: number): number {
  let sum = seed
  for (let at = from; at + 1 < to; at += 2) sum += view.getUint16(at)
  if ((to - from) % 2 === 1) sum += view.getUint8(to - 1) << 8
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

const raw = new Target(false)
const mended = new Target(true)
let seeds: Uint8Array[] | null = null
const allSeeds = (): Uint8Array[] => {
  seeds ??= conversation()
  return seeds
}

/** The buffers of one stack and what its budget keeps for the next come and go with each that is begun: that much says nothing. */
const MOST_GROWTH_MEGABYTES = 16

/**
 * In `npm test` the others' 10,000 inputs are eleven times as many here: 10^5 packets. `npm run fuzz` feeds 10^7, and neither may hold more and more
 * memory.
 */
export const packetTargets: readonly FuzzTarget[] = [
  { name: 'packet/headers', decode: decodeAll, seeds: allSeeds, runs: 2_000_000 },
  {
    name: 'packet/stack',
    decode: (bytes) => raw.feed(bytes),
    seeds: allSeeds,
    share: 3,
    runs: 2_500_000,
    mostGrowthMegabytes: MOST_GROWTH_MEGABYTES,
  },
  {
    name: 'packet/stack-valid-checksums',
    decode: (bytes) => mended.feed(bytes),
    seeds: allSeeds,
    share: 7,
    runs: 5_500_000,
    mostGrowthMegabytes: MOST_GROWTH_MEGABYTES,
  },
]
