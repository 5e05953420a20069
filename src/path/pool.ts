import type { NodeId } from '../base/index.ts'
import { allowsPort, type PolicySummary } from '../directory/index.ts'
import { circuitLimits } from '../onion/index.ts'
import type { PathConfig } from './config.ts'
import type { ExitNeed } from './path-view.ts'

/** The part of its lifetime by which a circuit may be retired sooner, so that circuits made together do not end together. */
const LIFETIME_SPREAD = 0.1

/** What a circuit is used for, and for nothing else: raw packets and datagrams must not wait behind a bulk stream. */
export type CircuitPurpose = 'streams' | 'datagrams' | 'packets'

/** What the pool's decisions need to know of a circuit. Times are monotonic ms. */
export interface PoolCircuit {
  readonly id: number
  readonly state: 'building' | 'ready'
  readonly exit: NodeId
  readonly exitPolicy: PolicySummary
  readonly exitServesPackets: boolean
  /** Null while it is clean: nothing ever used it, anything may. */
  readonly purpose: CircuitPurpose | null
  readonly isolation: string | null
  readonly createdAt: number
  readonly firstUsedAt: number | null
  /** [0, 1), drawn once for each circuit. */
  readonly spread: number
  /** Open streams, datagram associations or packet leases. */
  readonly streams: number
  readonly rttMs: number | null
  /** Owes a sign of life and is late: nothing new is begun on it, and it does not count as one that is ready. */
  readonly doubtful: boolean
}

/** What somebody waits for. */
export interface CircuitRequest {
  readonly purpose: CircuitPurpose
  readonly isolation: string
  /** Null where the port is not known (names to resolve, datagrams): any exit. */
  readonly port: number | null
  readonly family: 4 | 6 | null
  /** Exits that refused this request before. */
  readonly excludeExits?: ReadonlySet<NodeId>
}

export type PoolPick =
  /** Use it now; `clean` means that the request makes it its own. */
  | { readonly kind: 'use'; readonly circuit: number; readonly clean: boolean; readonly why: string }
  /** One that will do is being built. */
  | { readonly kind: 'wait'; readonly circuit: number; readonly why: string }
  | { readonly kind: 'build'; readonly need: ExitNeed; readonly why: string }

export type RetireReason =
  | 'lifetime' // its time after first use is over, and nothing uses it
  | 'unused' // was kept clean for too long
  | 'build-timeout'
  | 'surplus' // makes room for one that a request waits for

export interface PoolBuild {
  readonly need: ExitNeed
  /** Whom it is for; null when it is built ahead of need. */
  readonly request: CircuitRequest | null
}

export interface PoolPlan {
  readonly build: readonly PoolBuild[]
  readonly retire: readonly { readonly id: number; readonly reason: RetireReason }[]
  /** When (monotonic ms) to ask again even if nothing happens; null for never. */
  readonly wakeAt: number | null
}

export interface PoolFacts {
  readonly circuits: readonly PoolCircuit[]
  /** Requests that no ready circuit fits, oldest first. */
  readonly waiting: readonly CircuitRequest[]
  /** Ports to keep clean circuits for: `PortDemand.current`. */
  readonly ports: readonly number[]
  /** Whether any exit of the view could serve the need (`view.exits(need)`): ports that no one exit allows together get circuits apart. */
  readonly servable: (need: ExitNeed) => boolean
}

type PoolOptions = Pick<
  PathConfig,
  | 'circuitLifetimeMs'
  | 'cleanLifetimeMs'
  | 'cleanCircuits'
  | 'maxCircuits'
  | 'maxBuilding'
  | 'streamsPerCircuit'
  | 'buildTimeoutMs'
  | 'buildPatienceMs'
>

/**
 * A circuit for a request: the same isolation's own before a clean one (fewer circuits then know of it), and among those the one with
 * the best measured round trip. Never one past its lifetime, full, of another isolation or purpose, or whose exit refuses the port.
 */
export function pickCircuit(request: CircuitRequest, circuits: readonly PoolCircuit[], now: number, options: PoolOptions): PoolPick {
  const fitting = circuits.filter((circuit) => fits(request, circuit, now, options))
  const ready = fitting.filter((circuit) => circuit.state === 'ready')
  const own = ready.filter((circuit) => circuit.purpose !== null)
  const best = bestRtt(own) ?? bestRtt(ready)
  if (best) {
    const clean = best.purpose === null
    const rtt = best.rttMs === null ? 'round trip not measured yet' : `best round trip, ${Math.round(best.rttMs)} ms`
    const of = clean ? `unused, of ${ready.length}` : `of this isolation, of ${own.length}`
    return { kind: 'use', circuit: best.id, clean, why: `${of}; ${rtt}` }
  }
  const building = fitting.find((circuit) => circuit.purpose !== null) ?? fitting[0]
  if (building) return { kind: 'wait', circuit: building.id, why: 'one that fits is being built' }
  return { kind: 'build', need: needOf(request), why: whyNone(request, circuits, now, options) }
}

/**
 * What to build and what to close, now. Waiting requests come first, one build for all that can share it; then clean
 * circuits for the predicted ports, as long as limits allow. A circuit in use is never closed.
 */
export function planPool(facts: PoolFacts, now: number, options: PoolOptions): PoolPlan {
  const retire = facts.circuits.flatMap((circuit) => {
    const reason = retireReason(circuit, now, options)
    return reason ? [{ id: circuit.id, reason }] : []
  })
  const gone = new Set(retire.map(({ id }) => id))
  const circuits = facts.circuits.filter((circuit) => !gone.has(circuit.id))
  const { unserved, promised } = promise(facts.waiting, circuits, now, options)

  const build: PoolBuild[] = []
  let room = options.maxCircuits - circuits.length
  let building = options.maxBuilding - circuits.filter((circuit) => circuit.state === 'building').length
  const victims = surplus(circuits, promised)
  for (const request of unserved) {
    if (building <= 0) break
    if (room <= 0) {
      const victim = victims.shift()
      if (!victim) break
      retire.push({ id: victim.id, reason: 'surplus' })
      gone.add(victim.id)
      room++
    }
    build.push({ need: needOf(request), request })
    room--
    building--
  }
  const clean = circuits.filter((circuit) => isClean(circuit) && !circuit.doubtful && !promised.has(circuit.id) && !gone.has(circuit.id))
  for (const need of missing(facts, clean, options)) {
    if (building <= 0 || room <= 0) break
    build.push({ need, request: null })
    room--
    building--
  }
  return { build, retire, wakeAt: wakeAt(circuits, gone, now, options) }
}

/** When (monotonic ms) a circuit takes no more streams; null while it is clean. */
export function lifetimeEnd(circuit: PoolCircuit, options: Pick<PoolOptions, 'circuitLifetimeMs'>): number | null {
  if (circuit.firstUsedAt === null) return null
  return circuit.firstUsedAt + options.circuitLifetimeMs * (1 - LIFETIME_SPREAD * circuit.spread)
}

/** What the exit of a circuit for this request must allow. */
export function needOf(request: CircuitRequest): ExitNeed {
  const need = { ports: request.port === null ? [] : [request.port], family: request.port === null ? null : request.family }
  return request.purpose === 'packets' ? { ...need, packets: true } : need
}

/** How many uses of a kind one circuit takes: no more than its machine does. */
function mostUses(purpose: CircuitPurpose, { streamsPerCircuit }: PoolOptions): number {
  if (purpose === 'packets') return Math.min(streamsPerCircuit, circuitLimits.packetStreams)
  return purpose === 'datagrams' ? Math.min(streamsPerCircuit, circuitLimits.datagramStreams) : streamsPerCircuit
}

function isClean(circuit: PoolCircuit): boolean {
  return circuit.purpose === null && circuit.firstUsedAt === null
}

function fits(request: CircuitRequest, circuit: PoolCircuit, now: number, options: PoolOptions): boolean {
  return misfit(request, circuit, now, options) === null
}

type Misfit = 'isolation' | 'purpose' | 'age' | 'full' | 'doubtful' | 'packets' | 'port' | 'refused-before'

function misfit(request: CircuitRequest, circuit: PoolCircuit, now: number, options: PoolOptions): Misfit | null {
  if (!isClean(circuit)) {
    if (circuit.isolation !== request.isolation) return 'isolation'
    if (circuit.purpose !== request.purpose) return 'purpose'
  }
  if (retireReason(circuit, now, options) !== null || (lifetimeEnd(circuit, options) ?? now + 1) <= now) return 'age'
  if (circuit.streams >= mostUses(request.purpose, options)) return 'full'
  if (circuit.doubtful) return 'doubtful'
  if (request.purpose === 'packets' && !circuit.exitServesPackets) return 'packets'
  if (request.port !== null && !allowsPort(circuit.exitPolicy, request.port, request.family)) return 'port'
  return request.excludeExits?.has(circuit.exit) ? 'refused-before' : null
}

function whyNone(request: CircuitRequest, circuits: readonly PoolCircuit[], now: number, options: PoolOptions): string {
  if (circuits.length === 0) return 'there is no circuit'
  const counts = new Map<Misfit, number>()
  for (const circuit of circuits) {
    const reason = misfit(request, circuit, now, options)
    if (reason) counts.set(reason, (counts.get(reason) ?? 0) + 1)
  }
  return `none of ${circuits.length} circuits fits: ${[...counts].map(([reason, count]) => `${count} ${reason}`).join(', ')}`
}

/** The least round trip; unmeasured circuits come last, the newest of equals first. */
function bestRtt(circuits: readonly PoolCircuit[]): PoolCircuit | null {
  let best: PoolCircuit | null = null
  for (const circuit of circuits) {
    const rtt = circuit.rttMs ?? Number.POSITIVE_INFINITY
    const bestRttMs = best?.rttMs ?? Number.POSITIVE_INFINITY
    if (!best || rtt < bestRttMs || (rtt === bestRttMs && circuit.createdAt > best.createdAt)) best = circuit
  }
  return best
}

function retireReason(circuit: PoolCircuit, now: number, options: PoolOptions): RetireReason | null {
  if (circuit.state === 'building') return now - circuit.createdAt >= options.buildTimeoutMs ? 'build-timeout' : null
  if (circuit.streams > 0) return null
  const end = lifetimeEnd(circuit, options)
  if (end !== null) return now >= end ? 'lifetime' : null
  return now >= cleanEnd(circuit, options) ? 'unused' : null
}

function cleanEnd(circuit: PoolCircuit, options: PoolOptions): number {
  return circuit.createdAt + options.cleanLifetimeMs * (1 - LIFETIME_SPREAD * circuit.spread)
}

/** Gives each waiting request a place on a circuit that exists already, or is being built and not slow; who shares an isolation shares it. */
function promise(
  waiting: readonly CircuitRequest[],
  circuits: readonly PoolCircuit[],
  now: number,
  options: PoolOptions,
): { unserved: CircuitRequest[]; promised: Set<number> } {
  const isSlow = ({ state, createdAt }: PoolCircuit): boolean => state === 'building' && now - createdAt >= options.buildPatienceMs
  const places = new Map<number, PoolCircuit>(circuits.filter((circuit) => !isSlow(circuit)).map((circuit) => [circuit.id, circuit]))
  const promised = new Set<number>()
  const unserved: CircuitRequest[] = []
  /** Builds that will be asked for: each serves all that fit what it is built for. */
  const planned: { request: CircuitRequest; left: number }[] = []
  for (const request of waiting) {
    const fitting = [...places.values()].filter((circuit) => fits(request, circuit, now, options))
    const circuit = fitting.find((one) => !isClean(one)) ?? fitting[0]
    if (circuit) {
      promised.add(circuit.id)
      const { isolation, purpose } = request
      places.set(circuit.id, { ...circuit, isolation, purpose, firstUsedAt: circuit.firstUsedAt ?? now, streams: circuit.streams + 1 })
      continue
    }
    const plan = planned.find((one) => one.left > 0 && sharesBuild(one.request, request))
    if (plan) plan.left--
    else {
      planned.push({ request, left: mostUses(request.purpose, options) - 1 })
      unserved.push(request)
    }
  }
  return { unserved, promised }
}

function sharesBuild(a: CircuitRequest, b: CircuitRequest): boolean {
  const excluded = b.excludeExits?.size ?? 0
  return a.isolation === b.isolation && a.purpose === b.purpose && a.port === b.port && a.family === b.family && excluded === 0
}

/** What may be closed for a request that waits while all places are taken: clean ones, then idle ones, the oldest first. */
function surplus(circuits: readonly PoolCircuit[], promised: ReadonlySet<number>): PoolCircuit[] {
  const idle = circuits.filter((circuit) => circuit.state === 'ready' && circuit.streams === 0 && !promised.has(circuit.id))
  const rank = (circuit: PoolCircuit): number => circuit.firstUsedAt ?? Number.NEGATIVE_INFINITY
  return idle.sort((a, b) => rank(a) - rank(b) || a.createdAt - b.createdAt)
}

/** Needs of the clean circuits to build: each for as many of the ports that lack some as one exit can serve. */
function missing(facts: PoolFacts, clean: readonly PoolCircuit[], options: PoolOptions): ExitNeed[] {
  const lacking = new Map<number, number>()
  for (const port of facts.ports) {
    const have = clean.filter((circuit) => allowsPort(circuit.exitPolicy, port, null)).length
    if (have < options.cleanCircuits && facts.servable({ ports: [port], family: null })) lacking.set(port, options.cleanCircuits - have)
  }
  const needs: ExitNeed[] = []
  while (lacking.size > 0) {
    const ports: number[] = []
    for (const port of lacking.keys()) if (facts.servable({ ports: [...ports, port], family: null })) ports.push(port)
    for (const port of ports) {
      const left = lacking.get(port)! - 1
      if (left > 0) lacking.set(port, left)
      else lacking.delete(port)
    }
    needs.push({ ports, family: null })
  }
  return needs
}

function wakeAt(circuits: readonly PoolCircuit[], gone: ReadonlySet<number>, now: number, options: PoolOptions): number | null {
  let soonest: number | null = null
  for (const circuit of circuits) {
    if (gone.has(circuit.id)) continue
    const at =
      circuit.state === 'building'
        ? circuit.createdAt + options.buildTimeoutMs
        : (lifetimeEnd(circuit, options) ?? cleanEnd(circuit, options))
    if (at > now && (soonest === null || at < soonest)) soonest = at
  }
  return soonest
}
