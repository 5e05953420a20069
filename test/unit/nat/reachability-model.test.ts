import { describe, expect, test } from 'vitest'
import { formatIp, type IpAddress, type NodeId, parseIp, SeededRandom } from '../../../src/base/index.ts'
import { addressScope } from '../../../src/directory/index.ts'
import type { DialBackVerdict, NatBehaviour, ReachabilityEvent, ReservationFacts } from '../../../src/nat/index.ts'
import { Reachability } from '../../../src/nat/index.ts'

const T0 = 1_700_000_000_000
const HOUR = 3_600_000
const seed = Number(process.env.SHALLOT_TEST_SEED ?? Date.now() % 1_000_000)

const IPS = ['11.2.3.4', '11.5.6.7', '192.168.1.5', '10.0.0.9', '100.64.0.7', '2a02::5', '2a02::6', 'fd00::1', '127.0.0.1']
const PORTS = [4460, 50_000]

/** What a reader of the announcement would want to see proof of: kept apart from the machine, and simply. */
class Facts {
  listening: string[] = []
  readonly privateAllowed: boolean
  advertised: string[]
  readonly stun = new Map<number, string[]>()
  observed = new Set<string>()
  reachedAt = new Map<string, number>()
  mapping: { external: string; expiresAt: number } | null = null
  reservations: readonly ReservationFacts[] = []

  constructor(privateAllowed: boolean, advertised: string[]) {
    this.privateAllowed = privateAllowed
    this.advertised = advertised
  }

  note(event: ReachabilityEvent, now: number): void {
    switch (event.type) {
      case 'listening':
        this.listening = [...event.addresses]
        break
      case 'advertise':
        this.advertised = [...event.addresses]
        break
      case 'stun': {
        // What was found last stands for up to two answers that are missing.
        const before = this.stun.get(event.family) ?? []
        const ip = event.behaviour?.publicEndpoint ? formatIp(event.behaviour.publicEndpoint.ip) : ''
        this.stun.set(event.family, event.behaviour === null ? [...before.slice(-2), ''] : [ip])
        break
      }
      case 'observed':
        this.observed.add(formatIp(event.ip))
        break
      case 'dial-back':
        if (event.verdicts.some(({ verdict }) => verdict === 'reached')) this.reachedAt.set(event.address, now)
        break
      case 'mapping':
        this.mapping = event.mapping
        break
      case 'reservations':
        this.reservations = event.reservations
        break
      case 'network-changed':
        this.stun.clear()
        this.observed.clear()
        this.reachedAt.clear()
        this.mapping = null
        break
    }
  }

  isUsable(ip: IpAddress): boolean {
    const scope = addressScope(ip)
    return scope === 'public' || (scope === 'private' && this.privateAllowed)
  }

  /** Whether this address is one where this node could be seen. */
  isSeenAt(ip: string): boolean {
    const listens = this.listening.some((address) => address.split('/')[2] === ip)
    return listens || this.observed.has(ip) || [...this.stun.values()].some((said) => said.includes(ip))
  }

  /** Why the address may be announced as direct; null when nothing speaks for it. */
  proofOf(address: string, now: number): string | null {
    const [, , ip = '', , port = ''] = address.split('/')
    if (!this.isUsable(parseIp(ip))) return null
    if (this.advertised.includes(address)) return 'operator'
    if (this.listening.includes(address)) return 'interface'
    const at = this.reachedAt.get(address)
    if (at === undefined || now - at > 3 * HOUR) return null
    const { mapping } = this
    if (
      mapping !== null &&
      mapping.expiresAt > now &&
      mapping.external.endsWith(`:${port}`) &&
      (mapping.external.startsWith(ip) || this.isSeenAt(ip))
    )
      return 'mapping'
    return this.listening.some((one) => one.endsWith(`/tcp/${port}`)) && this.isSeenAt(ip) ? 'forward' : null
  }
}

function multiaddr(ip: string, port: number): string {
  return `/ip${ip.includes(':') ? 6 : 4}/${ip}/tcp/${port}`
}

function randomEvent(random: SeededRandom, reach: Reachability, now: number): ReachabilityEvent {
  const pick = <T>(items: readonly T[]): T => items[random.int(items.length)]!
  const ip = pick(IPS)
  switch (random.int(14)) {
    case 0:
      return { type: 'listening', addresses: [...new Set(Array.from({ length: random.int(4) }, () => multiaddr(pick(IPS), 4460)))] }
    case 1:
      return { type: 'observed', ip: parseIp(ip), network: `n${random.int(4)}` }
    case 2:
      return { type: 'network-changed' }
    case 3:
    case 4: {
      const external = `${pick(IPS.filter((one) => !one.includes(':')))}:${pick(PORTS)}`
      const mapping = { protocol: 'pcp' as const, external, expiresAt: now + random.int(2 * HOUR) }
      return { type: 'mapping', mapping: random.int(4) === 0 ? null : mapping, problem: null }
    }
    case 5:
    case 6: {
      const relays = ['a', 'b', 'c'].slice(0, random.int(4))
      return {
        type: 'reservations',
        reservations: relays.map((relay) => ({ relay: relay as NodeId, since: now, expiresAt: now + random.int(HOUR) })),
      }
    }
    case 7:
    case 8: {
      const family = ip.includes(':') ? 6 : 4
      const behaviour: NatBehaviour = {
        family,
        publicEndpoint: random.int(8) === 0 ? null : { ip: parseIp(ip), port: 1 + random.int(65_535) },
        mapping: pick(['none', 'endpoint-independent', 'address-dependent', null]),
        filtering: pick(['endpoint-independent', 'address-and-port-dependent', null]),
        portPreserved: null,
        hairpin: null,
        bindingLifetimeMs: null,
      }
      return { type: 'stun', family, behaviour: random.int(4) === 0 ? null : behaviour }
    }
    case 9:
      return { type: 'punching', tcp: random.int(2) === 0, udp: random.int(2) === 0 }
    case 10:
      return { type: 'advertise', addresses: random.int(3) === 0 ? [multiaddr(ip, 4460)] : [] }
    default: {
      const address = pick([...reach.wants.dialBacks, ...reach.wants.dialBacks, multiaddr(ip, pick(PORTS))])
      const verdicts = Array.from({ length: random.int(4) }, (): DialBackVerdict => {
        return { network: `n${random.int(4)}`, verdict: pick(['reached', 'reached', 'unreachable', 'other', 'no-answer']) }
      })
      return { type: 'dial-back', address, available: random.int(4), verdicts }
    }
  }
}

function check(reach: Reachability, facts: Facts, now: number): void {
  const { announce } = reach
  if (announce === null) return
  const plain = announce.addresses.filter((address) => !address.endsWith('/tls'))
  expect(announce.addresses).toEqual(plain.flatMap((address) => [address, `${address}/tls`]))
  expect(plain.length).toBeGreaterThan(0)
  for (const family of ['/ip4/', '/ip6/']) expect(plain.filter((address) => address.startsWith(family)).length).toBeLessThan(2)
  if (announce.reach.kind === 'direct') {
    for (const address of plain) expect([address, facts.proofOf(address, now)]).not.toEqual([address, null])
    expect(['public', 'mapped']).toContain(reach.state)
    return
  }
  const current = facts.reservations.filter(({ expiresAt }) => expiresAt > now).map(({ relay }) => relay)
  expect(announce.reach.via.length).toBeGreaterThan(0)
  for (const relay of announce.reach.via) expect(current).toContain(relay)
  for (const address of plain) {
    const ip = address.split('/')[2]!
    expect(facts.isUsable(parseIp(ip))).toBe(true)
    expect([address, facts.isSeenAt(ip) || facts.proofOf(address, now) !== null]).toEqual([address, true])
  }
  expect(announce.reach.punchable).toBe(reach.state === 'punchable')
}

describe(`random lives of a node (seed ${seed})`, () => {
  test('never announce what no current fact backs, and the same facts give the same', () => {
    const random = new SeededRandom(seed)
    const kinds = new Set<string>()
    for (let life = 0; life < 400; life++) {
      const privateAddresses = random.int(4) === 0
      let now = T0
      const reach = new Reachability({ privateAddresses, mapping: true, reservations: 3, now })
      const facts = new Facts(privateAddresses, [])
      for (let step = 0; step < 60; step++) {
        now += random.int(4) === 0 ? random.int(2 * HOUR) : random.int(60_000)
        const event = randomEvent(random, reach, now)
        facts.note(event, now)
        reach.handle(event, now)
        check(reach, facts, now)
        kinds.add(`${reach.state} ${reach.announce?.reach.kind ?? 'nothing'}`)
        const before = JSON.stringify([reach.state, reach.announce, reach.wants, reach.since])
        reach.tick(now)
        expect(JSON.stringify([reach.state, reach.announce, reach.wants, reach.since])).toBe(before)
        // Words never fail, whatever the facts are.
        const shown = reach.facts({ stun: [], lost: [] })
        expect(shown.reasons.length).toBeGreaterThan(0)
        expect([...shown.reasons, ...shown.advice].join(' ')).not.toMatch(/undefined|null|NaN/)
        expect(shown.reasons[0]).not.toMatch(/\/tcp\/|\/ip[46]\//)
      }
    }
    // The lives come through everything that there is.
    expect([...kinds].sort()).toEqual([
      'mapped direct',
      'public direct',
      'punchable nothing',
      'punchable relayed',
      'relayed nothing',
      'relayed relayed',
      'unknown nothing',
    ])
  })

  test('left alone only fade: an announcement that was given up does not come back without a new fact', () => {
    const random = new SeededRandom(seed + 1)
    for (let life = 0; life < 200; life++) {
      let now = T0
      const reach = new Reachability({ privateAddresses: random.int(4) === 0, mapping: true, reservations: 3, now })
      for (let step = 0; step < 30; step++) {
        now += random.int(60_000)
        reach.handle(randomEvent(random, reach, now), now)
      }
      const seen = [JSON.stringify([reach.state, reach.announce])]
      let ticks = 0
      for (let at = reach.deadline; at !== null && at < T0 + 24 * HOUR; at = reach.deadline) {
        expect(at).toBeGreaterThan(now)
        now = at
        reach.tick(now)
        const said = JSON.stringify([reach.state, reach.announce])
        if (said === seen.at(-1)) {
          expect(++ticks).toBeLessThan(100)
          continue
        }
        // Silence may come again: IPv6 alone is announced after a while without a relay, and its witnesses fade too.
        if (reach.announce !== null) expect(seen).not.toContain(said)
        seen.push(said)
      }
    }
  })

  test('are the same as often as they are lived', () => {
    const live = (): string => {
      const random = new SeededRandom(seed + 2)
      const reach = new Reachability({ privateAddresses: false, mapping: true, reservations: 3, now: T0 })
      const said: unknown[] = []
      for (let step = 0; step < 100; step++) {
        const now = T0 + step * 10_000
        reach.handle(randomEvent(random, reach, now), now)
        said.push(reach.state, reach.announce, reach.wants, reach.deadline)
      }
      return JSON.stringify(said)
    }
    expect(live()).toBe(live())
  })
})
