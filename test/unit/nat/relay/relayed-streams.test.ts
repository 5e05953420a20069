import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import {
  collect,
  connectRaw,
  sendAll,
  startNode,
  startRelay,
  startTarget,
  stopRelayedNodes,
  until,
} from '../../../support/relayed-nodes.ts'

afterEach(stopRelayedNodes)

const MIB = 1 << 20
const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const generous = { connectionBytesPerSecond: 1 << 30, bytesPerSecond: 1 << 30 }

describe('a relayed connection', () => {
  it('carries 48 MiB intact to a slow reader, and the relay holds little of it', async () => {
    const relay = await startRelay(generous)
    const target = await startTarget(relay)
    const { up, down } = await connectRaw(await startNode(), relay, target)
    const bytes = randomBytes(48 * MIB)
    const seen = collect(down)
    let most = 0
    // Reads for a moment, then looks away for longer.
    const timer = setInterval(() => {
      most = Math.max(most, relay.server.stats().bytes.held)
      if (down.readStatus === 'readable') down.pause()
      else if (down.readStatus === 'paused') down.resume()
    }, 5)
    await sendAll(up, bytes)
    await up.close()
    await until('the end', () => seen.end !== null)
    clearInterval(timer)
    expect(seen).toMatchObject({ bytes: bytes.length, end: 'fin' })
    expect(seen.hash.digest('hex')).toBe(sha(bytes))
    expect(most).toBeLessThan(3 * MIB)
    expect(relay.server.stats().bytes.toReserved).toBe(bytes.length)
  })

  it('carries both directions at once, intact', async () => {
    const relay = await startRelay(generous)
    const target = await startTarget(relay)
    const { up, down } = await connectRaw(await startNode(), relay, target)
    const [there, back] = [randomBytes(8 * MIB), randomBytes(8 * MIB)]
    const [atTarget, atDialler] = [collect(down), collect(up)]
    await Promise.all([sendAll(up, there, 10_000), sendAll(down, back, 100_000)])
    await Promise.all([up.close(), down.close()])
    await until('both ends', () => atTarget.end !== null && atDialler.end !== null)
    expect(atTarget.hash.digest('hex')).toBe(sha(there))
    expect(atDialler.hash.digest('hex')).toBe(sha(back))
    await until('the relay to be done', () => relay.server.stats().connections.closed.done === 1)
    expect(relay.server.stats()).toMatchObject({
      connections: { open: 0, total: 1 },
      bytes: { toReserved: there.length, fromReserved: back.length, held: 0 },
    })
  })

  it.each(['dialler', 'target'])('goes on in one direction after the end of the other (%s first)', async (first) => {
    const relay = await startRelay(generous)
    const target = await startTarget(relay)
    const { up, down } = await connectRaw(await startNode(), relay, target)
    const [ending, going] = first === 'dialler' ? [up, down] : [down, up]
    const [atEnding, atGoing] = [collect(ending), collect(going)]
    ending.send(Uint8Array.of(1, 2, 3))
    await ending.close()
    await until('the end of one direction', () => atGoing.end === 'fin')
    expect(atGoing.bytes).toBe(3)
    const bytes = randomBytes(3 * MIB)
    await sendAll(going, bytes)
    await until('the other direction', () => atEnding.bytes === bytes.length)
    expect(atEnding.end).toBeNull()
    await going.close()
    await until('the end of the other', () => atEnding.end === 'fin')
    expect(atEnding.hash.digest('hex')).toBe(sha(bytes))
  })

  it.each(['dialler', 'target'])('is reset at one end when the other resets (%s)', async (first) => {
    const relay = await startRelay(generous)
    const target = await startTarget(relay)
    const { up, down } = await connectRaw(await startNode(), relay, target)
    const [resetting, other] = first === 'dialler' ? [up, down] : [down, up]
    const seen = collect(other)
    resetting.abort(new Error('enough'))
    await until('the reset', () => seen.end !== null)
    expect(seen.end).toBe('reset')
    expect(relay.server.stats().connections).toMatchObject({ open: 0, closed: { reset: 1 } })
  })

  it('is reset when the connection of one end is lost, also after the other end said it was done', async () => {
    const relay = await startRelay(generous)
    const target = await startTarget(relay)
    const dialler = await startNode()
    const { up, down } = await connectRaw(dialler, relay, target)
    const seen = collect(down)
    await down.close()
    await delay(20)
    for (const connection of dialler.host.libp2p.getConnections()) connection.abort(new Error('gone'))
    await until('the reset', () => seen.end !== null)
    expect(seen.end).toBe('reset')
    expect(up.status).not.toBe('open')
    expect(relay.server.stats().connections.open).toBe(0)
  })

  it('is held back to its rate, and loses nothing', async () => {
    const relay = await startRelay({ connectionBytesPerSecond: MIB })
    const target = await startTarget(relay)
    const { up, down } = await connectRaw(await startNode(), relay, target)
    const seen = collect(down)
    const bytes = randomBytes(3 * MIB)
    const from = performance.now()
    await sendAll(up, bytes)
    await up.close()
    await until('the end', () => seen.end !== null)
    const seconds = (performance.now() - from) / 1000
    // One second's worth at once, the rest at a MiB a second.
    expect(seconds).toBeGreaterThan(1.7)
    expect(seconds).toBeLessThan(4)
    expect(seen.hash.digest('hex')).toBe(sha(bytes))
  })

  it('shares the rate of all', async () => {
    const relay = await startRelay({ bytesPerSecond: MIB })
    const target = await startTarget(relay)
    const ends = [await connectRaw(await startNode(), relay, target), await connectRaw(await startNode(), relay, target)]
    const seen = ends.map(({ down }) => collect(down))
    const from = performance.now()
    await Promise.all(
      ends.map(async ({ up }) => {
        await sendAll(up, randomBytes(1.5 * MIB))
        await up.close()
      }),
    )
    await until('both ends', () => seen.every(({ end }) => end === 'fin'))
    expect(performance.now() - from).toBeGreaterThan(1700)
    expect(seen.map(({ bytes }) => bytes)).toEqual([1.5 * MIB, 1.5 * MIB])
  })

  it('carries exactly what it may, and not a byte more', async () => {
    const relay = await startRelay({ connectionBytes: 100_000 })
    const target = await startTarget(relay)
    const { up, down } = await connectRaw(await startNode(), relay, target)
    const [atTarget, atDialler] = [collect(down), collect(up)]
    up.send(randomBytes(60_000))
    down.send(randomBytes(40_000))
    await until('all that may be', () => atTarget.bytes === 60_000 && atDialler.bytes === 40_000)
    await delay(50)
    expect(atTarget.end).toBeNull()
    up.send(Uint8Array.of(1))
    await until('the reset', () => atTarget.end !== null && atDialler.end !== null)
    expect([atTarget.end, atDialler.end, atTarget.bytes]).toEqual(['reset', 'reset', 60_000])
    expect(relay.server.stats().connections.closed).toEqual({ bytes: 1 })
  })

  it('ends when its time is over, or when nothing is sent for long', async () => {
    const relay = await startRelay({ connectionMs: 2500, idleMs: 1000 })
    const target = await startTarget(relay)
    const dialler = await startNode()
    const busy = await connectRaw(dialler, relay, target)
    const idle = await connectRaw(dialler, relay, target)
    const [atBusy, atIdle] = [collect(busy.down), collect(idle.down)]
    const timer = setInterval(() => busy.up.status === 'open' && busy.up.send(Uint8Array.of(1)), 200)
    await until('the idle one to end', () => atIdle.end !== null)
    expect(atBusy.end).toBeNull()
    await until('the busy one to end', () => atBusy.end !== null)
    clearInterval(timer)
    expect([atIdle.end, atBusy.end]).toEqual(['reset', 'reset'])
    expect(relay.server.stats().connections.closed).toEqual({ idle: 1, time: 1 })
  })

  it('whose receiver never reads is closed after a while', async () => {
    const relay = await startRelay({ ...generous, stallMs: 1500 })
    const target = await startTarget(relay)
    const { up, down } = await connectRaw(await startNode(), relay, target)
    expect(down.readStatus).toBe('paused')
    const seen = collect(up)
    void sendAll(up, randomBytes(16 * MIB)).catch(() => {})
    await until('something to be held', () => relay.server.stats().bytes.held > 100_000)
    await until('the end', () => seen.end !== null)
    expect(relay.server.stats()).toMatchObject({ connections: { open: 0, closed: { stalled: 1 } }, bytes: { held: 0 } })
  })

  it('that holds most is not the one that is closed when too much is held, but the one stuck for longest', async () => {
    const relay = await startRelay({ ...generous, bufferBytes: 1_048_576 })
    const target = await startTarget(relay)
    const dialler = await startNode()
    const first = await connectRaw(dialler, relay, target)
    up(first.up)
    await delay(1200)
    const others = [await connectRaw(await startNode(), relay, target), await connectRaw(await startNode(), relay, target)]
    for (const other of others) up(other.up)
    const seen = collect(first.up)
    await until('one to be closed', () => seen.end !== null)
    expect(relay.server.stats().connections.closed.buffer).toBeGreaterThanOrEqual(1)
    await until('little to be held', () => relay.server.stats().bytes.held <= 1_048_576)

    function up(stream: (typeof first)['up']): void {
      void sendAll(stream, randomBytes(4 * MIB)).catch(() => {})
    }
  })
})
