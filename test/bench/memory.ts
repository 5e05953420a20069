import { createServer, type Socket } from 'node:net'
import { memoryOf } from '../support/proc.ts'
import { socksConnect } from '../support/socks-client.ts'
import type { Network, Position } from './network.ts'
import { positions } from './network.ts'
import { median, round } from './stats.ts'

/** MB are 10^6 bytes. */
export interface MemoryResult {
  /** Median resident memory of the relays when nothing happens. */
  readonly idleRelayMb: number
  readonly idleMb: Readonly<Record<Position, number>>
  readonly circuits: number
  readonly failed: number
  /** Growth of each process while the circuits are open, after `settleMs`. */
  readonly addedMb: Readonly<Record<Position, number>>
  readonly openedPerSecond: number
}

/** A relay is idle when it has had nothing to do for this long: what starting and joining needed has been given back by then. */
const IDLE_MS = 20_000

/**
 * Holds so many circuits open: a SOCKS user each, with one connection to a server that says nothing. The exit holds the sockets too; guard and
 * middle hold circuits alone. With the least testnet (three relays) every one of them carries all circuits.
 */
export async function measureMemory(network: Network, circuits: number, settleMs = 5000, atOnce = 8): Promise<MemoryResult> {
  const server = await startSilentServer()
  const clients = await network.manyCircuits(circuits)
  const held: Socket[] = []
  const open = async (socks: string, user: string): Promise<void> => {
    const socket = await socksConnect('127.0.0.1', server.port, { proxy: socks, user, timeoutMs: 60_000 })
    socket.on('error', () => {})
    held.push(socket)
  }
  try {
    // A few first, so that links, code and tables are there before anything is counted.
    for (const socks of clients.socks) for (let i = 0; i < 5; i++) await open(socks, `warm${i}`)
    const pids = await network.path('memory')
    await settle(IDLE_MS)
    const relays = network.allPids.filter((pid) => pid !== pids.client)
    const mbOf = (pid: number): number => memoryOf(pid).rssBytes / 1e6
    const idle = Object.fromEntries(positions.map((position) => [position, mbOf(pids[position])])) as Record<Position, number>
    const idleRelayMb = round(median(relays.map(mbOf)))

    let next = 0
    let failed = 0
    const began = performance.now()
    const worker = async (): Promise<void> => {
      while (next < circuits) {
        const i = next++
        await open(clients.socks[i % clients.socks.length]!, `held${i}`).catch(() => failed++)
      }
    }
    await Promise.all(Array.from({ length: atOnce }, worker))
    const seconds = (performance.now() - began) / 1000
    await settle(settleMs)
    const added = Object.fromEntries(positions.map((position) => [position, round(mbOf(pids[position]) - idle[position])]))
    return {
      idleRelayMb,
      idleMb: Object.fromEntries(positions.map((position) => [position, round(idle[position])])) as Record<Position, number>,
      circuits: circuits - failed,
      failed,
      addedMb: added as Record<Position, number>,
      openedPerSecond: round((circuits - failed) / seconds),
    }
  } finally {
    for (const socket of held) socket.destroy()
    await clients.stop()
    server.close()
  }
}

async function startSilentServer(): Promise<{ port: number; close(): void }> {
  const accepted = new Set<Socket>()
  const server = createServer((socket) => {
    accepted.add(socket)
    socket.on('error', () => {}).once('close', () => accepted.delete(socket))
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', 4096, resolve)
  })
  const { port } = server.address() as { port: number }
  return {
    port,
    close() {
      for (const socket of accepted) socket.destroy()
      server.close()
    },
  }
}

function settle(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
