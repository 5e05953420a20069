import { describe, expect, it } from 'vitest'
import { formatIp, parseIp, SeededRandom } from '../../../src/base/index.ts'
import type { Stack, StackEvent, StackOptions } from '../../../src/netstack/index.ts'
import { batchOfPackets, IcmpHeader, IpHeader, PacketBatch, Protocol, writeIp } from '../../../src/packet/index.ts'
import { endpoint, testStack } from '../../support/virtual-net.ts'

const NOW = 5000
const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

function stacks(a: Partial<StackOptions> = {}, b: Partial<StackOptions> = {}): [Stack, Stack] {
  const random = new SeededRandom(2)
  return [testStack(1, random, a), testStack(2, random, b)]
}

function sent(stack: Stack): Uint8Array[] {
  const batch = new PacketBatch(256, 512 << 10)
  stack.output(batch, NOW)
  return Array.from({ length: batch.count }, (_, i) => batch.packet(i).slice())
}

function told(stack: Stack): StackEvent[] {
  const events: StackEvent[] = []
  for (let event = stack.nextEvent(); event !== null; event = stack.nextEvent()) events.push(event)
  return events
}

const give = (stack: Stack, packets: readonly Uint8Array[], now = NOW) => stack.input(batchOfPackets(packets), now)
const data = (length: number) => new SeededRandom(length).bytes(length)

describe('UDP', () => {
  it.each(['10.0.0', 'fd00:'])('carries datagrams with both addresses, in one packet or in fragments (%s)', (net) => {
    const [a, b] = stacks()
    const side = (n: number, port: number) => endpoint(net.includes(':') ? `fd00::${n}` : `10.0.0.${n}`, port)
    for (const length of [0, 1, 1000, 1372, 3000, 9000, 65_507]) {
      const payload = data(length)
      expect(a.sendDatagram({ from: side(1, 1000), to: side(2, 53), data: payload }, NOW)).toBe(true)
      const packets = sent(a)
      for (const packet of packets) expect(packet.length).toBeLessThanOrEqual(1420)
      // Any order will do.
      give(b, packets.reverse())
      expect(told(b)).toEqual([{ type: 'datagram', from: side(1, 1000), to: side(2, 53), data: payload }])
    }
    expect(b.facts).toMatchObject({ reassemblies: 0, reassemblyBytes: 0 })
  })

  it('drops what has a wrong checksum, and takes one without over IPv4', () => {
    const [a, b] = stacks()
    a.sendDatagram({ from: endpoint('10.0.0.1', 1), to: endpoint('10.0.0.2', 2), data: data(9) }, NOW)
    const [packet] = sent(a)
    packet![30]! ^= 1
    give(b, [packet!])
    expect(told(b)).toEqual([])
    packet!.fill(0, 26, 28)
    give(b, [packet!])
    expect(told(b)).toHaveLength(1)
  })

  it('queues a bounded number of datagrams, and of packets to send', () => {
    const [a, b] = stacks({ limits: { outboxPackets: 10 } }, { limits: { queuedEvents: 5 } })
    const one = { from: endpoint('10.0.0.1', 1), to: endpoint('10.0.0.2', 2), data: data(9) }
    const taken = Array.from({ length: 20 }, () => a.sendDatagram(one, NOW))
    expect(taken.filter(Boolean)).toHaveLength(10)
    give(b, sent(a))
    expect(told(b)).toHaveLength(5)
    expect(b.facts.droppedEvents).toBe(5)
    expect(a.sendDatagram({ ...one, data: new Uint8Array(65_508) }, NOW)).toBe(false)
  })

  it('refuses a datagram with ICMP that its sender understands, and only so many a second', () => {
    const [a, b] = stacks({}, { limits: { icmpErrorsPerSecond: 3 } })
    for (const [from, to] of [
      [endpoint('10.0.0.1', 1), endpoint('10.0.0.2', 2)],
      [endpoint('fd00::1', 1), endpoint('fd00::2', 2)],
    ] as const) {
      a.sendDatagram({ from, to, data: data(600) }, NOW)
      give(b, sent(a))
      const [event] = told(b)
      if (event?.type !== 'datagram') throw new Error('no datagram')
      expect(b.refuseDatagram(event, 'port-unreachable', NOW)).toBe(true)
      give(a, sent(b))
      expect(told(a)).toEqual([{ type: 'undelivered', kind: 'port-unreachable', protocol: 'udp', from, to, reporter: to.address, mtu: 0 }])
    }
    const datagram = { from: endpoint('10.0.0.1', 1), to: endpoint('10.0.0.2', 2), data: data(1) }
    expect([1, 2].map(() => b.refuseDatagram(datagram, 'prohibited', NOW))).toEqual([true, false])
  })

  it('refuses all by itself where datagrams are not wanted', () => {
    const [a, b] = stacks({}, { datagrams: 'refuse' })
    a.sendDatagram({ from: endpoint('10.0.0.1', 1), to: endpoint('10.0.0.2', 2), data: data(6) }, NOW)
    give(b, sent(a))
    give(a, sent(b))
    expect(told(a)).toMatchObject([{ type: 'undelivered', kind: 'port-unreachable' }])
  })
})

describe('ICMP', () => {
  it.each(['10.0.0.', 'fd00::'])('answers echo requests to its own address (%s)', (net) => {
    const [a, b] = stacks()
    const echo = { from: parseIp(`${net}1`), to: parseIp(`${net}2`), identifier: 7, sequence: 9, data: data(100) }
    expect(a.sendEcho('echo-request', echo)).toBe(true)
    give(b, sent(a))
    expect(told(b)).toEqual([])
    give(a, sent(b))
    expect(told(a)).toEqual([{ type: 'echo-reply', ...echo, from: echo.to, to: echo.from }])
  })

  it.each(['10.0.0.', 'fd00::'])('answers all of an echo that is larger than a packet, in fragments as it came (%s)', (net) => {
    const [a, b] = stacks()
    for (const length of [1392, 1393, 5000, 65_507]) {
      const echo = { from: parseIp(`${net}1`), to: parseIp(`${net}2`), identifier: 7, sequence: 9, data: data(length) }
      expect(a.sendEcho('echo-request', echo)).toBe(true)
      give(b, sent(a))
      const answers = sent(b)
      for (const packet of answers) expect(packet.length).toBeLessThanOrEqual(1420)
      give(a, answers)
      expect(told(a)).toEqual([{ type: 'echo-reply', ...echo, from: echo.to, to: echo.from }])
    }
    const from = parseIp(`${net}1`)
    expect(a.sendEcho('echo-request', { from, to: parseIp(`${net}2`), identifier: 1, sequence: 1, data: data(65_528) })).toBe(false)
  })

  it('gives echo requests to the application where it is asked to, or to nobody', () => {
    const [a, b] = stacks({}, { echo: 'tell', promiscuous: true })
    const echo = { from: parseIp('10.0.0.1'), to: parseIp('8.8.8.8'), identifier: 7, sequence: 9, data: data(10) }
    a.sendEcho('echo-request', echo)
    const packets = sent(a)
    give(b, packets)
    expect(told(b)).toEqual([{ type: 'echo-request', ...echo }])
    const [, silent] = stacks({}, { echo: 'drop', promiscuous: true })
    give(silent, packets)
    expect([told(silent), sent(silent)]).toEqual([[], []])
  })

  it('never answers what is not for it, comes from nobody, or goes to many', () => {
    const [, b] = stacks({}, { promiscuous: true })
    const odd: [string, string][] = [
      ['0.0.0.0', '10.0.0.2'],
      ['224.0.0.1', '10.0.0.2'],
      ['255.255.255.255', '10.0.0.2'],
      ['127.0.0.1', '10.0.0.2'],
      ['10.0.0.1', '224.0.0.1'],
      ['10.0.0.1', '255.255.255.255'],
      ['10.0.0.2', '10.0.0.2'],
      ['::', 'fd00::2'],
      ['ff02::1', 'fd00::2'],
      ['fd00::1', 'ff02::1'],
    ]
    for (const [from, to] of odd) {
      const source = parseIp(from).bytes
      const packet = new Uint8Array((source.length === 4 ? 20 : 40) + 20)
      writeIp(packet, viewOf(packet), 0, { source, destination: parseIp(to).bytes, protocol: 99, hopLimit: 1 }, 20)
      give(b, [packet])
    }
    expect(b.facts).toMatchObject({ packets: odd.length, ignored: odd.length })
    expect(sent(b)).toEqual([])
    const [, own] = stacks()
    const elsewhere = new Uint8Array(40)
    const fields = { source: parseIp('10.0.0.1').bytes, destination: parseIp('10.0.0.3').bytes, protocol: 99, hopLimit: 1 }
    writeIp(elsewhere, viewOf(elsewhere), 0, fields, 20)
    give(own, [elsewhere])
    expect(sent(own)).toEqual([])
  })

  it('says that it does not know a protocol (RFC 1122 §3.2.2.1)', () => {
    const [, b] = stacks()
    const packet = new Uint8Array(40)
    const fields = { source: parseIp('10.0.0.1').bytes, destination: parseIp('10.0.0.2').bytes, protocol: 99, hopLimit: 1 }
    writeIp(packet, viewOf(packet), 0, fields, 20)
    give(b, [packet])
    const [answer] = sent(b)
    const ip = new IpHeader()
    const icmp = new IcmpHeader()
    expect(ip.parse(viewOf(answer!), 0, answer!.length)).toBeNull()
    expect(icmp.parse(viewOf(answer!), ip.payloadStart, ip.end, 4)).toBeNull()
    expect(icmp.kind).toBe('protocol-unreachable')
    expect([...answer!.subarray(icmp.bodyStart, icmp.end)]).toEqual([...packet])
  })

  it('points at the number that it does not know in IPv6, behind extension headers too (RFC 4443 §3.4)', () => {
    const [, b] = stacks()
    for (const [chain, pointer] of [
      [[], 6],
      [[99, 0, 1, 4, 0, 0, 0, 0], 40],
    ] as const) {
      give(b, [packet6(chain.length > 0 ? Protocol.destinationOptions : 99, [...chain, ...new Array(16).fill(1)])])
      const [answer] = sent(b)
      expect([answer![40], answer![41], viewOf(answer!).getUint32(44)]).toEqual([4, 1, pointer])
    }
    give(b, [packet6(Protocol.noNext, [1, 2, 3])])
    expect(sent(b)).toEqual([])
  })

  it('takes what stands behind extension headers, and nothing that has an option it would have to know (RFC 8200 §4.2)', () => {
    const [a, b] = stacks()
    a.sendDatagram({ from: endpoint('fd00::1', 1), to: endpoint('fd00::2', 2), data: data(8) }, NOW)
    const udp = [...sent(a)[0]!.subarray(40)]
    const withOption = (option: number[]) => packet6(Protocol.destinationOptions, [Protocol.udp, 0, ...option, ...udp])
    for (const known of [
      [1, 4, 0, 0, 0, 0],
      [0, 0, 0, 0, 0, 0],
      [0x1e, 4, 9, 9, 9, 9],
    ]) {
      give(b, [withOption(known)])
      expect(told(b)).toHaveLength(1)
    }
    for (const type of [0x40, 0x80, 0xc2]) {
      give(b, [withOption([type, 4, 0, 0, 0, 0])])
      expect(told(b)).toEqual([])
    }
    // An option that is longer than its header.
    give(b, [withOption([0x1e, 5, 0, 0, 0, 0])])
    expect(told(b)).toEqual([])
    expect([b.facts.malformed, sent(b)]).toEqual([4, []])
  })

  it('is silent about packets that nobody may answer: ICMP errors, and fragments but the first', () => {
    const [a, b] = stacks({}, { datagrams: 'refuse' })
    a.refuseDatagram({ from: endpoint('10.0.0.2', 1), to: endpoint('10.0.0.1', 2), data: data(8) }, 'port-unreachable', NOW)
    give(b, sent(a))
    expect(sent(b)).toEqual([])
  })
})

/** An IPv6 packet to the second stack. */
function packet6(next: number, payload: readonly number[]): Uint8Array {
  const packet = new Uint8Array(40 + payload.length)
  const fields = { source: parseIp('fd00::1').bytes, destination: parseIp('fd00::2').bytes, protocol: next, hopLimit: 9 }
  writeIp(packet, viewOf(packet), 0, fields, payload.length)
  packet.set(payload, 40)
  return packet
}

describe('reassembly', () => {
  /** The fragments of one datagram. */
  function fragments(a: Stack, length = 4000, v6 = false): Uint8Array[] {
    const [from, to] = v6 ? [endpoint('fd00::1', 1), endpoint('fd00::2', 2)] : [endpoint('10.0.0.1', 1), endpoint('10.0.0.2', 2)]
    a.sendDatagram({ from, to, data: data(length) }, NOW)
    return sent(a)
  }

  it.each([false, true])('refuses fragments that overlap, and all that follow of that packet (RFC 5722), IPv6 %s', (v6) => {
    const [a, b] = stacks()
    const [first, second, third] = fragments(a, 4000, v6)
    const field = v6 ? 42 : 6
    const overlapping = second!.slice()
    const view = viewOf(overlapping)
    if (v6) view.setUint16(field, view.getUint16(field) - 8)
    else {
      view.setUint16(6, view.getUint16(6) - 1)
      view.setUint16(10, 0)
      view.setUint16(10, headerSum(overlapping))
    }
    give(b, [first!, overlapping, second!, third!, first!])
    expect(told(b)).toEqual([])
    expect(b.facts.reassemblyBytes).toBeLessThan(200)
  })

  it('takes the same fragment twice', () => {
    const [a, b] = stacks()
    const [first, second, third] = fragments(a)
    give(b, [first!, first!, third!, third!, second!])
    expect(told(b)).toHaveLength(1)
  })

  it('refuses a second end, and data behind the end', () => {
    const [a, b] = stacks()
    const [first, , third] = fragments(a)
    const early = third!.slice()
    const view = viewOf(early)
    view.setUint16(6, view.getUint16(6) - 100)
    view.setUint16(10, 0)
    view.setUint16(10, headerSum(early))
    give(b, [third!, early, first!])
    expect(told(b)).toEqual([])
  })

  it('numbers IPv6 packets so that nobody can guess the next (RFC 7739)', () => {
    const [a] = stacks()
    const numbers = [1, 2, 3, 4].map(() => viewOf(fragments(a, 2000, true)[0]!).getUint32(44))
    const steps = numbers.slice(1).map((number, i) => (number - numbers[i]!) | 0)
    expect(new Set(steps).size).toBe(3)
    expect(steps).not.toContain(1)
  })

  it('keeps packets apart by source, destination, identification and protocol', () => {
    const [a, b] = stacks()
    const one = fragments(a, 4000)
    const two = fragments(a, 5000)
    give(b, one.flatMap((fragment, i) => [fragment, two[i]!]).concat(two.slice(one.length)))
    expect(
      told(b)
        .map((event) => event.type === 'datagram' && event.data.length)
        .sort(),
    ).toEqual([4000, 5000])
  })

  it('gives up after 30 s, and says so when the first fragment came', () => {
    const [a, b] = stacks()
    const parts = fragments(a)
    give(b, [parts[0]!])
    give(b, [fragments(a)[1]!])
    expect(b.deadline).toBe(NOW + 30_000)
    b.poll(NOW + 30_000)
    expect(b.facts).toMatchObject({ reassemblies: 0, reassemblyBytes: 0 })
    const answers = sent(b)
    expect(answers).toHaveLength(1)
    expect([answers[0]![20], answers[0]![21]]).toEqual([11, 1])
    give(b, parts.slice(1), NOW + 30_001)
    expect(told(b)).toEqual([])
  })

  it('is bounded in packets, parts and bytes under a flood of fragments', () => {
    const random = new SeededRandom(8)
    const [, b] = stacks({}, { limits: { reassemblies: 50, reassemblyBytes: 100_000, fragmentsPerPacket: 8 } })
    let most = 0
    for (let i = 0; i < 20_000; i++) {
      const packet = new Uint8Array(20 + 8 * (1 + random.int(100)))
      const view = viewOf(packet)
      const source = parseIp(`10.1.${random.int(4)}.${1 + random.int(200)}`).bytes
      const fields = { source, destination: parseIp('10.0.0.2').bytes, protocol: Protocol.udp, hopLimit: 1 }
      writeIp(packet, view, 0, { ...fields, identification: random.int(4) }, packet.length - 20)
      view.setUint16(6, 0x2000 | random.int(2000))
      view.setUint16(10, 0)
      view.setUint16(10, headerSum(packet))
      give(b, [packet])
      most = Math.max(most, b.facts.reassemblyBytes)
      expect(b.facts.reassemblies).toBeLessThanOrEqual(50)
    }
    expect(most).toBeLessThanOrEqual(100_000)
    expect(most).toBeGreaterThan(50_000 / 4)
    b.poll(NOW + 60_000)
    expect(b.facts).toMatchObject({ reassemblies: 0, reassemblyBytes: 0 })
  })
})

describe('promiscuous', () => {
  it('takes connections to any address and port, and tells where they wanted to go', () => {
    const [a, b] = stacks({}, { promiscuous: true, addresses: [] })
    b.listen({ address: null, port: null })
    for (const [to, port] of [
      ['203.0.113.9', 443],
      ['2001:db8::9', 22],
    ] as const) {
      const from = { address: parseIp(to.includes(':') ? 'fd00::1' : '10.0.0.1') }
      a.dial(endpoint(to, port), NOW, from)
      give(b, sent(a))
      const [event] = told(b)
      if (event?.type !== 'incoming') throw new Error('nothing came')
      expect([formatIp(event.connection.local.address), event.connection.local.port]).toEqual([to, port])
      event.connection.accept()
      give(a, sent(b))
      expect(told(a)).toMatchObject([{ type: 'connected' }])
      sent(a)
    }
  })

  it('lets the most exact listener have it', () => {
    const [a, b] = stacks({}, { promiscuous: true })
    const everything = b.listen({ address: null, port: null })
    const web = b.listen({ address: null, port: 80 })
    const host = b.listen({ address: parseIp('203.0.113.9'), port: null })
    const exact = b.listen({ address: parseIp('203.0.113.9'), port: 80 })
    const who = (to: string, port: number) => {
      a.dial(endpoint(to, port), NOW)
      give(b, sent(a))
      const [event] = told(b)
      return event?.type === 'incoming' ? event.listener : null
    }
    expect(who('203.0.113.9', 80)).toBe(exact)
    expect(who('203.0.113.9', 81)).toBe(host)
    expect(who('203.0.113.8', 80)).toBe(web)
    expect(who('203.0.113.8', 81)).toBe(everything)
    exact.close()
    expect(who('203.0.113.9', 80)).toBe(web)
    expect(() => b.listen({ address: null, port: 80 })).toThrow(/there is a listener/)
  })
})

function headerSum(packet: Uint8Array): number {
  let total = 0
  for (let i = 0; i < 20; i += 2) total += (packet[i]! << 8) | packet[i + 1]!
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16)
  return ~total & 0xffff
}
