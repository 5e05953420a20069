import { equalBytes, type IpAddress, TokenBucket } from '../../base/index.ts'
import { type IcmpErrorKind, ipHeaderBytes, Protocol, writeIp } from '../../packet/index.ts'
import type { PacketUse } from '../packet-backend.ts'
import { netstackLimits } from './limits.ts'
import type { EchoReply, OwnPackets } from './own-packets.ts'
import type { EchoClient, EchoRefusal, EchoRequest, Pings } from './pings.ts'

export interface LeaseEchoesModules {
  readonly use: Pick<PacketUse, 'allows' | 'takeRate'>
  readonly pings: Pick<Pings, 'send' | 'forget'>
  readonly own: OwnPackets
  /** The client's leased address; null where the family is not served. */
  readonly client: (family: 4 | 6) => IpAddress | null
  readonly gateway: (family: 4 | 6) => IpAddress
  /** Whether an address is of the lease networks. */
  readonly isLease: (address: IpAddress) => boolean
  readonly mtu: number
  /** Sends a reply that is too large for one packet. */
  readonly sendLong: (reply: EchoReply) => void
  readonly drop: (reason: string) => void
  /** Whether another ICMP error may be said now. */
  readonly mayTell: () => boolean
  readonly touch: () => void
  /** Monotonic ms. */
  readonly now: () => number
}

const ICMP_ERROR_OF: Readonly<Partial<Record<EchoRefusal | 'policy' | 'rate', IcmpErrorKind>>> = {
  forbidden: 'prohibited',
  policy: 'prohibited',
  unreachable: 'net-unreachable',
}
const ECHO_REQUEST = { 4: 8, 6: 128 } as const
/** Of a request's data that an ICMP error quotes. */
const QUOTED_BYTES = 64
const HEADER_BYTES = 8
const HOP_LIMIT = 64

/** A lease's echo requests: under policy and rates, out by the exit's ping sockets, and what comes back. */
export class LeaseEchoes implements EchoClient {
  readonly #m: LeaseEchoesModules
  readonly #rate: TokenBucket

  constructor(modules: LeaseEchoesModules) {
    this.#m = modules
    this.#rate = new TokenBucket(netstackLimits.echoesPerSecond, netstackLimits.echoBurst, modules.now())
  }

  /** @param request its hop limit is what is left beyond this exit */
  send(request: EchoRequest): void {
    const { to, identifier, sequence, data } = request
    const { use, pings, isLease, now, drop } = this.#m
    if (!this.#rate.take(1, now())) drop('rate')
    else if (this.isGateway(to)) this.#give(to, identifier, sequence, data, HOP_LIMIT)
    else if (isLease(to) || !use.allows(to, null)) this.#refused(request, 'policy')
    else if (!use.takeRate(packetBytes(to, data))) drop('rate')
    else {
      const why = pings.send(this, request)
      if (why) this.#refused(request, why)
    }
  }

  isGateway(address: IpAddress): boolean {
    return equalBytes(address.bytes, this.#m.gateway(address.family).bytes)
  }

  close(): void {
    this.#m.pings.forget(this)
  }

  // --- what the exit's pings tell

  reply(from: IpAddress, identifier: number, sequence: number, data: Uint8Array, hopLimit: number): void {
    if (this.#m.use.takeRate(packetBytes(from, data))) this.#give(from, identifier, sequence, data, Math.max(1, hopLimit - 1))
    else this.#m.drop('rate')
  }

  failed(reporter: IpAddress, to: IpAddress, type: number, code: number, mtu: number, message: Uint8Array): void {
    const client = this.#m.client(to.family)
    if (client === null || !this.#m.mayTell()) return
    this.#m.own.relayedError(type, code, mtu, reporter, client, quoteOf(client, to, message))
    this.#m.touch()
  }

  refused(request: EchoRequest, why: EchoRefusal): void {
    this.#refused(request, why)
  }

  #refused({ to, identifier, sequence, data }: EchoRequest, why: EchoRefusal | 'policy'): void {
    this.#m.drop(why)
    const kind = ICMP_ERROR_OF[why]
    const client = this.#m.client(to.family)
    if (kind === undefined || client === null || !this.#m.mayTell()) return
    const message = new Uint8Array(HEADER_BYTES + Math.min(QUOTED_BYTES, data.length))
    message[0] = ECHO_REQUEST[to.family]
    new DataView(message.buffer).setUint32(4, ((identifier << 16) | sequence) >>> 0)
    message.set(data.subarray(0, QUOTED_BYTES), HEADER_BYTES)
    this.#m.own.error(kind, this.#m.gateway(to.family), client, quoteOf(client, to, message))
    this.#m.touch()
  }

  #give(from: IpAddress, identifier: number, sequence: number, data: Uint8Array, hopLimit: number): void {
    const to = this.#m.client(from.family)
    if (to === null) return
    const reply = { from, to, identifier, sequence, data, hopLimit }
    if (packetBytes(from, data) <= this.#m.mtu) this.#m.own.echoReply(reply)
    else this.#m.sendLong(reply)
    this.#m.touch()
  }
}

function packetBytes({ bytes }: IpAddress, data: Uint8Array): number {
  return ipHeaderBytes(bytes.length) + HEADER_BYTES + data.length
}

/** The client's echo request as it knows it: an IP header with its address, and the ICMP message. */
function quoteOf(client: IpAddress, to: IpAddress, message: Uint8Array): Uint8Array {
  const headerBytes = ipHeaderBytes(client.bytes.length)
  const quoted = new Uint8Array(headerBytes + message.length)
  const protocol = client.family === 4 ? Protocol.icmp : Protocol.icmp6
  writeIp(quoted, new DataView(quoted.buffer), 0, { source: client.bytes, destination: to.bytes, protocol, hopLimit: 1 }, message.length)
  quoted.set(message, headerBytes)
  return quoted
}
