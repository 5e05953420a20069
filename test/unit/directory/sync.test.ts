import { describe, expect, test } from 'vitest'
import { SeededRandom, toHex } from '../../../src/base/index.ts'
import {
  decodeSyncRequest,
  encodeSyncAnswer,
  type PullOutcome,
  type PullOutput,
  type PullSession,
  SERVE_PEER_BURST,
  SYNC_ANSWER_MS,
  SYNC_FRAME_MAX,
  SYNC_SESSION_MS,
  type SyncAnswer,
  type SyncRequest,
  View,
  ViewPuller,
  ViewServer,
} from '../../../src/directory/index.ts'
import { quickRules, START, suite, testDescriptor, testRelay } from './support.ts'

const random = new SeededRandom(5)
const relays = Array.from({ length: 200 }, () => testRelay(random))
const descriptors = relays.map((relay, i) => testDescriptor(relay, quickRules, START, { addresses: [`/ip4/127.${i}.0.1/tcp/1`] }).bytes)
const peer = testRelay(random).id
const NOW = START + 5_000

function viewOf(from: number, to: number): View {
  const view = new View({ suite, rules: quickRules })
  for (const bytes of descriptors.slice(from, to)) view.add(bytes, START)
  return view
}

function begin(view: View, ages = false): PullSession {
  return new ViewPuller(view, suite, new SeededRandom(1)).begin(peer, { ages })
}

/** Runs a session against whatever answers. Returns how it ended and what it asked. */
function run(session: PullSession, answer: (frame: Uint8Array) => Uint8Array): { outcome: PullOutcome; asked: SyncRequest[] } {
  const asked: SyncRequest[] = []
  let output: PullOutput = session.start(NOW)
  while (output.type === 'send') {
    asked.push(decodeSyncRequest(output.frame))
    const frame = answer(output.frame)
    expect(frame.length).toBeLessThanOrEqual(SYNC_FRAME_MAX)
    output = session.handleAnswer(frame, NOW)
  }
  return { outcome: output.outcome, asked }
}

function serve(view: View): (frame: Uint8Array) => Uint8Array {
  const server = new ViewServer(view, NOW)
  return (frame) => server.answer(peer, frame, NOW).frame
}

/** A peer that answers rightly but for what `change` makes of it. */
function liar(view: View, change: (request: SyncRequest, answer: Uint8Array) => SyncAnswer | null): (frame: Uint8Array) => Uint8Array {
  const honest = serve(view)
  return (frame) => {
    const answer = honest(frame)
    const changed = change(decodeSyncRequest(frame), answer)
    return changed ? encodeSyncAnswer(changed) : answer
  }
}

describe('a pull', () => {
  test('makes two views equal, and the second one costs one question', () => {
    const mine = viewOf(0, 50)
    const theirs = viewOf(30, 200)
    const { outcome } = run(begin(mine), serve(theirs))
    expect(outcome).toMatchObject({ end: 'complete', same: false, relays: 170, added: 150, replaced: 0, useless: 0 })
    run(begin(theirs), serve(mine))
    expect(toHex(mine.buckets.root())).toBe(toHex(theirs.buckets.root()))
    const again = run(begin(mine), serve(theirs))
    expect(again.outcome).toMatchObject({ end: 'complete', same: true, requests: 1 })
  })

  test('fetches only what differs', () => {
    const mine = viewOf(0, 199)
    const theirs = viewOf(0, 200)
    const { outcome, asked } = run(begin(mine), serve(theirs))
    expect(outcome).toMatchObject({ added: 1, requests: 3 })
    expect(asked[1]).toMatchObject({ type: 'list', buckets: [Number.parseInt(theirs.get(relays[199]!.id)!.tag.slice(0, 2), 16)] })
    expect(asked[2]).toEqual({ type: 'fetch', digests: [toHex(suite.sha256(descriptors[199]!).subarray(0, 16))] })
  })

  test('does not fetch an edition older than its own', () => {
    const mine = viewOf(0, 10)
    mine.add(testDescriptor(relays[3]!, quickRules, START, { sequence: 2 }).bytes, START)
    const { asked } = run(begin(mine), serve(viewOf(0, 10)))
    expect(asked.map(({ type }) => type)).toEqual(['summary', 'list'])
  })

  test('does not fetch again what it found to be of no use', () => {
    const rules = { ...quickRules, admission: { ...quickRules.admission, perAddress: 1 } }
    const mine = new View({ suite, rules })
    const theirs = viewOf(0, 200)
    for (let i = 0; i < 200; i++)
      theirs.add(
        testDescriptor(relays[i]!, quickRules, START, { sequence: 2, addresses: [`/ip4/127.0.0.${1 + (i % 4)}/tcp/${i + 1}`] }).bytes,
        START,
      )
    const first = run(begin(mine), serve(theirs))
    expect(first.outcome.end).toBe('complete')
    const second = run(begin(mine), serve(theirs))
    expect(second.asked.filter(({ type }) => type === 'fetch')).toEqual([])
  })

  test('divides the work: what one session is fetching, another leaves', () => {
    const mine = viewOf(0, 0)
    const puller = new ViewPuller(mine, suite, new SeededRandom(2))
    const theirs = viewOf(0, 200)
    const sessions = [puller.begin(relays[0]!.id, { ages: false }), puller.begin(relays[1]!.id, { ages: false })]
    const answer = serve(theirs)
    const outputs = sessions.map((session) => session.start(NOW))
    const fetched: string[] = []
    while (outputs.some(({ type }) => type === 'send')) {
      sessions.forEach((session, i) => {
        const output = outputs[i]!
        if (output.type !== 'send') return
        const request = decodeSyncRequest(output.frame)
        if (request.type === 'fetch') fetched.push(...request.digests)
        outputs[i] = session.handleAnswer(answer(output.frame), NOW)
      })
    }
    expect(new Set(fetched).size).toBe(fetched.length)
    expect(fetched).toHaveLength(200)
    expect(mine.size).toBe(200)
  })

  test('of a fresh node asks for ages, and takes only what the peer saw itself', () => {
    const theirs = viewOf(0, 100)
    theirs.hearAges(relays[9]!.id, new Map([[theirs.get(relays[1]!.id)!.tag, 1e9]]), START)
    const mine = viewOf(0, 0)
    const { asked } = run(begin(mine, true), serve(theirs))
    expect(asked.at(-1)).toEqual({ type: 'ages', from: 0 })
    expect(mine.ageMs(relays[1]!.id, NOW)).toBe(5_000)
    expect(mine.ages.sources).toEqual([peer])
  })
})

describe('a peer that lies costs little, and is named', () => {
  const theirs = viewOf(0, 100)
  const flipped = (bytes: Uint8Array): Uint8Array => {
    const changed = bytes.slice()
    changed[changed.length - 1]! ^= 1
    return changed
  }

  test.each<[string, (request: SyncRequest) => SyncAnswer | null]>([
    [
      'answers with descriptors nobody asked for',
      ({ type }) => (type === 'fetch' ? { type: 'fetch', descriptors: [descriptors[150]!] } : null),
    ],
    [
      'answers with changed descriptors',
      ({ type }) => (type === 'fetch' ? { type: 'fetch', descriptors: [flipped(descriptors[1]!)] } : null),
    ],
    ['answers another question', ({ type }) => (type === 'list' ? { type: 'fetch', descriptors: [] } : null)],
    ['lists nothing', ({ type }) => (type === 'list' ? { type: 'list', buckets: new Map() } : null)],
    [
      'lists a bucket that is the same',
      (request) => (request.type === 'list' ? { type: 'list', buckets: new Map([[unasked(request.buckets), []]]) } : null),
    ],
    ['does not get on with its ages', ({ type }) => (type === 'ages' ? { type: 'ages', next: 0, ages: [] } : null)],
  ])('that %s', (_, change) => {
    const { outcome, asked } = run(
      begin(viewOf(0, 50), true),
      liar(theirs, (request) => change(request)),
    )
    expect(outcome.end).toBe('violation')
    expect(outcome.detail).not.toBe('')
    expect(asked.length).toBeLessThan(6)
  })

  test('that lists a descriptor with a wrong signature under its own digest', () => {
    const bad = flipped(descriptors[150]!)
    const digest = toHex(suite.sha256(bad).subarray(0, 16))
    const { tag } = viewOf(150, 151).relays()[0]!
    const bucket = Number.parseInt(tag.slice(0, 2), 16)
    const mine = viewOf(0, 50)
    const { outcome } = run(
      begin(mine),
      liar(viewOf(0, 151), (request) => {
        if (request.type === 'list')
          return { type: 'list', buckets: new Map(request.buckets.map((b) => [b, b === bucket ? [{ tag, sequence: 9, digest }] : []])) }
        return request.type === 'fetch' ? { type: 'fetch', descriptors: [bad] } : null
      }),
    )
    expect(outcome).toMatchObject({ end: 'violation', added: 0 })
    expect(outcome.detail).toContain('signature')
  })

  test('that invents relays without end', () => {
    let asked = 0
    const small = { ...quickRules, admission: { ...quickRules.admission, maxRelays: 100 } }
    const inventions = new SeededRandom(8)
    const { outcome } = run(
      begin(new View({ suite, rules: small })),
      liar(theirs, (request) => {
        asked++
        if (request.type !== 'list') return null
        const bucket = request.buckets[0]!
        const entries = Array.from({ length: 90 }, (_, i) => ({
          tag: bucket.toString(16).padStart(2, '0') + i.toString(16).padStart(14, '0'),
          sequence: 1,
          digest: toHex(inventions.bytes(16)),
        }))
        return { type: 'list', buckets: new Map([[bucket, entries]]) }
      }),
    )
    expect(outcome).toMatchObject({ end: 'violation', detail: 'lists more relays than a view can hold' })
    expect(asked).toBeLessThan(6)
  })

  test('that lists what it never serves', () => {
    const { outcome, asked } = run(
      begin(viewOf(0, 0)),
      liar(viewOf(0, 200), (request) => (request.type === 'fetch' ? { type: 'fetch', descriptors: [] } : null)),
    )
    expect(outcome.end).toBe('useless')
    expect(asked).toHaveLength(5)
  })

  test('that is slow, or goes away: what it was fetching is free for others', () => {
    const mine = viewOf(0, 0)
    const puller = new ViewPuller(mine, suite, new SeededRandom(2))
    const answer = serve(viewOf(0, 60))
    for (const end of ['timeout', 'lost'] as const) {
      const session = puller.begin(peer, { ages: false })
      let output = session.start(NOW)
      for (let i = 0; i < 2 && output.type === 'send'; i++) output = session.handleAnswer(answer(output.frame), NOW)
      expect(output.type === 'send' && decodeSyncRequest(output.frame).type).toBe('fetch')
      expect(session.handleTimeout(NOW + SYNC_ANSWER_MS - 1)).toBeNull()
      const over = end === 'timeout' ? session.handleTimeout(NOW + SYNC_ANSWER_MS) : session.handleLost()
      expect(over).toMatchObject({ type: 'done', outcome: { end } })
      expect(session.pollTimeout()).toBeNull()
    }
    expect(run(puller.begin(peer, { ages: false }), answer).outcome.added).toBe(60)
  })

  test('that answers each question at the last moment, within the time of a session', () => {
    const session = begin(viewOf(0, 0))
    const answer = serve(viewOf(0, 200))
    let now = NOW
    let output = session.start(now)
    while (output.type === 'send') {
      now = session.pollTimeout()!
      expect(now).toBeLessThanOrEqual(NOW + SYNC_SESSION_MS)
      output = session.handleAnswer(answer(output.frame), now)
    }
    expect(output.outcome.end).toBe('complete')
  })
})

describe('serving the view', () => {
  test('refuses another network and what is no request', () => {
    const server = new ViewServer(viewOf(0, 10), NOW)
    const other = new View({ suite, rules: { ...quickRules, name: 'other' } })
    const { outcome } = run(begin(other), (frame) => server.answer(peer, frame, NOW).frame)
    expect(outcome).toMatchObject({ end: 'refused', detail: 'network' })
    expect(server.answer(peer, Uint8Array.of(1, 2, 3), NOW)).toMatchObject({ keep: false })
  })

  test('stops at a peer that asks for more than its share, and goes on for others', () => {
    const server = new ViewServer(viewOf(0, 200), NOW)
    const session = begin(viewOf(0, 0))
    const start = session.start(NOW)
    if (start.type !== 'send') throw new Error('nothing to send')
    let sent = 0
    for (;;) {
      const { frame, keep } = server.answer(peer, start.frame, NOW)
      sent += frame.length
      if (!keep) break
    }
    expect(sent).toBeLessThan(SERVE_PEER_BURST + 10_000)
    expect(server.answer(relays[0]!.id, start.frame, NOW).keep).toBe(true)
    expect(server.answer(peer, start.frame, NOW + 60_000).keep).toBe(true)
  })

  test('answers long lists in parts', () => {
    const theirs = viewOf(0, 0)
    const digests = new SeededRandom(9)
    for (let i = 0; i < 5_000; i++) theirs.buckets.set({ tag: toHex(digests.bytes(8)), sequence: 1, digest: toHex(digests.bytes(16)) })
    const { outcome, asked } = run(begin(viewOf(0, 0)), serve(theirs))
    const lists = asked.filter(({ type }) => type === 'list')
    expect(lists).toHaveLength(3)
    expect(new Set(lists.map((list) => (list.type === 'list' ? list.buckets.length : 0))).size).toBe(3)
    expect(outcome.end).toBe('useless')
  })
})

function unasked(buckets: readonly number[]): number {
  for (let bucket = 0; ; bucket++) if (!buckets.includes(bucket)) return bucket
}
