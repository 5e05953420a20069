import { describe, expect, test } from 'vitest'
import type { AllowedEntry } from '../../../src/vpn/allow-list.ts'
import type { AllowedPeer } from '../../../src/vpn/index.ts'
import { allowListText, type KillSwitchPlan, killSwitchRemoval, killSwitchText } from '../../../src/vpn/kill-switch-text.ts'
import {
  allowListLines,
  foreignRulesBefore,
  ownRules,
  type RoutingPlan,
  routeLines,
  routesIn,
  ruleLines,
} from '../../../src/vpn/routing-plan.ts'

/** The texts as files beside this one: a change is to be looked at. `vitest -u` writes them; test/netns/block.test.ts loads them into a kernel. */

const entry = (ip: string, port: number | null, why: AllowedPeer['why'], protocol: 'tcp' | 'udp' = 'tcp'): AllowedEntry => ({
  peer: { ip, protocol, port, why },
  family: ip.includes(':') ? 6 : 4,
})
const allowed = [
  entry('192.0.2.1', 4460, 'guard'),
  entry('2001:db8::1', 4460, 'bootstrap'),
  entry('198.51.100.1', 3478, 'stun', 'udp'),
  entry('192.168.7.1', null, 'router', 'udp'),
]
const least: KillSwitchPlan = {
  id: '0123456789abcdef',
  device: 'shallot0',
  addresses: ['10.83.104.2'],
  uid: null,
  allowed: [],
  serving: [],
  bypass: [],
  localNetwork: false,
}
const most: KillSwitchPlan = {
  ...least,
  addresses: ['10.83.104.2', 'fd73:6861:6c6c:6f74::2'],
  uid: 998,
  allowed,
  serving: [
    { protocol: 'tcp', port: 4460 },
    { protocol: 'udp', port: 4460 },
  ],
  bypass: ['203.0.113.0/24', '203.0.113.77/32', '2001:db8:5::/48'],
  localNetwork: true,
}
const routing: RoutingPlan = { ...most, deviceFamilies: [4, 6], table: 5158, priority: 610 }

describe('what is told to nft', () => {
  test('the least of a kill switch', () => expect(killSwitchText(least)).toMatchFileSnapshot('texts/kill-switch-least.nft'))
  test('all of it', () => expect(killSwitchText(most)).toMatchFileSnapshot('texts/kill-switch-most.nft'))

  test('it is set in one transaction, in place of what stands, and drops what no line lets through', () => {
    for (const plan of [least, most]) {
      const lines = killSwitchText(plan).split('\n')
      expect(lines.slice(0, 3)).toEqual(['table inet shallot_vpn', 'delete table inet shallot_vpn', 'table inet shallot_vpn {'])
      expect(lines.filter((line) => /hook (output|forward) priority 10; policy drop;/.test(line))).toHaveLength(2)
    }
  })

  test('a change of the allow-list is one text, removals first', () => {
    expect(allowListText({ added: [allowed[0]!, allowed[1]!, allowed[3]!], removed: [allowed[2]!] })).toBe(
      [
        'delete element inet shallot_vpn allowed4 { 198.51.100.1 . udp . 3478 }',
        'add element inet shallot_vpn allowed4 { 192.0.2.1 . tcp . 4460 }',
        'add element inet shallot_vpn allowed6 { 2001:db8::1 . tcp . 4460 }',
        'add element inet shallot_vpn hosts4 { 192.168.7.1 . udp }',
        '',
      ].join('\n'),
    )
    expect(killSwitchRemoval).toBe('table inet shallot_vpn\ndelete table inet shallot_vpn\n')
  })
})

describe('what is told to ip', () => {
  const all = (plan: RoutingPlan) =>
    ([4, 6] as const).map((family) => [`# IPv${family}`, ...routeLines(plan, family), ...ruleLines(plan, family), ''].join('\n')).join('\n')

  test('the least of a routing', () =>
    expect(all({ ...least, deviceFamilies: [], table: 5158, priority: 610 })).toMatchFileSnapshot('texts/routing-least.txt'))
  test('all of it', () => expect(all(routing)).toMatchFileSnapshot('texts/routing-most.txt'))

  test('a change of the allow-list goes to each family', () => {
    const change = { added: [allowed[0]!, allowed[1]!], removed: [allowed[3]!] }
    expect(allowListLines(routing, change, 4)).toEqual([
      'rule add priority 611 to 192.0.2.1 ipproto tcp dport 4460 lookup main protocol 158',
      'rule del priority 611 to 192.168.7.1 ipproto udp lookup main protocol 158',
    ])
    expect(allowListLines(routing, change, 6)).toEqual([
      'rule add priority 611 to 2001:db8::1 ipproto tcp dport 4460 lookup main protocol 158',
    ])
  })

  const shown = JSON.stringify([
    { priority: 0, src: 'all', table: 'local' },
    { priority: 100, src: 'all', table: 'main' },
    { priority: 610, src: 'all', iif: 'shallot0', iif_detached: null, table: 'main', protocol: '158' },
    { priority: 616, src: 'all', table: '5158', protocol: '158' },
    { priority: 614, src: 'all', table: '7' },
    { priority: 617, src: 'all', table: '7' },
    { priority: 32766, src: 'all', table: 'main' },
  ])

  test('our rules are told from others’, whether the device is there or not', () => {
    expect(ownRules(shown)).toHaveLength(2)
    expect(ownRules(shown)).toEqual(ownRules(shown.replace('"iif_detached":null,', '')))
    expect(ownRules('')).toEqual([])
    expect(foreignRulesBefore(shown, 610)).toEqual([100, 614])
  })

  test('our routes are told from others’', () => {
    expect(routesIn('[{"dst":"default","protocol":"158"},{"dst":"10.0.0.0/8","protocol":"boot"},{"dst":"11.0.0.0/8"}]')).toEqual({
      ours: 1,
      foreign: 2,
    })
    expect(routesIn('')).toEqual({ ours: 0, foreign: 0 })
  })
})
