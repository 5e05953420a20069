import type { Random } from '../../base/index.ts'
import { type IpHeader, Protocol } from '../../packet/index.ts'
import type { Quote } from './rewrite.ts'

/** Flows remembered, in sets of `WAYS`: 128 KiB for a lease. Within a set the one that has sent nothing for longest gives way. */
const SETS = 2048
const WAYS = 4
/** RFC 5382 §5 for TCP; RFC 4787 §4.3 wants five minutes at best for UDP. */
const TCP_MS = 7_440_000
const OTHER_MS = 300_000

/**
 * What this machine has sent through a lease, so that only answers come back: nobody at the exit, and not the exit itself, opens anything towards
 * this machine. Keyed hashes of 64 bits stand for flows, so that nothing is made per packet and nobody can aim at another's.
 */
export class SentFlows {
  readonly #secretA: number
  readonly #secretB: number
  readonly #a = new Int32Array(SETS * WAYS)
  readonly #b = new Int32Array(SETS * WAYS)
  /** When it was last sent on. */
  readonly #at = new Float64Array(SETS * WAYS).fill(Number.NEGATIVE_INFINITY)
  #hashA = 0
  #hashB = 0

  constructor(random: Random) {
    this.#secretA = random.int(2 ** 32) | 0
    this.#secretB = random.int(2 ** 32) | 0
  }

  /** A packet is sent: what it asks may be answered from now on. `ip` was parsed from it. */
  note(ip: IpHeader, view: DataView, now: number): void {
    this.#key(view, ip.protocol, ip.destinationAt, ip.addressBytes, 0, -1)
    this.#put(now)
    const about = this.#about(ip.protocol, ip.fragmentOffset, view, ip.payloadStart, ip.end)
    if (about === null) return
    this.#key(view, ip.protocol, ip.destinationAt, ip.addressBytes, about[1], about[0])
    this.#put(now)
  }

  /** Whether a packet that came (no ICMP error) answers what was sent. */
  isAnswer(ip: IpHeader, view: DataView, now: number): boolean {
    const about = this.#about(ip.protocol, ip.fragmentOffset, view, ip.payloadStart, ip.end)
    if (about === null) this.#key(view, ip.protocol, ip.sourceAt, ip.addressBytes, 0, -1)
    else this.#key(view, ip.protocol, ip.sourceAt, ip.addressBytes, about[0], about[1])
    return this.#has(ip.protocol, now)
  }

  /** Whether a packet that an ICMP error quotes is one that was sent. */
  wasSent(quote: Quote, addressBytes: number, view: DataView, end: number, now: number): boolean {
    const about = this.#about(quote.protocol, quote.fragmentOffset, view, quote.payloadStart, end)
    if (about === null) this.#key(view, quote.protocol, quote.destinationAt, addressBytes, 0, -1)
    else this.#key(view, quote.protocol, quote.destinationAt, addressBytes, about[1], about[0])
    return this.#has(quote.protocol, now)
  }

  /** Whether a packet that came in, and that an ICMP error of this machine quotes, answered what was sent. */
  wasAnswer(quote: Quote, addressBytes: number, view: DataView, end: number, now: number): boolean {
    const about = this.#about(quote.protocol, quote.fragmentOffset, view, quote.payloadStart, end)
    if (about === null) this.#key(view, quote.protocol, quote.sourceAt, addressBytes, 0, -1)
    else this.#key(view, quote.protocol, quote.sourceAt, addressBytes, about[0], about[1])
    return this.#has(quote.protocol, now)
  }

  readonly #pair: [number, number] = [0, 0]

  /** What tells flows between two addresses apart: source and destination port, or an echo's identifier for both; null: nothing. */
  #about(protocol: number, fragmentOffset: number, view: DataView, start: number, end: number): readonly [number, number] | null {
    const pair = this.#pair
    if (fragmentOffset !== 0 || end - start < 8) return null
    if (protocol === Protocol.tcp || protocol === Protocol.udp) {
      pair[0] = view.getUint16(start)
      pair[1] = view.getUint16(start + 2)
    } else if (protocol === Protocol.icmp || protocol === Protocol.icmp6) {
      pair[0] = view.getUint16(start + 4)
      pair[1] = pair[0]
    } else return null
    return pair
  }

  #key(view: DataView, protocol: number, addressAt: number, addressBytes: number, remotePort: number, localPort: number): void {
    let a = mix(this.#secretA, protocol)
    let b = mix(this.#secretB, protocol)
    for (let i = 0; i < addressBytes; i += 4) {
      const word = view.getInt32(addressAt + i)
      a = mix(a, word)
      b = mix(b, word ^ a)
    }
    a = mix(a, (remotePort << 16) ^ localPort)
    b = mix(b, ((remotePort << 16) ^ localPort) + 0x5851_f42d)
    this.#hashA = a
    this.#hashB = b
  }

  #has(protocol: number, now: number): boolean {
    const first = (this.#hashA & (SETS - 1)) * WAYS
    for (let i = first; i < first + WAYS; i++) {
      if (this.#a[i] === this.#hashA && this.#b[i] === this.#hashB)
        return now - this.#at[i]! < (protocol === Protocol.tcp ? TCP_MS : OTHER_MS)
    }
    return false
  }

  #put(now: number): void {
    const first = (this.#hashA & (SETS - 1)) * WAYS
    let place = first
    for (let i = first; i < first + WAYS; i++) {
      if (this.#a[i] === this.#hashA && this.#b[i] === this.#hashB) {
        place = i
        break
      }
      if (this.#at[i]! < this.#at[place]!) place = i
    }
    this.#a[place] = this.#hashA
    this.#b[place] = this.#hashB
    this.#at[place] = now
  }
}

function mix(hash: number, word: number): number {
  let mixed = Math.imul(hash ^ word, 0x9e37_79b1)
  mixed ^= mixed >>> 15
  mixed = Math.imul(mixed, 0x85eb_ca6b)
  return mixed ^ (mixed >>> 13)
}
