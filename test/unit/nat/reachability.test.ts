import { describe, expect, test } from 'vitest'
import { type NodeId, parseIp } from '../../../src/base/index.ts'
import {
  type Announcement,
  type MappingFacts,
  type NatBehaviour,
  Reachability,
  type ReachabilityEvent,
  type ReservationFacts,
} from '../../../src/nat/index.ts'

const T0 = 1_700_000_000_000
const HOME = '/ip4/192.168.1.5/tcp/4460'
const PUBLIC = '/ip4/11.2.3.4/tcp/4460'
const PUBLIC6 = '/ip6/2a02::5/tcp/4460'

class Node {
  readonly reach: Reachability
  now = T0
  constructor(options: Partial<ConstructorParameters<typeof Reachability>[0]> = {}) {
    this.reach = new Reachability({ privateAddresses: false, mapping: true, reservations: 3, now: T0, ...options })
  }
  tell(...events: ReachabilityEvent[]): this {
    for (const event of events) this.reach.handle(event, this.now)
    return this
  }
  wait(ms: number): this {
    const until = this.now + ms
    for (let at = this.reach.deadline; at !== null && at <= until; at = this.reach.deadline) {
      expect(at).toBeGreaterThan(this.now)
      this.now = at
      this.reach.tick(at)
    }
    this.now = until
    this.reach.tick(until)
    return this
  }
  /** A round of dial-backs: a letter for each peer, `r`eached, `u`nreachable, `o`ther, `-` no answer. Each is in a network of its own. */
  round(address: string, said: string, available = [...said].filter((letter) => letter !== '-').length): this {
    const words = { r: 'reached', u: 'unreachable', o: 'other', '-': 'no-answer' } as const
    const verdicts = [...said].map((letter, i) => ({ network: `11.${i}.0.0/16`, verdict: words[letter as keyof typeof words] }))
    return this.tell({ type: 'dial-back', address, available, verdicts })
  }
  get says(): Announcement | null {
    return this.reach.announce
  }
}

const listening = (...addresses: string[]): ReachabilityEvent => ({ type: 'listening', addresses })
const canPunch: ReachabilityEvent = { type: 'punching', tcp: true, udp: true }
const reservations = (...names: string[]): ReachabilityEvent => ({
  type: 'reservations',
  reservations: names.map((name): ReservationFacts => ({ relay: name as NodeId, since: T0, expiresAt: T0 + 3_600_000 })),
})
function stun(family: 4 | 6, ip: string | null, more: Partial<NatBehaviour> = {}): ReachabilityEvent {
  const behaviour: NatBehaviour | null =
    ip === null
      ? null
      : {
          family,
          publicEndpoint: { ip: parseIp(ip), port: 40_000 },
          mapping: 'endpoint-independent',
          filtering: 'address-and-port-dependent',
          portPreserved: true,
          hairpin: false,
          bindingLifetimeMs: null,
          ...more,
        }
  return { type: 'stun', family, behaviour }
}
function mapping(external: string, protocol: MappingFacts['protocol'] = 'upnp', ms = 3_600_000): ReachabilityEvent {
  return { type: 'mapping', mapping: { protocol, external, expiresAt: T0 + ms }, problem: null }
}
const direct = (...addresses: string[]): Announcement => ({
  addresses: addresses.flatMap((address) => [address, `${address}/tls`]),
  reach: { kind: 'direct' },
})
const relayed = (punchable: boolean, via: string[], ...addresses: string[]): Announcement => ({
  addresses: addresses.flatMap((address) => [address, `${address}/tls`]),
  reach: { kind: 'relayed', via: via as NodeId[], punchable },
})

describe('a node that others connect to as it is', () => {
  test('on a public address is announced at once and needs no NAT machinery', () => {
    const { reach } = new Node().tell(listening(PUBLIC, '/ip4/10.0.0.1/tcp/4460'))
    expect(reach.state).toBe('public')
    expect(reach.announce).toEqual(direct(PUBLIC))
    expect(reach.wants).toEqual({ mapping: false, reservations: 0, dialBacks: [PUBLIC], stun: false })
  })

  test('on private addresses of a network that allows them too', () => {
    const { reach } = new Node({ privateAddresses: true }).tell(listening('/ip4/127.3.0.1/tcp/4460'))
    expect(reach.announce).toEqual(direct('/ip4/127.3.0.1/tcp/4460'))
    expect(reach.wants).toMatchObject({ mapping: false, reservations: 0, stun: false })
  })

  test('there stays announced though nobody comes through: no machinery would help', () => {
    const node = new Node({ privateAddresses: true }).tell(listening('/ip4/127.3.0.1/tcp/4460'))
    node.round('/ip4/127.3.0.1/tcp/4460', 'uuu').wait(60_000).round('/ip4/127.3.0.1/tcp/4460', 'uuu')
    expect(node.says).toEqual(direct('/ip4/127.3.0.1/tcp/4460'))
  })

  test('by the operator’s word, with a warning when nobody comes through', () => {
    const node = new Node({ advertise: [PUBLIC] }).tell(listening(HOME))
    expect(node.says).toEqual(direct(PUBLIC))
    expect(node.reach.wants).toEqual({ mapping: false, reservations: 0, dialBacks: [PUBLIC], stun: false })
    node.round(PUBLIC, 'uu')
    expect(node.says).toEqual(direct(PUBLIC))
    expect(node.reach.warning).toMatch(/node\.advertise names \/ip4\/11\.2\.3\.4/)
    node.wait(60_000).round(PUBLIC, 'rr')
    expect(node.reach.warning).toBeNull()
  })

  test('by the operator’s word for IPv6 alone', () => {
    expect(new Node({ advertise: [PUBLIC6] }).tell(listening(HOME, PUBLIC6), stun(4, '11.2.3.4')).says).toEqual(direct(PUBLIC6))
  })

  test('of both families names one address of each', () => {
    const node = new Node().tell(listening(PUBLIC, '/ip4/11.9.9.9/tcp/4460', PUBLIC6))
    expect(node.says).toEqual(direct(PUBLIC, PUBLIC6))
  })

  test('an advertised address that no network of this kind has is not announced', () => {
    expect(new Node({ advertise: ['/ip4/10.0.0.1/tcp/1'] }).tell(listening(PUBLIC)).says).toEqual(direct(PUBLIC))
  })

  test('on loopback alone has nothing to say', () => {
    const { reach } = new Node().tell(listening('/ip4/127.0.0.1/tcp/4460'))
    expect([reach.state, reach.announce]).toEqual(['unknown', null])
    expect(reach.reasons).toEqual(['the node listens on loopback addresses only'])
  })
})

describe('one peer that lies', () => {
  test('does not make a forwarded port public', () => {
    const node = new Node().tell(listening(HOME), stun(4, '11.2.3.4'), canPunch)
    expect(node.reach.wants.dialBacks).toEqual([PUBLIC])
    node.round(PUBLIC, 'ruu')
    expect(node.reach.state).toBe('punchable')
    node.wait(60_000).round(PUBLIC, 'ru')
    expect(node.reach.state).toBe('punchable')
  })

  test('does not take a public address away, however often it is asked', () => {
    const node = new Node().tell(listening(PUBLIC))
    for (let i = 0; i < 5; i++) node.round(PUBLIC, 'u', 3).wait(3_600_000)
    expect(node.says).toEqual(direct(PUBLIC))
    for (let i = 0; i < 5; i++) node.round(PUBLIC, 'rru').wait(3_600_000)
    expect(node.says).toEqual(direct(PUBLIC))
  })

  test('counts where there is no other, after two rounds', () => {
    const node = new Node().tell(listening(PUBLIC)).round(PUBLIC, 'u', 1)
    expect(node.reach.state).toBe('public')
    node.wait(30_000).round(PUBLIC, 'u', 1)
    expect(node.reach.state).not.toBe('public')
    node.wait(60_000).round(PUBLIC, 'r', 1)
    expect(node.reach.state).toBe('public')
  })

  test('does not undo what one honest peer confirmed when it was alone', () => {
    const node = new Node().tell(listening(HOME), stun(4, '11.2.3.4'), canPunch).round(PUBLIC, 'r', 1)
    expect(node.reach.state).toBe('public')
    node.wait(1_800_000).round(PUBLIC, 'ru')
    expect(node.reach.state).toBe('public')
  })

  test('two of one network are one', () => {
    const node = new Node().tell(listening(HOME), stun(4, '11.2.3.4'))
    const verdicts = [1, 2].map(() => ({ network: '11.1.0.0/16', verdict: 'reached' as const }))
    node.tell({ type: 'dial-back', address: PUBLIC, available: 2, verdicts })
    expect(node.reach.state).not.toBe('public')
  })

  test('about where it sees this node is outvoted', () => {
    const node = new Node().tell(listening(HOME), stun(4, null), reservations('a'))
    for (const [ip, network] of [
      ['11.2.3.4', 'x'],
      ['11.66.6.6', 'y'],
    ] as const)
      node.tell({ type: 'observed', ip: parseIp(ip), network })
    expect(node.says).toBeNull()
    node.tell({ type: 'observed', ip: parseIp('11.2.3.4'), network: 'z' })
    expect(node.says).toEqual(relayed(false, ['a'], PUBLIC))
  })
})

describe('a node behind NAT', () => {
  const home = (): Node => new Node().tell(listening(HOME), canPunch)

  test('asks for everything at once, and says nothing before there is something true', () => {
    const { reach } = home()
    expect(reach.state).toBe('unknown')
    expect(reach.announce).toBeNull()
    expect(reach.wants).toEqual({ mapping: true, reservations: 3, dialBacks: [], stun: true })
  })

  test('begins on the relay and becomes punchable', () => {
    const node = home().tell(reservations('b', 'a'), { type: 'observed', ip: parseIp('11.2.3.4'), network: 'n' })
    expect(node.reach.state).toBe('relayed')
    expect(node.says).toEqual(relayed(false, ['a', 'b'], PUBLIC))
    node.tell(stun(4, '11.2.3.4'))
    expect(node.reach.state).toBe('punchable')
    expect(node.says).toEqual(relayed(true, ['a', 'b'], PUBLIC))
  })

  test('is mapped only when peers came through, stays on its relays meanwhile, and keeps them for a while', () => {
    const node = home().tell(reservations('a'), stun(4, '11.2.3.4'), mapping('11.2.3.4:50000'))
    const mapped = '/ip4/11.2.3.4/tcp/50000'
    expect(node.reach.state).toBe('punchable')
    expect(node.reach.wants.dialBacks).toEqual([mapped, PUBLIC])
    node.round(mapped, 'rr')
    expect(node.reach.state).toBe('mapped')
    expect(node.says).toEqual(direct(mapped))
    expect(node.reach.wants).toMatchObject({ mapping: true, reservations: 3 })
    node.wait(11 * 60_000)
    expect(node.reach.wants).toMatchObject({ mapping: true, reservations: 0 })
  })

  test('goes back to its relays when the mapping is lost or runs out', () => {
    const node = home().tell(reservations('a'), stun(4, '11.2.3.4'), mapping('11.2.3.4:50000', 'pcp', 600_000))
    node.round('/ip4/11.2.3.4/tcp/50000', 'rr').wait(600_000)
    expect(node.says).toEqual(relayed(true, ['a'], PUBLIC))
    expect(node.reach.wants.reservations).toBe(3)
  })

  test('behind two NATs is told so, and not mapped', () => {
    const node = home().tell(reservations('a'), stun(4, '11.2.3.4'), {
      type: 'mapping',
      mapping: { protocol: 'upnp', external: '100.64.1.1:4460', expiresAt: T0 + 3_600_000 },
      problem: 'the router forwards the port, but its own outer address 100.64.1.1 is private: there is another NAT before it',
    })
    expect(node.reach.state).toBe('punchable')
    expect(node.reach.wants.dialBacks).toEqual([PUBLIC])
    expect(node.reach.reasons.join('\n')).toMatch(/another NAT before it/)
    expect(node.reach.advice.join('\n')).toMatch(/bridge mode/)
  })

  test('whose router forwards the port by its own settings is public', () => {
    const node = home().tell(stun(4, '11.2.3.4')).round(PUBLIC, 'rr')
    expect(node.reach.state).toBe('public')
    expect(node.reach.reasons[0]).toMatch(/^peers connect to [\d.]+, port \d+: the router forwards the port by its own settings$/)
  })

  test.each(['endpoint-independent', 'address-dependent'] as const)(
    'with %s filtering is not taken for forwarded: it lets in whom this node has dialled from its port',
    (filtering) => {
      const node = home()
        .tell(reservations('a'), stun(4, '11.2.3.4', { filtering }))
        .round(PUBLIC, 'rrr')
      expect(node.reach.wants.dialBacks).toEqual([])
      expect(node.reach.state).toBe('punchable')
      node.tell(mapping('11.2.3.4:4460')).round(PUBLIC, 'rr')
      expect(node.reach.state).toBe('mapped')
    },
  )

  test('that is symmetric is relayed and not punchable', () => {
    const node = home().tell(reservations('a'), stun(4, '11.2.3.4', { mapping: 'address-and-port-dependent' }))
    expect(node.says).toEqual(relayed(false, ['a'], PUBLIC))
    expect(node.reach.reasons[0]).toMatch(/symmetric/)
    expect(node.reach.advice[0]).toBe(
      "turn on UPnP or NAT-PMP in the router, or forward TCP port 4460 to this machine in the router's settings",
    )
  })

  test('without any STUN answer is relayed, because UDP is blocked', () => {
    const node = home().tell(reservations('a'), stun(4, null), { type: 'observed', ip: parseIp('11.2.3.4'), network: 'n' })
    expect(node.says).toEqual(relayed(false, ['a'], PUBLIC))
    expect(node.reach.reasons[0]).toMatch(/^UDP is blocked/)
    expect(node.reach.advice).toContain('allow outgoing UDP, so that the NAT can be found out and holes be punched')
  })

  test('keeps what STUN found over a few lost packets', () => {
    const node = home().tell(reservations('a'), stun(4, '11.2.3.4'), stun(4, null), stun(4, null))
    expect(node.reach.state).toBe('punchable')
    node.tell(stun(4, null))
    expect(node.reach.state).toBe('relayed')
  })

  test('on a machine that cannot punch is relayed', () => {
    const node = home().tell(reservations('a'), stun(4, '11.2.3.4'), { type: 'punching', tcp: false, udp: false })
    expect(node.says).toEqual(relayed(false, ['a'], PUBLIC))
    expect(node.reach.reasons[0]).toMatch(/this machine lacks/)
  })

  test('says nothing more when its last relay is gone', () => {
    const node = home().tell(reservations('a'), stun(4, '11.2.3.4'), reservations())
    expect(node.says).toBeNull()
    expect(node.reach.reasons.join('\n')).toMatch(/no relay has accepted this node yet/)
    node.tell(reservations('a')).wait(3_600_000)
    expect(node.says).toBeNull()
  })

  test('in another network forgets what it found and keeps what is still true', () => {
    const node = home().tell(reservations('a'), stun(4, '11.2.3.4'), mapping('11.2.3.4:50000')).round('/ip4/11.2.3.4/tcp/50000', 'rr')
    node.tell({ type: 'network-changed' })
    expect([node.reach.state, node.says]).toEqual(['unknown', null])
    expect(node.reach.wants).toMatchObject({ mapping: true, reservations: 3, stun: true })
    node.tell(stun(4, '11.5.5.5'))
    expect(node.says).toEqual(relayed(true, ['a'], '/ip4/11.5.5.5/tcp/4460'))
    expect(new Node().tell(listening(PUBLIC), { type: 'network-changed' }).says).toEqual(direct(PUBLIC))
  })

  test('with a public address behind a firewall is punched when nobody comes through', () => {
    const node = new Node().tell(listening(PUBLIC), canPunch).round(PUBLIC, 'uu').wait(30_000).round(PUBLIC, 'uu')
    expect(node.reach.wants).toMatchObject({ mapping: false, reservations: 3, stun: true })
    node.tell(reservations('a'), stun(4, '11.2.3.4', { mapping: 'none' }))
    expect(node.says).toEqual(relayed(true, ['a'], PUBLIC))
    expect(node.reach.advice).toEqual(["let TCP port 4460 through this machine's firewall"])
    expect(node.reach.facts({ stun: [], lost: [] }).ipv4).toMatchObject({ kind: 'firewall', dialBack: false })
  })
})

describe('with IPv6', () => {
  const home = (): Node => new Node().tell(listening(HOME, PUBLIC6), canPunch)

  test('open beside IPv4 behind NAT, the relays are announced with both addresses: everybody can come', () => {
    const node = home()
      .tell(stun(4, '11.2.3.4'), stun(6, '2a02::5', { mapping: 'none' }), reservations('a'))
      .round(PUBLIC6, 'rr')
    expect(node.says).toEqual(relayed(true, ['a'], PUBLIC, PUBLIC6))
    expect(node.reach.families.map(({ state }) => state)).toEqual(['punchable', 'public'])
    expect(node.reach.reasons.join('\n')).toMatch(/peers that have only IPv4 need the relays/)
  })

  test('open but without a relay for a while, IPv6 alone is announced', () => {
    const node = home().tell(stun(4, '11.2.3.4')).round(PUBLIC6, 'rr')
    expect(node.says).toBeNull()
    node.wait(30_000)
    expect([node.reach.state, node.says]).toEqual(['public', direct(PUBLIC6)])
    expect(node.reach.wants.reservations).toBe(3)
    node.tell(reservations('a'))
    expect(node.says).toEqual(relayed(true, ['a'], PUBLIC, PUBLIC6))
  })

  test('beside a home’s IPv4 is not believed to be open before somebody came through', () => {
    expect(home().says).toBeNull()
    const firewalled = home()
      .tell(stun(4, '11.2.3.4'), stun(6, '2a02::5', { mapping: 'none' }))
      .round(PUBLIC6, 'uu')
      .wait(60_000)
    expect(firewalled.says).toBeNull()
    expect(firewalled.reach.advice.join('\n')).toMatch(/allow incoming TCP port 4460 over IPv6/)
  })

  test('alone is announced at once', () => {
    expect(new Node().tell(listening(PUBLIC6)).says).toEqual(direct(PUBLIC6))
  })

  test('alone and firewalled is punched', () => {
    const node = new Node().tell(listening(PUBLIC6), canPunch).round(PUBLIC6, 'uu').wait(30_000).round(PUBLIC6, 'uu')
    node.tell(stun(6, '2a02::5', { mapping: 'none' }), reservations('a'))
    expect(node.says).toEqual(relayed(true, ['a'], PUBLIC6))
  })

  test('a mapped IPv4 is announced without an IPv6 address that nobody came through', () => {
    const node = home().tell(stun(4, '11.2.3.4'), mapping('11.2.3.4:4460')).round(PUBLIC, 'rr')
    expect(node.says).toEqual(direct(PUBLIC))
    node.round(PUBLIC6, 'rr')
    expect(node.says).toEqual(direct(PUBLIC, PUBLIC6))
  })
})

test('a confirmation that nobody repeats runs out', () => {
  const node = new Node().tell(listening(HOME), stun(4, '11.2.3.4'), canPunch).round(PUBLIC, 'rr')
  expect(node.reach.state).toBe('public')
  node.wait(4 * 3_600_000)
  expect(node.reach.state).toBe('punchable')
})

test('checks are repeated: soon and then less often after failures, half-hourly after success', () => {
  const node = new Node().tell(listening(PUBLIC)).round(PUBLIC, 'rr')
  const pauses: number[] = []
  for (const said of ['rr', 'u', 'u', 'u', 'u']) {
    const before = node.now
    while (node.reach.wants.dialBacks.length === 0) node.wait(node.reach.deadline! - node.now)
    pauses.push((node.now - before) / 1000)
    node.round(PUBLIC, said)
  }
  expect(pauses).toEqual([1800, 1800, 30, 60, 120])
})

test('what the node can serve follows from how it is reached', () => {
  const serves = (node: Node): Record<string, boolean> =>
    Object.fromEntries(node.reach.facts({ stun: [], lost: [] }).serves.map(({ role, possible }) => [role, possible]))
  const home = new Node().tell(listening(HOME), canPunch, reservations('a'), stun(4, '11.2.3.4'))
  expect(serves(new Node().tell(listening(PUBLIC)))).toEqual({ guard: true, middle: true, exit: true, relay: true })
  expect(serves(home)).toEqual({ guard: false, middle: true, exit: true, relay: false })
  expect(serves(home.tell(stun(4, '11.2.3.4', { mapping: 'address-dependent' })))).toEqual({
    guard: false,
    middle: true,
    exit: false,
    relay: false,
  })
  expect(serves(home.tell(reservations()))).toEqual({ guard: false, middle: false, exit: false, relay: false })
})

test.each<[string, Partial<NatBehaviour>]>([
  ['no NAT', { mapping: 'none', filtering: 'endpoint-independent' }],
  ['firewall', { mapping: 'none' }],
  ['full cone', { filtering: 'endpoint-independent' }],
  ['address-restricted cone', { filtering: 'address-dependent' }],
  ['port-restricted cone', {}],
  ['symmetric', { mapping: 'address-dependent' }],
])('a NAT is called %s', (kind, behaviour) => {
  const node = new Node().tell(listening(HOME), stun(4, '11.2.3.4', behaviour))
  expect(node.reach.facts({ stun: [], lost: [] }).ipv4?.kind).toBe(kind)
})
