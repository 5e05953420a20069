import type { NodeId } from '../base/index.ts'
import type { Tier } from './admission.ts'
import type { Descriptor, SignedDescriptor } from './descriptor.ts'

/** A relay of the view. */
export interface RelayEntry {
  readonly id: NodeId
  readonly descriptor: Descriptor
  readonly signed: SignedDescriptor
  readonly tier: Tier
  /** The relay's short name on the wire: 8 bytes in hex. */
  readonly tag: string
}

/** Why a descriptor was not taken. The first group is a lie or damage, wherever and whenever it is looked at; the second depends on time or place. */
export type RefusalReason =
  | 'malformed' // not a descriptor, too large, or the signature is wrong
  | 'work' // the proof of work is not enough, or for another network or period
  | 'lifetime' // valid for longer than the rules allow
  | 'protocol' // speaks no version of the network's
  | 'address' // at an address that no relay may be at
  // ---
  | 'future' // dated further ahead than clocks may differ
  | 'expired'
  | 'crowded' // too many others with more work at its address or in its network
  | 'foreign' // `only` asked for another relay

/** Whether a peer that hands on such a descriptor has broken the rules. */
export function isMisbehaviour(reason: RefusalReason): boolean {
  return reason === 'malformed' || reason === 'work' || reason === 'lifetime' || reason === 'protocol' || reason === 'address'
}

export type AddResult =
  | { readonly type: 'added' | 'replaced'; readonly entry: RelayEntry }
  | { readonly type: 'duplicate'; readonly entry: RelayEntry }
  /** A newer edition is there already (or, with the same sequence number, the one that wins the tie). */
  | { readonly type: 'older'; readonly equivocation: boolean }
  | { readonly type: 'refused'; readonly reason: RefusalReason; readonly detail: string }

export function refused(reason: RefusalReason, detail: string): AddResult & { type: 'refused' } {
  return { type: 'refused', reason, detail }
}
