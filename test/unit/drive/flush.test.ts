import { describe, expect, it } from 'vitest'
import { flushCells } from '../../../src/drive/index.ts'
import type { CellChannel } from '../../../src/link/index.ts'
import { type CellBatch, newBatch } from '../../../src/onion/index.ts'

describe('flushCells', () => {
  function flushed(batches: (CellBatch | null)[], room: number, endsAt = Number.POSITIVE_INFINITY): string[] {
    const log: string[] = []
    const channel = { room, send: ({ count }: CellBatch) => void log.push(`send ${count}`) }
    const source = { pollCells: () => batches.shift() ?? null }
    const drain = (): boolean => log.push('drain') < endsAt
    log.push(String(flushCells(source, channel as unknown as CellChannel, 0, drain, () => {})))
    return log
  }

  it('drains before the first cells, after each batch, and after the poll that gave none: it may have dropped something', () => {
    expect(flushed([newBatch(2), newBatch(1)], 42)).toEqual(['drain', 'send 2', 'drain', 'send 1', 'drain', 'drain', 'true'])
  })

  it('stops where the channel has no room, and where the circuit has ended', () => {
    expect(flushed([newBatch(2)], 0)).toEqual(['drain', 'true'])
    expect(flushed([newBatch(2)], 42, 1)).toEqual(['drain', 'false'])
    expect(flushed([], 42, 2)).toEqual(['drain', 'drain', 'false'])
  })
})
