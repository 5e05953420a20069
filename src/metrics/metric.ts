import type { NodeConfig, NodeStatus } from '../node/index.ts'
import type { RuntimeFacts } from './runtime.ts'

/** What a page is made of. */
export interface Source {
  readonly status: NodeStatus
  readonly config: NodeConfig
  readonly runtime: RuntimeFacts
}

export interface Sample {
  readonly labels?: Readonly<Record<string, string>>
  readonly value: number
}

export interface Metric {
  readonly name: string
  readonly help: string
  readonly type: 'gauge' | 'counter'
  readonly labels: readonly string[]
  /** `public`: may be on a page that anybody reads. `local`: about the node's own user, for listeners of the loopback only. */
  readonly audience: 'public' | 'local'
  /** What it is made coarser to. */
  readonly step: number
  /** Empty where the node has nothing of the kind. */
  readonly read: (source: Source) => readonly Sample[]
}

type Read = (source: Source) => readonly Sample[] | number | null | undefined

export interface MetricOptions {
  readonly labels?: readonly string[]
  readonly step?: number
  readonly audience?: 'local'
}

/** A value that goes up and down. */
export const gauge = (name: string, help: string, read: Read, options?: MetricOptions): Metric => metric('gauge', name, help, read, options)

/** A value that only rises; `_total` is added to its name. */
export const counter = (name: string, help: string, read: Read, options?: MetricOptions): Metric =>
  metric('counter', `${name}_total`, help, read, options)

function metric(
  type: Metric['type'],
  name: string,
  help: string,
  read: Read,
  { labels = [], step = 1, audience }: MetricOptions = {},
): Metric {
  return {
    name,
    help,
    type,
    labels,
    step,
    audience: audience ?? 'public',
    read: (source) => {
      const value = read(source)
      return value === null || value === undefined ? [] : typeof value === 'number' ? [{ value }] : value
    },
  }
}
