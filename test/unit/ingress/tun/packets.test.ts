import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { SeededRandom } from '../../../../src/base/index.ts'
import { StreamError } from '../../../../src/client/index.ts'
import { openPcap } from '../../../../src/ingress/index.ts'
import { refusalLimits } from '../../../../src/ingress/tun/refusals.ts'
import { batchOfPackets, memoryPortPair, Protocol } from '../../../../src/packet/index.ts'
import { echoPacket, errorPacket, otherPacket, seePacket, tcpPacket, udpPacket } from '../../../support/ip-packets.ts'
import { until } from '../../../support/processes.ts'
import { device, FakeExit, RawMachine, TunWorld, type WorldOptions } from '../../../support/tun-world.ts'

const cleanUps: (() => void)[] = []
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp()
})

const LEASED4 = '100.70.0.9'
const LEASED6 = 'fd99::9'
const families = [
  { family: 4, own: device.own4, hop: device.hop4, server: '11.0.0.1', router: '10.99.0.1', leased: LEASED4, other: '192.168.5.5' },
  { family: 6, own: device.own6, hop: device.hop6, server: '2a0b::1', router: '2a0b::ff', leased: LEASED6, other: '2a0c::5' },
] as const

function world(options: WorldOptions & { readonly exit?: FakeExit } = {}) {
  const made = new TunWorld(options)
  cleanUps.push(() => made.stop())
  const exit = options.exit ?? new FakeExit()
  made.client.packets = exit.lease
  const machine = new RawMachine(made.machine)
  return { ...made, ingress: made.ingress, client: made.client, exit, machine }
}

describe('raw packets over a TUN', () => {
  for (const { family, own, hop, server, router, leased, other } of families) {
    describe(`IPv${family}`, () => {
      test('an echo goes by a lease under its address, a hop fewer, and is answered', async () => {
        const { machine, exit, ingress } = world()
        machine.send(echoPacket({ from: own, to: server, id: 9, data: Buffer.from('hello') }))
        await until('it is at the exit', 2000, () => exit.leases[0]?.received.length === 1)
        expect(exit.last.seen[0]).toMatchObject({
          from: leased,
          to: server,
          hopLimit: 63,
          sound: true,
          icmp: { kind: 'echo-request', identifier: 9 },
        })
        exit.last.send(echoPacket({ from: server, to: leased, id: 9, kind: 'echo-reply', data: Buffer.from('hello') }))
        await until('it is answered', 2000, () => machine.received.length === 1)
        expect(machine.seen[0]).toMatchObject({ from: server, to: own, sound: true, icmp: { kind: 'echo-reply', identifier: 9 } })
        expect(ingress.counts).toMatchObject({ packetLeases: 1, packets: { opened: 1, unasked: 0 } })
      })

      test('a router far away that says "time exceeded" quotes the packet as the machine sent it', async () => {
        const { machine, exit } = world()
        const probe = udpPacket({ from: own, to: server, fromPort: 4000, toPort: 33_434, hopLimit: 5, data: new Uint8Array(32) })
        machine.send(probe)
        await until('it is at the exit', 2000, () => exit.leases[0]?.received.length === 1)
        expect(exit.last.seen[0]).toMatchObject({ from: leased, hopLimit: 4, sound: true })
        exit.last.send(errorPacket({ from: router, to: leased, kind: 'time-exceeded', quoted: exit.last.received[0]! }))
        await until('it comes', 2000, () => machine.received.length === 1)
        const [seen] = machine.seen
        expect(seen).toMatchObject({ from: router, to: own, sound: true, icmp: { kind: 'time-exceeded' } })
        const quoted = seePacket(seen!.icmp!.quoted)
        expect(quoted).toMatchObject({ from: own, to: server, sound: true, udp: { fromPort: 4000, toPort: 33_434 } })
      })

      test("a packet out of hops is answered in the name of the device's other end, which is the first hop", async () => {
        const { machine, client } = world()
        const packets = [
          udpPacket({ from: own, to: server, fromPort: 4000, toPort: 33_434, hopLimit: 1 }),
          tcpPacket({ from: own, to: server, fromPort: 4000, toPort: 80, hopLimit: 1 }),
          echoPacket({ from: own, to: server, hopLimit: 1 }),
        ]
        machine.send(...packets)
        await until('all are answered', 2000, () => machine.received.length === 3)
        for (const [i, seen] of machine.seen.entries()) {
          expect(seen).toMatchObject({ from: hop, to: own, sound: true, icmp: { kind: 'time-exceeded' } })
          expect(seen.icmp!.quoted).toEqual(packets[i])
        }
        expect(client.asked).toEqual([])
        // And is reached itself with one.
        machine.send(echoPacket({ from: own, to: hop, hopLimit: 1, id: 3 }))
        await until('it answers', 2000, () => machine.received.length === 4)
        expect(machine.seen[3]).toMatchObject({ from: hop, to: own, sound: true, icmp: { kind: 'echo-reply', identifier: 3 } })
      })

      test('TCP with few hops to live is a probe, and what answers it comes back', async () => {
        const { machine, exit, client } = world()
        machine.send(tcpPacket({ from: own, to: server, fromPort: 4000, toPort: 443, hopLimit: 9 }))
        await until('it is at the exit', 2000, () => exit.leases[0]?.received.length === 1)
        exit.last.send(tcpPacket({ from: server, to: leased, fromPort: 443, toPort: 4000, flags: 0x12 }))
        await until('it is answered', 2000, () => machine.received.length === 1)
        expect(machine.seen[0]).toMatchObject({ from: server, to: own, sound: true, protocol: Protocol.tcp })
        expect(client.asked).toEqual([])
      })

      test('nobody outside opens anything towards the machine', async () => {
        const { machine, exit, ingress } = world()
        machine.send(echoPacket({ from: own, to: server, id: 9 }))
        machine.send(udpPacket({ from: own, to: server, fromPort: 4000, toPort: 33_434, hopLimit: 9 }))
        await until('both are at the exit', 2000, () => exit.leases[0]?.received.length === 2)
        const sent = exit.last.received[1]!
        const never = [
          // Not what was asked.
          tcpPacket({ from: server, to: leased, fromPort: 33_434, toPort: 22 }),
          tcpPacket({ from: server, to: leased, fromPort: 33_434, toPort: 4000 }),
          udpPacket({ from: server, to: leased, fromPort: 33_434, toPort: 4001 }),
          udpPacket({ from: router, to: leased, fromPort: 33_434, toPort: 4000 }),
          echoPacket({ from: server, to: leased, id: 9 }),
          echoPacket({ from: server, to: leased, id: 10, kind: 'echo-reply' }),
          otherPacket({ from: server, to: leased, protocol: 132, data: new Uint8Array(20) }),
          // Not to us, or from where nobody is.
          udpPacket({ from: server, to: own, fromPort: 33_434, toPort: 4000 }),
          udpPacket({
            from: server,
            to: family === 4 ? '224.0.0.1' : 'ff02::1',
            fromPort: 33_434,
            toPort: 4000,
          }),
          udpPacket({ from: family === 4 ? '127.0.0.1' : '::1', to: leased, fromPort: 33_434, toPort: 4000 }),
          udpPacket({ from: own, to: leased, fromPort: 33_434, toPort: 4000 }),
          // Errors about what was never sent, or damaged.
          errorPacket({
            from: router,
            to: leased,
            kind: 'port-unreachable',
            quoted: udpPacket({ from: leased, to: server, fromPort: 4000, toPort: 99 }),
          }),
          errorPacket({
            from: router,
            to: leased,
            kind: 'packet-too-big',
            quoted: tcpPacket({ from: leased, to: server, fromPort: 4000, toPort: 33_434 }),
          }),
          errorPacket({ from: router, to: leased, kind: 'time-exceeded', quoted: sent.slice(0, 20) }),
          damaged(errorPacket({ from: router, to: leased, kind: 'time-exceeded', quoted: sent })),
        ]
        exit.last.send(...never)
        exit.last.send(udpPacket({ from: server, to: leased, fromPort: 33_434, toPort: 4000 }))
        await until('the answer comes', 2000, () => machine.received.length > 0)
        await sleep(20)
        expect(machine.seen.map(({ udp }) => udp?.toPort)).toEqual([4000])
        expect(ingress.counts.packets.unasked).toBe(never.length)
      })

      test("the machine's own error about an answer goes to the exit, others do not", async () => {
        const { machine, exit, ingress } = world({ config: { udp: 'packets' } })
        machine.send(udpPacket({ from: own, to: server, fromPort: 4000, toPort: 500 }))
        await until('it is at the exit', 2000, () => exit.leases[0]?.received.length === 1)
        exit.last.send(udpPacket({ from: server, to: leased, fromPort: 500, toPort: 4000 }))
        await until('it is answered', 2000, () => machine.received.length === 1)
        machine.send(errorPacket({ from: own, to: server, kind: 'port-unreachable', quoted: machine.received[0]! }))
        const stranger = udpPacket({ from: router, to: own, fromPort: 1, toPort: 2 })
        machine.send(errorPacket({ from: own, to: router, kind: 'port-unreachable', quoted: stranger }))
        await until('it is at the exit', 2000, () => exit.last.received.length === 2)
        await sleep(20)
        expect(exit.last.seen.length).toBe(2)
        const seen = exit.last.seen[1]!
        expect(seen).toMatchObject({ from: leased, to: server, sound: true, icmp: { kind: 'port-unreachable' } })
        expect(seePacket(seen.icmp!.quoted)).toMatchObject({ from: server, to: leased, sound: true })
        expect(ingress.counts.packetLeases).toBe(1)
      })

      test('no exit serves packets: the machine is told, at once and from memory after', async () => {
        const { machine, exit, client } = world()
        exit.refuses = new StreamError('not-exit')
        let asked = 0
        client.packets = () => {
          asked++
          return exit.lease()
        }
        for (let i = 0; i < 3; i++) {
          machine.send(echoPacket({ from: own, to: server, id: 9, sequence: i }))
          await until('it is answered', 2000, () => machine.received.length === i + 1)
        }
        expect(machine.seen[2]).toMatchObject({ from: hop, to: own, sound: true, icmp: { kind: 'prohibited' } })
        expect(asked).toBe(1)
      })

      test('a packet larger than the lease takes is answered with the size that it takes', async () => {
        const { machine, exit } = world({ exit: new FakeExit({ mtu: 1300 }) })
        machine.send(echoPacket({ from: own, to: server, data: new Uint8Array(1350) }))
        await until('it is answered', 2000, () => machine.received.length === 1)
        expect(machine.seen[0]).toMatchObject({ from: hop, to: own, sound: true, icmp: { kind: 'packet-too-big', mtu: 1300 } })
        expect(exit.last.received).toEqual([])
      })

      test('what the machine forwards for others has a lease of its own', async () => {
        const { machine, exit } = world()
        machine.send(echoPacket({ from: own, to: server, id: 1 }), echoPacket({ from: other, to: server, id: 2 }))
        await until('both are at the exit', 2000, () => exit.leases.length === 2 && exit.leases.every((one) => one.received.length === 1))
        for (const [i, lease] of exit.leases.entries()) {
          lease.send(echoPacket({ from: server, to: leased, id: i + 1, kind: 'echo-reply' }))
        }
        await until('both are answered', 2000, () => machine.received.length === 2)
        expect(machine.seen.map(({ to, icmp }) => [to, icmp!.identifier]).toSorted()).toEqual(
          [
            [own, 1],
            [other, 2],
          ].toSorted(),
        )
      })
    })
  }

  test('packets of one batch go their ways, each in order', async () => {
    const { machine, exit, client } = world()
    const fields = { from: device.own4, to: '11.0.0.1' }
    const udp = (fromPort: number): Uint8Array => udpPacket({ ...fields, fromPort, toPort: 9 })
    machine.send(udp(1), udp(2), echoPacket({ ...fields, id: 1 }), udp(3), echoPacket({ ...fields, id: 2 }), udp(4))
    await until('all are on their way', 2000, () => exit.leases[0]?.received.length === 2 && client.associations === 4)
    expect(exit.last.seen.map(({ icmp }) => icmp!.identifier)).toEqual([1, 2])
  })

  test('both families share a lease; one that the exit does not serve is refused', async () => {
    const { machine, exit } = world({ exit: new FakeExit({ address6: null }) })
    machine.send(echoPacket({ from: device.own4, to: '11.0.0.1' }), echoPacket({ from: device.own6, to: '2a0b::1' }))
    await until(
      'one is at the exit, the other is answered',
      2000,
      () => exit.leases[0]?.received.length === 1 && machine.received.length === 1,
    )
    expect(machine.seen[0]).toMatchObject({ from: device.hop6, icmp: { kind: 'net-unreachable' } })
    expect(exit.opened).toBe(1)
  })

  test('a lease that is lost is opened anew, one that idles is given back', async () => {
    const { machine, exit, ingress } = world({ config: { packetsIdleTimeoutMs: 300 } })
    const ping = echoPacket({ from: device.own4, to: '11.0.0.1' })
    machine.send(ping)
    await until('it is at the exit', 2000, () => exit.leases[0]?.received.length === 1)
    exit.lose()
    await until('the loss is known', 2000, () => ingress.counts.packetLeases === 0)
    machine.send(ping)
    await until('it is at the exit again', 2000, () => exit.leases[1]?.received.length === 1)
    await until('it is given back', 2000, () => ingress.counts.packetLeases === 0)
    machine.send(ping)
    await until('it is at the exit again', 2000, () => exit.leases[2]?.received.length === 1)
  })

  test('leases are bounded', async () => {
    const { machine, exit, ingress } = world({ config: { maxPacketLeases: 2 } })
    for (let i = 1; i <= 5; i++) machine.send(echoPacket({ from: `192.168.5.${i}`, to: '11.0.0.1' }))
    await until('the others are answered', 2000, () => machine.received.length === 3 && exit.opened === 2)
    expect(machine.seen.every(({ icmp }) => icmp?.kind === 'prohibited')).toBe(true)
    expect(ingress.counts.packets.refused).toBe(3)
  })

  test('with tcp, udp and other protocols as packets all of it goes by the lease, but questions', async () => {
    const asked: Uint8Array[] = []
    const dns = {
      ask: async (message: Uint8Array) => {
        asked.push(message)
        return message
      },
    }
    const { machine, exit, client } = world({ config: { tcp: 'packets', udp: 'packets', otherProtocols: 'packets' }, dns })
    const fields = { from: device.own4, to: '11.0.0.1' }
    machine.send(
      tcpPacket({ ...fields, fromPort: 1, toPort: 80 }),
      udpPacket({ ...fields, fromPort: 1, toPort: 80 }),
      otherPacket({ ...fields, protocol: 132, data: new Uint8Array(20) }),
      udpPacket({ ...fields, fromPort: 1, toPort: 53, data: new Uint8Array(12) }),
    )
    await until('all but the question are at the exit', 2000, () => exit.leases[0]?.received.length === 3)
    expect(exit.last.seen.map(({ protocol, sound }) => [protocol, sound])).toEqual([
      [6, true],
      [17, true],
      [132, true],
    ])
    await until('the question is asked', 2000, () => asked.length === 1)
    expect(client.asked).toEqual([])
  })

  test('what is switched off is prohibited', async () => {
    const { machine, exit } = world({ config: { icmp: 'off' } })
    machine.send(echoPacket({ from: device.own4, to: '11.0.0.1' }))
    machine.send(otherPacket({ from: device.own4, to: '11.0.0.1', protocol: 132, data: new Uint8Array(20) }))
    await until('both are answered', 2000, () => machine.received.length === 2)
    expect(machine.seen.every(({ icmp }) => icmp?.kind === 'prohibited')).toBe(true)
    expect(exit.opened).toBe(0)
  })

  test('an exit that takes no more loses packets, and nothing waits without bound', async () => {
    const { machine, exit, ingress } = world({ queuePackets: 1024 })
    machine.send(echoPacket({ from: device.own4, to: '11.0.0.1' }))
    await until('it is at the exit', 2000, () => exit.leases[0]?.received.length === 1)
    for (let i = 0; i < 900; i++) machine.send(echoPacket({ from: device.own4, to: '11.0.0.1', data: new Uint8Array(1000) }))
    await until('the rest is lost', 2000, () => exit.last.received.length + ingress.counts.packets.overflow === 901)
    expect(ingress.counts.packets.overflow).toBeGreaterThan(0)
  })
})

/** One bit of the ICMP checksum the wrong way. */
function damaged(packet: Uint8Array): Uint8Array {
  packet[(packet[0]! >> 4 === 4 ? 20 : 40) + 3]! ^= 1
  return packet
}

describe('packets that go no further', () => {
  test.each([
    ['multicast', device.own4, '224.0.0.251', 'local'],
    ['broadcast', device.own4, '255.255.255.255', 'local'],
    ["the device's broadcast", device.own4, '10.83.104.3', 'local'],
    ['IPv6 multicast', device.own6, 'ff02::2', 'local'],
    ['from loopback', '127.0.0.1', '11.0.0.1', 'martian'],
    ['from nobody', '0.0.0.0', '11.0.0.1', 'martian'],
    ['from multicast', '224.0.0.1', '11.0.0.1', 'martian'],
    ['from the other end', device.hop4, '11.0.0.1', 'martian'],
    ['from unspecified IPv6', '::', '2a0b::1', 'martian'],
    ['from IPv6 link-local', 'fe80::2', '2a0b::1', 'martian'],
  ] as const)('%s: dropped and counted, never answered', async (_name, from, to, reason) => {
    const { machine, client, ingress, exit } = world()
    machine.send(udpPacket({ from, to, fromPort: 1, toPort: 2 }), tcpPacket({ from, to, fromPort: 1, toPort: 2 }), echoPacket({ from, to }))
    await until('they are counted', 2000, () => ingress.counts.dropped[reason] === 3)
    await sleep(10)
    expect(machine.received).toEqual([])
    expect([client.asked.length, exit.opened]).toEqual([0, 0])
  })

  test.each([
    [device.own4, '192.168.1.1'],
    [device.own4, '100.64.0.1'],
    [device.own4, '169.254.169.254'],
    [device.own4, '240.0.0.1'],
    [device.own4, device.own4],
    [device.own6, 'fd00::1'],
    [device.own6, 'fe80::1'],
  ] as const)('from %s to %s: answered, and no exit is asked', async (from, to) => {
    const { machine, client, ingress, exit } = world()
    machine.send(udpPacket({ from, to, fromPort: 1, toPort: 2 }), tcpPacket({ from, to, fromPort: 1, toPort: 2 }), echoPacket({ from, to }))
    await until('they are answered', 2000, () => machine.received.length === 3)
    expect(machine.seen.every(({ icmp, sound }) => sound && icmp?.kind === 'net-unreachable')).toBe(true)
    expect(ingress.counts.dropped.internal).toBe(3)
    expect([client.asked.length, exit.opened]).toEqual([0, 0])
  })

  test('internal destinations are carried for who wants that', async () => {
    const { machine, client } = world({ config: { rejectInternalAddresses: false } })
    machine.send(tcpPacket({ from: device.own4, to: '192.168.1.1', fromPort: 1, toPort: 80 }))
    await until('a stream is asked for', 2000, () => client.asked.length === 1)
  })

  test('errors are never answered with errors, nor later fragments', async () => {
    const { machine, ingress } = world()
    const expired = errorPacket({
      from: device.own4,
      to: '11.0.0.1',
      kind: 'port-unreachable',
      hopLimit: 1,
      quoted: udpPacket({ from: '11.0.0.1', to: device.own4, fromPort: 1, toPort: 2 }),
    })
    machine.send(expired)
    await until('it is counted', 2000, () => ingress.counts.dropped.expired === 1)
    await sleep(10)
    expect(machine.received).toEqual([])
  })

  test('answers are limited in rate', async () => {
    const { machine, ingress } = world({ queuePackets: 2048 })
    for (let i = 0; i < 1500; i++) machine.send(udpPacket({ from: device.own4, to: '192.168.1.1', fromPort: 1, toPort: 2 }))
    await until('all came', 2000, () => ingress.counts.dropped.internal === 1500)
    await sleep(20)
    expect(machine.received.length).toBeLessThan(refusalLimits.burst + refusalLimits.perSecond)
    expect(ingress.counts.suppressed).toBe(1500 - machine.received.length)
  })

  const seed = 4_711
  test(`garbage does no harm (seed ${seed})`, async () => {
    const random = new SeededRandom(seed)
    const { machine, ingress, exit, client } = world({ queuePackets: 4096, config: { otherProtocols: 'packets' } })
    client.hold = new Promise(() => {})
    const seeds = families.flatMap(({ own, server, hop, router }) => [
      tcpPacket({ from: own, to: server, fromPort: 1, toPort: 2 }),
      udpPacket({ from: own, to: server, fromPort: 1, toPort: 2, data: random.bytes(40) }),
      udpPacket({ from: own, to: server, fromPort: 1, toPort: 2, hopLimit: 9, data: random.bytes(40) }),
      echoPacket({ from: own, to: server }),
      echoPacket({ from: own, to: hop }),
      errorPacket({ from: own, to: server, kind: 'time-exceeded', quoted: udpPacket({ from: router, to: own, fromPort: 1, toPort: 2 }) }),
      otherPacket({ from: own, to: server, protocol: 44, data: random.bytes(50) }),
      otherPacket({ from: own, to: server, protocol: 0, data: random.bytes(50) }),
    ])
    const mutant = (): Uint8Array => {
      if (random.int(10) === 0) return random.bytes(1 + random.int(200))
      const packet = Uint8Array.from(seeds[random.int(seeds.length)]!)
      for (let n = random.int(4); n > 0; n--) packet[random.int(packet.length)] = random.int(256)
      return random.int(5) === 0 ? packet.slice(0, 1 + random.int(packet.length)) : packet
    }
    for (let i = 0; i < 20_000; i++) {
      machine.send(mutant())
      if (exit.leases.length > 0 && i % 2 === 0) exit.last.send(mutant())
      if (i % 500 === 499) await sleep(0)
    }
    await until('all came', 10_000, () => ingress.counts.packetsIn > 19_000)
    expect(machine.seen.every(({ sound }) => sound)).toBe(true)
    expect(ingress.counts.tcpFlows).toBeLessThanOrEqual(4096)
    expect(ingress.counts.bufferBytes).toBeLessThan(1 << 20)
  })
})

describe('a capture', () => {
  test('holds the packets of both ways, for this user alone', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'shallot-pcap-'))
    cleanUps.push(() => rmSync(folder, { recursive: true }))
    const path = join(folder, 'tun.pcap')
    const [inner, outer] = memoryPortPair({ carry: setImmediate })
    const capture = openPcap(inner, path, () => 1_700_000_000_000)
    new RawMachine(capture.port as never)
    const far = new RawMachine(outer)
    const [one, two] = [
      udpPacket({ from: '10.0.0.2', to: '11.0.0.1', fromPort: 1, toPort: 2 }),
      echoPacket({ from: '11.0.0.1', to: '10.0.0.2' }),
    ]
    far.send(one)
    capture.port.send(batchOfPackets([two]))
    await until('both have passed', 2000, () => far.received.length === 1 && capture.port.stats.receivedPackets === 1)
    await capture.close()
    await capture.close()
    const bytes = readFileSync(path)
    expect(bytes.readUInt32BE(0)).toBe(0xa1b2_c3d4)
    expect(bytes.length).toBe(24 + 16 + one.length + 16 + two.length)
    expect(bytes.includes(Buffer.from(one)) && bytes.includes(Buffer.from(two))).toBe(true)
    expect(statSync(path).mode & 0o777).toBe(0o600)
    // The port goes on.
    far.send(one)
    await until('it has passed', 2000, () => capture.port.stats.receivedPackets === 2)
    expect(capture.port.missed).toBe(1)
  })

  test('replaces an earlier one, and no other file', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'shallot-pcap-'))
    cleanUps.push(() => rmSync(folder, { recursive: true }))
    const [inner] = memoryPortPair({ carry: setImmediate })
    const other = join(folder, 'identity')
    writeFileSync(other, 'secret')
    expect(() => openPcap(inner, other, Date.now)).toThrow(expect.objectContaining({ code: 'pcap-not-writable' }))
    expect(readFileSync(other, 'utf8')).toBe('secret')
    const path = join(folder, 'tun.pcap')
    for (let times = 0; times < 2; times++) await openPcap(inner, path, Date.now).close()
    expect(readFileSync(path).length).toBe(24)
  })

  test('that cannot be written is a typed refusal', () => {
    const [inner] = memoryPortPair({ carry: setImmediate })
    expect(() => openPcap(inner, '/proc/no/such/place', Date.now)).toThrow(expect.objectContaining({ code: 'pcap-not-writable' }))
  })
})
