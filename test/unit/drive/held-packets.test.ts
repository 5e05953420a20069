import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import { HeldPackets } from '../../../src/drive/index.ts'
import { batchOfPackets, type PacketBatch } from '../../../src/packet/index.ts'

const seed = Number(process.env.SHALLOT_TEST_SEED ?? Date.now() % 0x1_0000_0000)
const numbered = (from: number, count: number, length = 40): PacketBatch =>
  batchOfPackets(Array.from({ length: count }, (_, i) => new Uint8Array(length).fill((from + i) & 0xff)))

describe('held packets', () => {
  it(`come out in order, whatever is taken at a time (SHALLOT_TEST_SEED=${seed})`, () => {
    const random = new SeededRandom(seed)
    const held = new HeldPackets()
    const model: number[] = []
    let next = 0
    for (let step = 0; step < 3000; step++) {
      if (random.int(2) === 0) {
        const count = 1 + random.int(60)
        const from = random.int(count)
        const left = held.add(numbered(next, count), from)
        for (let i = from; i < count - left; i++) model.push((next + i) & 0xff)
        next += count
      }
      held.drain((batch, from) => {
        const taken = random.int(batch.count - from + 1)
        for (let i = from; i < from + taken; i++) expect(batch.packet(i)[0]).toBe(model.shift())
        // What comes while they are looked at waits its turn.
        if (random.int(4) === 0 && held.add(numbered(next, 1), 0) === 0) model.push(next++ & 0xff)
        return taken
      })
      if (random.int(300) === 0) {
        held.clear()
        model.length = 0
      }
      expect(held.isEmpty).toBe(model.length === 0)
    }
  })

  it('are bounded in number and in bytes', () => {
    for (const [length, most] of [
      [20, 2048],
      [1400, 93 * 2],
    ] as const) {
      const held = new HeldPackets()
      let count = 0
      for (let i = 0; i < 4000; i++) if (held.add(numbered(i, 1, length), 0) === 0) count++
      expect(count).toBeLessThanOrEqual(most)
      expect(count).toBeGreaterThan(most * 0.9)
    }
  })

  it('that are cleared by who is given them are gone', () => {
    const held = new HeldPackets()
    held.add(numbered(0, 5), 0)
    held.drain(() => {
      held.clear()
      held.add(numbered(9, 1), 0)
      return 2
    })
    const left: number[] = []
    held.drain((batch, from) => {
      left.push(batch.packet(from)[0]!)
      return batch.count - from
    })
    expect([left, held.isEmpty]).toEqual([[9], true])
  })
})
