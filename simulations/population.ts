import { type NodeId, nodeIdFromKey, parseIp, type Random, shuffle } from '../src/base/index.ts'
import type { CryptoSuite, KeyPair } from '../src/crypto/index.ts'
import { addressScope, type PolicySummary, type Reach, type ServingRole } from '../src/directory/index.ts'

/** Who a simulated relay is: what its operator set up, and how long it has been there. */
export interface RelayProfile {
  readonly index: number
  readonly id: NodeId
  /** Ed25519. */
  readonly identity: KeyPair
  readonly hostile: boolean
  roles: readonly ServingRole[]
  exitPolicy: PolicySummary | null
  reach: Reach
  readonly address: string
  /** Bytes a second it can really carry. */
  readonly capacity: number
  /** Bytes a second its descriptor says. */
  readonly claim: number
  family: NodeId[]
  /** How long the others have known it when the run begins, ms. */
  readonly ageMs: number
}

export interface PopulationOptions {
  readonly relays: number
  readonly hostileShare: number
  /** Hostile relays: each in a network of its own, or all in a few /24. */
  readonly hostileNetworks: 'diverse' | 'few'
  /** Hostile relays: how long they have been known. */
  readonly hostileAgeMs: number
  /** Of the relays that are no guards, the share that is behind NAT; none when not given. */
  readonly homeShare?: number
}

/** Relays that help others in and are always up. */
export const BOOTSTRAP_RELAYS = 3

const DAY = 86_400_000
/** Roles and how many relays of a hundred have them. */
const ROLE_MIX: readonly (readonly [number, readonly ServingRole[]])[] = [
  [45, ['guard', 'middle']],
  [30, ['middle']],
  [20, ['middle', 'exit']],
  [5, ['guard', 'middle', 'exit']],
]
/** A hostile relay wants both ends. */
const HOSTILE_ROLES: readonly ServingRole[] = ['guard', 'middle', 'exit']
/** Capacity is log-normal: median and spread, bytes a second, within bounds. */
const CAPACITY = { median: 2_000_000, sigma: 1.2, least: 100_000, most: 125_000_000 } as const
const FAMILY_SHARE = 0.1
const FAMILY_MOST = 5
/** /24 networks that a poor attacker has. */
const FEW_NETWORKS = 3

/** Draws the relays of a network: roles, addresses, capacities, families, ages. The first BOOTSTRAP_RELAYS are honest bootstrap nodes. */
export function drawPopulation(options: PopulationOptions, suite: CryptoSuite, random: Random): RelayProfile[] {
  const hostile = Math.round(options.relays * options.hostileShare)
  const few = Array.from({ length: FEW_NETWORKS }, () => publicAddress(random).split('.').slice(0, 3).join('.'))
  const relays = Array.from({ length: options.relays }, (_, index): RelayProfile => {
    const identity = suite.ed25519.keyPair(random.bytes(32))
    const isHostile = index >= options.relays - hostile
    const roles = isHostile ? HOSTILE_ROLES : drawRoles(index, random)
    const near = isHostile && options.hostileNetworks === 'few'
    const address = near ? `${few[random.int(FEW_NETWORKS)]}.${1 + random.int(254)}` : publicAddress(random)
    const capacity = drawCapacity(random)
    return {
      index,
      id: nodeIdFromKey(identity.publicKey),
      identity,
      hostile: isHostile,
      roles,
      exitPolicy: roles.includes('exit') ? drawPolicy(random) : null,
      reach: { kind: 'direct' },
      address,
      capacity,
      claim: capacity,
      family: [],
      ageMs: isHostile ? options.hostileAgeMs : Math.floor((10 + random.unit() * 190) * DAY),
    }
  })
  const honest = relays.filter((relay) => !relay.hostile)
  drawFamilies(honest, random)
  if (options.homeShare !== undefined) drawHomes(honest.slice(BOOTSTRAP_RELAYS), options.homeShare, random)
  return relays
}

/** Puts relays behind NAT, half of them punchable; a third of the guards carry them. */
function drawHomes(relays: readonly RelayProfile[], share: number, random: Random): void {
  const guards = relays.filter(({ roles }) => roles.includes('guard'))
  const carriers = shuffle([...guards], random).slice(0, Math.max(2, Math.ceil(guards.length / 3)))
  for (const carrier of carriers) carrier.roles = [...carrier.roles, 'relay']
  for (const relay of relays.filter(({ roles }) => !roles.includes('guard'))) {
    if (random.unit() >= share) continue
    const punchable = random.unit() < 0.5
    const via = shuffle([...carriers], random).slice(0, 2)
    relay.reach = { kind: 'relayed', via: via.map(({ id }) => id), punchable }
    if (punchable) continue
    relay.roles = ['middle']
    relay.exitPolicy = null
  }
}

function drawRoles(index: number, random: Random): readonly ServingRole[] {
  if (index < BOOTSTRAP_RELAYS) return ['guard', 'middle', 'bootstrap']
  let left = random.int(100)
  for (const [share, roles] of ROLE_MIX) {
    if (left < share) return roles
    left -= share
  }
  return ['middle']
}

function drawPolicy(random: Random): PolicySummary {
  const web = [
    { from: 80, to: 80 },
    { from: 443, to: 443 },
  ]
  const wide = [
    { from: 20, to: 24 },
    { from: 26, to: 65_535 },
  ]
  const ipv4 = random.unit() < 0.4 ? web : wide
  return { ipv4, ipv6: random.unit() < 0.5 ? ipv4 : [] }
}

function drawCapacity(random: Random): number {
  const normal = Math.sqrt(-2 * Math.log(1 - random.unit())) * Math.cos(2 * Math.PI * random.unit())
  return Math.round(Math.min(CAPACITY.most, Math.max(CAPACITY.least, CAPACITY.median * Math.exp(CAPACITY.sigma * normal))))
}

function publicAddress(random: Random): string {
  for (;;) {
    const text = `${1 + random.int(222)}.${random.int(256)}.${random.int(256)}.${1 + random.int(254)}`
    if (addressScope(parseIp(text)) === 'public') return text
  }
}

function drawFamilies(relays: readonly RelayProfile[], random: Random): void {
  const left = shuffle([...relays], random).slice(0, Math.round(relays.length * FAMILY_SHARE))
  while (left.length > 1) {
    const family = left.splice(0, 2 + random.int(FAMILY_MOST - 1))
    for (const relay of family) relay.family = family.filter((other) => other !== relay).map((other) => other.id)
  }
}
