import { describe, expect, test } from 'vitest'
import { type PageExtras, pageLines } from '../../../../src/cli/top/page.ts'
import { ratesBetween, type Snapshot } from '../../../../src/cli/top/rates.ts'
import { keysOf } from '../../../../src/cli/top/screen.ts'
import type { Api } from '../../../../src/control/index.ts'
import { fakeCircuit, fakeStatus, fakeStream } from '../../../support/fake-node.ts'

const now = 1_800_000_000_000
const circuit = (id: number, bytesReceived: number, bytesSent = 0): Api.Circuit =>
  ({ ...fakeCircuit, id, bytesReceived, bytesSent, createdAt: now - 65_000, why: null }) as Api.Circuit
const stream = (id: number, of: number, bytesReceived: number, target = `host${id}.example:443`): Api.Stream =>
  ({ ...fakeStream, id, circuit: of, bytesReceived, bytesSent: 0, target, openedAt: now - 3_000 }) as Api.Stream

function snapshot(
  at: number,
  circuits: readonly Api.Circuit[],
  streams: readonly Api.Stream[],
  status: Partial<Api.NodeStatus> = {},
): Snapshot {
  return { at, status: { ...(fakeStatus as unknown as Api.NodeStatus), ...status }, circuits, streams }
}

const extras: PageExtras = { now, trouble: null, keys: 'q quit' }
const everything = { width: 120, height: Number.POSITIVE_INFINITY }

describe('rates', () => {
  const before = snapshot(1_000, [circuit(1, 1_000)], [stream(1, 1, 500)])

  test('are what came between two looks, by the second', () => {
    const client = {
      ...before.status.client!,
      bytesReceived: before.status.client!.bytesReceived + 4_000,
      bytesSent: before.status.client!.bytesSent + 400,
    }
    const rates = ratesBetween(before, snapshot(3_000, [circuit(1, 5_000, 400)], [stream(1, 1, 2_500)], { client }))
    expect(rates.client).toEqual({ down: 2_000, up: 200 })
    expect(rates.circuits.get(1)).toEqual({ down: 2_000, up: 200 })
    expect(rates.streams.get('1/1')).toEqual({ down: 1_000, up: 0 })
  })

  test('of what is new count from nothing; at the first look, and of a node started anew, there are none', () => {
    const rates = ratesBetween(before, snapshot(2_000, [circuit(2, 300)], [stream(1, 2, 300)]))
    expect(rates.circuits.get(2)).toEqual({ down: 300, up: 0 })
    expect(rates.streams.get('2/1')).toEqual({ down: 300, up: 0 })
    expect(ratesBetween(null, before)).toMatchObject({ client: null, forwarded: null })
    const anew = ratesBetween(before, snapshot(2_000, [circuit(1, 9_999)], [], { startedAt: now }))
    expect(anew.client).toBeNull()
    expect(anew.circuits.get(1)).toEqual({ down: 0, up: 0 })
  })
})

describe('keys', () => {
  test('are what was pressed; arrows, the wheel and function keys are none, and Escape is one when it comes alone', () => {
    expect(keysOf('n q')).toEqual(['n', ' ', 'q'])
    expect(keysOf('\x1b')).toEqual(['\x1b'])
    for (const sequence of ['\x1b[A', '\x1b[1;5B', '\x1bOA', '\x1b[15~', '\x1b[<64;10;10M', '\x1bq', '\x1b['])
      expect(keysOf(`${sequence}n`.slice(0, sequence === '\x1b[' ? 2 : undefined)), sequence).toEqual(sequence === '\x1b[' ? [] : ['n'])
  })
})

describe('the page', () => {
  const circuits = Array.from({ length: 20 }, (_, i) => circuit(i + 1, 1_000))
  const streams = Array.from({ length: 40 }, (_, i) => stream(i + 1, (i % 20) + 1, 100))
  const first = snapshot(0, circuits, streams)
  const second = snapshot(
    1_000,
    circuits.map((one) => (one.id === 7 ? { ...one, bytesReceived: 51_000 } : one)),
    streams.map((one) => (one.id === 9 ? { ...one, bytesReceived: 50_100 } : one)),
  )
  const rates = ratesBetween(first, second)

  test('fits every size, its keys last, and says how many rows found no room', () => {
    for (const width of [20, 40, 80, 200]) {
      for (const height of [3, 8, 12, 24, 50, 100]) {
        const lines = pageLines(second, rates, { width, height }, extras)
        expect(lines.length, `${width} x ${height}`).toBeLessThanOrEqual(height)
        for (const line of lines) expect(line.length).toBeLessThanOrEqual(width)
        expect(lines.at(-1)).toBe('q quit')
      }
    }
    const lines = pageLines(second, rates, { width: 100, height: 24 }, extras)
    const more = lines.filter((line) => /^\d+ more$/.test(line)).map((line) => Number.parseInt(line, 10))
    const shown = (of: RegExp): number => lines.filter((line) => of.test(line)).length
    expect(more).toHaveLength(2)
    expect(shown(/rdGuard1/) + more[0]!).toBe(20)
    expect(shown(/\.example:443/) + more[1]!).toBe(40)
    expect(pageLines(second, rates, everything, extras).filter((line) => line.includes('.example:443'))).toHaveLength(40)
  })

  test('shows what moves most first, with rate, age, round trip and path', () => {
    const lines = pageLines(second, rates, everything, extras)
    const at = lines.findIndex((line) => line.includes('GUARD > MIDDLE > EXIT'))
    expect(lines[at + 1]).toMatch(/^ +7 {2}open +1 min +3 ms +1 +50\.0 kB +- {2}rdGuard1 DE > Middle22 > ExitEx33 NL$/)
    const streamsAt = lines.findIndex((line) => line.includes('TARGET'))
    expect(lines[streamsAt + 1]).toMatch(/^ +9 {2}open +3 s +50\.0 kB +- +50\.1 kB +0 B {2}host9\.example:443$/)
  })

  test('keeps the whole path where it is narrow, and leaves out what is less', () => {
    for (const width of [80, 70, 60, 50, 40]) {
      const lines = pageLines(second, rates, { width, height: 50 }, extras)
      const at = lines.findIndex((line) => line.includes('GUARD > MIDDLE > EXIT'))
      expect(lines[at + 1], `${width}`).toMatch(/^ 7 {2}.*(rdGuard1 DE > Middle22 > ExitEx33 NL|ard1 DE > le22 > Ex33 NL)$/)
      expect(lines[at + 1], `${width}`).toContain('50.0 kB')
      expect(lines.find((line) => line.includes('host9.'))).toMatch(/host9\.example:443$/)
    }
  })

  test('holds nothing that could move the cursor, whatever a target is called', () => {
    const evil = snapshot(0, [], [stream(1, 1, 0, '\x1b[2J\r\nevil\x07\u202e\u2028\u200b')])
    const text = pageLines(evil, ratesBetween(null, evil), everything, extras).join('\n')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is the point
    expect(text).not.toMatch(/[\x00-\x09\x0b-\x1f]/)
    expect(text).toContain('evil????')
  })

  test('says what is wrong, and that there is nothing yet', () => {
    const empty = snapshot(0, [], [])
    const text = pageLines(empty, ratesBetween(null, empty), everything, { ...extras, trouble: 'the node does not answer' }).join('\n')
    expect(text).toContain('! the guard fails often')
    expect(text).toContain('! the node does not answer')
    expect(text).toMatch(/no circuits[\s\S]*no streams/)
    expect(text).toContain('measuring')
  })

  test('of a relay is about what it carries for others', () => {
    const relaying = {
      circuitsOpen: 12,
      circuitsRefused: 3,
      bytesForwarded: 1_000_000,
      budget: { usedBytes: 64_000, limitBytes: 100_000_000 },
    } as Api.NodeStatus['relaying']
    const status = { client: null, guards: null, roles: ['guard', 'middle'] as const, relaying }
    const one = snapshot(0, [], [], status as never)
    const two = snapshot(2_000, [], [], { ...status, relaying: { ...relaying!, bytesForwarded: 5_000_000 } } as never)
    const text = pageLines(two, ratesBetween(one, two), everything, extras).join('\n')
    expect(text).toContain('for others 2.0 MB/s  12 circuits, 3 refused  queued 64.0 kB of 100 MB')
    expect(text).not.toContain('STREAM')
  })
})
