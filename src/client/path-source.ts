import type { NodeId } from '../base/index.ts'
import type { View } from '../directory/index.ts'
import { constraintsOf, factsOf, type PathConfig, PathView } from '../path/index.ts'

/** A prepared view is made anew at most this often when only counters or the time have changed. */
const REFRESH_MS = 1_000
/** Ages make relays eligible without any change of the view: looked at this often. */
const AGE_REFRESH_MS = 60_000

/** The view as path choice wants it, made anew only when it has changed. */
export class PathSource {
  readonly #view: View
  readonly #constraints: ReturnType<typeof constraintsOf>
  #made: PathView | null = null
  #version = -1
  #size = -1
  #at = 0

  /** @param self this node's own id when it serves as a relay: paths keep away from it */
  constructor(view: View, config: PathConfig, self: NodeId | null) {
    this.#view = view
    this.#constraints = constraintsOf(config, self)
  }

  /** @param wall wall-clock ms */
  current(wall: number): PathView {
    const { version } = this.#view
    const size = this.#view.relays().length
    const age = wall - this.#at
    const stale = version !== this.#version ? size !== this.#size || age >= REFRESH_MS || age < 0 : age >= AGE_REFRESH_MS
    if (this.#made && !stale) return this.#made
    const eligible = new Set(this.#view.eligible(wall).map(({ id }) => id))
    const guards = new Set(this.#view.eligible(wall, 'guard').map(({ id }) => id))
    const facts = this.#view
      .relays()
      .map(({ id, descriptor }) =>
        factsOf(descriptor, { weight: this.#view.weight(id), eligible: eligible.has(id), eligibleAsGuard: guards.has(id) }),
      )
    this.#made = new PathView(facts, this.#constraints)
    this.#version = version
    this.#size = size
    this.#at = wall
    return this.#made
  }
}
