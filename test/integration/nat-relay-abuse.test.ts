import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, it } from 'vitest'
import { SeededRandom } from '../../src/base/index.ts'
import { encodeHop, HOP_PROTOCOL, STATUS } from '../../src/nat/relay/messages.ts'
import {
  ask,
  collect,
  connectRaw,
  hopStream,
  sendAll,
  startNode,
  startRelay,
  startTarget,
  stopRelayedNodes,
  type TestNode,
  type TestRelay,
  until,
} from '../support/relayed-nodes.ts'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void
const MIB = 1 << 20

afterEach(stopRelayedNodes)

/** Memory in use after what is garbage has gone, in bytes: heap and buffers. */
async function inUse(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    collectGarbage()
    await delay(20)
  }
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

/** A target on an address of its own, as good nodes have: what an abuser's address has used up is not its. */
async function goodTarget(relay: TestRelay): ReturnType<typeof startTarget> {
  return startTarget(relay, { outboundAddress: '127.251.0.1' })
}

/** The relay still serves others. */
async function serves(relay: TestRelay): Promise<void> {
  const target = await goodTarget(relay)
  const dialler = await startNode({ outboundAddress: '127.250.0.1' })
  const { up, down } = await connectRaw(dialler, relay, target)
  const seen = collect(down)
  await sendAll(up, randomBytes(100_000))
  await until('the bytes', () => seen.bytes === 100_000)
}

async function requests(
  node: TestNode,
  relay: TestRelay,
  count: number,
  message: Parameters<typeof encodeHop>[0],
): Promise<Map<number | null, number>> {
  const answers = new Map<number | null, number>()
  for (let i = 0; i < count; i++) {
    const { answer, stream } = await ask(node, relay, message)
    answers.set(answer.status, (answers.get(answer.status) ?? 0) + 1)
    stream.abort(new Error('done'))
  }
  return answers
}

describe('a relay under abuse', () => {
  it('gives a peer that reserves a thousand times one place, and mostly a refusal', async () => {
    const relay = await startRelay()
    const greedy = await startNode()
    const answers = await requests(greedy, relay, 1000, { type: 'reserve' })
    const granted = answers.get(STATUS.ok)!
    expect(granted).toBeGreaterThanOrEqual(20)
    expect(granted).toBeLessThan(250)
    expect(answers.get(STATUS.resourceLimitExceeded)).toBe(1000 - granted)
    expect(relay.server.stats().reservations.open).toBe(1)
    await serves(relay)
  })

  it('gives two hundred identities of one address as many places as an address may have', async () => {
    const relay = await startRelay({ requestsPerSecondPerAddress: 1000 })
    const nodes: TestNode[] = []
    const answers = { ok: 0, refused: 0 }
    // In rounds: a connection each, and what it costs to make it, is the attacker's too.
    for (let round = 0; round < 40; round++) {
      const fresh = await Promise.all(Array.from({ length: 5 }, () => startNode({ outboundAddress: '127.240.0.1' })))
      nodes.push(...fresh)
      for (const { answer } of await Promise.all(fresh.map((node) => ask(node, relay, { type: 'reserve' })))) {
        if (answer.status === STATUS.ok) answers.ok++
        else if (answer.status === STATUS.reservationRefused) answers.refused++
      }
    }
    expect(answers).toEqual({ ok: 8, refused: 192 })
    expect(relay.server.stats().reservations).toMatchObject({ open: 8, refused: { 'address-full': 192 } })
    await serves(relay)
  })

  it('holds little for peers that never read, and lets them go', async () => {
    const relay = await startRelay({
      connectionBytesPerSecond: 1 << 30,
      bytesPerSecond: 1 << 30,
      bufferBytes: 8 * MIB,
      stallMs: 3000,
      connectionsPerPair: 64,
    })
    const target = await startTarget(relay)
    const dialler = await startNode()
    const streams: Stream[] = []
    // Neither side ever reads, both send without end.
    for (let i = 0; i < 24; i++) {
      const { up, down } = await connectRaw(dialler, relay, target)
      for (const stream of [up, down]) {
        streams.push(stream)
        void sendAll(stream, new Uint8Array(16 * MIB)).catch(() => {})
      }
    }
    let most = 0
    let worst = 0
    const timer = setInterval(() => {
      const { bytes, connections } = relay.server.stats()
      most = Math.max(most, bytes.held)
      worst = Math.max(worst, connections.open === 0 ? 0 : bytes.held / connections.open)
    }, 20)
    await until('all to be gone', () => relay.server.stats().connections.open === 0, 20_000)
    clearInterval(timer)
    const { closed } = relay.server.stats().connections
    expect((closed.stalled ?? 0) + (closed.buffer ?? 0)).toBe(24)
    expect(worst).toBeLessThan(5_242_880)
    // Beyond the budget only for as long as it takes to notice.
    expect(most).toBeLessThan(24 * 3 * MIB)
    expect(relay.server.stats().bytes.held).toBe(0)
    await serves(relay)
  })

  it('holds a flood back to its rate', async () => {
    const relay = await startRelay({ connectionBytesPerSecond: 2 * MIB, bytesPerSecond: 8 * MIB })
    const target = await startTarget(relay)
    const { up, down } = await connectRaw(await startNode(), relay, target)
    const seen = collect(down)
    void sendAll(up, new Uint8Array(64 * MIB)).catch(() => {})
    await delay(3000)
    expect(seen.bytes).toBeGreaterThan(4 * MIB)
    expect(seen.bytes).toBeLessThan(9 * MIB)
    expect(relay.server.stats().bytes.held).toBeLessThan(4 * MIB)
    await serves(relay)
  })

  it('forgets streams that are opened and left, whole, half, or with a request', { timeout: 60_000 }, async () => {
    const relay = await startRelay({ handshakeTimeoutMs: 1000, handshakesPerPeer: 64 })
    const target = await goodTarget(relay)
    const attacker = await startNode()
    const rounds = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        const streams = await Promise.all(Array.from({ length: 30 }, () => hopStream(attacker, relay)))
        for (const [at, stream] of streams.entries()) {
          if (at % 3 === 0) stream.send(Uint8Array.of(40, 8))
          if (at % 3 === 1) stream.send(Uint8Array.of(42, ...encodeHop({ type: 'connect', peer: target.host.id })))
          stream.abort(new Error('left'))
        }
      }
    }
    await rounds(10)
    await until('all to be forgotten', () => relay.server.stats().requests.open === 0 && relay.server.stats().connections.open === 0)
    const before = await inUse()
    await rounds(60)
    await until('all to be forgotten', () => relay.server.stats().requests.open === 0 && relay.server.stats().connections.open === 0)
    expect((await inUse()) - before).toBeLessThan(6 * MIB)
    await serves(relay)
  })

  it('gives up on those that send their request a byte at a time', async () => {
    const relay = await startRelay({ handshakeTimeoutMs: 700 })
    const slow = await startNode()
    const streams: Stream[] = []
    for (let i = 0; i < 40; i++) {
      const stream = await hopStream(slow, relay)
      streams.push(stream)
      stream.addEventListener('message', () => {})
    }
    const timer = setInterval(() => {
      for (const stream of streams) if (stream.status === 'open') stream.send(Uint8Array.of(0x7f))
    }, 100)
    // Beyond a peer's share they are not even read.
    await until('its share', () => relay.server.stats().requests.dropped['too-many-requests'] === 24)
    expect(relay.server.stats().requests.open).toBe(16)
    await serves(relay)
    await until('the end of the others', () => relay.server.stats().requests.open === 0)
    clearInterval(timer)
    expect(relay.server.stats().requests.dropped.timeout).toBe(16)
    await until('their streams to be closed', () => streams.every(({ status }) => status !== 'open'))
  })

  it('answers noise, and stays', { timeout: 60_000 }, async () => {
    const seed = Number(process.env.SHALLOT_FUZZ_SEED ?? Date.now() % 0x1_0000_0000)
    const random = new SeededRandom(seed)
    const relay = await startRelay({
      handshakeTimeoutMs: 300,
      handshakesPerPeer: 64,
      requestsPerSecondPerPeer: 10_000,
      requestsPerSecondPerAddress: 10_000,
    })
    const target = await goodTarget(relay)
    const noisy = await startNode()
    const valid = encodeHop({ type: 'connect', peer: target.host.id })
    for (let i = 0; i < 60; i++) {
      const streams = await Promise.all(Array.from({ length: 20 }, () => hopStream(noisy, relay)))
      for (const stream of streams) {
        const bytes = random.unit() < 0.5 ? random.bytes(random.int(300)) : Uint8Array.of(valid.length, ...valid)
        for (let flips = random.int(4); flips > 0 && bytes.length > 0; flips--) bytes[random.int(bytes.length)]! ^= 1 << random.int(8)
        if (bytes.length > 0) stream.send(bytes)
        if (random.unit() < 0.3) stream.abort(new Error('gone'))
        else stream.close().catch(() => {})
      }
    }
    await until('all to be answered', () => relay.server.stats().requests.open === 0)
    expect(relay.server.stats().requests.dropped.malformed, `SHALLOT_FUZZ_SEED=${seed}`).toBeGreaterThan(100)
    noisy.host.libp2p.getConnections()[0]?.abort(new Error('done'))
    await until('its connections to be gone', () => relay.server.stats().connections.open === 0)
    await serves(relay)
  })

  it('does not grow by thousands of connections that come and go', { timeout: 60_000 }, async () => {
    const relay = await startRelay({ requestsPerSecondPerPeer: 100_000, requestsPerSecondPerAddress: 100_000 })
    const target = await goodTarget(relay)
    const dialler = await startNode()
    const comeAndGo = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        const { up, down } = await connectRaw(dialler, relay, target)
        up.send(new Uint8Array(1000))
        down.send(new Uint8Array(1000))
        if (i % 2 === 0) up.abort(new Error('gone'))
        else await Promise.all([up.close(), down.close()])
        for (const stream of [up, down]) if (stream.readStatus === 'paused') stream.resume()
        target.taken.length = target.callers.length = 0
      }
      await until('all to be gone', () => relay.server.stats().connections.open === 0)
    }
    await comeAndGo(200)
    const before = await inUse()
    await comeAndGo(1000)
    // All three nodes are in this process.
    expect((await inUse()) - before).toBeLessThan(5 * MIB)
    expect(relay.server.stats().connections.total).toBe(1200)
  })

  it('is not moved by claims: foreign addresses, foreign ids, a reservation for somebody else', async () => {
    const relay = await startRelay()
    const victim = await goodTarget(relay)
    const liar = await startNode()
    relay.strangers.add(liar.host.id)
    const { answer } = await ask(liar, relay, {
      type: 'reserve',
      peer: victim.host.id,
      reservation: { expiresAt: 9_999_999_999, addresses: [multiaddr('/ip4/203.0.113.1/tcp/1').bytes], voucher: randomBytes(100) },
      limit: { seconds: 1, bytes: 1 },
      status: STATUS.ok,
    })
    expect(answer.status).toBe(STATUS.ok)
    expect(answer.reservation!.addresses.map((bytes) => multiaddr(bytes).toString())).toEqual([relay.address])
    expect(answer.reservation!.expiresAt).toBeLessThan(Date.now() / 1000 + 1801)
    expect(relay.server.stats().reservations).toMatchObject({ open: 2, strangers: 1 })
    // A relay calls whom it was asked to; here the liar calls the victim as if it were a relay.
    expect(victim.callers).toEqual([])
    await liar.host.libp2p.dial(multiaddr(relay.address))
    expect(liar.host.libp2p.getConnections().every(({ remotePeer }) => remotePeer.toString() === relay.host.id)).toBe(true)
    await expect(liar.host.libp2p.dialProtocol(multiaddr(relay.address), '/libp2p/circuit/relay/0.2.0/stop')).rejects.toThrow()
    expect(HOP_PROTOCOL).toBe('/libp2p/circuit/relay/0.2.0/hop')
  })
})
