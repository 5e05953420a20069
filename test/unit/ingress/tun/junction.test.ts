import { describe, expect, test } from 'vitest'
import { Junction } from '../../../../src/ingress/tun/junction.ts'
import { batchOfPackets, newPortStats, type PacketBatch, type PacketPort, type PacketPortHandlers } from '../../../../src/packet/index.ts'

/** A device that takes so many packets and then no more, until it is told to. */
class NarrowPort implements PacketPort {
  readonly name = 'narrow'
  readonly medium = 'ip'
  readonly mtu = 1420
  readonly stats = newPortStats()
  readonly sent: number[] = []
  room = 2
  handlers: PacketPortHandlers | null = null

  attach(handlers: PacketPortHandlers): void {
    this.handlers = handlers
  }

  send(batch: PacketBatch, from = 0): number {
    const taken = Math.min(this.room, batch.count - from)
    for (let i = from; i < from + taken; i++) this.sent.push(batch.packet(i)[0]!)
    this.room -= taken
    return taken
  }

  drain(room: number): void {
    this.room = room
    this.handlers!.drained()
  }

  pause(): void {}
  resume(): void {}
  close(): void {}
}

function world() {
  const port = new NarrowPort()
  const junction = new Junction(port, (batch) => batch)
  const told: string[] = []
  junction.attach({
    packets: (batch) => told.push(`packets ${batch.count}`),
    drained: () => told.push('drained'),
    ended: () => told.push('ended'),
  })
  const put = (mark: number): boolean => {
    const batch = junction.place(1)
    if (batch === null) return false
    batch.bytes[batch.reserve(1)] = mark
    batch.commit(1)
    return true
  }
  return { port, junction, told, put }
}

const packets = (...marks: number[]): PacketBatch => batchOfPackets(marks.map((mark) => Uint8Array.of(mark)))

describe('a junction', () => {
  test('keeps what the device has no room for, in order, and sends it when there is room', () => {
    const { port, junction, put } = world()
    for (const mark of [1, 2, 3, 4, 5]) put(mark)
    junction.flush()
    junction.flush()
    expect(port.sent).toEqual([1, 2])
    port.drain(2)
    expect(port.sent).toEqual([1, 2, 3, 4])
    port.drain(9)
    put(6)
    junction.flush()
    expect(port.sent).toEqual([1, 2, 3, 4, 5, 6])
  })

  test('tells the stack of room only when there is some, and lets what waits go before it', () => {
    const { port, junction, told, put } = world()
    expect(junction.send(packets(1, 2, 3))).toBe(2)
    put(10)
    put(11)
    put(12)
    expect(junction.send(packets(4))).toBe(0)
    port.drain(2)
    expect(told).toEqual([])
    port.drain(2)
    expect(told).toEqual(['drained'])
    expect(junction.send(packets(5))).toBe(1)
    expect(port.sent).toEqual([1, 2, 10, 11, 12, 5])
  })

  test('drops and counts what finds no room in its queue, and everything after the end', () => {
    const { port, junction, told, put } = world()
    let taken = 0
    while (put(taken & 255)) taken++
    expect([taken, junction.dropped]).toEqual([512, 1])
    port.handlers!.ended(null)
    expect(put(1)).toBe(false)
    expect([told, junction.dropped]).toEqual([['ended'], 2])
  })
})
