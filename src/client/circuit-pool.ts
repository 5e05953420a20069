import { messageOf, type NodeId, type Random, type ShallotError } from '../base/index.ts'
import {
  type CircuitRequest,
  choosePath,
  type ExitNeed,
  explainFailure,
  GuardBlame,
  type PathConfig,
  type PathViews,
  type PoolBuild,
  type PoolCircuit,
  PortDemand,
  pickCircuit,
  planPool,
  RelayHealth,
} from '../path/index.ts'
import { buildCircuit, type CircuitBuilderModules } from './circuit-builder.ts'
import { CircuitBuildError, type CircuitEnd } from './circuit-facts.ts'
import { BuildRecord, failedAt, type Outage } from './outage.ts'
import { failureOf, hopsBehindNat, type PoolEvent, type PooledCircuit } from './pooled-circuit.ts'
import { StreamError } from './stream-error.ts'
import { whyUnserved } from './unserved.ts'
import { WaitingRequests } from './waiting-requests.ts'

export interface CircuitPoolModules extends CircuitBuilderModules {
  readonly config: PathConfig
  /** Paths tried in a row for one waiting request. */
  readonly buildAttempts: number
  readonly random: Random
  readonly paths: PathViews
  /** A guard gives no sign of life on its circuits: its link should be asked, and given up soon. Where it is left out, the link finds out by itself. */
  readonly suspectLink?: (guard: NodeId) => void
  /** The guard sample has changed: keep it. */
  readonly guardsChanged: () => void
  readonly event: (event: PoolEvent) => void
}

/** Closed circuits that are remembered for `shallot circuits`. */
const MAX_CLOSED = 32
/** How long to wait before circuits are built ahead of need again after failures: doubled each time. */
const AHEAD_RETRY_MS = { first: 250, most: 15_000 } as const
/** How soon to look again while a request waits and no path can be drawn. */
const NO_PATH_RETRY_MS = 250
/** The same while no exit is known for a port that circuits are kept for: the prepared view is a moment behind, and relays grow old enough. */
const NO_EXIT_RETRY_MS = 1_000
/** Relays count for more once they were seen to carry more: looked at this often. */
const MEASURE_INTERVAL_MS = 5_000
/** Less than this is no measurement of anybody's capacity, bytes a second. */
const MEASURE_FLOOR = 64 * 1024

/** Keeps circuits ready, gives them out, replaces them. Decisions are `path`'s; this carries them out. */
export class CircuitPool {
  readonly #m: CircuitPoolModules
  #config: PathConfig
  readonly #circuits = new Map<number, PooledCircuit>()
  readonly #closedOnes: PooledCircuit[] = []
  readonly #ports: PortDemand
  readonly #health = new RelayHealth()
  readonly #blame = new GuardBlame()
  readonly #record = new BuildRecord()
  readonly #abort = new AbortController()
  readonly #measuring: NodeJS.Timeout
  readonly #waiting = new WaitingRequests()
  #nextId = 1
  #planTimer: NodeJS.Timeout | null = null
  #planAt = Number.POSITIVE_INFINITY
  #planning = false
  #aheadFailures = 0
  #aheadAfter = 0
  #built = 0
  #failed = 0
  #lastFailure: string | null = null
  readonly #closedBytes = { sent: 0, received: 0 }

  constructor(modules: CircuitPoolModules) {
    this.#m = modules
    this.#config = modules.config
    this.#ports = new PortDemand(modules.config.portMemoryMs)
    this.#measuring = setInterval(() => this.#measure(), MEASURE_INTERVAL_MS)
    this.#measuring.unref()
  }

  get counts(): { readonly built: number; readonly failed: number; readonly waiting: number } {
    return { built: this.#built, failed: this.#failed, waiting: this.#waiting.size }
  }

  /** Payload bytes of all circuits that ever were. */
  get bytes(): { readonly sent: number; readonly received: number } {
    let { sent, received } = this.#closedBytes
    for (const { circuit } of this.#circuits.values()) {
      sent += circuit?.bytesOut ?? 0
      received += circuit?.bytesIn ?? 0
    }
    return { sent, received }
  }

  /** Why no circuit could be built lately, for people; null when the last build succeeded. */
  get lastFailure(): string | null {
    return this.#lastFailure
  }

  /** Why nothing can be reached now; null while something is, or may be. To be asked now and then: nothing is tried where no exit is known. */
  outage(): Outage | null {
    const { paths, wall, now, guards, random } = this.#m
    const view = paths.current(wall())
    // Who has never had a relay looks for a way in, and that is told elsewhere.
    if (view.relays.length === 0 && this.#built === 0) return null
    const hasCircuit = [...this.#circuits.values()].some(({ state, circuit }) => state === 'ready' && !circuit?.isDoubtful)
    const anyExit = { ports: [], family: null }
    if (!hasCircuit && view.exits(anyExit).total === 0) {
      const choice = choosePath(view, { guards: guards.current(now()), need: anyExit }, random)
      if (choice.kind === 'no-path') this.#record.noteWithoutPath(choice, view, now())
    }
    return this.#record.outage(hasCircuit, now())
  }

  /** All circuits there are, and the last few that ended; oldest first. */
  circuits(): readonly PooledCircuit[] {
    return [...this.#closedOnes, ...this.#circuits.values()].sort((a, b) => a.id - b.id)
  }

  /** A circuit for the request, ready to use. @throws StreamError 'no-circuit', 'aborted', or 'policy' or 'not-exit' where no exit takes it */
  acquire(request: CircuitRequest, signal: AbortSignal): Promise<PooledCircuit> {
    if (signal.aborted || this.#abort.signal.aborted) return Promise.reject(new StreamError('aborted'))
    if (request.port !== null) this.#ports.note(request.port, this.#m.now())
    const picked = this.#pick(request)
    if (picked) {
      this.plan()
      return Promise.resolve(picked)
    }
    const waiting = this.#waiting.add(request, this.#m.now(), signal, () => this.#lastFailure ?? 'no circuit in time')
    this.plan()
    return waiting
  }

  /** No circuit of now takes new streams; each ends with its last one. */
  retireAll(): void {
    for (const entry of [...this.#circuits.values()]) if (entry.state === 'ready') this.#retire(entry)
    this.plan()
  }

  /** Wishes about paths (`paths.constrain`) or other options have changed: a circuit that is not wished for any more takes no new streams. */
  pathsChanged(config: PathConfig): void {
    this.#config = config
    this.#ports.memoryMs = config.portMemoryMs
    this.#aheadAfter = 0
    for (const entry of [...this.#circuits.values()]) {
      if (this.#m.paths.objection(entry.choice.relays, this.#m.wall()) === null) continue
      if (entry.state === 'building') entry.unwanted = true
      else if (entry.state === 'ready') this.#retire(entry)
    }
    this.plan()
  }

  /** Ends one circuit, with its streams. Null when there is none with this number. */
  close(id: number): PooledCircuit | null {
    const entry = this.#circuits.get(id)
    if (!entry) return null
    // One that is being built ends when it stands: a build that is broken off would be counted against its guard.
    if (entry.state === 'building') entry.unwanted = true
    else {
      entry.state = 'retired'
      entry.circuit?.close('requested')
    }
    this.plan()
    return entry
  }

  /** Resets the stream that people see under this number; which circuit it was on, or null when there is none. */
  closeStream(number: number): PooledCircuit | null {
    return [...this.#circuits.values()].find(({ circuit }) => circuit?.closeStream(number)) ?? null
  }

  /** Ends every circuit, with its streams: the network under them is gone. */
  closeAll(): void {
    for (const entry of [...this.#circuits.values()]) {
      entry.state = entry.state === 'ready' ? 'retired' : entry.state
      entry.circuit?.close('requested')
    }
  }

  /** Builds one circuit now, for whoever comes. Resolves when it is ready. @throws StreamError 'no-circuit' */
  async buildOne(): Promise<PooledCircuit> {
    let reason = 'no circuit could be built'
    for (let tries = 0; tries < this.#m.buildAttempts; tries++) {
      const result = await this.#build({ need: { ports: [], family: null }, request: null })
      if (typeof result !== 'string') return result
      reason = result
    }
    throw new StreamError('no-circuit', reason)
  }

  /** The circuit's first use is over: it carried something, or broke before it did. @param share what a failure counts for against its guard */
  noteUse(entry: PooledCircuit, succeeded: boolean, share = 1): void {
    if (entry.useNoted) return
    entry.useNoted = true
    this.#m.guards.noteUse(entry.choice.path[0], succeeded, share)
    this.#m.guardsChanged()
  }

  /** Something that plans depend on has changed. Plans are made once at the end of the turn. */
  plan(): void {
    if (this.#planning || this.#abort.signal.aborted) return
    this.#planning = true
    setImmediate(() => {
      this.#planning = false
      if (!this.#abort.signal.aborted) this.#plan()
    })
  }

  stop(): void {
    this.#abort.abort()
    clearInterval(this.#measuring)
    if (this.#planTimer) clearTimeout(this.#planTimer)
    for (const waiting of this.#waiting.all()) waiting.reject(new StreamError('aborted'))
    for (const entry of this.#circuits.values()) entry.circuit?.close('requested')
  }

  #pick(request: CircuitRequest): PooledCircuit | null {
    const now = this.#m.now()
    const pick = pickCircuit(request, this.#facts(), now, this.#config)
    if (pick.kind !== 'use') return null
    const entry = this.#circuits.get(pick.circuit)!
    entry.purpose ??= request.purpose
    entry.isolation ??= request.isolation
    entry.firstUsedAt ??= now
    return entry
  }

  #facts(): PoolCircuit[] {
    const facts: PoolCircuit[] = []
    for (const entry of this.#circuits.values()) {
      if ((entry.state !== 'building' && entry.state !== 'ready') || entry.unwanted) continue
      const exit = entry.choice.relays[2]
      facts.push({
        id: entry.id,
        state: entry.state,
        exit: exit.id,
        exitPolicy: exit.exitPolicy ?? { ipv4: [], ipv6: [] },
        exitServesPackets: exit.servesPackets,
        purpose: entry.purpose,
        isolation: entry.isolation,
        createdAt: entry.createdAt,
        firstUsedAt: entry.firstUsedAt,
        spread: entry.spread,
        streams: entry.circuit?.openStreams ?? 0,
        rttMs: entry.circuit?.rttMs ?? null,
        doubtful: entry.circuit?.isDoubtful ?? false,
      })
    }
    return facts
  }

  #plan(): void {
    const now = this.#m.now()
    const view = this.#m.paths.current(this.#m.wall())
    for (const waiting of this.#waiting.all()) {
      const picked = this.#pick(waiting.request)
      if (picked) waiting.resolve(picked)
      const unserved = picked ? null : whyUnserved(view, waiting.request, now - waiting.since)
      if (unserved) waiting.reject(unserved)
    }
    for (const entry of [...this.#circuits.values()]) {
      // What is on it goes on; nothing more is begun with a relay that is about to end.
      if (entry.state === 'ready' && entry.choice.path.some((id) => this.#m.view.get(id)?.descriptor.leaving)) this.#retire(entry)
    }
    const ports = now >= this.#aheadAfter ? this.#ports.current(now) : []
    const servable = (need: ExitNeed): boolean => view.exits(need).total > 0
    const waiting = this.#waiting.all().map(({ request }) => request)
    const plan = planPool({ circuits: this.#facts(), waiting, ports, servable }, now, this.#config)
    for (const { id } of plan.retire) {
      const entry = this.#circuits.get(id)
      if (entry) this.#retire(entry)
    }
    for (const build of plan.build) void this.#build(build)
    let wakeAt = plan.wakeAt ?? Number.POSITIVE_INFINITY
    if (this.#aheadAfter > now) wakeAt = Math.min(wakeAt, this.#aheadAfter)
    if (this.#waiting.size > 0) wakeAt = Math.min(wakeAt, now + NO_PATH_RETRY_MS)
    const isUnserved = this.#config.cleanCircuits > 0 && ports.some((port) => !servable({ ports: [port], family: null }))
    if (isUnserved) wakeAt = Math.min(wakeAt, now + NO_EXIT_RETRY_MS)
    this.#wake(wakeAt)
  }

  #wake(at: number): void {
    if (this.#planTimer) clearTimeout(this.#planTimer)
    this.#planTimer = null
    this.#planAt = at
    if (!Number.isFinite(at)) return
    this.#planTimer = setTimeout(() => this.plan(), Math.max(1, Math.ceil(this.#planAt - this.#m.now())))
    this.#planTimer.unref()
  }

  #retire(entry: PooledCircuit): void {
    if (entry.state === 'building') {
      // A build that takes too long: its driver sees the end and reports the failure.
      entry.circuit?.close('timeout')
      return
    }
    if (entry.state !== 'ready') return
    entry.state = 'retired'
    // One that nothing is on ends now, and that is told.
    if (entry.circuit?.openStreams) this.#m.event({ type: 'retired', circuit: entry })
    this.#closeIfIdle(entry)
  }

  #closeIfIdle(entry: PooledCircuit): void {
    if (entry.state === 'retired' && entry.circuit && entry.circuit.openStreams === 0) entry.circuit.close('finished')
  }

  /** One build of one path; never throws: a failure is what it returns, in words. */
  async #build(build: PoolBuild): Promise<PooledCircuit | string> {
    const { guards, random, now, wall, logger } = this.#m
    const config = this.#config
    const view = this.#m.paths.current(wall())
    if (guards.sample(view, random, wall())) this.#m.guardsChanged()
    const choice = choosePath(
      view,
      {
        guards: guards.current(now()),
        guardsInUse: config.guardsInUse,
        need: build.need,
        setAside: this.#health.setAside(now()),
        ...(build.request?.excludeExits ? { excludeExits: build.request.excludeExits } : {}),
      },
      random,
    )
    if (choice.kind === 'no-path') {
      const why = explainFailure(choice)
      this.#lastFailure = why
      this.#record.noteWithoutPath(choice, view, now())
      this.#holdAhead(build)
      return why
    }
    const entry: PooledCircuit = {
      id: this.#nextId++,
      choice,
      need: build.need,
      createdAt: now(),
      spread: random.unit(),
      state: 'building',
      purpose: build.request?.purpose ?? null,
      isolation: build.request?.isolation ?? null,
      firstUsedAt: null,
      readyAt: null,
      circuit: null,
      end: null,
      unwanted: false,
      useNoted: false,
      measured: { bytes: 0, at: now() },
    }
    this.#circuits.set(entry.id, entry)
    guards.noteAttempt(choice.path[0], now())
    try {
      await buildCircuit(this.#m, {
        path: choice.path,
        timeoutMs: config.buildTimeoutMs,
        stopped: this.#abort.signal,
        begun: (circuit) => {
          entry.circuit = circuit
        },
        streamEnded: () => {
          this.#closeIfIdle(entry)
          if (entry.state !== 'closed') this.plan()
        },
        streamTold: (what, stream) => this.#m.event({ type: `stream-${what}`, circuit: entry, stream }),
        doubted: () => this.plan(),
        closed: (end) => this.#closed(entry, end),
      })
    } catch (error) {
      const why = `circuit not built: ${messageOf(error)}`
      logger.debug('circuit not built', { circuit: entry.id, error: messageOf(error) })
      this.#buildFailed(entry, build, error)
      return why
    }
    entry.readyAt = now()
    entry.state = entry.unwanted ? 'retired' : 'ready'
    this.#built++
    this.#aheadFailures = 0
    this.#aheadAfter = 0
    this.#lastFailure = null
    this.#record.noteBuilt()
    this.#blame.noteBuilt(now())
    guards.noteBuild(choice.path[0], true)
    this.#m.guardsChanged()
    this.#health.noteSuccess(choice.path, now())
    entry.circuit?.pingHops().catch(() => {})
    this.#m.event({ type: 'open', circuit: entry })
    this.#closeIfIdle(entry)
    this.plan()
    return entry
  }

  #buildFailed(entry: PooledCircuit, build: PoolBuild, error: unknown): void {
    this.#failed++
    this.#lastFailure = messageOf(error)
    entry.state = 'closed'
    entry.circuit?.close('requested')
    this.#forget(entry)
    if (this.#abort.signal.aborted) return
    this.#record.noteFailed(failedAt(error), this.#m.now())
    if (error instanceof CircuitBuildError) {
      const { end } = error
      this.#noteFailure(entry, end)
      this.#m.guards.noteBuild(entry.choice.path[0], false, this.#guardShare(entry, end))
      this.#m.guardsChanged()
    }
    this.#holdAhead(build)
    if (build.request) {
      for (const waiting of this.#waiting.all()) {
        if (waiting.request.isolation !== build.request.isolation || waiting.request.purpose !== build.request.purpose) continue
        waiting.failures++
        if (waiting.failures >= this.#m.buildAttempts) {
          waiting.reject(new StreamError('no-circuit', `no circuit could be built: ${messageOf(error)}`, { cause: error as ShallotError }))
        }
      }
    }
    this.plan()
  }

  /** Building ahead of need waits a little longer after each failure, so that a dead network is not hammered. */
  #holdAhead(build: PoolBuild): void {
    if (build.request !== null) return
    const now = this.#m.now()
    // Those that were begun together fail together.
    if (now < this.#aheadAfter) return
    this.#aheadAfter = now + Math.min(AHEAD_RETRY_MS.most, AHEAD_RETRY_MS.first * 2 ** Math.min(this.#aheadFailures++, 16))
    this.#wake(Math.min(this.#planAt, this.#aheadAfter))
  }

  #closed(entry: PooledCircuit, end: CircuitEnd): void {
    entry.end = end
    // While building, whoever builds reports the failure.
    if (entry.state === 'building') return
    if (entry.state === 'closed') return
    const wasReady = entry.state === 'ready'
    entry.state = 'closed'
    this.#forget(entry)
    if (wasReady && !this.#abort.signal.aborted) {
      this.#noteFailure(entry, end)
      if (entry.firstUsedAt !== null && !entry.useNoted) this.noteUse(entry, false, this.#guardShare(entry, end))
      if (end.silent !== null) this.#suspect(entry, end.silent)
    }
    this.plan()
  }

  #guardShare(entry: PooledCircuit, end: CircuitEnd): number {
    return this.#blame.share(entry.choice.path, failureOf(end), this.#m.now(), hopsBehindNat(entry))
  }

  #noteFailure(entry: PooledCircuit, end: CircuitEnd): void {
    this.#health.noteFailure(entry.choice.path, failureOf(end), this.#m.now(), hopsBehindNat(entry))
  }

  /** A circuit fell silent at a hop: the others through the same relay may have as well, and are asked now instead of when they are used. */
  #suspect(entry: PooledCircuit, silent: number): void {
    const relay = entry.choice.path[silent]
    if (relay === undefined) return
    const others = [...this.#circuits.values()].filter((other) => other.choice.path.includes(relay))
    for (const other of others) if (other.state !== 'building') other.circuit?.suspect()
    if (silent > 0) return
    // A guard that other circuits hear of is there; else the link is dead, or the guard, or the network: nothing is counted before that is known.
    const { now, guards, suspectLink } = this.#m
    const since = now() - this.#m.liveness.probeAfterMs - this.#m.liveness.probeTimeoutMs
    if (others.some(({ circuit }) => (circuit?.heardAt ?? since) > since)) return
    guards.noteFailure(relay, false, now())
    suspectLink?.(relay)
  }

  #forget(entry: PooledCircuit): void {
    this.#circuits.delete(entry.id)
    this.#closedBytes.sent += entry.circuit?.bytesOut ?? 0
    this.#closedBytes.received += entry.circuit?.bytesIn ?? 0
    this.#closedOnes.push(entry)
    if (this.#closedOnes.length > MAX_CLOSED) this.#closedOnes.shift()
    this.#m.event({ type: 'closed', circuit: entry })
  }

  /** What a circuit carried, each of its relays carried: they may count for that much. */
  #measure(): void {
    const now = this.#m.now()
    for (const entry of this.#circuits.values()) {
      if (!entry.circuit) continue
      const { bytesIn, bytesOut } = entry.circuit
      const bytes = bytesIn + bytesOut
      const rate = ((bytes - entry.measured.bytes) * 1000) / Math.max(1, now - entry.measured.at)
      entry.measured = { bytes, at: now }
      if (rate < MEASURE_FLOOR) continue
      for (const id of entry.choice.path) this.#m.view.noteMeasured(id as NodeId, rate)
    }
  }
}
