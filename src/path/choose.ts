import type { NodeId, Random } from '../base/index.ts'
import { countRule, emptyingRule, type Rule, type RuleCounts } from './constraints.ts'
import { type Candidates, draw, type ExitNeed, exitMisses, type PathView } from './path-view.ts'
import type { Position, RelayFacts } from './relay-facts.ts'

/** Draws before the exact way is taken; where half of all candidates are refused, one choice in 2^32 needs it. */
const MAX_DRAWS = 32
/** Exits that are tried in the exact way before a guard is given up: a complete search wherever there are no more exits than this. */
const MAX_EXITS_TRIED = 64

export interface PathRequest {
  /** Usable guards in the order of preference: `GuardSample.current`. */
  readonly guards: readonly NodeId[]
  /** The first this many guards share the load; 1 when not given. */
  readonly guardsInUse?: number
  readonly need: ExitNeed
  /** Relays that failed too often lately (`RelayHealth.setAside`). Used all the same when nothing else is left. */
  readonly setAside?: ReadonlySet<NodeId>
  /** Exits that refused this request before. */
  readonly excludeExits?: ReadonlySet<NodeId>
}

export type PathResult = PathChoice | PathFailure

export interface PathChoice {
  readonly kind: 'path'
  readonly path: readonly [guard: NodeId, middle: NodeId, exit: NodeId]
  readonly relays: readonly [guard: RelayFacts, middle: RelayFacts, exit: RelayFacts]
  readonly reasons: PathReasons
}

/** Why these three: what `shallot circuits --why` shows. */
export interface PathReasons {
  readonly need: ExitNeed
  readonly guard: {
    readonly place: number
    readonly of: number
    readonly passedOver: readonly { readonly id: NodeId; readonly failure: PathFailure }[]
  }
  readonly exit: DrawReasons
  readonly middle: DrawReasons
  /** True when relays that were set aside had to be used. */
  readonly setAsideUsed: boolean
  /** True when the middle is one that is only ever reached through its NAT relay: no other middle was left around this guard. */
  readonly lastResortUsed: boolean
}

export interface DrawReasons {
  readonly how: 'drawn' | 'exact'
  /** Relays that fit the position and the ports. */
  readonly candidates: number
  /** The chance of this relay among them, before the rules about its neighbours. */
  readonly probability: number
  /** What was drawn and refused before, by rule (in the exact way: all candidates, by the first rule they broke). */
  readonly refused: RuleCounts
}

/** No path: which position had no candidate left, and which rule took the last. */
export interface PathFailure {
  readonly kind: 'no-path'
  readonly position: Position
  /** Null when there was no candidate to begin with. */
  readonly rule: Rule | null
  /** Refused candidates by the first rule each broke; their sum is every relay of the view (for a guard: of the sample; where none of it can be used, and no other guard either, of the view). */
  readonly counts: RuleCounts
  readonly need: ExitNeed
}

/**
 * Chooses three hops: the guard is fixed first, exit and middle are drawn around it by weight. The next guard is taken only where no
 * path begins with the one before it. The same view, request and randomness give the same path.
 */
export function choosePath(view: PathView, request: PathRequest, random: Random): PathResult {
  const strict = attempt(view, request, request.setAside ?? new Set(), random)
  if (strict.kind === 'path' || !request.setAside || request.setAside.size === 0) return strict
  const relaxed = attempt(view, request, new Set(), random)
  return relaxed.kind === 'path' ? { ...relaxed, reasons: { ...relaxed.reasons, setAsideUsed: true } } : relaxed
}

function attempt(view: PathView, request: PathRequest, setAside: ReadonlySet<NodeId>, random: Random): PathResult {
  const passedOver: { id: NodeId; failure: PathFailure }[] = []
  const guards = orderGuards(request.guards, request.guardsInUse ?? 1, random)
  const guardCounts: RuleCounts = {}
  let failure: PathFailure | null = null
  for (const id of guards) {
    const guard = view.indexOf(id)
    const rule = guard === null ? 'not-in-view' : view.refusal(guard, 'guard')
    if (guard === null || rule !== null) {
      countRule(guardCounts, rule ?? 'not-in-view')
      const counts: RuleCounts = {}
      countRule(counts, rule ?? 'not-in-view')
      passedOver.push({ id, failure: { kind: 'no-path', position: 'guard', rule, counts, need: request.need } })
      continue
    }
    const result = around(view, guard, request, setAside, random)
    if (!('kind' in result)) {
      const place = request.guards.indexOf(id)
      const relays = [view.relays[guard]!, view.relays[result.middle]!, view.relays[result.exit]!] as const
      return {
        kind: 'path',
        path: [relays[0].id, relays[1].id, relays[2].id],
        relays,
        reasons: {
          need: request.need,
          guard: { place, of: request.guards.length, passedOver },
          exit: result.exitReasons,
          middle: result.middleReasons,
          setAsideUsed: false,
          lastResortUsed: view.isLastResort(result.middle),
        },
      }
    }
    failure ??= result
    passedOver.push({ id, failure: result })
  }
  if (guards.length === 0) return withoutGuards(view, request.need)
  return failure ?? failed('guard', guardCounts, request.need)
}

/** Nobody of the sample can be used now: what the rules say where they leave no guard at all. Else all of the sample wait to be tried again. */
function withoutGuards(view: PathView, need: ExitNeed): PathFailure {
  const { fitting, counts } = filter(view, 'guard', () => null)
  return failed('guard', fitting.length > 0 ? {} : counts, need)
}

/** The first `inUse` begin with a random one of them, so that they share the load; the rest stay in order. */
function orderGuards(guards: readonly NodeId[], inUse: number, random: Random): readonly NodeId[] {
  const used = Math.min(inUse, guards.length)
  if (used < 2) return guards
  const first = random.int(used)
  return [...guards.slice(first, used), ...guards.slice(0, first), ...guards.slice(used)]
}

interface Ends {
  readonly exit: number
  readonly middle: number
  readonly exitReasons: DrawReasons
  readonly middleReasons: DrawReasons
}

function around(view: PathView, guard: number, request: PathRequest, setAside: ReadonlySet<NodeId>, random: Random): Ends | PathFailure {
  const middles = view.candidates('middle')
  const middleRule = (exit: number) => (index: number) =>
    momentRule(view, index, setAside, null) ?? view.conflict(guard, index) ?? view.conflict(exit, index)
  const exitRule = (index: number): Rule | null =>
    momentRule(view, index, setAside, request.excludeExits ?? null) ?? view.conflict(guard, index)

  const exits = view.exits(request.need)
  const drawnExit = drawAllowed(exits, exitRule, random)
  if (drawnExit.index !== null) {
    const drawnMiddle = drawAllowed(middles, middleRule(drawnExit.index), random)
    if (drawnMiddle.index !== null) {
      return {
        exit: drawnExit.index,
        middle: drawnMiddle.index,
        exitReasons: drawReasons(view, exits, 'exit', drawnExit),
        middleReasons: drawReasons(view, middles, 'middle', drawnMiddle),
      }
    }
  }
  return exactly(view, request, exitRule, middleRule, random)
}

/** Every exit that fits, by weight and without repetition, until one leaves a middle; a middle of last resort only when none leaves another. */
function exactly(
  view: PathView,
  request: PathRequest,
  exitRule: (index: number) => Rule | null,
  middleRule: (exit: number) => (index: number) => Rule | null,
  random: Random,
): Ends | PathFailure {
  const exits = filter(view, 'exit', (index) => exitMisses(view.relays[index]!, request.need) ?? exitRule(index))
  let failure: PathFailure | null = exits.fitting.length === 0 ? failed('exit', exits.counts, request.need) : null
  const left = [...exits.fitting]
  let lastResort: (() => Ends) | null = null
  for (let tried = 0; tried < MAX_EXITS_TRIED && left.length > 0; tried++) {
    const exit = drawExactly(view, 'exit', left, random)
    const exitReasons: DrawReasons = { how: 'exact', candidates: left.length, probability: exit.probability, refused: exits.counts }
    const { fitting, counts } = filter(view, 'middle', middleRule(exit.index))
    const withMiddle = (middles: readonly number[]): Ends => {
      const middle = drawExactly(view, 'middle', middles, random)
      const middleReasons: DrawReasons = { how: 'exact', candidates: middles.length, probability: middle.probability, refused: counts }
      return { exit: exit.index, middle: middle.index, exitReasons, middleReasons }
    }
    const better = fitting.filter((index) => !view.isLastResort(index))
    if (better.length > 0) {
      if (better.length < fitting.length) countRule(counts, 'nat-only-last-resort', fitting.length - better.length)
      return withMiddle(better)
    }
    if (fitting.length > 0) lastResort ??= () => withMiddle(fitting)
    failure ??= failed('middle', counts, request.need)
    left.splice(left.indexOf(exit.index), 1)
  }
  return lastResort ? lastResort() : failure!
}

function failed(position: Position, counts: RuleCounts, need: ExitNeed): PathFailure {
  return { kind: 'no-path', position, rule: emptyingRule(counts), counts, need }
}

/** What speaks against a relay at this moment. */
function momentRule(view: PathView, index: number, setAside: ReadonlySet<NodeId>, excluded: ReadonlySet<NodeId> | null): Rule | null {
  const { id } = view.relays[index]!
  if (setAside.has(id)) return 'set-aside'
  // Behind NAT relays of which none works, it does not either.
  if (setAside.size > 0 && view.relays[index]!.reach !== 'direct') {
    if (view.fronts(index).every((front) => setAside.has(view.relays[front]!.id))) return 'set-aside'
  }
  return excluded?.has(id) ? 'excluded-here' : null
}

interface Drawn {
  readonly index: number | null
  readonly refused: RuleCounts
}

/** Rejection sampling: exact in distribution, and bounded. */
function drawAllowed(candidates: Candidates, rule: (index: number) => Rule | null, random: Random): Drawn {
  const refused: RuleCounts = {}
  for (let i = 0; i < MAX_DRAWS; i++) {
    const index = draw(candidates, random)
    if (index === null) break
    const broken = rule(index)
    if (broken === null) return { index, refused }
    countRule(refused, broken)
  }
  return { index: null, refused }
}

function drawReasons(view: PathView, candidates: Candidates, position: Position, drawn: Drawn): DrawReasons {
  return {
    how: 'drawn',
    candidates: candidates.indexes.length,
    probability: view.weight(drawn.index!, position) / candidates.total,
    refused: drawn.refused,
  }
}

/** All relays of the view held against every rule of a position. */
function filter(view: PathView, position: Position, rule: (index: number) => Rule | null): { fitting: number[]; counts: RuleCounts } {
  const fitting: number[] = []
  const counts: RuleCounts = {}
  for (let index = 0; index < view.relays.length; index++) {
    const broken = view.refusal(index, position) ?? rule(index)
    if (broken === null) fitting.push(index)
    else countRule(counts, broken)
  }
  return { fitting, counts }
}

/** One of `from` by balanced weight; where the balance leaves all of them nothing (their capacity is needed elsewhere), by plain weight. */
function drawExactly(view: PathView, position: Position, from: readonly number[], random: Random): { index: number; probability: number } {
  const balanced = from.reduce((sum, index) => sum + view.weight(index, position), 0)
  const weigh = balanced > 0 ? (index: number) => view.weight(index, position) : (index: number) => view.relays[index]!.weight
  const total = balanced > 0 ? balanced : from.reduce((sum, index) => sum + weigh(index), 0)
  let wanted = random.unit() * total
  let last = from[0]!
  for (const index of from) {
    const weight = weigh(index)
    if (weight <= 0) continue
    last = index
    wanted -= weight
    if (wanted < 0) break
  }
  return { index: last, probability: weigh(last) / total }
}
