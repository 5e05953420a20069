import { describe, expect, test } from 'vitest'
import { ShallotError } from '../../../src/base/index.ts'
import { batchOfPackets } from '../../../src/packet/index.ts'
import { type TunDescriptor, TunPort, type TunWants, type TunWrite, tunLimits } from '../../../src/tun/index.ts'
import { numberedPacket, PortRecorder } from '../../compliance/packet-port.ts'

const gone = new ShallotError('tun-removed', 'gone', { kind: 'host', retry: 'later' })

/** A device that does what a test says. */
class ScriptedDescriptor implements TunDescriptor {
  readonly waiting: Uint8Array[] = []
  readonly written: Uint8Array[] = []
  room = Number.POSITIVE_INFINITY
  refuses = false
  isGone = false
  closes = 0
  wants: TunWants | null = null
  ready: (is: TunWants, error: ShallotError | null) => void = () => {}

  read(into: Uint8Array, at: number, length: number): number {
    const packet = this.waiting.shift()
    if (packet === undefined && this.isGone) throw gone
    if (packet === undefined) return -1
    into.set(packet.subarray(0, length), at)
    return Math.min(length, packet.length)
  }

  write(from: Uint8Array, at: number, length: number): TunWrite {
    if (this.isGone) throw gone
    if (this.refuses) return 'refused'
    if (this.room === 0) return 'full'
    this.room--
    this.written.push(from.slice(at, at + length))
    return 'taken'
  }

  watch(wants: TunWants, ready: (is: TunWants, error: ShallotError | null) => void): void {
    this.wants = wants
    this.ready = ready
  }

  close(): void {
    this.closes++
  }

  /** A turn of the loop in which the device is ready for all that is wanted. */
  turn(): void {
    if (this.closes === 0 && this.wants !== null) this.ready(this.wants, null)
  }
}

function started(mtu = 1420) {
  const device = new ScriptedDescriptor()
  const port = new TunPort(device, { name: 'tun-x', mtu })
  const recorder = new PortRecorder()
  port.attach(recorder)
  return { device, port, recorder }
}

const numbered = (count: number, length = 60) => Array.from({ length: count }, (_, i) => numberedPacket(i, length))
const later = () => new Promise((resolve) => setImmediate(resolve))

describe('a TUN port over a scripted device', () => {
  test('a full device holds the sender back until it can be written to', () => {
    const { device, port, recorder } = started()
    device.room = 3
    expect(port.send(batchOfPackets(numbered(5)))).toBe(3)
    expect(device.wants).toEqual({ readable: true, writable: true })
    expect(recorder.drains).toBe(0)
    device.room = 10
    device.turn()
    expect(recorder.drains).toBe(1)
    expect(device.wants).toEqual({ readable: true, writable: false })
    device.turn()
    expect(recorder.drains).toBe(1)
    expect(port.stats).toMatchObject({ sentPackets: 3, sentBytes: 180, droppedPackets: 0 })
  })

  test('a device that drains while the port is paused still says so', () => {
    const { device, port, recorder } = started()
    device.room = 0
    port.pause()
    expect(port.send(batchOfPackets(numbered(1)))).toBe(0)
    expect(device.wants).toEqual({ readable: false, writable: true })
    device.turn()
    expect(recorder.drains).toBe(1)
  })

  test('what the device refuses is taken, dropped and counted', () => {
    const { device, port } = started()
    device.refuses = true
    expect(port.send(batchOfPackets(numbered(4)))).toBe(4)
    expect(port.stats).toMatchObject({ sentPackets: 0, droppedPackets: 4 })
  })

  test('a turn is bounded, and the rest comes in the next', () => {
    const { device, recorder } = started()
    device.waiting.push(...numbered(tunLimits.turnPackets + 10))
    device.turn()
    expect(recorder.numbers).toHaveLength(tunLimits.turnPackets)
    expect(recorder.batches).toBe(tunLimits.turnPackets / tunLimits.batchPackets)
    device.turn()
    expect(recorder.numbers).toHaveLength(tunLimits.turnPackets + 10)
  })

  test('full batches of packets as large as the MTU fit', () => {
    for (const mtu of [1280, 1421, 1422, 1423, 1500]) {
      const { device, port, recorder } = started(mtu)
      device.waiting.push(...numbered(2 * tunLimits.batchPackets, mtu))
      device.turn()
      expect(recorder.numbers).toHaveLength(2 * tunLimits.batchPackets)
      expect(port.stats.droppedPackets).toBe(0)
    }
  })

  test('a packet above the MTU is never given out cut: it is dropped and counted', () => {
    const { device, port, recorder } = started(1280)
    device.waiting.push(numberedPacket(0, 1280), numberedPacket(1, 1281), numberedPacket(2, 3000), numberedPacket(3, 1280))
    device.turn()
    expect(recorder.numbers).toEqual([0, 3])
    expect(port.stats).toMatchObject({ receivedPackets: 2, droppedPackets: 2 })
  })

  test('nothing but packets above the MTU does not hold the loop', () => {
    const { device } = started(1280)
    for (let i = 0; i < 1000; i++) device.waiting.push(numberedPacket(i, 1281))
    device.turn()
    expect(device.waiting.length).toBeGreaterThanOrEqual(1000 - tunLimits.turnPackets)
  })

  test('pausing within a delivery stops after that batch; closing too', () => {
    for (const stop of ['pause', 'close'] as const) {
      const { device, port, recorder } = started()
      device.waiting.push(...numbered(200))
      recorder.onPackets = () => port[stop]()
      device.turn()
      expect(recorder.batches).toBe(1)
    }
  })

  test('a device that is removed ends the port once, with what it had and the reason', async () => {
    const { device, port, recorder } = started()
    device.waiting.push(...numbered(3))
    device.isGone = true
    device.turn()
    expect(recorder.numbers).toEqual([0, 1, 2])
    expect(recorder.ends).toEqual([])
    await later()
    expect(recorder.ends).toEqual([gone])
    expect(port.send(batchOfPackets(numbered(2)))).toBe(2)
    port.close()
    await later()
    expect([recorder.ends.length, device.closes]).toEqual([1, 1])
  })

  test('a device found gone when written to takes all, and ends', async () => {
    const { device, port, recorder } = started()
    device.isGone = true
    expect(port.send(batchOfPackets(numbered(3)))).toBe(3)
    await later()
    expect(recorder.ends).toEqual([gone])
  })

  test('closed before it is attached, the device is let go of', () => {
    const device = new ScriptedDescriptor()
    const port = new TunPort(device, { name: 'tun-x', mtu: 1420 })
    port.close()
    expect(device.closes).toBe(1)
  })
})
