import { durationText } from '../output.ts'
import { type Finding, fail, note, ok, warn } from './finding.ts'

/** A clock that is this far off is told of. */
const SKEW_MS = 60_000
/** Relays by which the clock is judged. */
const FEW = 3

/** What there is to compare the clock with. Nobody is asked for the time: whom a client asks would learn that it is there. */
export interface ClockFacts {
  /** Wall-clock ms. */
  readonly now: number
  /** Something of this machine that bears a date, such as a signed network file: the newest. */
  readonly notBefore: { readonly what: string; readonly at: number } | null
  /** What a node that runs has of others; null when it does not run. */
  readonly network: {
    /** When each relay of the view says that it published. */
    readonly publishedAt: readonly number[]
    readonly syncedAt: number | null
    /** Descriptors that were lately refused for their times. */
    readonly refused: { readonly future: number; readonly expired: number }
    /** How often each relay publishes, and how far in the future it may date that. */
    readonly republishMs: number
    readonly toleranceMs: number
  } | null
}

/**
 * The clock against what relays say: each signs the time at which it published. A clock that is behind sees descriptors of the future, and takes none of
 * them when it is far behind; one that is ahead sees none that are fresh. Pure.
 */
export function clockFinding({ now, notBefore, network }: ClockFacts): Finding {
  const advice = 'set the clock and keep it right: timedatectl set-ntp true, or chronyc makestep'
  const behind = (ms: number, than: string): Finding => fail('clock', `the clock is at least ${durationText(ms)} behind ${than}`, advice)
  if (notBefore !== null && notBefore.at - now > SKEW_MS) return behind(notBefore.at - now, `the date of ${notBefore.what}`)
  if (network === null) return note('clock', 'what others say of the time is known only while the node runs')
  const { publishedAt, syncedAt, refused, republishMs, toleranceMs } = network
  if (refused.future >= FEW && refused.future > publishedAt.length) return behind(toleranceMs, `that of ${refused.future} relays`)
  if (refused.expired >= FEW && publishedAt.length === 0)
    return fail(
      'clock',
      `by this clock all is over that relays publish (${refused.expired} of them): it is hours ahead, or the network has ended`,
      advice,
    )
  if (publishedAt.length < FEW || syncedAt === null) return note('clock', 'too few relays are known to compare the clock with')
  const newest = Math.max(...publishedAt)
  if (newest - now > SKEW_MS) return behind(newest - now, 'that of others')
  const staleMs = now - newest
  // Among several relays one has published within one interval; a minute for it to arrive.
  const allowed = republishMs + SKEW_MS + Math.max(0, now - syncedAt)
  if (staleMs > allowed)
    return warn(
      'clock',
      `nobody has published anything in the last ${durationText(staleMs)}: the clock may be ahead by as much, or the view old`,
      `${advice}; if it is right, see "network"`,
    )
  return ok('clock', `the clock agrees with what ${publishedAt.length} relays say`)
}
