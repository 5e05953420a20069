import { describe, expect, it } from 'vitest'
import { type NodeId, parseNetwork, SeededRandom } from '../../../src/base/index.ts'
import { choosePath, type ExitNeed, explain, NAT_WEIGHT, type PathConstraints, type RelayFacts, RULES } from '../../../src/path/index.ts'
import { idOf, relay, viewOf } from './relays.ts'

const web: ExitNeed = { ports: [443], family: null }

/** Guard 0, exit 2, NAT relay 4, and as the only middle 1, behind relay 4 unless told otherwise. */
function mesh(middle: Parameters<typeof relay>[1] = {}): RelayFacts[] {
  return [
    relay(0, { positions: ['guard'] }),
    relay(1, { positions: ['middle'], reach: 'punchable', via: [idOf(4)], ...middle }),
    relay(2, { positions: ['exit'] }),
    relay(4, { positions: [], canRelay: true, address: '2.77.0.1' }),
  ]
}

function choose(
  all: readonly RelayFacts[],
  constraints: Partial<PathConstraints> = {},
  setAside: ReadonlySet<NodeId> = new Set(),
  seed = 1,
) {
  return choosePath(viewOf(all, constraints), { guards: [idOf(0)], need: web, setAside }, new SeededRandom(seed))
}

describe('a middle behind NAT', () => {
  it('is used when it is punchable, and counts half of what a direct one does', () => {
    expect(choose(mesh()).kind).toBe('path')
    const view = viewOf([...mesh(), relay(5, { positions: ['middle'] })])
    expect(view.weight(view.indexOf(idOf(1))!, 'middle')).toBe(NAT_WEIGHT.punchable.middle * view.weight(view.indexOf(idOf(5))!, 'middle'))
    let behindNat = 0
    for (let seed = 0; seed < 3_000; seed++) {
      const result = choose([...mesh(), relay(5, { positions: ['middle'] })], {}, new Set(), seed)
      if (result.kind === 'path' && result.path[1] === idOf(1)) behindNat++
    }
    expect(behindNat / 3_000).toBeCloseTo(1 / 3, 1)
  })

  it('is used only when nothing better serves when its relay must carry everything, and that is said', () => {
    const alone = choose(mesh({ reach: 'relayed' }))
    expect(alone.kind === 'path' && alone.path[1]).toBe(idOf(1))
    expect(explain(alone).join('\n')).toContain('only ever reached through its NAT relay')
    for (const better of [relay(5, { positions: ['middle'] }), relay(5, { positions: ['middle'], reach: 'punchable', via: [idOf(4)] })]) {
      for (let seed = 0; seed < 100; seed++) {
        const result = choose([...mesh({ reach: 'relayed', weight: 1e9 }), better], {}, new Set(), seed)
        expect(result.kind === 'path' && result.path[1], `seed ${seed}`).toBe(idOf(5))
      }
    }
  })

  it('takes another exit before a middle of last resort', () => {
    // The only direct middle is in the network of the heavier exit.
    const all = [
      ...mesh({ reach: 'relayed' }).with(2, relay(2, { positions: ['exit'], weight: 1e6 })),
      relay(3, { positions: ['exit'], weight: 1 }),
      relay(5, { positions: ['middle'], address: '1.2.9.9' }),
    ]
    for (let seed = 0; seed < 50; seed++) {
      const result = choose(all, {}, new Set(), seed)
      expect(result.kind === 'path' && result.path, `seed ${seed}`).toEqual([idOf(0), idOf(5), idOf(3)])
      if (result.kind === 'path' && result.reasons.middle.how === 'exact') {
        expect(result.reasons.middle.refused['nat-only-last-resort']).toBe(1)
        expect(explain(result).join('\n')).toContain('nat-only-last-resort')
      }
    }
  })

  it('stays with the guard, and with relays that do not fail, before it looks for a better middle', () => {
    const all = [...mesh({ reach: 'relayed' }), relay(5, { positions: ['middle'] }), relay(6, { positions: ['guard'] })]
    const result = choose(all, {}, new Set([idOf(5)]))
    expect(result.kind === 'path' && result.path).toEqual([idOf(0), idOf(1), idOf(2)])
    expect(result.kind === 'path' && result.reasons).toMatchObject({ setAsideUsed: false, lastResortUsed: true })
  })

  it.each<[string, RelayFacts[]]>([
    ['is not in the view', mesh().slice(0, 3)],
    ['is not in the role', mesh().with(3, relay(4, { positions: [] }))],
  ])('is not used when its NAT relay %s', (_, all) => {
    expect(choose(all)).toMatchObject({ position: 'middle', rule: 'nat-relay-unknown' })
  })

  it('is not used behind a relay that is itself behind NAT', () => {
    const behind = relay(4, { positions: [], reach: 'punchable', via: [idOf(7)] })
    const all = [...mesh().with(3, behind), relay(7, { positions: [], canRelay: true })]
    expect(choose(all)).toMatchObject({ position: 'middle', rule: 'nat-relay-unknown' })
  })

  it('is used as long as one of its NAT relays is known', () => {
    expect(choose(mesh({ via: [idOf(40), idOf(4)] })).kind).toBe('path')
  })

  it('is set aside with the last of its NAT relays, and with none but the last', () => {
    const all = [...mesh({ via: [idOf(4), idOf(5)] }), relay(5, { positions: [], canRelay: true })]
    const one = choose(all, {}, new Set([idOf(4)]))
    expect(one.kind === 'path' && one.reasons.setAsideUsed).toBe(false)
    const both = choose(all, {}, new Set([idOf(4), idOf(5)]))
    expect(both.kind === 'path' && both.reasons.setAsideUsed).toBe(true)
  })
})

describe('a guard or exit behind NAT', () => {
  it('is no guard, whatever it claims', () => {
    const all = mesh().with(0, relay(0, { positions: ['guard'], via: [idOf(4)] }))
    expect(choose(all)).toMatchObject({ position: 'guard', rule: 'not-direct' })
    expect(explain(choose(all))[0]).toContain('guards must be reached directly')
    expect(viewOf(all).candidates('guard').indexes).toHaveLength(0)
  })

  it('is an exit when it is punchable, of a quarter of its weight', () => {
    const direct = relay(3, { positions: ['middle'] })
    const punchable = relay(2, { positions: ['exit'], reach: 'punchable', via: [idOf(4)] })
    expect(choose([...mesh().with(2, punchable).with(1, direct)]).kind).toBe('path')
    const view = viewOf([...mesh().with(2, punchable), relay(6, { positions: ['exit'] })])
    expect(view.weight(view.indexOf(idOf(2))!, 'exit')).toBe(0.25 * view.weight(view.indexOf(idOf(6))!, 'exit'))
  })

  it('is no exit when it is not', () => {
    const all = mesh().with(2, relay(2, { positions: ['exit'], reach: 'relayed', via: [idOf(4)] }))
    expect(choose(all.with(1, relay(1, { positions: ['middle'] })))).toMatchObject({ position: 'exit', rule: 'not-punchable' })
  })
})

describe('the NAT relay in front of a relay counts as a place of the path', () => {
  const direct = relay(1, { positions: ['middle'] })

  it.each<[string, RelayFacts[], string]>([
    ['exit: in its /16', mesh().with(2, relay(2, { positions: ['exit'], address: '2.77.5.5' })), 'same-network'],
    ['guard: in its /16', mesh().with(0, relay(0, { positions: ['guard'], address: '2.77.5.5' })), 'same-network'],
    [
      'exit: in its /32',
      mesh()
        .with(2, relay(2, { positions: ['exit'], address: '2001:db8:2::1' }))
        .with(3, relay(4, { positions: [], canRelay: true, address: '2001:db8:1::1' })),
      'same-network',
    ],
    [
      'exit: of its family',
      mesh()
        .with(2, relay(2, { positions: ['exit'], family: [idOf(4)] }))
        .with(3, relay(4, { positions: [], canRelay: true, address: '2.77.0.1', family: [idOf(2)] })),
      'same-family',
    ],
    ['guard: is it', mesh({ via: [idOf(0)] }).with(0, relay(0, { positions: ['guard'], canRelay: true })), 'same-nat-relay'],
    ['exit: is it', mesh({ via: [idOf(4), idOf(2)] }), 'same-nat-relay'],
    ['exit: is behind the same', mesh().with(2, relay(2, { positions: ['exit'], via: [idOf(4)] })), 'same-nat-relay'],
    [
      'exit: is behind the same, which nobody knows, among others',
      [
        ...mesh({ via: [idOf(4), idOf(99)] }).with(2, relay(2, { positions: ['exit'], via: [idOf(5), idOf(99)] })),
        relay(5, { positions: [], canRelay: true }),
      ],
      'same-nat-relay',
    ],
    [
      'exit: is behind another relay of its /16',
      [
        ...mesh().with(2, relay(2, { positions: ['exit'], via: [idOf(5)] })),
        relay(5, { positions: [], canRelay: true, address: '2.77.9.9' }),
      ],
      'same-network',
    ],
    [
      'exit: is behind the same public address',
      [
        ...mesh({ address: '8.8.0.1' }).with(2, relay(2, { positions: ['exit'], address: '8.8.0.1', via: [idOf(5)] })),
        relay(5, { positions: [], canRelay: true }),
      ],
      'same-network',
    ],
  ])('%s', (_, all, rule) => {
    const result = choose(all)
    expect(result).toMatchObject({ kind: 'no-path', position: 'middle', rule })
    // Without what they have in common there is a path.
    const apart = choose(all.with(1, direct))
    expect(apart.kind).toBe('path')
  })

  it.each<[string, Partial<PathConstraints>, string]>([
    ['excluded by its id', { excludeNodes: new Set([idOf(4)]) }, 'excluded-node'],
    ['in an excluded network', { excludeNetworks: [parseNetwork('2.77.0.0/24')] }, 'excluded-network'],
    ['this node', { self: idOf(4) }, 'own-node'],
  ])('%s', (_, constraints, rule) => {
    expect(choose(mesh(), constraints)).toMatchObject({ kind: 'no-path', position: 'middle', rule })
  })

  it('excluded by its id, though nobody knows it', () => {
    const all = mesh({ via: [idOf(4), idOf(99)] })
    expect(choose(all, { excludeNodes: new Set([idOf(99)]) })).toMatchObject({ rule: 'excluded-node' })
  })

  it('of this node itself, when it is behind NAT', () => {
    const self = relay(8, { positions: ['middle'], via: [idOf(4)] })
    expect(choose([...mesh(), self], { self: idOf(8) })).toMatchObject({ position: 'middle', rule: 'own-node' })
    const withDirect = choose([...mesh().with(1, direct), self], { self: idOf(8) })
    expect(withDirect.kind).toBe('path')
  })

  it('of this node itself: not even as a hop', () => {
    const self = relay(8, { positions: [], via: [idOf(4)] })
    const all = [
      ...mesh()
        .with(1, direct)
        .with(3, relay(4, { positions: ['exit'], canRelay: true })),
      self,
    ]
    for (let seed = 0; seed < 20; seed++) {
      const result = choose(all, { self: idOf(8) }, new Set(), seed)
      expect(result.kind === 'path' && result.path[2]).toBe(idOf(2))
    }
  })
})

describe('the rules', () => {
  it('are each explained', () => {
    for (const rule of RULES) {
      const text = explain({ kind: 'no-path', position: 'middle', rule, counts: { [rule]: 1 }, need: web })[0]
      expect(text).toContain(rule)
      expect(text).not.toContain('undefined')
    }
  })
})
