import { describe, expect, test } from 'vitest'
import { type AllowedEntry, AllowList, allowListChange } from '../../../src/vpn/allow-list.ts'
import type { AllowedPeer } from '../../../src/vpn/index.ts'

const peer = (ip: string, port: number | null = 443, why: AllowedPeer['why'] = 'peer'): AllowedPeer => ({ ip, protocol: 'tcp', port, why })
const ips = (wanted: ReadonlyMap<string, AllowedEntry>) => [...wanted.values()].map((entry) => entry.peer.ip)

describe('the allow-list', () => {
  test('holds what the node names, once each, in its canonical form, the first reason staying', () => {
    const list = new AllowList()
    list.name([peer('2001:DB8:0::1', 443, 'guard'), peer('2001:db8::1'), peer('::ffff:192.0.2.1'), peer('192.0.2.1', null)])
    expect([...list.wanted().values()]).toEqual([
      { peer: peer('2001:db8::1', 443, 'guard'), family: 6 },
      { peer: peer('192.0.2.1'), family: 4 },
      { peer: peer('192.0.2.1', null), family: 4 },
    ])
  })

  test('leaves out this machine itself, and refuses what is no address', () => {
    const list = new AllowList()
    list.name([peer('127.3.0.1'), peer('::1')])
    list.lease([peer('127.0.0.1')], 10)
    expect(list.wanted().size).toBe(0)
    expect(() => list.name([peer('guard.example')])).toThrow(/IP address/)
    expect(() => list.lease([peer('1.2.3')], 10)).toThrow(/IP address/)
  })

  test('keeps what was asked for until its time, and longer when it is asked for again or named', () => {
    const list = new AllowList()
    list.lease([peer('192.0.2.1'), peer('192.0.2.2'), peer('192.0.2.3')], 100)
    list.lease([peer('192.0.2.2')], 200)
    list.name([peer('192.0.2.3')])
    list.expire(99)
    expect(ips(list.wanted()).sort()).toEqual(['192.0.2.1', '192.0.2.2', '192.0.2.3'])
    list.expire(100)
    expect(ips(list.wanted()).sort()).toEqual(['192.0.2.2', '192.0.2.3'])
    list.expire(200)
    expect(ips(list.wanted())).toEqual(['192.0.2.3'])
    list.name([])
    expect(list.wanted().size).toBe(0)
  })

  test('is bounded: what is named leaves an eighth to what is dialled, whose oldest gives way', () => {
    const list = new AllowList(16)
    list.name(Array.from({ length: 20 }, (_, i) => peer(`192.0.2.${i}`)))
    expect(list.wanted().size).toBe(14)
    expect(list.overflow).toBe(6)
    for (const last of [1, 2, 3]) list.lease([peer(`198.51.100.${last}`)], 100)
    list.lease([peer('198.51.100.2')], 100)
    expect(ips(list.wanted()).slice(14)).toEqual(['198.51.100.3', '198.51.100.2'])
    expect(() =>
      list.lease(
        [4, 5, 6].map((last) => peer(`198.51.100.${last}`)),
        100,
      ),
    ).toThrow(expect.objectContaining({ code: 'vpn-allow-list-full', retry: 'later' }))
    list.name([])
    expect(list.overflow).toBe(0)
  })

  test('tells what is to be added and removed', () => {
    const [from, to] = [new AllowList(), new AllowList()]
    from.name([peer('192.0.2.1'), peer('192.0.2.2')])
    to.name([peer('192.0.2.2'), peer('192.0.2.3')])
    const { added, removed } = allowListChange(from.wanted(), to.wanted())
    expect(added.map((entry) => entry.peer.ip)).toEqual(['192.0.2.3'])
    expect(removed.map((entry) => entry.peer.ip)).toEqual(['192.0.2.1'])
  })
})
