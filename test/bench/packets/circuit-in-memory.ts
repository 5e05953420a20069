import { PerformanceObserver } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { PacketBatch, type PacketPort } from '../../../src/packet/index.ts'
import { MemoryMesh } from '../../support/mesh-in-memory.ts'
import { PacketExit } from '../../support/packet-exits.ts'
import { round } from '../stats.ts'

/** Raw packets through a circuit of three hops, client, relays and exit in this one thread, without a link or a kernel between them. */
export interface PacketsInMemory {
  readonly bytes: number
  readonly way: 'up' | 'down'
  /** Thousands a second. */
  readonly kiloPackets: number
  readonly mbPerSecond: number
  readonly lost: number
  /** Runs of the garbage collector for a million packets. */
  readonly collections: number
}

let collections = 0
new PerformanceObserver((list) => {
  collections += list.getEntries().length
}).observe({ entryTypes: ['gc'] })

function attach(port: PacketPort, count: (packets: number) => void, drained: () => void): void {
  port.attach({ packets: (batch) => count(batch.count), drained, ended: () => {} })
}

/** Sends `count` packets as fast as the port takes them; resolves when no more arrive. */
async function flood(port: PacketPort, drained: (wake: () => void) => void, batch: PacketBatch, count: number, arrived: () => number) {
  const before = arrived()
  const began = performance.now()
  collections = 0
  let sent = 0
  while (sent < count) {
    const taken = port.send(batch)
    sent += taken
    if (taken < batch.count) await new Promise<void>((resolve) => drained(resolve))
  }
  let last = -1
  let ms = 0
  while (arrived() !== last) {
    last = arrived()
    ms = performance.now() - began
    await delay(20)
  }
  return { got: last - before, sent, ms, collections }
}

export async function packetsInMemory(bytes: number, count: number): Promise<PacketsInMemory[]> {
  let [up, down] = [0, 0]
  let [wakeClient, wakeNetwork] = [() => {}, () => {}]
  const exit = new PacketExit({
    address4: '10.77.0.1',
    mtu: 1500,
    // What a batch of cells holds of them.
    queuePackets: bytes < 200 ? 1024 : 256,
    behind: (network) =>
      attach(
        network,
        (packets) => {
          up += packets
        },
        () => wakeNetwork(),
      ),
  })
  const mesh = new MemoryMesh({ exit })
  const { port } = await (await mesh.circuit()).openPackets()
  attach(
    port,
    (packets) => {
      down += packets
    },
    () => wakeClient(),
  )
  const packet = new Uint8Array(bytes)
  packet.set([0x45])
  const fill = (from: number, to: number): PacketBatch => {
    packet.set([10, 77, 0, from, 10, 77, 0, to], 12)
    const batch = new PacketBatch(64, 64 * (bytes + 4))
    while (batch.add(packet));
    return batch
  }
  const ways = {
    up: (n: number) =>
      flood(
        port,
        (wake) => {
          wakeClient = wake
        },
        fill(1, 2),
        n,
        () => up,
      ),
    down: (n: number) =>
      flood(
        exit.leases[0]!,
        (wake) => {
          wakeNetwork = wake
        },
        fill(2, 1),
        n,
        () => down,
      ),
  }
  const results: PacketsInMemory[] = []
  for (const way of ['up', 'down'] as const) {
    await ways[way](Math.ceil(count / 5))
    const { got, sent, ms, collections: runs } = await ways[way](count)
    results.push({
      bytes,
      way,
      kiloPackets: round(got / ms),
      mbPerSecond: round((got * bytes) / ms / 1000),
      lost: sent - got,
      collections: round((runs * 1e6) / got),
    })
  }
  mesh.stop()
  return results
}

/** `node test/bench/packets/circuit-in-memory.ts [--count N]` prints one JSON line a size and way. */
if (import.meta.main) {
  const { values } = parseArgs({ options: { count: { type: 'string', default: '200000' } } })
  for (const bytes of [60, 576, 1420])
    for (const result of await packetsInMemory(bytes, Number(values.count))) process.stdout.write(`${JSON.stringify(result)}\n`)
}
