import { type NodeId, nodeIdFromKey, parseIp, type Random, SeededRandom } from '../../../src/base/index.ts'
import {
  constraintsOf,
  diversityNetwork,
  type PathConstraints,
  PathView,
  POSITIONS,
  type Position,
  pathConfig,
  type RelayFacts,
} from '../../../src/path/index.ts'

/** A node id that is the same for the same number. */
export function idOf(number: number): NodeId {
  return nodeIdFromKey(new SeededRandom(number + 1).bytes(32))
}

/** A relay that fits everywhere: alone in its /16, unless told otherwise. */
export function relay(
  number: number,
  facts: Partial<Omit<RelayFacts, 'addresses' | 'networks'>> & { address?: string | null } = {},
): RelayFacts {
  const { address = `${1 + (number >> 8)}.${number & 255}.0.1`, ...rest } = facts
  const addresses = address === null ? [] : [parseIp(address)]
  const eligible = rest.eligible ?? true
  return {
    id: idOf(number),
    positions: POSITIONS,
    weight: 1000,
    eligible,
    eligibleAsGuard: eligible,
    addresses,
    networks: addresses.map(diversityNetwork),
    family: [],
    reach: rest.via && rest.via.length > 0 ? 'punchable' : 'direct',
    canRelay: false,
    via: [],
    exitPolicy: { ipv4: [{ from: 1, to: 65_535 }], ipv6: [] },
    circuitVersions: [1],
    servesPackets: false,
    ...rest,
  }
}

export function relays(count: number, facts: (number: number) => Parameters<typeof relay>[1] = () => ({})): RelayFacts[] {
  return Array.from({ length: count }, (_, number) => relay(number, facts(number)))
}

export const noConstraints: PathConstraints = constraintsOf(pathConfig.parse({}))

export function viewOf(facts: readonly RelayFacts[], constraints: Partial<PathConstraints> = {}): PathView {
  return new PathView(facts, { ...noConstraints, ...constraints })
}

/** A crowded random view: few networks, families told one-sidedly and mutually, NAT relays and nodes behind them, all mixes of roles and policies. */
export function randomRelays(count: number, random: Random, behindNat = 0.15): RelayFacts[] {
  const chance = (share: number): boolean => random.unit() < share
  const ids = Array.from({ length: count }, (_, number) => idOf(number))
  const family: NodeId[][] = ids.map(() => [])
  for (let i = 0; i < count / 2; i++) {
    const a = random.int(count)
    const b = random.int(count)
    family[a]!.push(ids[b]!)
    if (chance(0.7)) family[b]!.push(ids[a]!)
  }
  return ids.map((_, number) => {
    const relayed = chance(behindNat)
    const ipv6 = chance(0.2)
    const net = random.int(Math.ceil(count / 2))
    const positions = POSITIONS.filter((position: Position) => chance(position === 'exit' ? 0.4 : 0.7))
    return relay(number, {
      address: ipv6 ? `2001:${(net + 1).toString(16)}::${number + 1}` : `20.${net}.${random.int(250)}.1`,
      via: relayed
        ? Array.from({ length: 1 + random.int(2) }, () => (chance(0.9) ? ids[random.int(count)]! : idOf(100_000 + random.int(3))))
        : [],
      reach: relayed ? (chance(0.5) ? 'relayed' : 'punchable') : 'direct',
      canRelay: !relayed && chance(0.7),
      positions,
      exitPolicy: chance(0.9)
        ? { ipv4: chance(0.8) ? [{ from: 80, to: 443 }] : [{ from: 1, to: 65_535 }], ipv6: chance(0.3) ? [{ from: 443, to: 443 }] : [] }
        : null,
      eligible: chance(0.9),
      circuitVersions: chance(0.95) ? [1, 2] : [2],
      weight: chance(0.05) ? 0 : 1 + random.int(1000),
      family: family[number]!,
    })
  })
}
