import { type IpAddress, type NodeId, networkKey } from '../../base/index.ts'
import type { RelayServerConfig } from './config.ts'

/** Why a reservation was refused. */
export type ReserveRefusal =
  | 'full' // all places are taken
  | 'strangers-full' // all places for nodes outside of the view are taken
  | 'address-full' // its address has as many as it may
  | 'network-full' // its /24 or /48 has
  | 'not-in-view' // it has had time to be announced, and was not

/** A place at the relay. Wall-clock ms. */
export interface Reservation {
  readonly peer: NodeId
  readonly since: number
  readonly expiresAt: number
  readonly isStranger: boolean
  readonly addressKey: string
  readonly networkKey: string
}

export type ReserveVerdict =
  | { readonly type: 'granted' | 'renewed'; readonly reservation: Reservation }
  | { readonly type: 'refused'; readonly reason: ReserveRefusal }

/** Strangers whose time is remembered, so that it does not begin anew with each request; the oldest are forgotten. */
const REMEMBERED_MAX = 4096

/**
 * Who has a place at the relay. Pure: times are arguments. A peer has one place at most, whatever it asks; asking again renews it.
 * Nodes outside of the view ("strangers") have a part of the places, for a limited time each: newcomers need a relay before
 * they can be announced, and whoever just takes places should not keep those of the mesh out.
 */
export class ReservationTable {
  readonly #config: RelayServerConfig
  readonly #places = new Map<NodeId, Reservation>()
  readonly #perAddress = new Map<string, number>()
  readonly #perNetwork = new Map<string, number>()
  /** Strangers, with the time since which they are known. */
  readonly #seen = new Map<NodeId, number>()
  #strangers = 0

  constructor(config: RelayServerConfig) {
    this.#config = config
  }

  get size(): number {
    return this.#places.size
  }

  get strangers(): number {
    return this.#strangers
  }

  /** @param address where the peer is seen, or null when that is no IP address; @param isKnown whether it is a relay of the view */
  reserve(peer: NodeId, address: IpAddress | null, isKnown: boolean, now: number): ReserveVerdict {
    const { maxReservations, maxStrangerReservations, reservationsPerAddress, reservationsPerNetwork, reservationMs } = this.#config
    const before = this.#places.get(peer)
    const keys = addressKeys(address)
    const until = isKnown ? now + reservationMs : Math.min(now + reservationMs, this.#strangerUntil(peer, now))
    if (isKnown) this.#seen.delete(peer)
    const refuse = (reason: ReserveRefusal): ReserveVerdict => ({ type: 'refused', reason })
    if (until <= now) return refuse('not-in-view')
    // The peer's own place is free for its renewal.
    const others = this.#places.size - (before ? 1 : 0)
    const strangers = this.#strangers - (before?.isStranger ? 1 : 0)
    const atAddress = (this.#perAddress.get(keys.address) ?? 0) - (before?.addressKey === keys.address ? 1 : 0)
    const inNetwork = (this.#perNetwork.get(keys.network) ?? 0) - (before?.networkKey === keys.network ? 1 : 0)
    if (others >= maxReservations) return refuse('full')
    if (!isKnown && strangers >= maxStrangerReservations) return refuse('strangers-full')
    if (atAddress >= reservationsPerAddress) return refuse('address-full')
    if (inNetwork >= reservationsPerNetwork) return refuse('network-full')
    if (before) this.release(peer)
    const reservation: Reservation = {
      peer,
      since: before?.since ?? now,
      expiresAt: until,
      isStranger: !isKnown,
      addressKey: keys.address,
      networkKey: keys.network,
    }
    this.#places.set(peer, reservation)
    if (!isKnown) this.#strangers++
    count(this.#perAddress, keys.address, 1)
    count(this.#perNetwork, keys.network, 1)
    return { type: before ? 'renewed' : 'granted', reservation }
  }

  /** The peer's place, if it has one. */
  get(peer: NodeId, now: number): Reservation | null {
    const reservation = this.#places.get(peer)
    return reservation && reservation.expiresAt > now ? reservation : null
  }

  /** Ends a reservation. Returns whether there was one. */
  release(peer: NodeId): boolean {
    const reservation = this.#places.get(peer)
    if (!reservation) return false
    this.#places.delete(peer)
    if (reservation.isStranger) this.#strangers--
    count(this.#perAddress, reservation.addressKey, -1)
    count(this.#perNetwork, reservation.networkKey, -1)
    return true
  }

  /** Ends what is over. Returns whose reservations that were. */
  expire(now: number): NodeId[] {
    const over = [...this.#places.values()].filter(({ expiresAt }) => expiresAt <= now).map(({ peer }) => peer)
    for (const peer of over) this.release(peer)
    return over
  }

  peers(): NodeId[] {
    return [...this.#places.keys()]
  }

  /** Until when a node outside of the view may hold a place. */
  #strangerUntil(peer: NodeId, now: number): number {
    let since = this.#seen.get(peer)
    if (since === undefined) {
      since = now
      this.#seen.set(peer, now)
      const oldest = this.#seen.size > REMEMBERED_MAX ? this.#seen.keys().next().value : undefined
      if (oldest !== undefined) this.#seen.delete(oldest)
    }
    return since + this.#config.strangerGraceMs
  }
}

/** What an address is counted under: itself (IPv6: its /64, which one host has whole), and its /24 or /48. What is no IP address is all one. */
export function addressKeys(address: IpAddress | null): { readonly address: string; readonly network: string } {
  if (address === null) return { address: 'none', network: 'none' }
  return address.family === 4
    ? { address: networkKey(address, 32), network: networkKey(address, 24) }
    : { address: networkKey(address, 64), network: networkKey(address, 48) }
}

/** Adds to a counter that is not kept at zero. */
export function count(counts: Map<string, number>, key: string, by: number): void {
  const value = (counts.get(key) ?? 0) + by
  if (value === 0) counts.delete(key)
  else counts.set(key, value)
}
