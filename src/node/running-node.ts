import { messageOf, type NodeId, ShallotError } from '../base/index.ts'
import type { PoolEvent } from '../client/index.ts'
import type { ServingRole } from '../directory/index.ts'
import type { NatFacts, ReachFacts } from '../nat/index.ts'
import type { VpnFacts } from '../vpn/index.ts'
import { DRAIN_LIMIT_MS, Drain, type DrainFacts } from './drain.ts'
import { circuitFacts, lifeFrom, relayFacts, streamFacts } from './facts.ts'
import type { NodeLogs } from './log-book.ts'
import { networkSummary, relayPage } from './network-facts.ts'
import type { NetworkSummary, RelayPage, RelayQuery, TrafficSample } from './network-types.ts'
import { placeOfThisMachine } from './network-watch.ts'
import type {
  CircuitFacts,
  NodeControl,
  NodeEvent,
  NodeStatus,
  RelayFacts,
  StreamFacts,
  VpnSession,
  VpnSessionRequest,
} from './node-control.ts'
import type { NodeParts } from './node-parts.ts'
import { countView, guardsOf, statusOf, totalsOf } from './node-status.ts'
import { NodeWatch } from './node-watch.ts'
import { OutageWatch } from './outage-watch.ts'
import { natDisabled, notServing } from './reachable.ts'
import type { Settings, SettingsChange, SettingsChanged, SettingsFacts } from './settings.ts'

/** Subscribers of events at once. */
const MAX_LISTENERS = 64
/** How often the view is looked at for circuits that wait for relays, and how often its changes are told. */
const VIEW_POLL_MS = 100
const VIEW_EVENT_MS = 1_000

/** A started node, as the control API and the command line see it. */
export class RunningNode implements NodeControl {
  readonly stopped: Promise<Error | null>
  readonly #p: NodeParts
  readonly #life: () => Pick<NodeStatus, 'startedAt' | 'uptimeMs'>
  readonly #listeners: Set<(event: NodeEvent) => void>
  readonly #viewTimer: NodeJS.Timeout
  readonly #readiness: Promise<void>
  #settleStopped: (error: Error | null) => void = () => {}
  #becomeReady: () => void = () => {}
  #failReady: (error: Error) => void = () => {}
  #ready = false
  #stopping: Promise<void> | null = null
  #viewVersion = -1
  #viewTold = { version: -1, at: Number.NEGATIVE_INFINITY }
  #settings: Promise<Settings> | null = null
  readonly #watch: NodeWatch
  readonly #outage: OutageWatch
  /** Guards that are said to be suspicious. */
  readonly #suspected = new Set<NodeId>()
  #drain: Drain | null = null

  constructor(parts: NodeParts, listeners: Set<(event: NodeEvent) => void>) {
    this.#p = parts
    this.#listeners = listeners
    this.#life = lifeFrom(parts.clocks)
    this.stopped = new Promise((resolve) => {
      this.#settleStopped = resolve
    })
    this.#readiness = new Promise((resolve, reject) => {
      this.#becomeReady = resolve
      this.#failReady = reject
    })
    this.#readiness.catch(() => {})
    this.#outage = new OutageWatch({
      clocks: parts.clocks,
      warnings: parts.warnings,
      outage: () => parts.client?.pool.outage() ?? null,
      hasNetwork: () => placeOfThisMachine() !== '',
      refresh: () => parts.presence().discovery.refresh(),
    })
    this.#watch = this.#startWatch()
    this.#viewTimer = setInterval(() => this.#lookAtView(), VIEW_POLL_MS)
    this.#viewTimer.unref()
    parts.joined.then(
      () => this.#checkReady(true),
      () => {},
    )
  }

  get id(): NodeId {
    return this.#p.presence().id
  }

  /** To be called with what the pool tells. */
  poolEvent(event: PoolEvent): void {
    if ('stream' in event) {
      this.#watch.streamEvent(event)
      return
    }
    const { view, countries, clocks } = this.#p
    // Nobody to tell: then no country is looked up either.
    if (this.#listeners.size > 0) {
      const at = clocks.wall()
      const circuit = circuitFacts(event.circuit, view, countries, clocks, false)
      this.#emit({ type: `circuit-${event.type}`, at, circuit })
    }
    if (event.type === 'open') {
      this.#checkReady(this.#joined)
      this.#outage.look()
    }
    this.#checkGuards()
  }

  status(): NodeStatus {
    return statusOf(this.#p, {
      ...this.#life(),
      ready: this.#ready && this.#outage.facts === null,
      outage: this.#outage.facts,
      draining: this.#drain?.facts() ?? null,
    })
  }

  circuits(why: boolean): readonly CircuitFacts[] {
    const { client, view, countries, clocks } = this.#p
    return (client?.pool.circuits() ?? []).map((entry) => circuitFacts(entry, view, countries, clocks, why))
  }

  relays(role?: ServingRole): readonly RelayFacts[] {
    const { view, countries, clocks } = this.#p
    return view
      .relays()
      .filter(({ descriptor }) => role === undefined || descriptor.roles.includes(role))
      .flatMap(({ id }) => relayFacts(id, view, countries, clocks.wall()) ?? [])
      .sort((a, b) => (a.id < b.id ? -1 : 1))
  }

  relay(id: NodeId): RelayFacts | null {
    const { view, countries, clocks } = this.#p
    return relayFacts(id, view, countries, clocks.wall())
  }

  relayPage(query: RelayQuery): RelayPage {
    const { view, countries, clocks } = this.#p
    return relayPage(view, countries, clocks.wall(), query)
  }

  networkSummary(): NetworkSummary {
    const { view, countries, clocks } = this.#p
    return networkSummary(view, countries, clocks.wall(), this.#watch.history.counts())
  }

  streams(recent = false): readonly StreamFacts[] {
    const { client, clocks } = this.#p
    const open = (client?.pool.circuits() ?? []).flatMap((entry) => streamFacts(entry, clocks))
    return recent ? [...this.#watch.streams.recent(), ...open] : open
  }

  traffic(): readonly TrafficSample[] {
    return this.#watch.history.samples()
  }

  async pingCircuit(id: number): Promise<CircuitFacts | null> {
    const { client, view, countries, clocks } = this.#p
    const entry = client?.pool.circuits().find((one) => one.id === id && (one.state === 'ready' || one.state === 'retired'))
    if (!entry?.circuit) return null
    await entry.circuit.pingHops()
    return circuitFacts(entry, view, countries, clocks, false)
  }

  closeCircuit(id: number): CircuitFacts | null {
    const { client, view, countries, clocks } = this.#p
    const closed = client?.pool.close(id)
    return closed ? circuitFacts(closed, view, countries, clocks, false) : null
  }

  closeStream(id: number): StreamFacts | null {
    const stream = this.streams().find((one) => one.id === id)
    if (!stream || !this.#p.client?.pool.closeStream(id)) return null
    return { ...stream, state: 'closed', closedAt: this.#p.clocks.wall(), end: 'aborted' }
  }

  get logs(): NodeLogs {
    return this.#p.logs
  }

  async settings(): Promise<SettingsFacts> {
    return (await this.#loadSettings()).facts()
  }

  async changeSettings(change: SettingsChange): Promise<SettingsChanged> {
    const settings = await (await this.#loadSettings()).change(change)
    if (change.check !== true) this.#settingsChanged(settings)
    return settings
  }

  async reload(): Promise<SettingsChanged> {
    const settings = await (await this.#loadSettings()).reload()
    this.#settingsChanged(settings)
    return settings
  }

  nat(): NatFacts | null {
    return this.#p.nat?.facts() ?? null
  }

  async reach(id: NodeId, signal: AbortSignal): Promise<ReachFacts> {
    const { nat, live } = this.#p
    if (nat === null) throw live.current.nat.enabled ? notServing() : natDisabled()
    return nat.reach(id, signal)
  }

  vpn(): VpnFacts | null {
    return this.#p.client?.vpn?.facts() ?? null
  }

  async vpnUp(): Promise<VpnFacts> {
    return (this.#p.client?.vpn ?? notAClient()).up()
  }

  async vpnSession(request: VpnSessionRequest): Promise<VpnSession> {
    return (this.#p.client?.vpn ?? notAClient()).openSession(request)
  }

  async vpnDown(): Promise<VpnFacts> {
    return (this.#p.client?.vpn ?? notAClient()).down()
  }

  async newCircuit(): Promise<CircuitFacts> {
    const { client, view, countries, clocks } = this.#p
    if (!client) notAClient()
    client.pool.retireAll()
    return circuitFacts(await client.pool.buildOne(), view, countries, clocks, false)
  }

  ready(signal?: AbortSignal): Promise<void> {
    if (!signal) return this.#readiness
    const aborted = (): ShallotError => new ShallotError('aborted', 'given up before the node was ready', { kind: 'usage', retry: 'never' })
    if (signal.aborted) return Promise.reject(aborted())
    return new Promise((resolve, reject) => {
      const abort = (): void => reject(aborted())
      signal.addEventListener('abort', abort, { once: true })
      this.#readiness.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
    })
  }

  subscribe(listener: (event: NodeEvent) => void): () => void {
    if (this.#listeners.size >= MAX_LISTENERS) {
      throw new ShallotError('too-many-listeners', `at most ${MAX_LISTENERS} follow the events at once`, { kind: 'usage', retry: 'later' })
    }
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  drain({ limitMs = DRAIN_LIMIT_MS }: { readonly limitMs?: number } = {}): DrainFacts {
    const { standing, serving, nat, clocks, logger } = this.#p
    if (standing === null) throw notServing()
    if (this.#drain !== null) this.#drain.limit(limitMs)
    else {
      const circuits = (): number => (serving?.engine.circuits ?? 0) + (nat?.relayStats?.connections.open ?? 0)
      this.#drain = new Drain({ clocks, leave: standing.leave, circuits, done: () => void this.stop() }, limitMs)
      if (this.#stopping) this.#drain.cancel()
      logger.info('leaving: no new circuits', { limitMs, circuits: circuits() })
    }
    const facts = this.#drain.facts()
    this.#emit({ type: 'draining', at: clocks.wall(), until: facts.until })
    return facts
  }

  get drainOnStopMs(): number {
    return this.#p.standing === null || this.#p.serving === null ? 0 : this.#p.live.current.relaying.drainOnStopMs
  }

  get #joined(): boolean {
    return this.#p.view.relays().length > 0
  }

  async #stop(): Promise<void> {
    this.#emit({ type: 'stopping', at: this.#p.clocks.wall() })
    clearInterval(this.#viewTimer)
    this.#watch.stop()
    this.#drain?.cancel()
    this.#failReady(new ShallotError('aborted', 'the node stopped before it was ready', { kind: 'process', retry: 'never' }))
    for (const stop of this.#p.stops) {
      try {
        await stop()
      } catch (error) {
        this.#p.logger.warn('a part did not stop in order', { error: messageOf(error) })
      }
    }
    this.#listeners.clear()
    this.#settleStopped(null)
  }

  #emit(event: NodeEvent): void {
    for (const listener of this.#listeners) listener(event)
  }

  /** Ready: a serving node when it has joined; a client when it has a circuit. */
  #checkReady(joined: boolean): void {
    if (this.#ready || this.#stopping) return
    const { client } = this.#p
    const hasCircuit = client?.pool.circuits().some(({ state }) => state === 'ready') ?? true
    if (!hasCircuit || !joined) return
    this.#ready = true
    this.#becomeReady()
    this.#emit({ type: 'ready', at: this.#p.clocks.wall() })
  }

  #lookAtView(): void {
    const { view, client, clocks } = this.#p
    if (view.version !== this.#viewVersion) {
      this.#viewVersion = view.version
      client?.pool.plan()
    }
    if (this.#viewTold.version === view.version || clocks.now() - this.#viewTold.at < VIEW_EVENT_MS) return
    this.#viewTold = { version: view.version, at: clocks.now() }
    this.#emit({ type: 'view', at: clocks.wall(), ...countView(this.#p) })
  }

  #startWatch(): NodeWatch {
    const { nat, clocks } = this.#p
    return new NodeWatch({
      clocks,
      emit: (event) => this.#emit(event),
      totals: () => totalsOf(this.#p),
      countView: () => countView(this.#p),
      nat: () => nat?.facts() ?? null,
      vpn: () => this.vpn(),
      guards: () => guardsOf(this.#p) ?? [],
      outage: () => this.#outage.look(),
    })
  }

  /** Few nodes are ever asked for their settings. */
  #loadSettings(): Promise<Settings> {
    this.#settings ??= import('./settings.ts').then(({ Settings }) => new Settings(this.#p.live))
    return this.#settings
  }

  #settingsChanged(settings: SettingsChanged): void {
    const { applied, restart, changed } = settings
    if (changed.length + applied.length === 0) return
    this.#p.logger.info('settings changed', { applied: applied.join(' '), restart: restart.join(' ') })
    this.#emit({ type: 'settings', at: this.#p.clocks.wall(), settings })
  }

  /** A guard that fails suspiciously often is said aloud: whether to drop it is the person's to decide. */
  #checkGuards(): void {
    const { client, warnings } = this.#p
    if (!client) return
    const found = client.guards.warnings().filter(({ level }) => level === 'warn')
    for (const id of this.#suspected) {
      if (found.some((one) => one.id === id)) continue
      this.#suspected.delete(id)
      warnings.over(`guard-${id}`)
    }
    for (const { id, of, tried, succeeded } of found) {
      this.#suspected.add(id)
      const what = of === 'builds' ? 'circuits through it were not finished' : 'circuits through it broke before they carried anything'
      warnings.raise(
        'guard-suspicious',
        `guard ${id}: ${tried - succeeded} of ${tried} ${what}; it may be broken, or choosing whom it serves`,
        `guard-${id}`,
      )
    }
  }
}

function notAClient(): never {
  throw new ShallotError('not-a-client', 'this node has not the role "client", so it builds no circuits', { kind: 'usage', retry: 'never' })
}
