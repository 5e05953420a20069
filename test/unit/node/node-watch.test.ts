import { describe, expect, test } from 'vitest'
import type { PooledCircuit, StreamFacts as PoolStreamFacts } from '../../../src/client/index.ts'
import { History } from '../../../src/node/history.ts'
import { fitsFilter, LogBook } from '../../../src/node/log-book.ts'
import type { NodeEvent } from '../../../src/node/node-control.ts'
import { StreamLog } from '../../../src/node/stream-log.ts'
import { fakeTraffic } from '../../support/fake-node.ts'

const circuit = { id: 7, isolation: '0123456789abcdef' } as PooledCircuit
const stream = (id: number): PoolStreamFacts => ({
  id,
  kind: 'stream',
  target: { host: 'example.com', port: 443 },
  openedAt: 0,
  state: 'open',
  end: null,
  bytesIn: 5,
  bytesOut: 3,
})

describe('the log of streams', () => {
  const start = () => {
    const events: NodeEvent[] = []
    const time = { now: 0 }
    const log = new StreamLog({ now: () => time.now, wall: () => time.now }, (event) => events.push(event))
    return { events, time, log }
  }

  test('tells of each, with where it goes and a short isolation key', () => {
    const { events, log } = start()
    log.note('stream-open', circuit, stream(1))
    log.note('stream-closed', circuit, { ...stream(1), end: 'refused' })
    expect(events).toMatchObject([
      { type: 'stream-open', stream: { target: 'example.com:443', isolation: '01234567', circuit: 7, closedAt: null, end: null } },
      { type: 'stream-closed', stream: { state: 'closed', end: 'refused', bytesSent: 3, bytesReceived: 5 } },
    ])
  })

  test('tells no more than some in a second, and then how many more there were', () => {
    const { events, log } = start()
    for (let i = 0; i < 500; i++) log.note('stream-open', circuit, stream(i))
    expect(events).toHaveLength(50)
    log.tick(() => 500)
    expect(events.at(-1)).toMatchObject({ type: 'streams', open: 500, untold: 450 })
    log.tick(() => 500)
    expect(events).toHaveLength(51)
    log.note('stream-open', circuit, stream(501))
    expect(events.at(-1)!.type).toBe('stream-open')
  })

  test('remembers the last that ended, for five minutes', () => {
    const { time, log } = start()
    for (let i = 0; i < 100; i++) log.note('stream-closed', circuit, stream(i))
    expect(log.recent().map(({ id }) => id)).toEqual(Array.from({ length: 64 }, (_, i) => i + 36))
    time.now = 300_001
    expect(log.recent()).toEqual([])
  })
})

describe('the history', () => {
  test('is what was done in each second, for ten minutes', () => {
    const history = new History()
    const totals = { ...fakeTraffic, sent: 1000 }
    expect(history.sample(0, totals).sent, 'what was before the first look is nobody’s second').toBe(0)
    expect(history.sample(1000, { ...totals, sent: 1500, rttMs: null })).toMatchObject({ at: 1000, sent: 500, rttMs: null })
    for (let i = 2; i < 1000; i++) history.sample(i * 1000, totals)
    expect(history.samples()).toHaveLength(600)
    expect(history.samples()[0]!.at).toBe(400_000)
  })

  test('has a count of the view for each minute, for a day', () => {
    const history = new History()
    for (let at = 0; at < 2 * 86_400_000; at += 30_000) history.countView(at, () => ({ known: at, eligible: 1 }))
    expect(history.counts()).toHaveLength(1440)
    expect(history.counts()[1]!.at - history.counts()[0]!.at).toBe(60_000)
  })
})

describe('the book of the log', () => {
  const line = (message: string, sub = 'x') => ({ at: 0, level: 'info' as const, sub, message, fields: {} })

  test('gives what came since, and says when some of it is forgotten', () => {
    const book = new LogBook()
    for (let i = 0; i < 5000; i++) book.add(line(`${i}`), 10)
    const page = book.page({ since: 4998 })
    expect(page.lines.map(({ message }) => message)).toEqual(['4998', '4999'])
    expect(page).toMatchObject({ next: 5000, missed: false })
    expect(book.page({ since: 10 })).toMatchObject({ missed: true })
    expect(book.page({ limit: 3 }).lines.map(({ seq }) => seq)).toEqual([4997, 4998, 4999])
    expect(book.page({ limit: 5000 }).lines.length).toBeLessThanOrEqual(2000)
  })

  test('holds so much text and no more', () => {
    const book = new LogBook()
    for (let i = 0; i < 1000; i++) book.add(line('long'), 10_000)
    expect(book.page({ limit: 5000 }).lines.length).toBeLessThanOrEqual(100)
    expect(book.page({ limit: 5000 }).lines.length).toBeGreaterThan(50)
  })

  test('knows so many subsystems and no more', () => {
    const book = new LogBook()
    for (let i = 0; i < 1000; i++) book.add(line('m', `s${i}`), 1)
    expect(book.page({}).subsystems).toHaveLength(200)
  })

  test('fits lines of a subsystem and of those below it', () => {
    const of = (sub: string) => ({ ...line('m', sub), seq: 0 })
    expect(['link', 'link.dialer', 'links', ''].map((sub) => fitsFilter(of(sub), { sub: 'link' }))).toEqual([true, true, false, false])
  })
})
