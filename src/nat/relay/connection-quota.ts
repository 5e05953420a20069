import type { NodeId } from '../../base/index.ts'
import type { RelayServerConfig } from './config.ts'
import { count } from './reservation-table.ts'

/** Which limit a relayed connection would break. */
export type QuotaRefusal = 'connections-full' | 'dialler-full' | 'reservation-full' | 'pair-full'

/** How many relayed connections there are, open or being opened: in all, of a dialler, to a reservation, and of both together. Pure. */
export class ConnectionQuota {
  readonly #config: RelayServerConfig
  readonly #diallers = new Map<string, number>()
  readonly #targets = new Map<string, number>()
  readonly #pairs = new Map<string, number>()
  #total = 0

  constructor(config: RelayServerConfig) {
    this.#config = config
  }

  get total(): number {
    return this.#total
  }

  /** Takes a place, or says why there is none. */
  take(dialler: NodeId, target: NodeId): QuotaRefusal | null {
    const { maxConnections, connectionsPerDialler, connectionsPerReservation, connectionsPerPair } = this.#config
    const pair = `${dialler} ${target}`
    if ((this.#pairs.get(pair) ?? 0) >= connectionsPerPair) return 'pair-full'
    if ((this.#diallers.get(dialler) ?? 0) >= connectionsPerDialler) return 'dialler-full'
    if ((this.#targets.get(target) ?? 0) >= connectionsPerReservation) return 'reservation-full'
    if (this.#total >= maxConnections) return 'connections-full'
    this.#add(dialler, target, 1)
    return null
  }

  /** Gives a place back. */
  release(dialler: NodeId, target: NodeId): void {
    this.#add(dialler, target, -1)
  }

  #add(dialler: NodeId, target: NodeId, by: 1 | -1): void {
    this.#total += by
    count(this.#diallers, dialler, by)
    count(this.#targets, target, by)
    count(this.#pairs, `${dialler} ${target}`, by)
  }
}
