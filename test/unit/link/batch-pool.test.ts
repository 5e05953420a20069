import { describe, expect, it } from 'vitest'
import { BatchPool, OWN_MEMORY_CELLS, POOL_CELLS } from '../../../src/link/batch-pool.ts'
import { subBatch } from '../../../src/onion/index.ts'

describe('the pool of batch memory', () => {
  it('uses the memory of a whole batch again, once', () => {
    const pool = new BatchPool()
    for (const count of [POOL_CELLS, OWN_MEMORY_CELLS + 1]) {
      const buffer = pool.take()
      const batch = pool.lend(buffer, count)
      expect(batch.bytes.buffer).toBe(buffer.buffer)
      pool.recycle(batch)
      pool.recycle(batch)
      expect(pool.free).toBe(1)
      expect(pool.take().buffer).toBe(buffer.buffer)
      expect(pool.free).toBe(0)
    }
  })

  it('never takes back a part of a batch, nor what is not its own', () => {
    const pool = new BatchPool()
    const batch = pool.lend(pool.take(), POOL_CELLS)
    pool.recycle(subBatch(batch, 0, POOL_CELLS - 1))
    pool.recycle(subBatch(batch, 1, POOL_CELLS))
    pool.recycle({ bytes: new Uint8Array(batch.bytes.length), start: batch.start, count: POOL_CELLS })
    expect(pool.free).toBe(0)
  })

  it('gives a small batch memory of its own', () => {
    const pool = new BatchPool()
    const buffer = pool.take().fill(7)
    const batch = pool.lend(buffer, 3)
    expect(batch.bytes.buffer).not.toBe(buffer.buffer)
    expect(batch.bytes[batch.start]).toBe(7)
    expect(pool.free).toBe(1)
    pool.recycle(batch)
    expect(pool.free).toBe(1)
  })

  it('lets go of what is not needed, and keeps what is', () => {
    const pool = new BatchPool()
    const taken = Array.from({ length: 32 }, () => pool.take())
    for (const buffer of taken) pool.put(buffer)
    pool.trim()
    expect(pool.free).toBe(32)
    // 8 at a time are in use.
    for (let second = 0; second < 20; second++) {
      const busy = Array.from({ length: 8 }, () => pool.take())
      for (const buffer of busy) pool.put(buffer)
      pool.trim()
    }
    expect(pool.free).toBeGreaterThanOrEqual(8)
    expect(pool.free).toBeLessThanOrEqual(10)
    for (let second = 0; second < 20; second++) pool.trim()
    expect(pool.free).toBe(0)
  })

  it('overwrites what comes back when it is told to', () => {
    const pool = new BatchPool(true)
    const batch = pool.lend(pool.take().fill(1), POOL_CELLS)
    pool.recycle(batch)
    expect(batch.bytes.every((byte) => byte === 0xdd)).toBe(true)
  })
})
