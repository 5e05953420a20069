import type { PoolEvent } from '../client/index.ts'
import type { NatFacts } from '../nat/index.ts'
import type { VpnFacts } from '../vpn/index.ts'
import type { Clocks } from './facts.ts'
import { History, type Totals } from './history.ts'
import type { ViewCount } from './network-types.ts'
import type { GuardFacts, NodeEvent } from './node-control.ts'
import { StreamLog } from './stream-log.ts'

const TICK_MS = 1_000

/** What is looked at once a second. */
export interface WatchModules {
  readonly clocks: Clocks
  readonly emit: (event: NodeEvent) => void
  readonly totals: () => Totals
  readonly countView: () => Omit<ViewCount, 'at'>
  readonly nat: () => NatFacts | null
  readonly vpn: () => VpnFacts | null
  readonly guards: () => readonly GuardFacts[]
  /** Looks whether anything can be reached. */
  readonly outage: () => void
}

/** Looks at the node once a second: keeps what happened for the plots, and tells what has changed. */
export class NodeWatch {
  readonly history = new History()
  readonly streams: StreamLog
  readonly #m: WatchModules
  readonly #timer: NodeJS.Timeout
  #nat: string | null = null
  #vpn: string | null = null
  #guards: ReadonlyMap<string, string> | null = null

  constructor(modules: WatchModules) {
    this.#m = modules
    this.streams = new StreamLog(modules.clocks, modules.emit)
    this.#timer = setInterval(() => this.tick(), TICK_MS)
    this.#timer.unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** To be called with what the pool tells of streams. */
  streamEvent(event: Extract<PoolEvent, { readonly stream: unknown }>): void {
    this.streams.note(event.type, event.circuit, event.stream)
  }

  /** One look. */
  tick(): void {
    const { clocks, emit, totals, countView } = this.#m
    const at = clocks.wall()
    const now = totals()
    emit({ type: 'traffic', at, traffic: this.history.sample(at, now) })
    this.streams.tick(() => now.streamsOpen)
    this.history.countView(at, countView)
    this.#lookAtNat(at)
    this.#lookAtVpn(at)
    this.#lookAtGuards(at)
    this.#m.outage()
  }

  #lookAtNat(at: number): void {
    const nat = this.#m.nat()
    const now = nat === null ? null : JSON.stringify([nat.state, nat.announced, nat.mapping?.external, nat.serves])
    if (nat !== null && this.#nat !== null && this.#nat !== now) this.#m.emit({ type: 'reachability', at, nat })
    this.#nat = now
  }

  #lookAtVpn(at: number): void {
    const vpn = this.#m.vpn()
    const now = vpn === null ? null : JSON.stringify([vpn.state, vpn.since, vpn.problems])
    if (vpn !== null && this.#vpn !== null && this.#vpn !== now) this.#m.emit({ type: 'vpn', at, vpn })
    this.#vpn = now
  }

  #lookAtGuards(at: number): void {
    const guards = this.#m.guards()
    const before = this.#guards
    this.#guards = new Map(guards.map(({ id, state }) => [id, state]))
    if (before === null) return
    for (const guard of guards) if (before.get(guard.id) !== guard.state) this.#m.emit({ type: 'guard', at, guard })
  }
}
