import { type Random, TokenBucket } from '../../base/index.ts'
import { ICMP_HEADER_BYTES, type IcmpErrorKind, type IpHeader, ipHeaderBytes, Protocol, writeIcmp, writeIp } from '../../packet/index.ts'
import type { DeviceAddresses } from './device-addresses.ts'
import type { Junction } from './junction.ts'

/** ICMP errors to the machine: RFC 1812 §4.3.2.8 and RFC 4443 §2.4 f want a limit. A traceroute sends about 90 probes at once. */
export const refusalLimits = { perSecond: 200, burst: 400 } as const

/** What an ICMP error may be in all, so that it arrives anywhere: RFC 1812 §4.3.2.3, RFC 4443 §2.4 c. */
const ERROR_BYTES = { 4: 576, 6: 1280 } as const
const HOP_LIMIT = 64

/** Answers packets of the machine that go no further with ICMP, as a router does, in the name of the device's other end. */
export class Refusals {
  readonly #junction: Junction
  readonly #addresses: DeviceAddresses
  readonly #bucket: TokenBucket
  #identification: number
  /** Errors that were not sent, because there were too many. */
  suppressed = 0

  constructor(junction: Junction, addresses: DeviceAddresses, random: Random, now: number) {
    this.#junction = junction
    this.#addresses = addresses
    this.#bucket = new TokenBucket(refusalLimits.perSecond, refusalLimits.burst, now)
    this.#identification = random.int(0x10000)
  }

  /**
   * Answers the packet that `ip` was parsed from. Not those that must not be answered (RFC 1122 §3.2.2): ICMP errors and later fragments;
   * the caller has taken out those to many and from nobody.
   * @param mtu of 'packet-too-big'
   */
  answer(kind: IcmpErrorKind, ip: IpHeader, view: DataView, bytes: Uint8Array, now: number, mtu = 0): void {
    if (ip.fragmentOffset !== 0 || isIcmpError(ip, view)) return
    if (!this.#bucket.take(1, now)) {
      this.suppressed++
      return
    }
    const headers = ipHeaderBytes(ip.addressBytes) + ICMP_HEADER_BYTES
    const quoted = Math.min(ip.end - ip.start, ERROR_BYTES[ip.version] - headers)
    const batch = this.#junction.place(headers + quoted)
    if (batch === null) return
    const at = batch.reserve(headers + quoted)
    this.#identification = (this.#identification + 1) & 0xffff
    const source = ip.version === 4 ? this.#addresses.hop4 : this.#addresses.hop6
    const icmpAt = writeIp(
      batch.bytes,
      batch.view,
      at,
      {
        source: source.bytes,
        destination: bytes.subarray(ip.sourceAt, ip.sourceAt + ip.addressBytes),
        protocol: ip.version === 4 ? Protocol.icmp : Protocol.icmp6,
        hopLimit: HOP_LIMIT,
        identification: this.#identification,
        dontFragment: false,
      },
      ICMP_HEADER_BYTES + quoted,
    )
    batch.bytes.set(bytes.subarray(ip.start, ip.start + quoted), icmpAt + ICMP_HEADER_BYTES)
    writeIcmp(batch.view, at, icmpAt, kind, mtu, quoted)
    batch.commit(headers + quoted)
  }
}

function isIcmpError(ip: IpHeader, view: DataView): boolean {
  if (ip.protocol === Protocol.icmp6) return ip.end > ip.payloadStart && view.getUint8(ip.payloadStart) < 128
  if (ip.protocol !== Protocol.icmp || ip.end === ip.payloadStart) return false
  const type = view.getUint8(ip.payloadStart)
  return type === 3 || type === 4 || type === 5 || type === 11 || type === 12
}
