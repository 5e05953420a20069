import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { formatIp, parseIp, SeededRandom } from '../../src/base/index.ts'
import type { Exit } from '../../src/egress/index.ts'
import type { ExitCircuit } from '../../src/relaying/index.ts'
import { fragmentsOf } from '../support/ip-fragments.ts'
import { echoPacket, PacketClient, rawPacket, udpPacket } from '../support/packet-client.ts'
import { packetPorts } from '../support/packet-servers.ts'
import { bytesOf, sha256OfBytes } from '../support/web-server.ts'

const MTU = 1420
const never = new AbortController().signal
const families = [4, 6] as const

/** An exit whose packets leave by the backend under test, and servers beyond it. */
export interface PacketWorld {
  /** Its policy is the default one: port 25 closed, no private destinations. */
  readonly exit: Exit
  /** Where `startPacketServers` listens, seen from the exit: addresses of the public internet, to it. */
  readonly server4: string
  readonly server6: string
  stop(): Promise<void>
}

/** What every PacketBackend has to do. The caller has made namespaces in which it may. */
export function packetBackendCompliance(name: string, start: () => Promise<PacketWorld>): void {
  describe(`packet backend: ${name}`, () => {
    let world: PacketWorld
    const circuits: ExitCircuit[] = []

    beforeEach(async () => {
      world = await start()
    })
    afterEach(async () => {
      for (const circuit of circuits.splice(0)) circuit.close()
      await world.stop()
    })

    const server = (family: 4 | 6): string => (family === 4 ? world.server4 : world.server6)

    async function open(seed = 1): Promise<PacketClient> {
      const circuit = world.exit.openCircuit()
      circuits.push(circuit)
      return new PacketClient(await circuit.openPackets(MTU, never), seed)
    }

    it('leases addresses of its own to each circuit, and takes them back', async () => {
      const clients = [await open(1), await open(2), await open(3)]
      const texts = clients.flatMap((client) => families.map((family) => formatIp(client.address(family))))
      expect(new Set(texts).size).toBe(6)
      expect(world.exit.counts.packets?.leases).toBe(3)
      expect(clients.map((client) => [client.lease.port.medium, client.lease.port.mtu])).toEqual([
        ['ip', MTU],
        ['ip', MTU],
        ['ip', MTU],
      ])
      clients[0]!.close()
      circuits[1]!.close()
      await until(() => clients[0]!.ended === null && clients[1]!.ended === null)
      expect(world.exit.counts.packets?.leases).toBe(1)
      expect(clients[2]!.ended).toBeUndefined()
    })

    for (const family of families) {
      describe(`IPv${family}`, () => {
        it('carries TCP, and the server never sees the leased address', async () => {
          const client = await open()
          const echo = await client.connect(server(family), packetPorts.echo)
          echo.write('there and back')
          await until(() => echo.text === 'there and back')
          const who = await client.connect(server(family), packetPorts.who)
          await until(() => who.remoteEnded)
          expect(who.text).toMatch(/ \d+$/)
          expect(parseIp(who.text.split(' ')[0]!)).not.toEqual(client.address(family))
        })

        it('carries 4 MB each way, whole', async () => {
          const client = await open()
          const down = await client.connect(server(family), packetPorts.source)
          const hash = createHash('sha256')
          down.onData = (bytes) => void hash.update(bytes)
          down.write(`${4 << 20}\n`)
          const up = await client.connect(server(family), packetPorts.sink)
          for (const piece of bytesOf(4 << 20)) up.write(piece)
          up.end()
          await until(() => down.remoteEnded, 20_000)
          down.end()
          expect([await down.closed, down.received, hash.digest('hex')]).toEqual(['done', 4 << 20, sha256OfBytes(4 << 20)])
          expect((await up.all()).toString()).toBe(sha256OfBytes(4 << 20))
        })

        it('refuses with RST where nobody listens, and with ICMP what the policy closes', async () => {
          const client = await open()
          await expect(client.connect(server(family), packetPorts.closed)).rejects.toThrow('refused')
          await expect(client.connect(server(family), packetPorts.mail)).rejects.toThrow('unreachable')
          await expect(client.connect(family === 4 ? '10.11.12.13' : 'fd01::1', 80)).rejects.toThrow('unreachable')
        })

        it("carries the server's reset, and the client's", async () => {
          const client = await open()
          const flow = await client.connect(server(family), packetPorts.reset)
          flow.write('x')
          expect(await flow.closed).toBe('reset')
          const echo = await client.connect(server(family), packetPorts.echo)
          echo.abort()
          await until(() => world.exit.counts.streams === 0)
        })

        it('carries datagrams, from one port whatever they are sent to', async () => {
          const client = await open()
          client.sendDatagram(5000, server(family), packetPorts.udp, Buffer.from('one'))
          await until(() => client.datagrams.length === 1)
          client.sendDatagram(5000, server(family), packetPorts.udpBig, Buffer.from('10'))
          client.sendDatagram(5000, server(family), packetPorts.udp, Buffer.from('two'))
          await until(() => client.datagrams.length === 3)
          const texts = client.datagrams.filter(({ from }) => from.port === packetPorts.udp).map(({ data }) => Buffer.from(data).toString())
          const [address, port, text] = texts[0]!.split(' ')
          expect(text).toBe('one')
          expect(texts[1]).toBe(`${address} ${port} two`)
          expect(parseIp(address!)).not.toEqual(client.address(family))
          expect(client.datagrams.every(({ to, from }) => to.port === 5000 && formatIp(from.address) === server(family))).toBe(true)
        })

        it('carries datagrams in fragments, both ways', async () => {
          const client = await open()
          const data = Buffer.concat([...bytesOf(5000)])
          client.sendDatagram(5001, server(family), packetPorts.udp, data)
          await until(() => client.datagrams.length === 1)
          expect(Buffer.from(client.datagrams[0]!.data).subarray(-5000).equals(data)).toBe(true)
        })

        it('says that the policy closes a port or place for datagrams', async () => {
          const client = await open()
          client.sendDatagram(5002, server(family), 25, Buffer.from('mail'))
          client.sendDatagram(5003, family === 4 ? '192.168.7.7' : 'fd01::7', 53, Buffer.from('dns'))
          await until(() => client.undelivered.length === 2)
          expect(client.undelivered.map(({ kind, protocol, from }) => [kind, protocol, from.port])).toEqual([
            ['prohibited', 'udp', 5002],
            ['prohibited', 'udp', 5003],
          ])
          expect(world.exit.counts.packets?.dropped.policy).toBeGreaterThanOrEqual(2)
        })

        it('carries echo requests, whole and in fragments', async () => {
          const client = await open()
          client.sendEcho(server(family), 77, 3, Buffer.from('ping'))
          const long = Buffer.concat([...bytesOf(3000)])
          client.raw(...fragmentsOf(echoPacket({ from: client.address(family), to: server(family) }, 78, 4, long), client.lease.port.mtu))
          await until(() => client.echoes.length === 2)
          // IP promises no order.
          const [short, large] = client.echoes.toSorted((a, b) => a.identifier - b.identifier)
          expect([short!.identifier, short!.sequence, formatIp(short!.from), Buffer.from(short!.data).toString()]).toEqual([
            77,
            3,
            server(family),
            'ping',
          ])
          expect([large!.identifier, large!.sequence, Buffer.from(large!.data).equals(long)]).toEqual([78, 4, true])
        })

        it('is a hop: what may go no further is answered in its name', async () => {
          const client = await open()
          const from = client.address(family)
          client.raw(echoPacket({ from, to: server(family), hopLimit: 1 }, 9, 1, Buffer.from('trace')))
          client.raw(udpPacket({ from, to: server(family), hopLimit: 1 }, 33_000, 33_434, Buffer.from('trace')))
          await until(() => client.undelivered.length === 2)
          const reporters = new Set(client.undelivered.map(({ reporter }) => formatIp(reporter)))
          expect(client.undelivered.map(({ kind, protocol }) => `${kind} ${protocol}`)).toEqual(['time-exceeded icmp', 'time-exceeded udp'])
          expect(reporters.size).toBe(1)
          expect(reporters.has(server(family))).toBe(false)
          expect(client.echoes).toEqual([])
        })

        it('drops what comes from an address that is not leased', async () => {
          const [client, other] = [await open(1), await open(2)]
          const to = server(family)
          for (const from of [other.address(family), parseIp(family === 4 ? '11.9.9.9' : '2a00:9::9'), parseIp(to)]) {
            client.raw(udpPacket({ from, to }, 6000, packetPorts.udp, Buffer.from('forged')))
            client.raw(echoPacket({ from, to }, 1, 1, Buffer.from('forged')))
          }
          client.sendDatagram(6001, to, packetPorts.udp, Buffer.from('true'))
          await until(() => client.datagrams.length === 1)
          await sleep(50)
          expect([client.datagrams.length, other.datagrams.length, client.echoes.length, other.echoes.length]).toEqual([1, 0, 0, 0])
          expect(world.exit.counts.packets?.dropped.source).toBeGreaterThanOrEqual(6)
        })

        it('keeps clients from each other', async () => {
          const [client, other] = [await open(1), await open(2)]
          other.stack.listen({ address: null, port: 80 })
          const to = formatIp(other.address(family))
          client.sendDatagram(7000, to, 7000, Buffer.from('hello'))
          client.sendEcho(to, 1, 1, Buffer.from('hello'))
          await expect(client.connect(to, 80)).rejects.toThrow('unreachable')
          await sleep(50)
          expect([other.datagrams.length, client.echoes.length, other.stack.counters.packets]).toEqual([0, 0, 0])
        })
      })
    }

    it('holds TCP back while the circuit takes nothing, and loses none of it', async () => {
      const client = await open()
      const flow = await client.connect(world.server4, packetPorts.source)
      const hash = createHash('sha256')
      flow.onData = (bytes) => void hash.update(bytes)
      flow.write(`${8 << 20}\n`)
      await until(() => flow.received > 100_000)
      client.lease.port.pause()
      await sleep(30)
      const held = flow.received
      await sleep(200)
      expect(flow.received).toBe(held)
      client.lease.port.resume()
      await until(() => flow.remoteEnded, 20_000)
      expect(hash.digest('hex')).toBe(sha256OfBytes(8 << 20))
    })

    it('holds the server back while the client reads nothing', async () => {
      const client = await open()
      const flow = client.dial(world.server4, packetPorts.source)
      flow.reading = false
      await flow.connected
      flow.write(`${64 << 20}\n`)
      await sleep(300)
      const { packets } = world.exit.counts
      await sleep(200)
      // A window and what the stacks and the kernel hold, and no more.
      expect(world.exit.counts.packets!.bytesOut - packets!.bytesOut).toBeLessThan(100_000)
      expect(packets!.bytesOut).toBeLessThan(8 << 20)
      flow.abort()
    })

    it('outlives hostile packets', async () => {
      const seed = Date.now() % 0x1_0000_0000
      const random = new SeededRandom(seed)
      const client = await open()
      const from = client.address(4)
      const bases = [
        echoPacket({ from, to: world.server4 }, 1, 1, random.bytes(100)),
        udpPacket({ from, to: world.server4 }, 1000, packetPorts.udp, random.bytes(100)),
        udpPacket({ from: client.address(6), to: world.server6 }, 1000, packetPorts.udp, random.bytes(100)),
        rawPacket({ from, to: world.server4 }, 6, 40).packet,
        rawPacket({ from, to: world.server4 }, 132, 40).packet,
        rawPacket({ from, to: '255.255.255.255' }, 17, 40).packet,
        rawPacket({ from, to: '224.0.0.1' }, 2, 40).packet,
        rawPacket({ from: client.address(6), to: 'ff02::1' }, 58, 40).packet,
      ]
      for (let round = 0; round < 100; round++) {
        const packets = Array.from({ length: 20 }, () => mutated(bases[random.int(bases.length)]!, random))
        client.raw(...packets)
        if (round % 20 === 0) await sleep(1)
      }
      const echo = await client.connect(world.server4, packetPorts.echo)
      echo.end('still here')
      expect((await echo.all()).toString(), `seed ${seed}`).toBe('still here')
      client.sendDatagram(5005, world.server4, packetPorts.udp, Buffer.from('still here'))
      await until(() => client.datagrams.some(({ data }) => Buffer.from(data).toString().endsWith('still here')))
    })

    it('counts packets and bytes both ways, and never where to', async () => {
      const client = await open()
      client.sendDatagram(5006, world.server4, packetPorts.udp, Buffer.from('counted'))
      await until(() => client.datagrams.length === 1)
      const { packets } = world.exit.counts
      expect(packets).toMatchObject({ leases: 1, packetsIn: 1, packetsOut: 1, bytesIn: 35 })
      expect(packets!.bytesOut).toBeGreaterThan(35)
      expect(JSON.stringify(world.exit.counts)).not.toContain(world.server4)
    })
  })
}

function mutated(packet: Uint8Array, random: SeededRandom): Uint8Array {
  const changed = packet.slice(0, random.int(4) === 0 ? 1 + random.int(packet.length) : packet.length)
  // The source stays, or nothing would get past the first check.
  for (let flips = random.int(6); flips > 0; flips--) {
    const at = random.int(changed.length)
    const sourceAt = packet[0]! >> 4 === 4 ? 12 : 8
    const isSource = at >= sourceAt && at < sourceAt + (sourceAt === 12 ? 4 : 16)
    if (!isSource) changed[at] = random.int(256)
  }
  if (changed.length >= 20 && changed[0]! >> 4 === 4) {
    changed[10] = 0
    changed[11] = 0
    let sum = 0
    for (let i = 0; i < 20; i += 2) sum += (changed[i]! << 8) | changed[i + 1]!
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
    changed[10] = (~sum >> 8) & 0xff
    changed[11] = ~sum & 0xff
  }
  return changed
}

async function until(condition: () => boolean, ms = 5000): Promise<void> {
  const end = Date.now() + ms
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited ${ms} ms in vain`)
    await sleep(2)
  }
}
