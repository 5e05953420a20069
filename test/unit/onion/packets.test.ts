import { describe, expect, it } from 'vitest'
import { parseIp, SeededRandom } from '../../../src/base/index.ts'
import { CELL_ROOM_BYTES, circuitLimits, MOST_PACKET_BYTES } from '../../../src/onion/index.ts'
import { Command, encodeEnd } from '../../../src/onion/messages.ts'
import {
  decodePacketOpen,
  decodePacketOpened,
  encodePacketOpen,
  encodePacketOpened,
  PacketQueue,
  packetLimits,
} from '../../../src/onion/packets.ts'
import { batchOfPackets, type PacketBatch } from '../../../src/packet/index.ts'
import { CircuitChain, leasedPackets } from '../../support/circuit-chain.ts'
import { type Forged, HostileClient, HostileRelay } from '../../support/hostile.ts'

const EXIT = 2
const terms = { families: [4, 6] as const, mtu: 1420 }
const malformed = expect.objectContaining({ code: 'malformed' })
const packet = (number: number, length = 60): Uint8Array => new Uint8Array(length).map((_, i) => (number * 7 + i) & 0xff)
const packets = (count: number, length = 60): PacketBatch => batchOfPackets(Array.from({ length: count }, (_, i) => packet(i, length)))
const numbered = (count: number, length = 60): Uint8Array[] => Array.from({ length: count }, (_, i) => packet(i, length))

describe('the bodies of packet messages', () => {
  it('are those of docs/spec/messages.md', () => {
    expect([...encodePacketOpen(terms)]).toEqual([3, 0x05, 0x8c])
    expect([...encodePacketOpen({ families: [6], mtu: 1280 })]).toEqual([2, 0x05, 0x00])
    expect([...encodePacketOpened({ address4: parseIp('100.64.0.2'), address6: null, mtu: 1515 })]).toEqual([1, 0x05, 0xeb, 100, 64, 0, 2])
    expect(encodePacketOpened(leasedPackets).length).toBe(23)
    expect(decodePacketOpen(encodePacketOpen(terms))).toEqual(terms)
    for (const grant of [leasedPackets, { ...leasedPackets, address4: null }, { ...leasedPackets, address6: null }])
      expect(decodePacketOpened(encodePacketOpened(grant))).toEqual(grant)
  })

  it.each([
    ['no family', [0, 5, 0x8c]],
    ['an unknown family', [4, 5, 0x8c]],
    ['an MTU below 1280', [3, 4, 0xff]],
    ['an MTU that no cell carries', [3, 5, 0xec]],
    ['a byte missing', [3, 5]],
    ['a byte too many', [3, 5, 0x8c, 0]],
  ])('are refused: PACKET_OPEN with %s', (_, body) => {
    expect(() => decodePacketOpen(Uint8Array.from(body))).toThrow(malformed)
  })

  it.each([
    ['no family', [0, 5, 0x8c]],
    ['an address missing', [3, 5, 0x8c, 100, 64, 0, 2]],
    ['an address too many', [1, 5, 0x8c, 100, 64, 0, 2, 1]],
    ['an MTU below 1280', [1, 4, 0xff, 100, 64, 0, 2]],
    ['the unspecified address', [1, 5, 0x8c, 0, 0, 0, 0]],
    ['a multicast address', [1, 5, 0x8c, 224, 0, 0, 1]],
    ['an IPv6 multicast address', [2, 5, 0x8c, 0xff, ...new Uint8Array(15)]],
  ])('are refused: PACKET_OPENED with %s', (_, body) => {
    expect(() => decodePacketOpened(Uint8Array.from(body))).toThrow(malformed)
  })
})

describe('the queue of packets', () => {
  const seed = Number(process.env.SHALLOT_TEST_SEED ?? Date.now() % 0x1_0000_0000)

  it(`gives back what it was given, in order, whatever its ring does (SHALLOT_TEST_SEED=${seed})`, () => {
    const random = new SeededRandom(seed)
    const queue = new PacketQueue()
    const model: { stream: number; hop: number; bytes: Uint8Array; at: number }[] = []
    let now = 0
    let dropped = 0
    for (let step = 0; step < 20_000; step++) {
      // Phases in which it fills up, and in which it runs empty.
      if (random.int(100) < (Math.floor(step / 1500) % 2 === 0 ? 70 : 30)) {
        const bytes = packet(step, 20 + random.int(random.int(3) === 0 ? 1496 : 80))
        const [stream, hop] = [1 + random.int(3), 2 - Math.min(1, random.int(50))]
        const charge = model.reduce((sum, one) => sum + Math.max(256, one.bytes.length), 0)
        expect(queue.queuedBytes).toBe(charge)
        const isTaken = queue.push(stream, hop, batchOfPackets([packet(0), bytes]), 1, now)
        expect(isTaken).toBe(charge < packetLimits.queueBytes)
        if (isTaken) model.push({ stream, hop, bytes, at: now })
      } else if (model.length > 0) {
        const { stream, hop, bytes } = model.shift()!
        expect([queue.stream, queue.hop, queue.length]).toEqual([stream, hop, bytes.length])
        const out = new Uint8Array(MOST_PACKET_BYTES + 10)
        queue.take(out, 10)
        expect(Buffer.compare(out.subarray(10, 10 + bytes.length), bytes)).toBe(0)
      }
      if (random.int(500) === 0) now += random.int(packetLimits.staleMs)
      const closed = random.int(400) === 0 ? 2 : 0
      while (model[0] && (now - model[0].at > packetLimits.staleMs || model[0].stream === closed)) {
        model.shift()
        dropped++
      }
      queue.expire(now, (stream) => stream !== closed)
      expect([queue.count, queue.dropped]).toEqual([model.length, dropped])
    }
    // Whatever the seed: full, and then too old.
    while (queue.push(1, 2, batchOfPackets([packet(0, 1400)]), 0, now))
      expect(queue.queuedBytes).toBeLessThan(packetLimits.queueBytes + 1400)
    const { count } = queue
    queue.expire(now + packetLimits.staleMs + 1, () => true)
    expect([queue.count, queue.dropped]).toEqual([0, dropped + count])
  })

  it('knows how many cells it fills at most', () => {
    const random = new SeededRandom(seed)
    for (let round = 0; round < 200; round++) {
      const queue = new PacketQueue()
      let cells = 0
      let room = 0
      for (let i = random.int(150); i >= 0; i--) {
        const length = 20 + random.int([40, 700, 1496][random.int(3)]!)
        queue.push(1, 2, batchOfPackets([packet(i, length)]), 0, 0)
        if (room < length + 5) {
          cells++
          room = CELL_ROOM_BYTES
        }
        room -= length + 5
      }
      expect(queue.cells(5, CELL_ROOM_BYTES)).toBeGreaterThanOrEqual(cells)
      expect(queue.cells(5, CELL_ROOM_BYTES)).toBeLessThanOrEqual(Math.max(2, 2 * cells))
    }
  })
})

/** A chain with a lease at its exit. */
function leased(options: ConstructorParameters<typeof CircuitChain>[0] = {}): { chain: CircuitChain; lease: number } {
  const chain = new CircuitChain(options).build()
  const lease = chain.client.openPackets(terms, chain.now)
  chain.run()
  return { chain, lease }
}

describe('a packet lease', () => {
  it('is opened with what the exit leases, within what was asked for', () => {
    const { chain, lease } = leased()
    expect(chain.outputsOf(EXIT, 'packets-open')).toEqual([{ type: 'packets-open', stream: lease, terms }])
    expect(chain.outputsOf(-1, 'packets-opened')).toEqual([{ type: 'packets-opened', stream: lease, grant: leasedPackets }])
    expect(chain.client.counts.openStreams).toBe(1)
    expect(chain.client.pollTimeout()).toBeNull()
  })

  it('carries packets both ways, whole and in order, in one output for each batch of cells', () => {
    const { chain, lease } = leased()
    expect(chain.client.sendPackets(lease, packets(30, 1420), 0, 30, chain.now)).toBe(30)
    expect(chain.relays[EXIT]!.sendPackets(lease, packets(100), 0, 100, chain.now)).toBe(100)
    chain.run()
    expect(chain.packetsAt(EXIT, lease)).toEqual(numbered(30, 1420))
    expect(chain.packetsAt(-1, lease)).toEqual(numbered(100))
    expect(chain.outputsOf(EXIT, 'packets')).toHaveLength(1)
    expect(chain.outputsOf(-1, 'packets')).toHaveLength(1)
  })

  it('sends small packets in shared cells, and none over two', () => {
    const { chain, lease } = leased()
    const before = chain.cells
    chain.client.sendPackets(lease, packets(46, 60), 0, 46, chain.now)
    chain.run()
    // 23 of 65 bytes fit 1520; three links.
    expect(chain.cells - before).toBe(2 * 3)
    chain.client.sendPackets(lease, packets(4, 1000), 0, 4, chain.now)
    chain.run()
    expect(chain.cells - before).toBe(6 + 4 * 3)
    expect(chain.packetsAt(EXIT, lease)).toEqual([...numbered(46), ...numbered(4, 1000)])
  })

  it('gives out more packets than a batch holds in several', () => {
    const { chain, lease } = leased({ most: 500 })
    chain.client.sendPackets(lease, packets(900, 20), 0, 900, chain.now)
    chain.run()
    expect(chain.packetsAt(EXIT, lease)).toEqual(numbered(900, 20))
    expect(chain.outputsOf(EXIT, 'packets').length).toBeGreaterThan(1)
  })

  it('lends a batch until the next output is asked for: it is used again then, by any circuit', () => {
    const { chain, lease } = leased()
    const seen = new Set<PacketBatch>()
    for (let i = 0; i < 20; i++) {
      chain.client.sendPackets(lease, packets(5), 0, 5, chain.now)
      chain.run()
    }
    for (const { batch } of chain.outputsOf(EXIT, 'packets')) seen.add(batch)
    expect(chain.packetsAt(EXIT, lease)).toHaveLength(100)
    expect(seen.size).toBe(1)
  })

  it('takes no part in what is sent from the middle of a batch, and drops what no cell of it may carry', () => {
    const { chain, lease } = leased()
    const batch = batchOfPackets([packet(0), packet(1, 19), packet(2), packet(3, 1421), packet(4, 1420), packet(5)])
    expect(chain.client.sendPackets(lease, batch, 1, 5, chain.now)).toBe(4)
    batch.bytes.fill(0xee)
    chain.run()
    expect(chain.packetsAt(EXIT, lease)).toEqual([packet(2), packet(4, 1420)])
    expect(chain.client.counts.packetsDropped).toBe(2)
  })

  it('keeps packets of several leases apart, and none waits behind data', () => {
    const { chain, lease } = leased()
    const second = chain.client.openPackets({ families: [4], mtu: 1420 }, chain.now)
    chain.on = (party, output) => {
      if (party !== EXIT || output.type !== 'packets-open') return false
      chain.relays[EXIT]!.acceptPackets(output.stream, { ...leasedPackets, address6: null })
      return true
    }
    chain.run()
    chain.client.sendPackets(lease, packets(3), 0, 3, chain.now)
    chain.client.sendPackets(second, packets(2, 100), 0, 2, chain.now)
    chain.client.sendPackets(lease, packets(1, 200), 0, 1, chain.now)
    chain.run()
    expect(chain.packetsAt(EXIT, lease)).toEqual([...numbered(3), packet(0, 200)])
    expect(chain.packetsAt(EXIT, second)).toEqual(numbered(2, 100))
  })

  it('is closed in order by either side, once, and its id is free again', () => {
    for (const party of [-1, EXIT]) {
      const { chain, lease } = leased()
      chain.machine(party).sendPackets(lease, packets(2), 0, 2, chain.now)
      chain.run()
      chain.machine(party).closePackets(lease, 'done')
      chain.machine(party).closePackets(lease, 'internal')
      expect(chain.machine(party).sendPackets(lease, packets(2), 0, 2, chain.now)).toBe(2)
      chain.run()
      const other = party < 0 ? EXIT : -1
      expect(chain.packetsAt(other, lease)).toEqual(numbered(2))
      expect(chain.outputsOf(other, 'packets-closed')).toEqual([{ type: 'packets-closed', stream: lease, reason: 'done' }])
      expect(chain.outputsOf(party, 'packets-closed')).toEqual([])
      expect([chain.client.counts.openStreams, chain.relays[EXIT]!.counts.openStreams]).toEqual([0, 0])
      expect([chain.client.queuedBytes, chain.client.isClosed]).toEqual([0, false])
    }
  })

  it('may be closed by both at once, and before it is opened', () => {
    const { chain, lease } = leased()
    chain.client.closePackets(lease, 'done')
    chain.relays[EXIT]!.closePackets(lease, 'resource-limit')
    chain.run()
    chain.on = (party, output) => party === EXIT && output.type === 'packets-open'
    const early = chain.client.openPackets(terms, chain.now)
    chain.run()
    chain.client.closePackets(early, 'done')
    chain.relays[EXIT]!.acceptPackets(early, leasedPackets)
    chain.relays[EXIT]!.sendPackets(early, packets(3), 0, 3, chain.now)
    chain.run()
    expect(chain.client.isClosed).toBe(false)
    expect(chain.outputsOf(-1, 'packets-opened')).toHaveLength(1)
    expect(chain.packetsAt(-1, early)).toEqual([])
    expect([chain.client.counts.openStreams, chain.relays[EXIT]!.counts.openStreams]).toEqual([0, 0])
  })

  it('is refused with a reason: by the exit, where nothing is served, and beyond the limit', () => {
    const chain = new CircuitChain({ servesExit: (relay) => relay === EXIT }).build()
    chain.on = (party, output) => {
      if (party !== EXIT || output.type !== 'packets-open') return false
      chain.relays[EXIT]!.closePackets(output.stream, 'policy')
      return true
    }
    const refused = chain.client.openPackets(terms, chain.now)
    chain.run()
    expect(chain.outputsOf(-1, 'packets-closed')).toEqual([{ type: 'packets-closed', stream: refused, reason: 'policy' }])
    expect(() => {
      for (let i = 0; i <= circuitLimits.packetStreams; i++) chain.client.openPackets(terms, chain.now)
    }).toThrow(expect.objectContaining({ code: 'resource-limit' }))
    const middle = new CircuitChain({ relays: 1, servesExit: () => false }).build()
    const lease = middle.client.openPackets(terms, middle.now)
    middle.run()
    expect(middle.outputsOf(-1, 'packets-closed')).toEqual([{ type: 'packets-closed', stream: lease, reason: 'not-exit' }])
    expect(middle.client.isClosed).toBe(false)
  })

  it('times out when the exit does not answer', () => {
    const chain = new CircuitChain().build()
    chain.on = (party, output) => party === EXIT && output.type === 'packets-open'
    const lease = chain.client.openPackets(terms, chain.now)
    chain.run(chain.now + circuitLimits.connectTimeoutMs)
    expect(chain.outputsOf(-1, 'packets-closed')).toEqual([{ type: 'packets-closed', stream: lease, reason: 'timeout' }])
    expect(chain.outputsOf(EXIT, 'packets-closed')).toEqual([{ type: 'packets-closed', stream: lease, reason: 'timeout' }])
    expect(chain.client.counts.openStreams).toBe(0)
  })

  it('ends with its circuit, behind what came before', () => {
    const { chain, lease } = leased()
    chain.relays[EXIT]!.sendPackets(lease, packets(3), 0, 3, chain.now)
    chain.run()
    chain.cut(1)
    chain.run()
    for (const party of [-1, EXIT])
      expect(chain.outputsOf(party, 'packets-closed')).toEqual([{ type: 'packets-closed', stream: lease, reason: 'circuit-lost' }])
    expect(chain.packetsAt(-1, lease)).toEqual(numbered(3))
    expect(chain.client.sendPackets(lease, packets(1), 0, 1, chain.now)).toBe(1)
  })

  it('drops what waited too long before it is encrypted, and sends what did not', () => {
    const { chain, lease } = leased()
    chain.client.sendPackets(lease, packets(3), 0, 3, chain.now)
    chain.now += packetLimits.staleMs + 1
    chain.client.sendPackets(lease, packets(2, 100), 0, 2, chain.now)
    const before = chain.cells
    chain.run()
    expect(chain.packetsAt(EXIT, lease)).toEqual(numbered(2, 100))
    expect(chain.client.counts.packetsDropped).toBe(3)
    expect(chain.cells - before).toBe(3)
  })

  it('holds its sender back before anything is lost, and says when it may go on', () => {
    const { chain, lease } = leased()
    let sent = 0
    for (let i = 0; i < 50 && chain.client.hasPacketRoom(lease); i++)
      sent += chain.client.sendPackets(lease, packets(10, 1420), 0, 10, chain.now)
    expect(chain.client.queuedBytes).toBeGreaterThanOrEqual(packetLimits.queueBytes / 2)
    // Who does not wait is taken until the queue is full.
    let taken = 0
    do {
      taken = chain.client.sendPackets(lease, packets(10, 1420), 0, 10, chain.now)
      sent += taken
    } while (taken === 10 && sent < 1000)
    expect(chain.client.queuedBytes).toBeLessThan(packetLimits.queueBytes + 1420)
    expect(chain.outputsOf(-1, 'writable')).toEqual([])
    chain.run()
    expect(chain.outputsOf(-1, 'writable')).toEqual([{ type: 'writable', stream: lease }])
    expect(chain.client.hasPacketRoom(lease)).toBe(true)
    expect(chain.packetsAt(EXIT, lease)).toHaveLength(sent)
    expect(chain.client.counts.packetsDropped).toBe(0)
  })

  it('may go on, too, when all that waited had to be dropped', () => {
    const { chain, lease } = leased()
    for (let i = 0; i < 50 && chain.client.hasPacketRoom(lease); i++) chain.client.sendPackets(lease, packets(10, 1420), 0, 10, chain.now)
    chain.now += packetLimits.staleMs + 1
    expect(chain.client.pollCells(40, chain.now)).toBeNull()
    chain.run()
    expect(chain.outputsOf(-1, 'writable')).toEqual([{ type: 'writable', stream: lease }])
    expect(chain.client.queuedBytes).toBe(0)
  })
})

describe('a stream to a resolver', () => {
  it('is opened without a target and without an address, and is a stream like any other', () => {
    const chain = new CircuitChain().build()
    const stream = chain.client.openResolver(chain.now)
    chain.client.offer(stream, Uint8Array.of(0, 3, 1, 2, 3))
    chain.run()
    expect(chain.outputsOf(EXIT, 'dns-open')).toEqual([{ type: 'dns-open', stream }])
    expect(chain.outputsOf(-1, 'connected')).toEqual([{ type: 'connected', stream, address: null }])
    chain.relays[EXIT]!.offer(stream, new Uint8Array(70_000).fill(9))
    chain.relays[EXIT]!.end(stream, 'done')
    chain.client.end(stream, 'done')
    chain.run()
    expect([...chain.bytesAt(EXIT, stream)]).toEqual([0, 3, 1, 2, 3])
    expect(chain.bytesAt(-1, stream).length).toBe(70_000)
    expect(chain.seenAt(-1, stream).ends).toEqual(['done'])
    expect(chain.client.counts.openStreams).toBe(0)
  })

  it('is refused where nothing is served', () => {
    const chain = new CircuitChain({ relays: 1, servesExit: () => false }).build()
    const stream = chain.client.openResolver(chain.now)
    chain.run()
    expect(chain.seenAt(-1, stream).ends).toEqual(['not-exit'])
  })
})

const body = encodePacketOpen(terms)
const open = (stream: number): Forged => ({ command: Command.packetOpen, stream, body })
const says = (command: number, stream: number, bytes: Uint8Array = new Uint8Array(0)): Forged => ({ command, stream, body: bytes })

describe('a relay closes the circuit', () => {
  it.each([
    ['PACKET for no lease', [says(Command.packet, 1, packet(1))]],
    ['PACKET before PACKET_OPENED', [open(1), says(Command.packet, 1, packet(1))]],
    ['PACKET_OPEN on an id in use', [open(1), open(1)]],
    ['PACKET_OPEN without a body', [says(Command.packetOpen, 1)]],
    ['PACKET_OPENED', [open(1), says(Command.packetOpened, 1, encodePacketOpened(leasedPackets))]],
    ['PACKET_CLOSE for no lease', [says(Command.packetClose, 1, encodeEnd('done'))]],
    ['PACKET_CLOSE without a reason', [open(1), says(Command.packetClose, 1)]],
    ['PACKET_CLOSE with an unknown reason', [open(1), says(Command.packetClose, 1, Uint8Array.of(99))]],
    ['DATA on a lease', [open(1), says(Command.data, 1, packet(1))]],
    ['WINDOW on a lease', [open(1), says(Command.window, 1, Uint8Array.of(0, 0, 1, 0))]],
    ['END on a lease', [open(1), says(Command.end, 1, encodeEnd('done'))]],
    ['UDP_DATAGRAM on a lease', [open(1), says(Command.udpDatagram, 1, packet(1))]],
    ['DNS with a body', [says(Command.dns, 1, Uint8Array.of(1))]],
    ['DNS on an id in use', [says(Command.dns, 1), says(Command.dns, 1)]],
    ['PACKET on a resolver stream', [says(Command.dns, 1), says(Command.packet, 1, packet(1))]],
    ['PACKET on stream 0', [says(Command.packet, 0, packet(1))]],
  ])('for %s', (_, messages) => {
    const client = new HostileClient()
    client.say(...messages)
    expect(client.outputs.at(-1)).toMatchObject({ type: 'closed', reason: 'protocol' })
    expect(client.outputs.filter(({ type }) => type === 'packets')).toEqual([])
  })

  it.each([
    ['shorter than an IP header', packet(1, 19)],
    ['longer than the MTU', packet(1, 1421)],
  ])('for a packet %s, behind what came before it', (_, bytes) => {
    const client = new HostileClient()
    client.say(open(1))
    client.relay.acceptPackets(1, leasedPackets)
    client.say(says(Command.packet, 1, packet(1)), says(Command.packet, 1, bytes))
    expect(client.outputs.map(({ type }) => type)).toEqual(['packets-open', 'packets', 'packets-closed', 'closed'])
    expect(client.outputs.at(-1)).toMatchObject({ reason: 'protocol' })
  })

  it('for a packet after PACKET_CLOSE, but not for one that was on its way when the exit closed', () => {
    const client = new HostileClient()
    client.say(open(1), open(2))
    for (const lease of [1, 2]) client.relay.acceptPackets(lease, leasedPackets)
    client.relay.closePackets(1, 'done')
    client.say(says(Command.packet, 1, packet(1)), says(Command.packetClose, 1, encodeEnd('done')))
    expect(client.outputs.map(({ type }) => type)).toEqual(['packets-open', 'packets-open'])
    client.say(says(Command.packetClose, 2, encodeEnd('done')), says(Command.packet, 2, packet(1)))
    expect(client.outputs.at(-1)).toMatchObject({ type: 'closed', reason: 'protocol' })
  })

  it('when refusals of leases are never answered; before that they are refused one by one', () => {
    const client = new HostileClient({ limits: { refusedStreams: 2 } })
    const ids = Array.from({ length: circuitLimits.packetStreams + 2 }, (_, i) => i + 1)
    client.say(...ids.map(open))
    const closes = client.heard.filter(({ command }) => command === Command.packetClose)
    expect(closes.map(({ stream }) => stream)).toEqual(ids.slice(circuitLimits.packetStreams))
    expect(closes.every(({ body: reason }) => Buffer.compare(reason, encodeEnd('resource-limit')) === 0)).toBe(true)
    client.say(open(60))
    expect(client.outputs.at(-1)).toMatchObject({ type: 'closed', reason: 'resource-limit' })
  })
})

describe('a client closes the circuit', () => {
  const opened = says(Command.packetOpened, 1, encodePacketOpened(leasedPackets))
  it.each([
    ['PACKET before PACKET_OPENED', [says(Command.packet, 1, packet(1))]],
    ['PACKET_OPENED twice', [opened, opened]],
    ['a family that was not asked for', [says(Command.packetOpened, 1, encodePacketOpened(leasedPackets))], { families: [4] as const }],
    ['an MTU larger than asked for', [says(Command.packetOpened, 1, encodePacketOpened({ ...leasedPackets, mtu: 1421 }))]],
    ['PACKET_OPENED without an address', [says(Command.packetOpened, 1, Uint8Array.of(0, 5, 0x8c))]],
    ['a packet that is too long', [opened, says(Command.packet, 1, packet(1, 1421))]],
    ['a packet that is too short', [opened, says(Command.packet, 1, packet(1, 19))]],
    ['a packet after PACKET_CLOSE', [says(Command.packetClose, 1, encodeEnd('done')), says(Command.packet, 1, packet(1))]],
    ['PACKET_CLOSE twice', [says(Command.packetClose, 1, encodeEnd('done')), says(Command.packetClose, 1, encodeEnd('done'))]],
    ['CONNECTED for a lease', [says(Command.connected, 1)]],
    ['DATA on a lease', [opened, says(Command.data, 1, packet(1))]],
    ['UDP_CLOSE on a lease', [says(Command.udpClose, 1)]],
    ['PACKET_OPEN towards a client', [open(9)]],
    ['DNS towards a client', [says(Command.dns, 9)]],
  ] as [string, Forged[], { families: readonly [4] }?][])('for %s', (_, messages, asked = undefined) => {
    let relay: HostileRelay | null = null
    const chain = new CircuitChain({
      relay: (i, options) => {
        if (i !== EXIT) return null
        relay = new HostileRelay(options)
        return relay.machine
      },
    }).build()
    const lease = chain.client.openPackets({ ...terms, ...asked }, chain.now)
    chain.run()
    relay!.say(...messages)
    chain.run()
    expect(chain.closedAt(-1)).toMatchObject({ reason: 'protocol', origin: 'local' })
    expect(chain.packetsAt(-1, lease)).toEqual([])
    expect(chain.outputsOf(-1, 'packets-closed')).toHaveLength(1)
  })
})
