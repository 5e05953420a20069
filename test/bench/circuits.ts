import type { CircuitFacts } from '../../src/node/node-control.ts'
import type { Control } from '../support/control.ts'
import { percentile, round } from './stats.ts'

export interface BuildResult {
  readonly n: number
  readonly failed: number
  readonly p50Ms: number
  readonly p95Ms: number
  readonly minMs: number
  /** Where the time comes from: the client's own (`buildMs`), or the whole control request. */
  readonly clock: 'client' | 'control'
}

/** Three-hop circuits built one after another, each asked for over the control API. The first ones open the links between the relays. */
export async function measureBuilds(control: Control, n: number, warm = 20): Promise<BuildResult> {
  const ms: number[] = []
  let failed = 0
  let clock: BuildResult['clock'] = 'control'
  for (let i = -warm; i < n; i++) {
    const began = performance.now()
    let circuit: CircuitFacts & { readonly buildMs?: number | null }
    try {
      circuit = await control.newCircuit()
    } catch {
      if (i >= 0) failed++
      continue
    }
    if (i < 0) continue
    if (typeof circuit.buildMs === 'number') clock = 'client'
    ms.push(circuit.buildMs ?? performance.now() - began)
  }
  if (ms.length === 0) throw new Error('no circuit could be built')
  return {
    n: ms.length,
    failed,
    p50Ms: round(percentile(ms, 0.5)),
    p95Ms: round(percentile(ms, 0.95)),
    minMs: round(Math.min(...ms)),
    clock,
  }
}
