import type { NodeId } from '../base/index.ts'
import type { Descriptor, View } from '../directory/index.ts'
import type { PathConstraints, Rule } from './constraints.ts'
import { PathView } from './path-view.ts'
import { factsOf, POSITIONS, type RelayFacts } from './relay-facts.ts'

/** A prepared view is looked at anew at most this often when the number of its relays is the same: editions, weights and ages change all the time. */
const REFRESH_MS = 1_000

/** The facts of every known relay of a view. @param now wall-clock ms */
export function relayFactsOf(view: View, now: number): RelayFacts[] {
  const eligible = idsOf(view.eligible(now))
  const asGuard = idsOf(view.eligible(now, 'guard'))
  return view.relays().map(({ id, descriptor }) => {
    const extra = { weight: view.weight(id), eligible: eligible.has(id), eligibleAsGuard: asGuard.has(id) }
    return { ...parsedFacts(descriptor), ...extra }
  })
}

interface Made {
  readonly path: PathView
  readonly version: number
  readonly size: number
  readonly eligible: unknown
  readonly asGuard: unknown
  /** When it was last held against the view. */
  checkedAt: number
}

/** Keeps the `PathView` of a view, and makes it anew only when relays came or went, or, now and then, when anything else has changed. */
export class PathViews {
  readonly #view: View
  #constraints: PathConstraints
  #made: Made | null = null

  constructor(view: View, constraints: PathConstraints) {
    this.#view = view
    this.#constraints = constraints
  }

  /** Other constraints from now on. What was drawn under the earlier ones is held against them by `objection`. */
  constrain(constraints: PathConstraints): void {
    this.#constraints = constraints
    this.#made = null
  }

  /** What the constraints say against a path that was drawn before they were as they are, or null. @param now wall-clock ms */
  objection(path: readonly RelayFacts[], now: number): Rule | null {
    const view = this.current(now)
    for (const [hop, facts] of path.entries()) {
      const index = view.indexOf(facts.id)
      const rule = view.objection(index === null ? facts : view.relays[index]!, POSITIONS[hop]!)
      if (rule !== null) return rule
    }
    return null
  }

  /** @param now wall-clock ms */
  current(now: number): PathView {
    const made = this.#made
    const { version } = this.#view
    const size = this.#view.relays().length
    const passed = made ? now - made.checkedAt : 0
    if (made && made.size === size && passed >= 0 && passed < REFRESH_MS) return made.path
    const eligible = this.#view.eligible(now)
    const asGuard = this.#view.eligible(now, 'guard')
    if (made && made.version === version && made.eligible === eligible && made.asGuard === asGuard) {
      made.checkedAt = now
      return made.path
    }
    const path = new PathView(relayFactsOf(this.#view, now), this.#constraints)
    this.#made = { path, version, size, eligible, asGuard, checkedAt: now }
    return path
  }
}

/** What does not change with the view: addresses are parsed once for each descriptor. */
const parsed = new WeakMap<Descriptor, RelayFacts>()

function parsedFacts(descriptor: Descriptor): RelayFacts {
  let facts = parsed.get(descriptor)
  if (!facts) {
    facts = factsOf(descriptor, { weight: 0, eligible: false })
    parsed.set(descriptor, facts)
  }
  return facts
}

function idsOf(entries: readonly { readonly id: NodeId }[]): Set<NodeId> {
  return new Set(entries.map(({ id }) => id))
}
