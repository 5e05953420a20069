import type { NodeId } from '../base/index.ts'
import type { RelayBrief } from '../node/index.ts'

/** Which relays came, changed or went since the last look. */
export class RelayChanges {
  #known: ReadonlyMap<NodeId, string> | null = null

  /** @param most beyond so many only `more` is told */
  since(relays: readonly RelayBrief[], most: number): { changed: readonly RelayBrief[]; gone: readonly NodeId[]; more: boolean } | null {
    const before = this.#known
    const now = new Map(relays.map((relay) => [relay.id, JSON.stringify(relay)]))
    this.#known = now
    if (before === null) return null
    const changed = relays.filter(({ id }) => before.get(id) !== now.get(id))
    const gone = [...before.keys()].filter((id) => !now.has(id))
    if (changed.length + gone.length === 0) return null
    return { changed: changed.slice(0, most), gone: gone.slice(0, most), more: changed.length > most || gone.length > most }
  }
}
