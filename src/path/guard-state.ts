import { z } from 'zod'
import { MalformedError, type NodeId, parseNodeId } from '../base/index.ts'

/** Entries of the sample, those that are gone from the view included. A sample never grows beyond it, whatever fails. guard-spec: MAX_SAMPLE_SIZE */
export const GUARD_SAMPLE_MAX = 60

/** How often something was tried and how often it went well; halved together when it grows, so that old times count less. */
export interface Tally {
  readonly tried: number
  readonly succeeded: number
}

/** What the disk keeps of one guard. Times are wall-clock milliseconds. */
export interface StoredGuard {
  readonly id: NodeId
  /** When it was drawn, moved back by a random part of its lifetime, so that the file does not tell and guards do not expire together. */
  readonly addedAt: number
  readonly confirmedAt: number | null
  /** Place among the confirmed, ascending; null while it never carried a circuit. */
  readonly confirmedOrder: number | null
  readonly unlistedSince: number | null
  readonly builds: Tally
  readonly uses: Tally
}

/** The sample as it is kept on disk: JSON of exactly this form. */
export interface GuardState {
  readonly version: 1
  readonly guards: readonly StoredGuard[]
}

const wall = z.int().min(0)
const tally = z
  .strictObject({ tried: z.int().min(0).max(1_000_000), succeeded: z.int().min(0).max(1_000_000) })
  .refine(({ tried, succeeded }) => succeeded <= tried, { error: 'more successes than tries' })
const storedGuard = z
  .strictObject({
    id: z.string().max(64),
    addedAt: wall,
    confirmedAt: wall.nullable(),
    confirmedOrder: z.int().min(0).nullable(),
    unlistedSince: wall.nullable(),
    builds: tally,
    uses: tally,
  })
  .refine(({ confirmedAt, confirmedOrder }) => (confirmedAt === null) === (confirmedOrder === null), { error: 'half confirmed' })
const guardState = z.strictObject({ version: z.literal(1), guards: z.array(storedGuard).max(GUARD_SAMPLE_MAX) })

/** @param value parsed JSON. @throws MalformedError when it is not exactly a guard state, or names a guard twice */
export function parseGuardState(value: unknown): GuardState {
  const parsed = guardState.safeParse(value)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    throw new MalformedError('guard state', `${issue?.path.join('.') || 'value'}: ${issue?.message ?? 'not of the right form'}`)
  }
  const guards = parsed.data.guards.map((guard) => ({ ...guard, id: parseNodeId(guard.id) }))
  if (new Set(guards.map((guard) => guard.id)).size !== guards.length) throw new MalformedError('guard state', 'a guard is named twice')
  const orders = guards.flatMap((guard) => guard.confirmedOrder ?? [])
  if (new Set(orders).size !== orders.length) throw new MalformedError('guard state', 'two guards have one place among the confirmed')
  return { version: 1, guards }
}
