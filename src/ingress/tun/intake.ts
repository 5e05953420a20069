import { type IcmpErrorKind, IcmpHeader, IpHeader, PacketBatch, Protocol } from '../../packet/index.ts'
import type { TunConfig } from './config.ts'
import { type DeviceAddresses, isHonestSource, isNowhere, isToMany } from './device-addresses.ts'
import type { PacketLeases } from './packet-leases.ts'
import type { Refusals } from './refusals.ts'
import { readQuote } from './rewrite.ts'

/** Packets with so few hops left are probes (traceroute, mtr): programs that want to arrive send 64 or more. */
const PROBE_HOPS = 32

/** Why packets of the machine went no further. */
export interface IntakeCounts {
  /** No IP packet, or headers that contradict each other. */
  malformed: number
  /** From an address that nobody can have. */
  martian: number
  /** To many or to the link only: multicast, broadcast, link-local. */
  local: number
  /** To private networks, or to where no host is: answered. */
  internal: number
  /** Out of hops: answered. */
  expired: number
  /** ICMP that is neither an echo request nor an error, and protocols that are switched off. */
  unserved: number
}

export interface IntakeModules {
  readonly config: Pick<TunConfig, 'tcp' | 'udp' | 'icmp' | 'otherProtocols' | 'interceptDns' | 'rejectInternalAddresses'>
  readonly addresses: DeviceAddresses
  readonly leases: PacketLeases
  readonly refusals: Refusals
  readonly now: () => number
  readonly mtu: number
}

type Way = 'stack' | 'lease' | 'drop'

/** Sorts what the machine sends: to the stack, which ends TCP and UDP; to a lease at an exit, as raw packets; or no further, with an answer that says so. */
export class Intake {
  readonly counts: IntakeCounts = { malformed: 0, martian: 0, local: 0, internal: 0, expired: 0, unserved: 0 }
  readonly #m: IntakeModules
  readonly #ip = new IpHeader()
  readonly #icmp = new IcmpHeader()
  /** What is for the stack, where not all of a batch is. */
  #rest: PacketBatch | null = null

  constructor(modules: IntakeModules) {
    this.#m = modules
  }

  /** @returns the packets for the stack: the batch itself, or another that is lent until the next call */
  readonly sort = (batch: PacketBatch): PacketBatch => {
    const { bytes, view } = batch
    let rest: PacketBatch | null = null
    for (let i = 0; i < batch.count; i++) {
      const way = this.#way(bytes, view, batch.start(i), batch.end(i))
      if (way === 'stack') rest?.add(batch.packet(i))
      else {
        rest ??= this.#begin(batch, i)
        if (way === 'lease') this.#m.leases.take(this.#ip, view, bytes)
      }
    }
    if (rest === null) return batch
    this.#m.leases.flush()
    return rest
  }

  /** A batch with the packets before `index`, which all were for the stack. */
  #begin(batch: PacketBatch, index: number): PacketBatch {
    const room = batch.capacity * (this.#m.mtu + 3)
    if (this.#rest === null || this.#rest.capacity < batch.capacity) this.#rest = new PacketBatch(batch.capacity, room)
    this.#rest.clear()
    for (let i = 0; i < index; i++) this.#rest.add(batch.packet(i))
    return this.#rest
  }

  #way(bytes: Uint8Array, view: DataView, start: number, end: number): Way {
    const ip = this.#ip
    const { counts } = this
    const { config, addresses } = this.#m
    if (ip.parse(view, start, end) !== null) {
      counts.malformed++
      return 'drop'
    }
    const { destinationAt, addressBytes } = ip
    if (!isHonestSource(bytes, ip.sourceAt, addressBytes) || addresses.isHop(bytes, ip.sourceAt, addressBytes)) {
      counts.martian++
      return 'drop'
    }
    if (isToMany(bytes, destinationAt, addressBytes) || (addressBytes === 4 && addresses.isBroadcast(bytes, destinationAt))) {
      counts.local++
      return 'drop'
    }
    // The device's other end is a host of its own: it is reached with one hop, answers pings, and refuses the rest.
    if (addresses.isHop(bytes, destinationAt, addressBytes)) return 'stack'
    if (ip.hopLimit <= 1) {
      counts.expired++
      return this.#answer('time-exceeded', bytes, view)
    }
    const isDns = config.interceptDns && ip.fragmentOffset === 0 && this.#isToPort53(view)
    if (isDns) return 'stack'
    if (
      isNowhere(bytes, destinationAt, addressBytes) ||
      addresses.isOwn(bytes, destinationAt, addressBytes) ||
      (config.rejectInternalAddresses && addresses.isInternal(bytes, destinationAt, addressBytes))
    ) {
      counts.internal++
      return this.#answer('net-unreachable', bytes, view)
    }
    switch (ip.protocol) {
      case Protocol.tcp:
        return config.tcp === 'packets' || ip.hopLimit <= PROBE_HOPS ? 'lease' : 'stack'
      case Protocol.udp:
        return config.udp === 'packets' || ip.hopLimit <= PROBE_HOPS ? 'lease' : 'stack'
      case Protocol.icmp:
      case Protocol.icmp6:
        return this.#icmpWay(bytes, view)
      default:
        if (config.otherProtocols === 'packets') return 'lease'
        counts.unserved++
        return this.#answer('prohibited', bytes, view)
    }
  }

  /** Errors go to whom what they quote was from; echo requests to a lease. */
  #icmpWay(bytes: Uint8Array, view: DataView): Way {
    const ip = this.#ip
    const { config, leases } = this.#m
    const isWrongFamily = (ip.protocol === Protocol.icmp) !== (ip.version === 4)
    if (!isWrongFamily && ip.fragmentOffset === 0) {
      const icmp = this.#icmp
      const problem = icmp.parse(view, ip.payloadStart, ip.end, ip.version)
      if (problem === 'short' || (problem === 'checksum' && !ip.isFragment)) {
        this.counts.malformed++
        return 'drop'
      }
      if (icmp.isError && problem === null) {
        const quote = readQuote(view, icmp.bodyStart, icmp.end, ip.version)
        if (quote === null) return 'drop'
        const isStream =
          (quote.protocol === Protocol.tcp && config.tcp === 'streams') || (quote.protocol === Protocol.udp && config.udp === 'datagrams')
        return isStream ? 'stack' : leases.isOpenFor(ip, bytes) ? 'lease' : 'drop'
      }
      const type = view.getUint8(ip.payloadStart)
      if (type !== (ip.version === 4 ? 8 : 128)) {
        this.counts.unserved++
        return 'drop'
      }
    }
    if (config.icmp === 'packets' && !isWrongFamily) return 'lease'
    this.counts.unserved++
    return this.#answer('prohibited', bytes, view)
  }

  #isToPort53(view: DataView): boolean {
    const { protocol, payloadStart, end } = this.#ip
    return (protocol === Protocol.udp || protocol === Protocol.tcp) && end - payloadStart >= 4 && view.getUint16(payloadStart + 2) === 53
  }

  #answer(kind: IcmpErrorKind, bytes: Uint8Array, view: DataView): Way {
    this.#m.refusals.answer(kind, this.#ip, view, bytes, this.#m.now())
    return 'drop'
  }
}
