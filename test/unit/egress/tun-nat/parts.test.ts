import { describe, expect, test } from 'vitest'
import { parseIp, parseNetwork, SeededRandom } from '../../../../src/base/index.ts'
import { embeddedIpv4, exitConfig, type RulesetFacts, type Sysctls } from '../../../../src/egress/index.ts'
import { embeddedForms, embedIpv4 } from '../../../../src/egress/tun-nat/embedded-form.ts'
import { ensureForwarding } from '../../../../src/egress/tun-nat/forwarding.ts'
import { rulesetText } from '../../../../src/egress/tun-nat/index.ts'
import { attribute, attributes, CT_DELETE, messagesIn, NLM, nlmsg } from '../../../../src/egress/tun-nat/netlink-message.ts'
import { splitPacket } from '../../../../src/egress/tun-nat/split-packet.ts'
import { tableAfter } from '../../../../src/egress/tun-nat/table-watch.ts'
import { batchOfPackets, foldChecksum, IpHeader, PacketBatch, sumRange } from '../../../../src/packet/index.ts'
import { fragmentsOf } from '../../../support/ip-fragments.ts'
import { udpPacket } from '../../../support/packet-client.ts'

const hosts = { 4: ['93.184.216.34', '100.89.0.2'], 6: ['2606:4700::1111', 'fd73::2'] } as const

/** What a receiver puts together: the payloads by their offsets. */
function together(packets: readonly Uint8Array[]): Uint8Array {
  const header = new IpHeader()
  const whole: number[] = []
  let end = -1
  for (const packet of packets) {
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length)
    expect(header.parse(view, 0, packet.length)).toBe(null)
    if (header.version === 4) expect(foldChecksum(sumRange(view, 0, 20))).toBe(0)
    packet.subarray(header.payloadStart, header.end).forEach((byte, i) => {
      whole[header.fragmentOffset + i] = byte
    })
    if (!header.moreFragments) end = header.fragmentOffset + header.end - header.payloadStart
  }
  expect(whole).toHaveLength(end)
  return Uint8Array.from(whole)
}

describe('a packet that is larger than a circuit carries', () => {
  const cut = (packet: Uint8Array, mtu = 1300) => {
    const into = new PacketBatch(16, 20_000)
    const batch = batchOfPackets([packet])
    const header = new IpHeader()
    expect(header.parse(batch.view, batch.start(0), batch.end(0))).toBe(null)
    const isDone = splitPacket(into, header, batch.bytes, mtu)
    return { isDone, pieces: Array.from({ length: into.count }, (_, i) => into.packet(i).slice()) }
  }
  const packet = (family: 4 | 6, bytes: number) => {
    const made = udpPacket({ from: parseIp(hosts[family][0]), to: hosts[family][1] }, 53, 5000, new SeededRandom(7).bytes(bytes))
    if (family === 6) return made
    // May be cut.
    made[6] = 0
    const view = new DataView(made.buffer)
    view.setUint16(10, 0)
    view.setUint16(10, foldChecksum(sumRange(view, 0, 20)))
    return made
  }

  test.each([4, 6] as const)('IPv%i: fragments of servers are cut anew, and come together as before', (family) => {
    const whole = packet(family, 4000)
    const fragments = fragmentsOf(whole, 1500)
    const pieces = fragments.flatMap((one) => cut(one).pieces)
    expect(pieces.length).toBeGreaterThan(fragments.length)
    expect(Math.max(...pieces.map(({ length }) => length))).toBeLessThanOrEqual(1300)
    expect(together(pieces)).toEqual(whole.subarray(family === 4 ? 20 : 40))
  })

  test('a whole one of IPv4 is cut when it may be; one of IPv6 never', () => {
    const { isDone, pieces } = cut(packet(4, 1450))
    expect([isDone, pieces.length]).toEqual([true, 2])
    expect(together(pieces)).toEqual(packet(4, 1450).subarray(20))
    const kept = udpPacket({ from: parseIp(hosts[4][0]), to: hosts[4][1] }, 53, 5000, new Uint8Array(1450))
    expect((kept[6]! & 0x40) === 0x40 && cut(kept).isDone).toBe(false)
    expect(cut(packet(6, 1450)).isDone).toBe(false)
  })
})

describe('forwarding', () => {
  class FakeSysctls implements Sysctls {
    readonly written: string[] = []
    readonly #values: Record<string, string>
    readonly #isReadOnly: boolean
    constructor(values: Record<string, string>, isReadOnly = false) {
      this.#values = values
      this.#isReadOnly = isReadOnly
    }
    read(name: string): string | null {
      return this.#values[name] ?? null
    }
    write(name: string, value: string): void {
      if (this.#isReadOnly) throw Object.assign(new Error('no'), { code: 'EROFS' })
      this.written.push(`${name}=${value}`)
    }
    defaultRouteInterfaces6(): readonly string[] {
      return ['eth0', 'eth0.5']
    }
  }
  const off = {
    'net.ipv4.ip_forward': '0',
    'net.ipv6.conf.all.forwarding': '0',
    'net.ipv6.conf.eth0.accept_ra': '1',
    'net.ipv6.conf.eth0/5.accept_ra': '0',
  }

  test('what is on is left alone, 2 is on as well', () => {
    expect(ensureForwarding([4, 6], false, new FakeSysctls({ 'net.ipv4.ip_forward': '1', 'net.ipv6.conf.all.forwarding': '2' }))).toEqual(
      [],
    )
    expect(ensureForwarding([4], false, new FakeSysctls({ 'net.ipv4.ip_forward': '1' }))).toEqual([])
  })

  test('what is off is said, and set where that is allowed: router advertisements first, or the way out goes', () => {
    expect(() => ensureForwarding([4, 6], false, new FakeSysctls(off))).toThrow(
      expect.objectContaining({
        code: 'exit-tun-forwarding-off',
        message: expect.stringContaining(
          'sysctl -w net.ipv6.conf.eth0.accept_ra=2; sysctl -w net.ipv6.conf.all.forwarding=1; sysctl -w net.ipv4.ip_forward=1',
        ),
      }),
    )
    const sysctls = new FakeSysctls(off)
    ensureForwarding([4, 6], true, sysctls)
    expect(sysctls.written).toEqual(['net.ipv6.conf.eth0.accept_ra=2', 'net.ipv6.conf.all.forwarding=1', 'net.ipv4.ip_forward=1'])
    expect(() => ensureForwarding([4], true, new FakeSysctls(off, true))).toThrow(
      expect.objectContaining({ code: 'exit-tun-forwarding-off' }),
    )
  })
})

describe('netlink messages', () => {
  test('a request is laid out as the kernel reads it', () => {
    const bytes = nlmsg(CT_DELETE, NLM.request | NLM.ack, 7, 6, attribute(12, Uint8Array.of(1, 2, 3)))
    expect(bytes).toHaveLength(28)
    expect([bytes[4], bytes[5], bytes[6], bytes[8], bytes[16]]).toEqual([2, 1, 5, 7, 10])
    expect([...bytes.subarray(20)]).toEqual([7, 0, 12, 0, 1, 2, 3, 0])
  })

  test('an entry is read: who began it, and what names it', () => {
    const tuple = attribute(0x8001, attribute(0x8001, attribute(1, parseIp('100.89.0.2').bytes)))
    const entry = nlmsg(0x100, 2, 7, 4, attributes(tuple, attribute(12, Uint8Array.of(1, 2, 3, 4))))
    const [message] = [...messagesIn(entry)]
    expect(message).toMatchObject({ sequence: 7, done: false, family: 4 })
    expect([...message!.source!]).toEqual([100, 89, 0, 2])
    expect(message!.tuple).toEqual(tuple)
  })

  test('no bytes make the readers throw or hang', () => {
    const seed = Date.now() % 0x1_0000_0000
    const random = new SeededRandom(seed)
    for (let i = 0; i < 5000; i++) {
      const bytes = random.bytes(random.int(120))
      if (bytes.length > 6 && random.int(2) === 0) bytes.set([bytes.length, 0, 0, 0, 0, random.int(2) === 0 ? 1 : 10])
      expect([...messagesIn(bytes)].length, `seed ${seed}`).toBeLessThan(10)
      tableAfter(bytes, 'shallot_exit')
    }
  })

  test('a table that was deleted and made again in one transaction is there', () => {
    const name = attribute(1, new TextEncoder().encode('shallot_exit\0'))
    const say = (type: number, body = name) => {
      const bytes = nlmsg(type, 0, 1, 4, body)
      bytes[16] = 1
      return bytes
    }
    expect(tableAfter(say(0xa02), 'shallot_exit')).toBe(false)
    expect(tableAfter(attributes(say(0xa00), say(0xa02), say(0xa00)), 'shallot_exit')).toBe(true)
    expect(tableAfter(say(0xa02), 'shallot_vpn')).toBe(null)
    expect(tableAfter(say(0xa02, attribute(1, new TextEncoder().encode('shallot_exit2\0'))), 'shallot_exit')).toBe(null)
  })
})

describe('the ruleset', () => {
  const facts: RulesetFacts = {
    device: 'shallot-exit',
    mtu: 1420,
    network4: parseNetwork('100.89.0.0/16'),
    network6: null,
    outboundInterface: 'eth0',
    outbound4: '198.51.100.7',
    outbound6: null,
    protocols: [50],
    maxFlows: 9,
    newFlowsPerSecond: 8,
    newFlowBurst: 7,
    timeouts: null,
    lines: ['reject *:25', 'accept *:*'],
    privateDestinations: [],
    ownAddresses: [parseIp('198.51.100.7')],
  }

  test('is one transaction that replaces what stood under its name', () => {
    expect(rulesetText(facts)).toMatch(/^table inet shallot_exit \{\}\ndelete table inet shallot_exit\n\ntable inet shallot_exit \{\n/)
  })

  test('says what was configured', () => {
    const text = rulesetText(facts)
    for (const part of [
      'oifname != "eth0" counter name "other_interface" drop',
      'snat ip to 198.51.100.7',
      'meta nfproto ipv6 counter name "wrong_source" drop',
      'ct count over 9',
      'limit rate over 8/second burst 7 packets',
      'th dport { 25 } goto refused',
      'maxseg size set 1380',
    ])
      expect(text).toContain(part)
    expect(text).not.toContain('masquerade')
    expect(text).not.toContain('ct timeout')
  })

  test('knows the forms that wrap an IPv4 address as the policy does', () => {
    for (const form of embeddedForms) {
      const inner = parseIp('169.254.169.254')
      expect(embeddedIpv4(embedIpv4(form, inner.bytes))?.bytes, form.name).toEqual(inner.bytes)
    }
  })
})

describe('[exit.tun]', () => {
  test.each([
    [{ name: 'lo' }],
    [{ name: 'a name' }],
    [{ name: 'x'.repeat(16) }],
    [{ mtu: 1279 }],
    [{ protocols: [6] }],
    [{ protocols: [4] }],
    [{ protocols: [41] }],
    [{ maxFlows: 0 }],
    [{ outboundInterface: 'eth0; drop' }],
    [{ more: 1 }],
  ])('%j is refused', (tun) => {
    expect(exitConfig.safeParse({ tun }).success).toBe(false)
  })
})
