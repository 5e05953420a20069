import { type IpAddress, parseIp, SeededRandom } from '../../../src/base/index.ts'
import { ReadBuffers } from '../../../src/drive/index.ts'
import type { PacketUse } from '../../../src/egress/index.ts'
import { type LeaseTally, NetstackLease } from '../../../src/egress/packets/netstack-lease.ts'
import { Pings } from '../../../src/egress/packets/pings.ts'
import { batchOfPackets, IpHeader, PacketBatch, Protocol, transportChecksumHolds } from '../../../src/packet/index.ts'
import { ExitRefusal } from '../../../src/relaying/index.ts'
import { fragmentsOf } from '../../support/ip-fragments.ts'
import { echoPacket, rawPacket, udpPacket } from '../../support/packet-client.ts'
import { testHash } from '../../support/virtual-net.ts'
import type { FuzzTarget } from '../fuzzer.ts'

const own4 = parseIp('100.89.0.2')
const own6 = parseIp('fd73::2')
const gateways = { 4: parseIp('100.89.0.1'), 6: parseIp('fd73::1') }
const server = '11.0.0.1'
const server6 = '2a00::1'
const MOST_PENDING_TASKS = 1000

/** A lease that has lived, in a turn of its own for each input; no socket behind it. */
class Target {
  #lease: NetstackLease | null = null
  #count = 0
  #now = 0
  readonly #tasks: (() => void)[] = []
  readonly #ip = new IpHeader()
  readonly #buffers = new ReadBuffers()
  #sent = 0

  feed(bytes: Uint8Array): void {
    if (this.#lease === null || this.#count++ % 2000 === 0) this.#lease = this.#make()
    this.#now += 7
    const packets = bytes.length > 40 ? [bytes, mended(bytes)] : [bytes]
    this.#lease.send(batchOfPackets(packets))
    while (this.#tasks.length > 0) this.#tasks.shift()!()
    if (this.#lease.memory > 64 << 20 || this.#tasks.length > MOST_PENDING_TASKS) throw new Error('beyond its limits')
  }

  #make(): NetstackLease {
    this.#lease?.close()
    const tally: LeaseTally = { packetsIn: 0, packetsOut: 0, bytesIn: 0, bytesOut: 0, retransmissions: 0, dropped: {} }
    const now = () => this.#now
    const soon = (task: () => void) => void this.#tasks.push(task)
    const use: PacketUse = {
      allows: (address: IpAddress) => address.bytes[0] !== 10,
      takeRate: () => true,
      connect: () => Promise.reject(new ExitRefusal('refused', 'nobody')),
      openDatagrams: (receive) => ({
        send: (to, data) => {
          this.#sent++
          receive({ host: to.host, port: to.port }, data.slice(0, this.#sent % 3000))
        },
        close: () => {},
      }),
    }
    const pings = new Pings({
      load: () => Promise.reject(new Error('none')),
      outboundIpv4: '',
      outboundIpv6: '',
      firstNumber: 0,
      now,
      logger: { debug() {}, info() {}, warn() {}, error() {}, child: () => undefined as never } as never,
    })
    const lease = new NetstackLease({
      address: { address4: own4, address6: own6 },
      gateway: (family) => gateways[family],
      isLease: ({ bytes }) => bytes[0] === 100 || bytes[0] === 0xfd,
      mtu: 1420,
      use,
      pings,
      buffers: this.#buffers,
      batch: new PacketBatch(64, 64 * 1423),
      udpIdleTimeoutMs: 1000,
      random: new SeededRandom(this.#count),
      hash: testHash('fuzz'),
      tally,
      now,
      soon,
      memoryChanged: () => {},
      closed: () => {},
    })
    lease.attach({ packets: (batch) => this.#check(batch), drained: () => {}, ended: () => {} })
    return lease
  }

  /** Whatever is said to the client is well formed, for it, and no larger than the link. */
  #check(batch: PacketBatch): void {
    for (let i = 0; i < batch.count; i++) {
      const [start, end] = [batch.start(i), batch.end(i)]
      if (end - start > 1420 || this.#ip.parse(batch.view, start, end) !== null) throw new Error('it sent a malformed packet')
      const own = this.#ip.version === 4 ? own4 : own6
      for (let at = 0; at < own.bytes.length; at++)
        if (batch.bytes[this.#ip.destinationAt + at] !== own.bytes[at]) throw new Error('it sent a packet for somebody else')
      const hasChecksum = !this.#ip.isFragment && this.#ip.protocol !== Protocol.icmp
      if (hasChecksum && !transportChecksumHolds(batch.view, this.#ip)) throw new Error('it sent a wrong checksum')
    }
  }
}

/** The same packet as the client's own with right checksums: what gets further. */
function mended(bytes: Uint8Array): Uint8Array {
  const packet = bytes.slice(0, 1420)
  const view = new DataView(packet.buffer)
  const sum = (start: number, end: number, first: number): number => {
    let total = first
    for (let i = start; i + 1 < end; i += 2) total += view.getUint16(i)
    if ((end - start) % 2 === 1) total += view.getUint8(end - 1) << 8
    while (total > 0xffff) total = (total & 0xffff) + (total >>> 16)
    return ~total & 0xffff
  }
  const is4 = packet[0]! >> 4 !== 6
  packet.set(is4 ? own4.bytes : own6.bytes, is4 ? 12 : 8)
  const payloadAt = is4 ? 20 : 40
  if (is4) {
    packet[0] = 0x45
    view.setUint16(2, packet.length)
    view.setUint16(10, 0)
    view.setUint16(10, sum(0, 20, 0))
  } else {
    if (packet.length < 48) return packet
    view.setUint16(4, packet.length - 40)
  }
  const protocol = is4 ? packet[9]! : packet[6]!
  const fieldAt = payloadAt + ({ 6: 16, 17: 6, 1: 2, 58: 2 }[protocol] ?? -1)
  if (fieldAt < payloadAt || fieldAt + 2 > packet.length) return packet
  if (protocol === 17) view.setUint16(payloadAt + 4, packet.length - payloadAt)
  view.setUint16(fieldAt, 0)
  let first = 0
  if (protocol !== 1) {
    for (let i = is4 ? 12 : 8; i < payloadAt; i += 2) first += view.getUint16(i)
    first += protocol + packet.length - payloadAt
  }
  view.setUint16(fieldAt, sum(payloadAt, packet.length, first) || 0xffff)
  return packet
}

function packets(): Uint8Array[] {
  const data = new Uint8Array(60).fill(7)
  const all: Uint8Array[] = []
  for (const [from, to, gateway] of [
    [own4, server, '100.89.0.1'],
    [own6, server6, 'fd73::1'],
  ] as const) {
    const syn = rawPacket({ from, to }, Protocol.tcp, 20)
    syn.view.setUint16(syn.at, 1000)
    syn.view.setUint16(syn.at + 2, 80)
    syn.packet[syn.at + 12] = 0x50
    syn.packet[syn.at + 13] = 2
    const error = rawPacket({ from, to }, from.family === 4 ? Protocol.icmp : Protocol.icmp6, 56 + 48)
    error.packet[error.at] = from.family === 4 ? 3 : 1
    error.packet.set(
      udpPacket({ from: parseIp(to), to: from.family === 4 ? '100.89.0.2' : 'fd73::2' }, 443, 1000, data).subarray(0, 96),
      error.at + 8,
    )
    all.push(
      mended(syn.packet),
      mended(error.packet),
      echoPacket({ from, to }, 1, 1, data),
      echoPacket({ from, to: gateway, hopLimit: 1 }, 1, 1, data),
      udpPacket({ from, to }, 1000, 443, data),
      udpPacket({ from, to, hopLimit: 1 }, 1000, 443, data),
      udpPacket({ from, to: from.family === 4 ? '10.0.0.1' : 'fd73::9' }, 1000, 443, data),
      rawPacket({ from, to }, 132, 40).packet,
      ...fragmentsOf(udpPacket({ from, to }, 1000, 443, new Uint8Array(3000)), 1420),
      ...fragmentsOf(echoPacket({ from, to }, 1, 1, new Uint8Array(3000)), 1420),
    )
  }
  return all
}

const target = new Target()

export const egressTargets: readonly FuzzTarget[] = [
  { name: "a packet lease's client", decode: (bytes) => target.feed(bytes), seeds: packets },
]
