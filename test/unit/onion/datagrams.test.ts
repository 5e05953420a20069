import { describe, expect, it } from 'vitest'
import { DatagramQueue, datagramLimits, MOST_DATAGRAM_BYTES, Reassembler } from '../../../src/onion/datagrams.ts'

const peer = { host: '192.0.2.1', port: 53 }
const open = (): boolean => true
const malformed = expect.objectContaining({ code: 'malformed' })

function bodies(payload: Uint8Array): Uint8Array[] {
  const queue = new DatagramQueue()
  queue.push(1, 0, peer, payload, 0)
  const all: Uint8Array[] = []
  for (let next = queue.peek(); next; next = queue.peek()) {
    const body = new Uint8Array(next.length)
    queue.take(body, 0)
    all.push(body)
  }
  return all
}

describe('fragments', () => {
  it.each([0, 1, 1501, 1502, 3014, 3015, MOST_DATAGRAM_BYTES])('of %i bytes are put together again', (length) => {
    const payload = new Uint8Array(length).map((_, i) => i * 7)
    const reassembler = new Reassembler()
    const results = bodies(payload).map((body) => reassembler.add(body))
    expect(results.slice(0, -1).every((result) => result === null)).toBe(true)
    expect(results.at(-1)).toEqual({ peer, bytes: payload })
  })

  it('fill whole messages before the last', () => {
    expect(bodies(new Uint8Array(4000)).map(({ length }) => length)).toEqual([1515, 1515, 1515 - 2 - (3 * 1513 - 4012) + 2])
  })

  it('of a datagram that was given up are replaced by the next one', () => {
    const reassembler = new Reassembler()
    reassembler.add(bodies(new Uint8Array(4000))[0]!)
    const [body] = bodies(new Uint8Array(5).fill(1))
    expect(reassembler.add(body!)).toEqual({ peer, bytes: new Uint8Array(5).fill(1) })
    expect(() => reassembler.add(bodies(new Uint8Array(4000))[1]!)).toThrow(malformed)
  })

  it('out of turn, of another count, too short or too many are refused', () => {
    const [first, second, third] = bodies(new Uint8Array(4000)) as [Uint8Array, Uint8Array, Uint8Array]
    const adding = (...given: Uint8Array[]): (() => void) => {
      return () => {
        const reassembler = new Reassembler()
        for (const body of given) reassembler.add(body)
      }
    }
    const changed = (body: Uint8Array, at: number, value: number): Uint8Array => body.map((byte, i) => (i === at ? value : byte))
    expect(adding(first, second, third)).not.toThrow()
    expect(adding(second)).toThrow(malformed)
    expect(adding(first, third)).toThrow(malformed)
    expect(adding(first, second, second)).toThrow(malformed)
    expect(adding(first, changed(second, 1, 4))).toThrow(malformed)
    expect(adding(first, second.slice(0, -1))).toThrow(malformed)
    expect(adding(changed(first, 1, 0))).toThrow(malformed)
    expect(adding(changed(first, 1, 255))).toThrow(malformed)
    expect(adding(Uint8Array.of(0, 1))).toThrow(malformed)
    expect(adding(Uint8Array.of(0))).toThrow(malformed)
  })
})

describe('the queue', () => {
  it('is bounded, counts what it drops, and is empty when all is sent', () => {
    const queue = new DatagramQueue()
    let count = 0
    while (queue.push(1, 0, peer, new Uint8Array(1000), 0)) count++
    expect(queue.queuedBytes).toBeGreaterThanOrEqual(datagramLimits.queueBytes)
    expect(queue.queuedBytes).toBeLessThan(datagramLimits.queueBytes + 2000)
    expect(queue.dropped).toBe(1)
    expect(queue.fragments).toBe(count)
    while (queue.peek()) queue.take(new Uint8Array(1515), 0)
    expect([queue.queuedBytes, queue.fragments, queue.isEmpty]).toEqual([0, 0, true])
  })

  it('drops what is stale or has no association any more, but finishes what it began', () => {
    const queue = new DatagramQueue()
    queue.push(1, 0, peer, new Uint8Array(4000), 0)
    queue.take(new Uint8Array(1515), 0)
    queue.push(1, 0, peer, new Uint8Array(10), 0)
    queue.expire(500, open)
    expect(queue.fragments).toBe(3)
    queue.take(new Uint8Array(1515), 0)
    queue.take(new Uint8Array(1515), 0)
    queue.expire(500, open)
    expect([queue.dropped, queue.isEmpty]).toEqual([1, true])
    queue.push(1, 0, peer, new Uint8Array(4000), 500)
    queue.take(new Uint8Array(1515), 0)
    queue.expire(500, () => false)
    expect([queue.dropped, queue.isEmpty, queue.fragments, queue.queuedBytes]).toEqual([2, true, 0, 0])
  })
})
