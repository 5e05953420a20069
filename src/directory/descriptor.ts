import type { NodeId } from '../base/index.ts'
import type { OnionPublicKey } from '../onion/index.ts'
import type { PolicySummary } from './policy.ts'

export type Role = 'client' | 'guard' | 'middle' | 'exit' | 'relay' | 'bootstrap'
export type ServingRole = Exclude<Role, 'client'>

/**
 * How a relay is reached: at its own addresses, or behind NAT through one of 1 to 4 NAT relays. `punchable`: a direct link can then be made by hole
 * punching; else everything goes through the NAT relay.
 */
export type Reach = { readonly kind: 'direct' } | { readonly kind: 'relayed'; readonly via: readonly NodeId[]; readonly punchable: boolean }

/** What a relay says of itself, signed by its identity key. Exact bytes: docs/spec/descriptor.md */
export interface Descriptor {
  readonly id: NodeId
  /** u53, grows with every edition; a newer one replaces an older. */
  readonly sequence: number
  /** Wall-clock milliseconds. */
  readonly publishedAt: number
  readonly expiresAt: number
  /** The current key first; the previous one while it is still accepted is known only to the relay itself. */
  readonly onionKey: OnionPublicKey
  /**
   * Multiaddrs as text: `/ip4/…/tcp/…` (libp2p) and `/ip4/…/tcp/…/tls` (direct TLS link for cells). Of a relayed node they are its NAT's: nobody
   * dials them unpunched, but it counts at them.
   */
  readonly addresses: readonly string[]
  readonly reach: Reach
  readonly roles: readonly ServingRole[]
  /** What an exit lets through, in short; null for the others. */
  readonly exitPolicy: PolicySummary | null
  /** Claimed capacity, bytes a second. */
  readonly bandwidth: number
  readonly family: readonly NodeId[]
  /** Protocol versions spoken. `packet`: raw packets, which only an exit serves; empty where none are. */
  readonly protocols: { readonly circuit: readonly number[]; readonly link: readonly number[]; readonly packet: readonly number[] }
  /** It is about to end: present circuits go on, nobody should begin anything new with it. */
  readonly leaving: boolean
  /** "shallot 0.1.0": letters, digits, space, dot, dash; at most 32. */
  readonly software: string
  /** Proof of work, bound to the identity and to a period of time. */
  readonly work: { readonly period: number; readonly nonce: Uint8Array }
}

/** A descriptor with the signed bytes it came from. */
export interface SignedDescriptor {
  readonly descriptor: Descriptor
  /** The libp2p signed envelope, as stored and sent. */
  readonly bytes: Uint8Array
  /** SHA-256 of `bytes`. */
  readonly digest: Uint8Array
}
