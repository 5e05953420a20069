import { describe, expect, it } from 'vitest'
import { nativeSuite } from '../../../src/crypto/index.ts'
import { batchOf, CELL_BYTES, circuitLimits, createRelayCircuit, OnionKeyring } from '../../../src/onion/index.ts'
import { Command, decodeClosed, decodeEnd, encodeEnd, encodeTarget } from '../../../src/onion/messages.ts'
import { INITIAL_WINDOW_BYTES } from '../../../src/onion/streams.ts'
import { CircuitChain } from '../../support/circuit-chain.ts'
import { type Forged, HostileClient } from '../../support/hostile.ts'

const begin = (stream: number): Forged => ({ command: Command.begin, stream, body: encodeTarget({ host: 'example.com', port: 80 }) })
const data = (stream: number, length = 300): Forged => ({ command: Command.data, stream, body: new Uint8Array(length) })
const ending = (stream: number, reason: 'done' | 'reset'): Forged => ({ command: Command.end, stream, body: encodeEnd(reason) })
const extendTo = (id: number): Forged => ({ command: Command.extend, stream: 0, body: new Uint8Array(1312).fill(id) })

function closedReason(client: HostileClient): string | undefined {
  const closed = client.heard.find(({ command }) => command === Command.closed)
  const output = client.outputs.find(({ type }) => type === 'closed')
  expect(client.relay.state === 'closed').toBe(output !== undefined)
  if (closed && output?.type === 'closed') expect(decodeClosed(closed.body)).toBe(output.reason)
  return output?.type === 'closed' ? output.reason : undefined
}

describe('a relay and a client that breaks its rules', () => {
  const cases: { what: string; says: Forged[]; reason: string }[] = [
    { what: 'BEGIN on an id in use', says: [begin(1), begin(1)], reason: 'protocol' },
    { what: 'DATA for no stream', says: [data(1)], reason: 'protocol' },
    { what: 'CONNECTED', says: [begin(1), { command: Command.connected, stream: 1 }], reason: 'protocol' },
    { what: "DATA after END 'done'", says: [begin(1), ending(1, 'done'), data(1)], reason: 'protocol' },
    { what: 'BEGIN with port 0', says: [{ command: Command.begin, stream: 1, body: Uint8Array.of(0, 0, 1, 65) }], reason: 'protocol' },
    {
      what: 'BEGIN with a space in its host',
      says: [{ command: Command.begin, stream: 1, body: Uint8Array.of(0, 1, 1, 32) }],
      reason: 'protocol',
    },
    { what: 'an unknown command', says: [{ command: 200, stream: 1 }], reason: 'protocol' },
    { what: 'PACKET', says: [{ command: Command.packet, stream: 1 }], reason: 'protocol' },
    { what: 'EXTENDED', says: [{ command: Command.extended, stream: 0, body: new Uint8Array(1152) }], reason: 'protocol' },
    { what: 'EXTEND that is too short', says: [{ command: Command.extend, stream: 0, body: new Uint8Array(1311) }], reason: 'protocol' },
    { what: 'EXTEND to the relay itself', says: [extendTo(1)], reason: 'not-allowed' },
    { what: 'EXTEND back to the previous hop', says: [extendTo(2)], reason: 'not-allowed' },
    { what: 'a second EXTEND', says: [extendTo(3), extendTo(4)], reason: 'not-allowed' },
    {
      what: 'a flood of PINGs',
      says: Array.from({ length: 65 }, () => ({ command: Command.ping, stream: 0, body: new Uint8Array(8) })),
      reason: 'resource-limit',
    },
  ]
  for (const { what, says, reason } of cases) {
    it(`${what} closes the circuit with '${reason}', and the client is told`, () => {
      const client = new HostileClient()
      client.say(...says)
      expect(closedReason(client)).toBe(reason)
    })
  }

  it('DATA beyond the initial credit closes the circuit', () => {
    const client = new HostileClient()
    client.say(begin(1))
    let sent = 0
    for (; sent + 1515 <= INITIAL_WINDOW_BYTES; sent += 1515) client.say(data(1, 1515))
    expect(closedReason(client)).toBeUndefined()
    client.say(data(1, 1515))
    expect(closedReason(client)).toBe('protocol')
    const delivered = client.outputs.reduce((sum, output) => sum + (output.type === 'data' ? output.bytes.length : 0), 0)
    expect(delivered).toBe(sent)
    expect(client.outputs.at(-2)).toEqual({ type: 'end', stream: 1, reason: 'circuit-lost' })
  })

  it('streams beyond the limit are refused, and refusals that are never answered close the circuit', () => {
    const client = new HostileClient({ limits: { streams: 3, refusedStreams: 2 } })
    client.say(begin(1), begin(2), begin(3), begin(4), begin(5))
    expect(client.relay.counts.openStreams).toBe(3)
    const refused = client.heard.filter(({ command }) => command === Command.end).map(({ stream, body }) => [stream, decodeEnd(body)])
    expect(refused).toEqual([
      [4, 'resource-limit'],
      [5, 'resource-limit'],
    ])
    client.say(ending(4, 'done'), begin(6))
    expect(closedReason(client)).toBeUndefined()
    client.say(begin(7))
    expect(closedReason(client)).toBe('resource-limit')
  })

  it('an id is free again when both sides have said END, and not before', () => {
    const client = new HostileClient()
    client.say(begin(1), ending(1, 'reset'))
    expect(client.heard.map(({ command, stream }) => [command, stream])).toEqual([[Command.end, 1]])
    client.say(begin(1))
    expect(closedReason(client)).toBeUndefined()
    expect(client.outputs.filter(({ type }) => type === 'begin')).toHaveLength(2)
    client.relay.end(1, 'refused')
    client.listen()
    client.say(begin(1))
    expect(closedReason(client)).toBe('protocol')
  })

  it('an END that waits for its cell outlives the end of its stream', () => {
    const client = new HostileClient()
    client.say(begin(1))
    client.relay.accept(1, '192.0.2.1')
    client.relay.end(1, 'done')
    client.listen()
    client.relay.end(1, 'reset')
    client.say(ending(1, 'done'))
    const ends = client.heard.filter(({ command }) => command === Command.end).map(({ body }) => decodeEnd(body))
    expect(ends).toEqual(['done', 'reset'])
    expect(client.relay.counts.openStreams).toBe(0)
    expect(closedReason(client)).toBeUndefined()
  })

  it('an answer that was dealt with twice by a slow driver changes nothing', () => {
    const client = new HostileClient()
    client.say(begin(1), ending(1, 'reset'))
    client.relay.accept(1, '192.0.2.1')
    client.relay.answer(1, 'internal')
    client.relay.consume(1, 1000, 0)
    expect(client.relay.offer(1, new Uint8Array(10))).toBe(false)
    client.listen()
    expect(client.heard.map(({ command }) => command)).toEqual([Command.end])
    expect(client.relay.queuedBytes).toBe(0)
  })

  it('a cell that is nobody’s closes a circuit that ends here', () => {
    const client = new HostileClient()
    client.relay.handleCells('client', batchOf(new Uint8Array(CELL_BYTES).fill(9)), 0)
    client.listen()
    expect(closedReason(client)).toBe('protocol')
  })

  it('a cell that is nobody’s closes a circuit while EXTEND is pending', () => {
    const client = new HostileClient()
    client.say(extendTo(3))
    expect(client.relay.state).toBe('extending')
    client.relay.handleCells('client', batchOf(new Uint8Array(CELL_BYTES).fill(9)), 0)
    client.listen()
    expect(closedReason(client)).toBe('protocol')
  })

  it('messages behind an EXTEND are heard', () => {
    const client = new HostileClient()
    client.say(extendTo(3), begin(1))
    expect(client.outputs.map(({ type }) => type)).toEqual(['extend', 'begin'])
  })

  it('serves no streams where it is no exit', () => {
    const client = new HostileClient({ servesExit: false })
    client.say(begin(1), { command: Command.resolve, stream: 2, body: new Uint8Array(3).fill(65) }, { command: Command.udpOpen, stream: 3 })
    expect(client.outputs).toEqual([])
    const answers = client.heard.map(({ command, stream }) => [command, stream])
    expect(answers).toContainEqual([Command.end, 1])
    expect(answers).toContainEqual([Command.resolved, 2])
    expect(answers).toContainEqual([Command.udpClose, 3])
    expect(client.relay.counts.openStreams).toBe(0)
  })
})

describe('a relay that extends', () => {
  it.each(['unknown-relay', 'connect-failed', 'identity-mismatch'] as const)(
    'says CLOSED %s when the next relay can’t be had',
    (reason) => {
      const client = new HostileClient()
      client.say(extendTo(3))
      client.relay.handleNextFailed(reason, 5)
      client.listen()
      expect(closedReason(client)).toBe(reason)
    },
  )

  it('says CLOSED timeout when CREATED does not come', () => {
    const client = new HostileClient()
    client.now = 1000
    client.say(extendTo(3))
    client.relay.handleNextOpen(1500)
    client.listen()
    expect(client.passed).toHaveLength(1)
    expect(client.relay.pollTimeout()).toBe(1000 + circuitLimits.nextHopTimeoutMs)
    client.relay.handleTimeout(1000 + circuitLimits.nextHopTimeoutMs)
    client.listen()
    expect(closedReason(client)).toBe('timeout')
    expect(client.relay.pollTimeout()).toBeNull()
  })

  it('says CLOSED handshake-failed for a cell that is no CREATED', () => {
    const client = new HostileClient()
    client.say(extendTo(3))
    client.relay.handleNextOpen(0)
    client.relay.handleCells('next', batchOf(new Uint8Array(CELL_BYTES)), 0)
    client.listen()
    expect(closedReason(client)).toBe('handshake-failed')
  })

  it.each([
    ['fin', 'handshake-failed'],
    ['reset', 'channel-lost'],
    ['violation', 'protocol'],
  ] as const)('says why when the next channel ends by %s before CREATED', (how, reason) => {
    const client = new HostileClient()
    client.say(extendTo(3))
    client.relay.handleNextOpen(0)
    client.relay.handleChannelEnd('next', how, 0)
    client.listen()
    expect(closedReason(client)).toBe(reason)
  })

  it('closes without a word when no CREATE comes in time', () => {
    const suite = nativeSuite()
    const self = new Uint8Array(32)
    const relay = createRelayCircuit({
      suite,
      keyring: OnionKeyring.create(suite, self, 0),
      self,
      previous: null,
      servesExit: true,
      openedAt: 50,
    })
    expect(relay.pollTimeout()).toBe(50 + circuitLimits.createTimeoutMs)
    relay.handleTimeout(50 + circuitLimits.createTimeoutMs)
    expect(relay.pollOutput()).toEqual({ type: 'closed', reason: 'timeout', origin: 'local', hop: null })
    expect(relay.pollOutput()).toBeNull()
    expect(relay.pollTimeout()).toBeNull()
  })
})

describe('what ends a circuit', () => {
  function built(): { chain: CircuitChain; stream: number } {
    const chain = new CircuitChain().build()
    const stream = chain.client.open({ host: 'example.com', port: 80 }, chain.now)
    chain.run()
    return { chain, stream }
  }

  it('the client closes it: every relay ends, its streams as circuit-lost', () => {
    const { chain, stream } = built()
    chain.client.close('finished', chain.now)
    chain.run()
    expect(chain.closedAt(-1)).toEqual({ type: 'closed', reason: 'finished', origin: 'local', hop: null })
    expect(chain.closedAt(0)).toMatchObject({ reason: 'finished', origin: 'remote' })
    expect(chain.closedAt(1)).toMatchObject({ reason: 'channel-lost', origin: 'remote' })
    expect(chain.closedAt(2)).toMatchObject({ reason: 'channel-lost', origin: 'remote' })
    expect(chain.seenAt(2, stream).ends).toEqual(['circuit-lost'])
    expect(chain.seenAt(-1, stream).ends).toEqual(['circuit-lost'])
  })

  it.each([0, 1, 2])('relay %i closes it: the client learns from which hop and why', (hop) => {
    const { chain } = built()
    chain.relays[hop]!.close('overloaded', chain.now)
    chain.run()
    expect(chain.closedAt(-1)).toEqual({ type: 'closed', reason: 'overloaded', origin: 'remote', hop })
    for (const relay of chain.relays) expect(relay.state).toBe('closed')
  })

  it.each([
    [0, 'channel-lost', null],
    [1, 'channel-lost', 0],
    [2, 'channel-lost', 1],
  ] as const)('link %i is lost: the client hears it from the hop before', (link, reason, hop) => {
    const { chain } = built()
    chain.cut(link)
    chain.run()
    expect(chain.closedAt(-1)).toMatchObject({ reason, origin: 'remote', hop })
    for (const relay of chain.relays) expect(relay.state).toBe('closed')
  })

  it('a CLOSED of a relay that extended can still be told from its neighbour’s', () => {
    const chain = new CircuitChain()
    chain.client.extend(chain.target(0), 0)
    chain.run()
    chain.on = (party, output) => {
      if (party !== 0 || output.type !== 'extend') return false
      chain.relays[0]!.handleNextFailed('connect-failed', chain.now)
      return true
    }
    chain.client.extend(chain.target(1), 0)
    chain.run()
    expect(chain.closedAt(-1)).toEqual({ type: 'closed', reason: 'connect-failed', origin: 'remote', hop: 0 })
  })
})
