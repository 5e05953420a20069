import { type Flow, flowKey } from './flows.ts'

/** How two places are linked, as the packets between them show. */
export type LinkLabel = 'direct' | 'reversed' | 'punched-tcp' | 'punched-udp' | 'relayed'

export interface LabelledLink {
  readonly label: LinkLabel
  /** The address family of the direct link; null when there is none. */
  readonly family: 4 | 6 | null
  /** The flow that carries it. */
  readonly flow: Flow | null
}

/** A handshake of TLS with its certificates takes more than this each way; failed attempts and a STUN check take less. */
const leastBytes = 1000

/**
 * The label of a pair, from the flows between their public addresses alone. Of TCP: who asked for the connection? Only the seeker: direct; only
 * the sought one: reversed; both, on the same pair of ports: punched. Datagrams both ways: punched by UDP. Neither: whatever they say to each
 * other goes through somebody else.
 * @param seeker its public addresses, @param sought those of the other
 * @param before what was counted when the attempt began (`flowKey`): only bytes beyond it count
 */
export function labelLink(
  flows: readonly Flow[],
  seeker: readonly string[],
  sought: readonly string[],
  before: ReadonlyMap<string, number> = new Map(),
): LabelledLink {
  const between = flows
    .filter(({ a, b }) => joins(a.ip, b.ip, seeker, sought))
    .map((flow) => ({ flow, fresh: freshBytes(flow, before) }))
    .filter(({ fresh }) => fresh >= leastBytes)
    .sort((x, y) => y.fresh - x.fresh)
  const flow = (between.find(({ flow }) => flow.protocol === 'tcp') ?? between[0])?.flow
  if (!flow) return { label: 'relayed', family: null, flow: null }
  return { label: labelOf(flow, seeker), family: flow.a.ip.includes(':') ? 6 : 4, flow }
}

/** What went since then in the direction that carried less. */
function freshBytes({ protocol, a, b, bytesFromA, bytesFromB }: Flow, before: ReadonlyMap<string, number>): number {
  return Math.min(bytesFromA - (before.get(flowKey(protocol, a, b)) ?? 0), bytesFromB - (before.get(flowKey(protocol, b, a)) ?? 0))
}

function labelOf(flow: Flow, seeker: readonly string[]): LinkLabel {
  if (flow.protocol === 'udp') return 'punched-udp'
  if (flow.askedByA > 0 && flow.askedByB > 0) return 'punched-tcp'
  return seeker.includes(flow.a.ip) ? 'direct' : 'reversed'
}

function joins(a: string, b: string, some: readonly string[], others: readonly string[]): boolean {
  return (some.includes(a) && others.includes(b)) || (some.includes(b) && others.includes(a))
}
