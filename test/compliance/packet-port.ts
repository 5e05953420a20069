import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import type { ShallotError } from '../../src/base/index.ts'
import { PacketBatch, type PacketPort, type PacketPortHandlers } from '../../src/packet/index.ts'
import { until } from './cell-channel.ts'

/** The contract of PacketPort (src/packet/port.ts), for any implementation. */
export interface PacketPortHarness {
  /** The port under test, and what stands at its other end: whatever goes into one comes out of the other, unchanged and in order. */
  start(): Promise<{ readonly port: PacketPort; readonly other: PacketPort }>
  /** Whether a receiver that pauses holds the sender back (memory), or packets are dropped at their source (a device). */
  readonly holdsBack: boolean
  /** The most packets that may wait while the receiver pauses. */
  readonly mostQueued: number
  stop(): Promise<void>
}

/** Handlers that keep what they are told. */
export class PortRecorder implements PacketPortHandlers {
  readonly numbers: number[] = []
  batches = 0
  drains = 0
  readonly ends: (ShallotError | null)[] = []
  wrong: string | null = null
  onPackets: (() => void) | null = null

  packets(batch: PacketBatch): void {
    this.batches++
    if (this.ends.length > 0) this.wrong = 'packets after the end'
    if (batch.count === 0) this.wrong = 'an empty batch'
    for (let i = 0; i < batch.count; i++) {
      const number = numberOf(batch.packet(i))
      if (number !== null) this.numbers.push(number)
    }
    // The batch is lent: scribbling over its bytes is allowed, and harms nobody.
    for (let i = 0; i < batch.count; i++) batch.packet(i).fill(0xee)
    this.onPackets?.()
  }

  drained(): void {
    this.drains++
  }

  ended(error: ShallotError | null): void {
    this.ends.push(error)
  }
}

/** A UDP packet to port 9 with a number in it, that any device passes on: 10.77.0.1 to 10.77.0.2. */
export function numberedPacket(number: number, length = 100): Uint8Array {
  const packet = new Uint8Array(length)
  const view = new DataView(packet.buffer)
  packet.set([0x45, 0, length >> 8, length & 0xff, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2])
  let sum = 0
  for (let i = 0; i < 20; i += 2) sum += view.getUint16(i)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  view.setUint16(10, ~sum & 0xffff)
  packet.set([0xc3, 0x50, 0, 9, (length - 20) >> 8, (length - 20) & 0xff, 0, 0], 20)
  view.setUint32(28, 0x5a11_0700)
  view.setUint32(32, number)
  for (let i = 36; i < length; i++) packet[i] = (number + i) & 0xff
  return packet
}

/** The number of such a packet; null for a packet of somebody else (a device says things of its own). Throws when it was changed. */
function numberOf(packet: Uint8Array): number | null {
  if (packet.length < 36) return null
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length)
  if (view.getUint32(28) !== 0x5a11_0700) return null
  const number = view.getUint32(32)
  for (let i = 36; i < packet.length; i++) if (packet[i] !== ((number + i) & 0xff)) throw new Error(`packet ${number} was changed at ${i}`)
  return number
}

function batchOf(from: number, count: number, length = 100): PacketBatch {
  const batch = new PacketBatch(count, count * (length + 4))
  for (let i = 0; i < count; i++) batch.add(numberedPacket(from + i, length))
  return batch
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

/** Runs the suite for one kind of port. */
export function packetPortCompliance(kind: string, make: () => PacketPortHarness): void {
  describe(`packet port: ${kind}`, () => {
    let harness: PacketPortHarness | null = null
    afterEach(async () => {
      await harness?.stop()
      harness = null
    })

    async function started() {
      harness = make()
      const { port, other } = await harness.start()
      const here = new PortRecorder()
      const there = new PortRecorder()
      port.attach(here)
      other.attach(there)
      return { port, other, here, there, harness }
    }

    it('says its medium, MTU and name', async () => {
      const { port } = await started()
      expect(['ip', 'ethernet']).toContain(port.medium)
      expect(port.mtu).toBeGreaterThanOrEqual(1280)
      expect(port.name).not.toBe('')
    })

    it('carries packets both ways, whole, in order, in batches', async () => {
      const { port, other, here, there } = await started()
      expect(port.send(batchOf(0, 20))).toBe(20)
      expect(port.send(batchOf(20, 20, port.mtu))).toBe(20)
      expect(other.send(batchOf(0, 10))).toBe(10)
      await until('all packets', () => there.numbers.length === 40 && here.numbers.length === 10)
      expect(there.numbers).toEqual(upTo(40))
      expect(here.numbers).toEqual(upTo(10))
      expect([here.wrong, there.wrong]).toEqual([null, null])
      expect(port.stats.sentPackets).toBeGreaterThanOrEqual(40)
      expect(port.stats.receivedPackets).toBeGreaterThanOrEqual(10)
    })

    it('sends from the middle of a batch, and has let go of it when the call returns', async () => {
      const { port, there } = await started()
      const batch = batchOf(0, 6)
      expect(port.send(batch, 4)).toBe(2)
      batch.bytes.fill(0xff)
      batch.clear()
      await until('two packets', () => there.numbers.length === 2)
      expect(there.numbers).toEqual([4, 5])
    })

    it('drops and counts what is larger than its MTU, and goes on', async () => {
      const { port, there } = await started()
      const batch = new PacketBatch(3, 3 * (port.mtu + 8))
      batch.add(numberedPacket(0))
      batch.add(numberedPacket(1, port.mtu + 1))
      batch.add(numberedPacket(2))
      expect(port.send(batch)).toBe(3)
      await until('two packets', () => there.numbers.length === 2)
      expect(there.numbers).toEqual([0, 2])
      expect(port.stats.droppedPackets).toBe(1)
    })

    it('delivers nothing while paused, holds a bounded number, and goes on in order', async () => {
      const { port, other, there, here, harness } = await started()
      other.pause()
      let sent = 0
      for (let tries = 0; tries < 200 && sent < 4 * harness.mostQueued; tries++) {
        const taken = port.send(batchOf(sent, 64))
        sent += taken
        if (taken < 64) break
        if (tries % 16 === 15) await delay(1)
      }
      await delay(20)
      expect(there.numbers).toEqual([])
      if (harness.holdsBack) expect(sent).toBeLessThanOrEqual(harness.mostQueued)
      other.resume()
      await until('what was queued', () => there.numbers.length > 0)
      if (harness.holdsBack) {
        await until('all of it', () => there.numbers.length === sent)
        expect(there.numbers).toEqual(upTo(sent))
        await until('drained', () => here.drains > 0)
        expect(port.send(batchOf(sent, 1))).toBe(1)
        await until('one more', () => there.numbers.length === sent + 1)
      } else {
        for (let i = 1; i < there.numbers.length; i++) expect(there.numbers[i]).toBeGreaterThan(there.numbers[i - 1]!)
      }
    })

    it('can be paused from within a delivery', async () => {
      const { port, other, there } = await started()
      there.onPackets = () => other.pause()
      port.send(batchOf(0, 1))
      await until('the first', () => there.numbers.length > 0)
      port.send(batchOf(1, 1))
      await delay(20)
      const { batches } = there
      await delay(20)
      expect(there.batches).toBe(batches)
      there.onPackets = null
      other.resume()
      await until('the second', () => there.numbers.includes(1))
    })

    it('ends once, not within the call, and takes and gives nothing after', async () => {
      const { port, here } = await started()
      port.close()
      expect(here.ends).toEqual([])
      await until('the end', () => here.ends.length > 0)
      port.close()
      expect(port.send(batchOf(0, 3))).toBe(3)
      port.pause()
      port.resume()
      await delay(20)
      expect(here.ends).toEqual([null])
      expect(here.wrong).toBeNull()
    })
  })
}
