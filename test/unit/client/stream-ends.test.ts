import { describe, expect, test } from 'vitest'
import { CircuitStreams } from '../../../src/client/circuit-streams.ts'
import type { StreamEnd, StreamFacts } from '../../../src/client/index.ts'
import type { EndReason } from '../../../src/onion/index.ts'

const target = { host: 'example.com', port: 443 }

function start(): { streams: CircuitStreams; told: (readonly [string, StreamFacts])[]; said: EndReason[] } {
  const told: (readonly [string, StreamFacts])[] = []
  const said: EndReason[] = []
  const streams = new CircuitStreams({
    machine: { offer: () => true, end: (_, reason) => said.push(reason), consume: () => {} },
    memory: { take: () => null, recycle: () => {} } as never,
    now: () => 0,
    told: (what, facts) => told.push([what, facts]),
    isOver: () => false,
    sent: () => {},
    flushSoon: () => {},
    streamEnded: () => {},
  })
  return { streams, told, said }
}

/** What became of the stream, from how it went. */
async function endOf(happens: (streams: CircuitStreams) => void, connected = true): Promise<StreamEnd | null> {
  const { streams, told } = start()
  streams.add(1, target)
  const asked = streams.connecting.add(1, () => {}, undefined).catch(() => null)
  if (connected) streams.handleConnected(1, null)
  else void asked
  happens(streams)
  await new Promise((done) => setImmediate(done))
  expect(told.map(([what]) => what)).toEqual(['open', 'closed'])
  expect(told[0]![1].end).toBeNull()
  return told[1]![1].end
}

describe('how a stream ended is told with its end', () => {
  test.each(['refused', 'policy', 'resolve-failed', 'timeout'] as const)('what the exit said: %s', async (reason) => {
    expect(await endOf((streams) => streams.handleEnd(1, reason), false)).toBe(reason)
  })

  test('an exit that ends it before it was connected has reset it', async () => {
    expect(await endOf((streams) => streams.handleEnd(1, 'reset'), false)).toBe('reset')
  })

  test('in order, when both sides are done', async () => {
    const { streams, told } = start()
    streams.add(1, target)
    const asked = streams.connecting.add(1, () => {}, undefined)
    streams.handleConnected(1, null)
    const { stream } = await asked
    stream.resume().end()
    await new Promise((done) => stream.once('finish', done))
    streams.handleEnd(1, 'done')
    expect(told.at(-1)![1].end).toBe('done')
  })

  test('from this side: by who holds it, or by its number', async () => {
    expect(await endOf((streams) => streams.cancel(1))).toBe('aborted')
    const { streams, told } = start()
    streams.add(1, target)
    expect(streams.reset(told[0]![1].id)).toBe(true)
    await new Promise((done) => setImmediate(done))
    expect(told.at(-1)).toMatchObject(['closed', { end: 'aborted' }])
  })

  test('with its circuit', async () => {
    expect(await endOf((streams) => streams.lost())).toBe('circuit-lost')
  })
})
