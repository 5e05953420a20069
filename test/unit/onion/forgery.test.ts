import { describe, expect, it } from 'vitest'
import { Command, encodeEnd, encodeResolved, encodeTarget } from '../../../src/onion/messages.ts'
import { encodePacketOpened } from '../../../src/onion/packets.ts'
import { INITIAL_WINDOW_BYTES } from '../../../src/onion/streams.ts'
import { CircuitChain, leasedPackets } from '../../support/circuit-chain.ts'
import { type Forged, HostileRelay, rawCell } from '../../support/hostile.ts'

const target = { host: 'example.com', port: 80 }
const window = Uint8Array.of(0, 1, 0, 0)
const text = new Uint8Array(100).fill(65)

/** A chain whose relay `index` is hostile. */
function chainWith(index: number, relays = 3): { chain: CircuitChain; relay: HostileRelay } {
  let relay: HostileRelay | null = null
  const chain = new CircuitChain({
    relays,
    relay: (i, options) => {
      if (i !== index) return null
      relay = new HostileRelay(options)
      return relay.machine
    },
  })
  return { chain, relay: relay! }
}

function expectClosed(chain: CircuitChain, reason = 'protocol'): void {
  expect(chain.client.isClosed).toBe(true)
  expect(chain.closedAt(-1)).toMatchObject({ reason, origin: 'local' })
}

describe('a message forged by one hop for what belongs to another', () => {
  const forgeries: { what: string; forged: (ids: { stream: number; question: number; association: number; lease: number }) => Forged }[] = [
    { what: 'CONNECTED', forged: ({ stream }) => ({ command: Command.connected, stream }) },
    { what: 'DATA', forged: ({ stream }) => ({ command: Command.data, stream, body: text }) },
    { what: 'WINDOW', forged: ({ stream }) => ({ command: Command.window, stream, body: window }) },
    { what: 'END', forged: ({ stream }) => ({ command: Command.end, stream, body: encodeEnd('done') }) },
    { what: 'RESOLVED', forged: ({ question }) => ({ command: Command.resolved, stream: question, body: encodeResolved('policy') }) },
    { what: 'UDP_DATAGRAM', forged: ({ association }) => ({ command: Command.udpDatagram, stream: association, body: datagram }) },
    { what: 'UDP_CLOSE', forged: ({ association }) => ({ command: Command.udpClose, stream: association }) },
    {
      what: 'PACKET_OPENED',
      forged: ({ lease }) => ({ command: Command.packetOpened, stream: lease, body: encodePacketOpened(leasedPackets) }),
    },
    { what: 'PACKET', forged: ({ lease }) => ({ command: Command.packet, stream: lease, body: text }) },
    { what: 'PACKET_CLOSE', forged: ({ lease }) => ({ command: Command.packetClose, stream: lease, body: encodeEnd('done') }) },
  ]
  const datagram = new Uint8Array([0, 1, ...encodeTarget({ host: '192.0.2.1', port: 53 }), 1, 2, 3])
  for (const index of [0, 1]) {
    for (const { what, forged } of forgeries) {
      it(`${what} from hop ${index} closes the circuit, and nothing of it is delivered`, () => {
        const { chain, relay } = chainWith(index)
        chain.build()
        // The exit does not answer, so that everything is still open.
        chain.on = (party) => party === 2
        const stream = chain.client.open(target, chain.now)
        const question = chain.client.resolve('example.com', chain.now)
        const association = chain.client.openDatagrams(chain.now)
        const lease = chain.client.openPackets({ families: [4, 6], mtu: 1420 }, chain.now)
        chain.run()
        relay.say(forged({ stream, question, association, lease }))
        chain.run()
        expectClosed(chain)
        expect(chain.seenAt(-1, stream)).toEqual({ received: [], ends: ['circuit-lost'], connected: false })
        expect(chain.outputsOf(-1, 'resolved')).toEqual([{ type: 'resolved', stream: question, answers: [], error: 'circuit-lost' }])
        expect(chain.outputsOf(-1, 'datagram')).toEqual([])
        expect(chain.outputsOf(-1, 'packets-opened')).toEqual([])
        expect(chain.packetsAt(-1, lease)).toEqual([])
        expect(chain.outputsOf(-1, 'packets-closed')).toEqual([{ type: 'packets-closed', stream: lease, reason: 'circuit-lost' }])
        expect(chain.outputsOf(-1, 'datagrams-closed')).toEqual([{ type: 'datagrams-closed', stream: association }])
        expect(chain.closedAt(2)).toMatchObject({ origin: 'remote' })
      })
    }
  }

  it.each([
    ['DATA', { command: Command.data, body: text }],
    ['WINDOW', { command: Command.window, body: window }],
    ['END', { command: Command.end, body: encodeEnd('done') }],
    ['END with a reset', { command: Command.end, body: encodeEnd('reset') }],
  ])('%s for a stream in full flow closes the circuit behind the true bytes', (_, forged) => {
    for (const index of [0, 1]) {
      const { chain, relay } = chainWith(index)
      chain.build()
      const stream = chain.client.open(target, chain.now)
      chain.run()
      chain.relays[2]!.offer(stream, new Uint8Array(5000).fill(1))
      chain.run()
      relay.say({ ...forged, stream })
      chain.run()
      expectClosed(chain)
      expect(chain.bytesAt(-1, stream)).toEqual(new Uint8Array(5000).fill(1))
      expect(chain.seenAt(-1, stream).ends).toEqual(['circuit-lost'])
    }
  })

  it('EXTENDED from the hop before the addressed one closes the circuit', () => {
    const { chain, relay } = chainWith(0)
    chain.client.extend(chain.target(0), 0)
    chain.run()
    chain.client.extend(chain.target(1), 0)
    chain.run()
    chain.on = (party, output) => party === 1 && output.type === 'extend'
    chain.client.extend(chain.target(2), 0)
    chain.run()
    relay.say({ command: Command.extended, stream: 0, body: new Uint8Array(1152) })
    chain.run()
    expectClosed(chain)
  })

  it('a PONG from another hop than the one that was asked closes the circuit', () => {
    const hostile: HostileRelay[] = []
    const chain = new CircuitChain({
      relay: (_, options) => {
        hostile.push(new HostileRelay(options))
        return hostile.at(-1)!.machine
      },
    }).build()
    chain.client.ping(chain.now, 0)
    chain.run()
    const cookie = hostile[0]!.heard.find(({ command }) => command === Command.ping)!.body
    hostile[1]!.say({ command: Command.pong, stream: 0, body: cookie })
    chain.run()
    expectClosed(chain)
  })

  it('a late WINDOW from a hop that never had a stream closes the circuit', () => {
    const { chain, relay } = chainWith(1)
    chain.build()
    relay.say({ command: Command.window, stream: 77, body: window })
    chain.run()
    expectClosed(chain)
  })
})

describe('an exit that breaks the rules of a stream', () => {
  const connected: Forged = { command: Command.connected, stream: 1 }
  const data: Forged = { command: Command.data, stream: 1, body: text }
  const cases: { what: string; says: Forged[] }[] = [
    { what: 'DATA before CONNECTED', says: [data] },
    { what: 'DATA for no stream', says: [{ ...data, stream: 9 }] },
    { what: 'empty DATA', says: [connected, { command: Command.data, stream: 1 }] },
    { what: 'CONNECTED twice', says: [connected, connected] },
    { what: "END 'done' before CONNECTED", says: [{ command: Command.end, stream: 1, body: encodeEnd('done') }] },
    { what: "DATA after END 'done'", says: [connected, { command: Command.end, stream: 1, body: encodeEnd('done') }, data] },
    {
      what: "END 'done' twice",
      says: [
        connected,
        { command: Command.end, stream: 1, body: encodeEnd('done') },
        { command: Command.end, stream: 1, body: encodeEnd('done') },
      ],
    },
    {
      what: 'a second END after a reset',
      says: [
        connected,
        { command: Command.end, stream: 1, body: encodeEnd('reset') },
        { command: Command.end, stream: 1, body: encodeEnd('reset') },
      ],
    },
    { what: 'an unknown END reason', says: [connected, { command: Command.end, stream: 1, body: Uint8Array.of(99) }] },
    { what: 'WINDOW of nothing', says: [connected, { command: Command.window, stream: 1, body: new Uint8Array(4) }] },
    {
      what: 'WINDOW beyond the most credit',
      says: [connected, { command: Command.window, stream: 1, body: Uint8Array.of(0x7f, 0xff, 0xff, 0xff) }],
    },
    { what: 'RESOLVED for a byte stream', says: [{ command: Command.resolved, stream: 1, body: encodeResolved('policy') }] },
    { what: 'BEGIN towards a client', says: [{ command: Command.begin, stream: 5, body: encodeTarget(target) }] },
    { what: 'EXTEND towards a client', says: [{ command: Command.extend, stream: 0, body: new Uint8Array(1312) }] },
    { what: 'EXTENDED that nobody asked for', says: [{ command: Command.extended, stream: 0, body: new Uint8Array(1152) }] },
    { what: 'a PONG that nobody asked for', says: [{ command: Command.pong, stream: 0, body: new Uint8Array(8) }] },
    { what: 'PACKET', says: [{ command: Command.packet, stream: 1, body: text }] },
    { what: 'a reserved command', says: [{ command: 32, stream: 1, body: text }] },
    { what: 'a circuit command on a stream', says: [{ command: Command.ping, stream: 1, body: new Uint8Array(8) }] },
    { what: 'a stream command on stream 0', says: [{ command: Command.data, stream: 0, body: text }] },
  ]
  for (const { what, says } of cases) {
    it(`${what} closes the circuit`, () => {
      const { chain, relay } = chainWith(2)
      chain.build()
      chain.client.open(target, chain.now)
      chain.run()
      relay.say(...says)
      chain.run()
      expectClosed(chain)
      expect(chain.seenAt(-1, 1).ends.at(-1)).toBe(says[1]?.body?.[0] === 2 ? 'reset' : 'circuit-lost')
    })
  }

  it('DATA beyond the credit closes the circuit, and what was within it is delivered', () => {
    const { chain, relay } = chainWith(2)
    chain.build()
    chain.on = (party, output) => party === -1 && output.type === 'data'
    chain.client.open(target, chain.now)
    chain.run()
    relay.say(connected)
    const cells = Math.floor(INITIAL_WINDOW_BYTES / 1515)
    for (let i = 0; i < cells; i++) relay.say({ command: Command.data, stream: 1, body: new Uint8Array(1515).fill(i) })
    chain.run()
    expect(chain.client.isClosed).toBe(false)
    relay.say({ command: Command.data, stream: 1, body: new Uint8Array(1515) })
    chain.run()
    expectClosed(chain)
    expect(chain.bytesAt(-1, 1).length).toBe(cells * 1515)
    expect(chain.seenAt(-1, 1).ends).toEqual(['circuit-lost'])
  })

  it('a flood of tiny DATA uses the credit up long before it fills a memory', () => {
    const { chain, relay } = chainWith(2)
    chain.build()
    chain.on = (party, output) => party === -1 && output.type === 'data'
    chain.client.open(target, chain.now)
    chain.run()
    relay.say(connected)
    for (let i = 0; i < 1025; i++) relay.say({ command: Command.data, stream: 1, body: Uint8Array.of(i) })
    chain.run()
    expectClosed(chain)
    expect(chain.seenAt(-1, 1).received.length).toBe(1024)
    // Each is a copy: a byte does not hold its cell.
    expect(chain.seenAt(-1, 1).received[0]!.buffer.byteLength).toBe(1)
  })

  it('a flood of PINGs closes the circuit', () => {
    const { chain, relay } = chainWith(2)
    chain.build()
    const ping: Forged = { command: Command.ping, stream: 0, body: new Uint8Array(8) }
    relay.say(...Array.from({ length: 65 }, () => ping))
    chain.run()
    expectClosed(chain, 'resource-limit')
  })

  it('bytes behind the last message close the circuit', () => {
    const { chain, relay } = chainWith(2)
    chain.build()
    const cell = new Uint8Array(1520)
    cell[1519] = 1
    relay.sayCells(rawCell(cell))
    chain.run()
    expectClosed(chain)
  })
})
