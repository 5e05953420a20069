import type { QuotaRefusal } from './connection-quota.ts'
import type { PumpEnd } from './pump.ts'
import type { ReserveRefusal } from './reservation-table.ts'

/** Why a relayed connection was refused. */
export type ConnectRefusal =
  | QuotaRefusal
  | 'rate' // too many requests
  | 'relayed' // asked through another relay
  | 'itself' // the dialler wants itself
  | 'not-in-view' // the dialler is no node of the mesh
  | 'no-reservation' // the wanted node has none here, or is gone
  | 'target-failed' // the wanted node did not take it

/** What was no request that could be answered with yes or no. */
export type DroppedRequest = 'malformed' | 'unexpected' | 'timeout' | 'abandoned' | 'too-many-requests'

/** What a relay has done since its start, of nobody in particular: plain JSON. Bytes are those of relayed connections, as they came in. */
export interface RelayServerStats {
  readonly reservations: {
    readonly open: number
    /** Of them: of nodes that are not in the view. */
    readonly strangers: number
    readonly granted: number
    readonly renewed: number
    readonly refused: Readonly<Partial<Record<ReserveRefusal | 'rate' | 'relayed' | 'leaving', number>>>
    readonly ended: Readonly<Partial<Record<'expired' | 'disconnected', number>>>
  }
  readonly connections: {
    readonly open: number
    readonly total: number
    readonly refused: Readonly<Partial<Record<ConnectRefusal, number>>>
    readonly closed: Readonly<Partial<Record<PumpEnd, number>>>
  }
  readonly bytes: {
    /** From who has a reservation, and to it. */
    readonly fromReserved: number
    readonly toReserved: number
    /** In memory now, because a receiver does not keep up. */
    readonly held: number
  }
  readonly requests: {
    /** Being read or answered now. */
    readonly open: number
    readonly dropped: Readonly<Partial<Record<DroppedRequest, number>>>
  }
}

/** What the server itself knows at the moment. */
export interface RelayGauges {
  readonly reservations: number
  readonly strangers: number
  readonly connections: number
  readonly handshakes: number
  /** Of the connections that are open. */
  readonly bytesUp: number
  readonly bytesDown: number
  readonly heldBytes: number
}

/** Counts what a relay does. */
export class RelayCounters {
  #granted = 0
  #renewed = 0
  #opened = 0
  #bytesUp = 0
  #bytesDown = 0
  readonly #refusedReserves: Partial<Record<ReserveRefusal | 'rate' | 'relayed' | 'leaving', number>> = {}
  readonly #ended: Partial<Record<'expired' | 'disconnected', number>> = {}
  readonly #refusedConnects: Partial<Record<ConnectRefusal, number>> = {}
  readonly #closed: Partial<Record<PumpEnd, number>> = {}
  readonly #dropped: Partial<Record<DroppedRequest, number>> = {}

  reserved(how: 'granted' | 'renewed'): void {
    if (how === 'granted') this.#granted++
    else this.#renewed++
  }

  refusedReserve(reason: ReserveRefusal | 'rate' | 'relayed' | 'leaving'): void {
    add(this.#refusedReserves, reason)
  }

  reservationEnded(why: 'expired' | 'disconnected'): void {
    add(this.#ended, why)
  }

  refusedConnect(reason: ConnectRefusal): void {
    add(this.#refusedConnects, reason)
  }

  opened(): void {
    this.#opened++
  }

  closed(end: PumpEnd, bytesUp: number, bytesDown: number): void {
    add(this.#closed, end)
    this.#bytesUp += bytesUp
    this.#bytesDown += bytesDown
  }

  dropped(why: DroppedRequest): void {
    add(this.#dropped, why)
  }

  stats(now: RelayGauges): RelayServerStats {
    return {
      reservations: {
        open: now.reservations,
        strangers: now.strangers,
        granted: this.#granted,
        renewed: this.#renewed,
        refused: { ...this.#refusedReserves },
        ended: { ...this.#ended },
      },
      connections: {
        open: now.connections,
        total: this.#opened,
        refused: { ...this.#refusedConnects },
        closed: { ...this.#closed },
      },
      bytes: { fromReserved: this.#bytesDown + now.bytesDown, toReserved: this.#bytesUp + now.bytesUp, held: now.heldBytes },
      requests: { open: now.handshakes, dropped: { ...this.#dropped } },
    }
  }
}

function add<K extends string>(counts: Partial<Record<K, number>>, key: K): void {
  counts[key] = (counts[key] ?? 0) + 1
}
