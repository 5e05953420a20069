import { formatIp, parseIp } from '../base/index.ts'
import { vpnError } from './errors.ts'
import type { AllowedPeer } from './facts.ts'
import { vpnLimits } from './limits.ts'

/** Of the limit, the part that what is about to be dialled can always have. */
const LEASED_SHARE = 1 / 8

/** One place as the kernel knows it: several reasons for it are one entry. */
export interface AllowedEntry {
  readonly peer: AllowedPeer
  readonly family: 4 | 6
}

/** What is to be added to a list and removed from it to make it another. */
export interface AllowListChange {
  readonly added: readonly AllowedEntry[]
  readonly removed: readonly AllowedEntry[]
}

/**
 * Who may be reached outside the tunnel: those the node names as long as it names them, and those it is about to dial for a while.
 * Bounded; beyond the limit the places that were asked for longest ago give way. Pure: the time is given.
 */
export class AllowList {
  readonly #limit: number
  #named: ReadonlyMap<string, AllowedEntry> = new Map()
  #unnamed = 0
  readonly #leased = new Map<string, { readonly entry: AllowedEntry; readonly until: number }>()

  constructor(limit: number = vpnLimits.allowedPeers) {
    this.#limit = limit
  }

  /** How many of the places that the node named last had no room. */
  get overflow(): number {
    return this.#unnamed
  }

  /** Replaces what the node names, most important first. Addresses of this machine's loopback need no entry and are left out. @throws MalformedError */
  name(peers: readonly AllowedPeer[]): void {
    const all = new Map<string, AllowedEntry>()
    for (const peer of peers) {
      const known = entryOf(peer)
      if (known !== null && !all.has(known.key)) all.set(known.key, known.entry)
    }
    const room = this.#limit - Math.ceil(this.#limit * LEASED_SHARE)
    this.#unnamed = Math.max(0, all.size - room)
    this.#named = new Map([...all].slice(0, room))
  }

  /** Asks for places until then, and again. @throws MalformedError, ShallotError 'vpn-allow-list-full' for more than there can be at once */
  lease(peers: readonly AllowedPeer[], until: number): void {
    const asked = new Map<string, AllowedEntry>()
    for (const peer of peers) {
      const known = entryOf(peer)
      if (known !== null && !this.#named.has(known.key)) asked.set(known.key, known.entry)
    }
    const room = this.#limit - this.#named.size
    if (asked.size > room)
      throw vpnError('vpn-allow-list-full', `${asked.size} addresses to dial at once, and room for ${room} in the VPN's allow-list`, {
        retry: 'later',
      })
    for (const [key, entry] of asked) {
      // To the end: the order is that of the last asking.
      this.#leased.delete(key)
      this.#leased.set(key, { entry, until })
    }
  }

  /** Forgets what was asked for until before now. */
  expire(now: number): void {
    for (const [key, { until }] of this.#leased) if (until <= now) this.#leased.delete(key)
  }

  /** What is to be allowed now, by its key. */
  wanted(): ReadonlyMap<string, AllowedEntry> {
    const wanted = new Map(this.#named)
    const leased = [...this.#leased].filter(([key]) => !wanted.has(key))
    for (const [key, { entry }] of leased.slice(Math.max(0, leased.length - (this.#limit - wanted.size)))) wanted.set(key, entry)
    return wanted
  }
}

/** How to make one list the other. */
export function allowListChange(from: ReadonlyMap<string, AllowedEntry>, to: ReadonlyMap<string, AllowedEntry>): AllowListChange {
  return {
    added: [...to].flatMap(([key, entry]) => (from.has(key) ? [] : [entry])),
    removed: [...from].flatMap(([key, entry]) => (to.has(key) ? [] : [entry])),
  }
}

function entryOf(peer: AllowedPeer): { readonly key: string; readonly entry: AllowedEntry } | null {
  const address = parseIp(peer.ip)
  if (address.family === 4 ? address.bytes[0] === 127 : formatIp(address) === '::1') return null
  const ip = formatIp(address)
  return { key: `${peer.protocol} ${ip} ${peer.port ?? '*'}`, entry: { peer: { ...peer, ip }, family: address.family } }
}
