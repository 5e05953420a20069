import { join, resolve } from 'node:path'
import { run } from '../support/processes.ts'
import { median, round } from './stats.ts'

/** What one run of the runner for a private Tor network gives, as far as it is compared. */
export interface TorFigures {
  readonly variant: TorVariant
  readonly downMbPerSecond: number
  readonly upMbPerSecond: number
  readonly middleCpuSecondsPerGb: number
  readonly buildP50Ms: number
  readonly firstByteP50Ms: number
  readonly version: string
  /** Share of the machine's CPU that other programs used during the download. */
  readonly foreignPercent: number
}

export const torVariants = ['bulk', 'shipped', 'latency'] as const
export type TorVariant = (typeof torVariants)[number]

/** Runs `run.sh VARIANT` of the runner's folder: root, Debian. It makes a network namespace of its own. */
export async function runTor(folder: string, variant: TorVariant, seconds: number): Promise<TorFigures> {
  const sections = variant === 'bulk' ? 'bulk,small' : variant === 'shipped' ? 'bulk' : 'bulk,circuits,small'
  const args = [variant, '--sections', sections, '--seconds', String(seconds), '--joins', '0', '--settle', '2', '--small', '300']
  const finished = await run(join(resolve(folder), 'run.sh'), args, { timeoutMs: 3600_000 })
  const line = finished.stdout.split('\n').find((text) => text.startsWith('{'))
  if (finished.code !== 0 || line === undefined) throw new Error(`the Tor runner failed (${variant}):\n${finished.log.slice(-3000)}`)
  return parseTorFigures(variant, line)
}

/** @param line the runner's JSON */
export function parseTorFigures(variant: TorVariant, line: string): TorFigures {
  const json = JSON.parse(line) as unknown
  const at = (path: string): unknown =>
    path.split('.').reduce((value: unknown, key) => (value as Record<string, unknown> | undefined)?.[key], json)
  const number = (path: string): number => {
    const value = at(path)
    return typeof value === 'number' ? value : Number.NaN
  }
  return {
    variant,
    downMbPerSecond: number('bulk.down.MBps.median'),
    upMbPerSecond: number('bulk.up.MBps.median'),
    middleCpuSecondsPerGb: number('bulk.down.cpu_s_per_GB.relay1'),
    buildP50Ms: number('circuits.serial.p50_ms'),
    firstByteP50Ms: number('small.c1.ttfb_ms.p50'),
    version: String(at('tor') ?? ''),
    foreignPercent: number('bulk.down.foreign_pct'),
  }
}

/** What a comparison needs of one run of the mesh. */
export interface MeshFigures {
  readonly downMbPerSecond: number
  readonly middleCpuSecondsPerGb: number
  readonly buildP50Ms: number
  readonly firstByteP50Ms: number
}

export interface Limit {
  readonly name: string
  readonly value: number
  readonly limit: number
  readonly atLeast: boolean
  readonly holds: boolean
}

export function limit(name: string, value: number, bound: { readonly atLeast: number } | { readonly atMost: number }): Limit {
  const atLeast = 'atLeast' in bound
  const edge = atLeast ? bound.atLeast : bound.atMost
  return { name, value: round(value), limit: edge, atLeast, holds: atLeast ? value >= edge : value <= edge }
}

/** The ratios that must hold, of medians over all rounds; Tor's best setting is taken for each figure by itself. */
export function compareWithTor(mesh: readonly MeshFigures[], tor: readonly TorFigures[]): readonly Limit[] {
  const ofMesh = (key: keyof MeshFigures): number => median(mesh.map((figures) => figures[key]))
  const medians = (
    key: 'downMbPerSecond' | 'middleCpuSecondsPerGb' | 'buildP50Ms' | 'firstByteP50Ms',
    of: readonly TorVariant[],
  ): number[] =>
    of
      .map((variant) => tor.filter((figures) => figures.variant === variant && !Number.isNaN(figures[key])).map((figures) => figures[key]))
      .filter((values) => values.length > 0)
      .map(median)
  const tuned = ['bulk', 'latency'] as const
  const limits = [
    limit('download / best-tuned Tor', ofMesh('downMbPerSecond') / Math.max(...medians('downMbPerSecond', tuned)), { atLeast: 0.8 }),
    limit('download / stock Tor', ofMesh('downMbPerSecond') / medians('downMbPerSecond', ['shipped'])[0]!, { atLeast: 6 }),
    limit("middle's CPU s/GB / Tor's", ofMesh('middleCpuSecondsPerGb') / Math.min(...medians('middleCpuSecondsPerGb', tuned)), {
      atMost: 1.5,
    }),
    limit('circuit build p50 / tuned Tor', ofMesh('buildP50Ms') / Math.min(...medians('buildP50Ms', tuned)), { atMost: 6 }),
    limit('first byte of 1 KB / tuned Tor', ofMesh('firstByteP50Ms') / Math.min(...medians('firstByteP50Ms', tuned)), { atMost: 4 }),
  ]
  // What was not measured this time is not judged.
  return limits.filter(({ value }) => Number.isFinite(value))
}
