import type { CellChannel } from '../link/index.ts'
import type { CellBatch } from '../onion/index.ts'

/** Cells made per poll: one write of about 64 KiB. */
const POLL_CELLS = 42

/** What originates cells. */
export interface CellSource {
  pollCells(most: number, now: number): CellBatch | null
}

/**
 * Sends what a machine originates while its channel has room. Cells are encrypted in wire order, so `drain` (which sends the cells that the
 * machine has encrypted already) runs first and after each batch; it returns false when the circuit has ended.
 */
export function flushCells(
  source: CellSource,
  channel: CellChannel,
  now: number,
  drain: () => boolean,
  sent: (cells: number) => void,
): boolean {
  if (!drain()) return false
  for (;;) {
    const room = channel.room
    if (room <= 0) return true
    const batch = source.pollCells(Math.min(room, POLL_CELLS), now)
    // What waited too long is dropped by the poll: that, too, may have something to tell.
    if (!batch) return drain()
    sent(batch.count)
    channel.send(batch)
    if (!drain()) return false
  }
}
