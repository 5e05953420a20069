import { parseArgs } from 'node:util'
import { SeededRandom } from '../../src/base/index.ts'
import type { Stack, TcpConnection } from '../../src/netstack/index.ts'
import { PacketBatch } from '../../src/packet/index.ts'
import { endpoint, testStack } from '../support/virtual-net.ts'

/** What moving bytes through two stacks in one process costs: `node test/bench/netstack.ts [--mb N] [--mtu N] [--v6]`. */
export interface NetstackFigures {
  readonly megabytesPerSecond: number
  /** Both stacks' work for one packet that goes through, ACKs counted as packets. */
  readonly microsecondsPerPacket: number
  readonly dataPackets: number
  readonly ackPackets: number
}

/** Moves `bytes` from one stack to the other, memory to memory, over a link without delay. */
export function measureNetstack(bytes: number, mtu = 1420, v6 = false): NetstackFigures {
  const random = new SeededRandom(1)
  const a = testStack(1, random, { mtu })
  const b = testStack(2, random, { mtu })
  const toB = new PacketBatch(64, 64 * (mtu + 3))
  const toA = new PacketBatch(64, 64 * (mtu + 3))
  b.listen({ address: null, port: null })
  const begin = performance.now()
  const dialed = a.dial(endpoint(v6 ? 'fd00::2' : '10.0.0.2', 80), performance.now())
  const piece = new Uint8Array(65_536)
  let left = bytes
  let received = 0
  let dataPackets = 0
  let ackPackets = 0
  const write = (connection: TcpConnection): void => {
    while (left > 0) {
      const taken = connection.write(left < piece.length ? piece.subarray(0, left) : piece)
      left -= taken
      if (taken < piece.length) break
    }
  }
  const events = (stack: Stack): void => {
    for (let event = stack.nextEvent(); event !== null; event = stack.nextEvent()) {
      if (event.type === 'incoming') event.connection.accept()
      else if (event.type === 'drained' || (event.type === 'connected' && event.connection === dialed)) write(event.connection)
      else if (event.type === 'readable') {
        while (event.connection.readable > 0) {
          const { length } = event.connection.peek()
          received += length
          event.connection.consume(length)
        }
      }
    }
  }
  while (received < bytes) {
    const now = performance.now()
    toB.clear()
    dataPackets += a.output(toB, now)
    b.input(toB, now)
    events(b)
    toA.clear()
    ackPackets += b.output(toA, now)
    a.input(toA, now)
    events(a)
    if (toA.count === 0 && toB.count === 0) {
      a.poll(now)
      b.poll(now)
    }
  }
  const ms = performance.now() - begin
  return {
    megabytesPerSecond: bytes / 1e3 / ms,
    microsecondsPerPacket: (ms * 1000) / (dataPackets + ackPackets),
    dataPackets,
    ackPackets,
  }
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { mb: { type: 'string' }, mtu: { type: 'string' }, v6: { type: 'boolean' } } })
  for (let round = 0; round < 3; round++) {
    const figures = measureNetstack(Number(values.mb ?? 200) * 1e6, Number(values.mtu ?? 1420), values.v6 ?? false)
    console.log(
      `${figures.megabytesPerSecond.toFixed(0)} MB/s, ${figures.microsecondsPerPacket.toFixed(2)} us a packet (${figures.dataPackets} with data, ${figures.ackPackets} without)`,
    )
  }
}
