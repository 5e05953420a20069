import type { NodeId } from '../base/index.ts'
import type { Descriptor, View } from '../directory/index.ts'
import type { PathConstraints } from './constraints.ts'
import { PathView } from './path-view.ts'
import { factsOf, type RelayFacts } from './relay-facts.ts'

/** The facts of every known relay of a view. @param now wall-clock ms */
export function relayFactsOf(view: View, now: number): RelayFacts[] {
  const eligible = idsOf(view.eligible(now))
  const asGuard = idsOf(view.eligible(now, 'guard'))
  return view.relays().map(({ id, descriptor }) => {
    const extra = { weight: view.weight(id), eligible: eligible.has(id), eligibleAsGuard: asGuard.has(id) }
    return { ...parsedFacts(descriptor), ...extra }
  })
}

/** Keeps the `PathView` of a view, and makes it anew only when the view's version, or with time its eligible relays, have changed. */
export class PathViews {
  readonly #view: View
  readonly #constraints: PathConstraints
  #made: { readonly path: PathView; readonly version: number; readonly eligible: unknown; readonly asGuard: unknown } | null = null

  constructor(view: View, constraints: PathConstraints) {
    this.#view = view
    this.#constraints = constraints
  }

  /** @param now wall-clock ms */
  current(now: number): PathView {
    const eligible = this.#view.eligible(now)
    const asGuard = this.#view.eligible(now, 'guard')
    const made = this.#made
    if (made && made.version === this.#view.version && made.eligible === eligible && made.asGuard === asGuard) return made.path
    const path = new PathView(relayFactsOf(this.#view, now), this.#constraints)
    this.#made = { path, version: this.#view.version, eligible, asGuard }
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
