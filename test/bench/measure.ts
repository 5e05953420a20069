import { run } from '../support/processes.ts'
import { type BuildResult, measureBuilds } from './circuits.ts'
import type { LoadResult } from './load-client.ts'
import { type MemoryResult, measureMemory } from './memory.ts'
import { type Network, type Position, positions } from './network.ts'
import type { Origin } from './origin.ts'
import { measureSmallFetches } from './small-fetches.ts'
import { median, round } from './stats.ts'
import { measureTransfers, type TransferResult } from './transfers.ts'

export const networkSections = ['bulk', 'bulk8', 'circuits', 'small', 'memory'] as const
export type NetworkSection = (typeof networkSections)[number]

export interface MeasureOptions {
  readonly sections: readonly string[]
  readonly runs: number
  readonly seconds: number
  readonly builds: number
  readonly circuits: number
  /** Core of each position's process during the transfers, for a comparison with a pinned Tor. */
  readonly affinity: Readonly<Partial<Record<Position, number>>>
}

export interface NetworkResult {
  readonly network: Network['name']
  readonly origin: string
  readonly transfers: Readonly<Record<string, TransferResult>>
  readonly builds: BuildResult | null
  readonly small: readonly LoadResult[]
  readonly memory: MemoryResult | null
}

/** Everything that is measured of one running network. `say` tells what is going on. */
export async function measureNetwork(
  network: Network,
  origin: Origin,
  options: MeasureOptions,
  say: (text: string) => void,
): Promise<NetworkResult> {
  const wants = (section: NetworkSection): boolean => options.sections.includes(section)
  const transfers: Record<string, TransferResult> = {}
  // Memory first: an idle relay is one that has not worked yet.
  let memory: MemoryResult | null = null
  if (wants('memory')) {
    say(`${network.name}: memory with ${options.circuits} circuits`)
    memory = await measureMemory(network, options.circuits)
  }
  await pin(network, options.affinity)
  const plans = [
    ...(wants('bulk') ? [['down', false, 1, false] as const, ['up', true, 1, false] as const] : []),
    ...(wants('bulk8') ? [['down8', false, 8, false] as const, ['up8', true, 8, false] as const] : []),
    ...(wants('bulk8') ? [['down8Circuits', false, 8, true] as const, ['up8Circuits', true, 8, true] as const] : []),
  ]
  for (const [name, up, streams, ownCircuits] of plans) {
    say(`${network.name}: ${name}`)
    transfers[name] = await measureTransfers(network, origin, { up, streams, ownCircuits, runs: options.runs, seconds: options.seconds })
  }
  const small: LoadResult[] = []
  if (wants('small')) {
    for (const atOnce of [1, 8, 64]) {
      say(`${network.name}: 1 KB fetches, ${atOnce} at once`)
      const all: LoadResult[] = []
      for (let i = 0; i < options.runs; i++) all.push(await measureSmallFetches(network, origin, atOnce, 4000, options.seconds))
      small.push(medianLoad(all))
    }
  }
  let builds: BuildResult | null = null
  if (wants('circuits') && network.control) {
    say(`${network.name}: circuit builds`)
    const all: BuildResult[] = []
    const each = Math.ceil(options.builds / options.runs)
    for (let i = 0; i < options.runs; i++) all.push(await measureBuilds(network.control, each, i === 0 ? 20 : 0))
    builds = medianBuilds(all)
  }
  return { network: network.name, origin: origin.kind, transfers, builds, small, memory }
}

async function pin(network: Network, affinity: MeasureOptions['affinity']): Promise<void> {
  if (Object.keys(affinity).length === 0) return
  const pids = await network.path('bulk')
  for (const position of positions) {
    const core = affinity[position]
    if (core !== undefined) await run('taskset', ['-a', '-c', '-p', String(core), String(pids[position])])
  }
}

function medianBuilds(all: readonly BuildResult[]): BuildResult {
  const of = (key: 'p50Ms' | 'p95Ms' | 'minMs'): number => round(median(all.map((one) => one[key])))
  const sum = (key: 'n' | 'failed'): number => all.reduce((total, one) => total + one[key], 0)
  return { n: sum('n'), failed: sum('failed'), p50Ms: of('p50Ms'), p95Ms: of('p95Ms'), minMs: of('minMs'), clock: all[0]!.clock }
}

function medianLoad(all: readonly LoadResult[]): LoadResult {
  const of = (pick: (result: LoadResult) => number): number => round(median(all.map(pick)))
  const sum = (key: 'n' | 'errors'): number => all.reduce((total, one) => total + one[key], 0)
  return {
    atOnce: all[0]!.atOnce,
    n: sum('n'),
    errors: sum('errors'),
    why: all.find((one) => one.why !== null)?.why ?? null,
    perSecond: of((one) => one.perSecond),
    connectMs: { p50: of((one) => one.connectMs.p50), p95: of((one) => one.connectMs.p95) },
    firstByteMs: { p50: of((one) => one.firstByteMs.p50), p95: of((one) => one.firstByteMs.p95), p99: of((one) => one.firstByteMs.p99) },
    totalMs: { p50: of((one) => one.totalMs.p50), p95: of((one) => one.totalMs.p95) },
    clientCpuMs: of((one) => one.clientCpuMs),
  }
}
