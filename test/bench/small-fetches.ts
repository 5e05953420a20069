import { join } from 'node:path'
import { Program } from '../support/processes.ts'
import type { LoadResult } from './load-client.ts'
import type { Network } from './network.ts'
import type { Origin } from './origin.ts'

/** 1 KB fetches, `atOnce` at a time, for about `seconds`, by the lean load client in a process of its own. */
export async function measureSmallFetches(
  network: Network,
  origin: Origin,
  atOnce: number,
  most: number,
  seconds: number,
): Promise<LoadResult> {
  const probe = await load(network, origin, atOnce, Math.max(20, 2 * atOnce))
  const n = Math.round(Math.min(most, Math.max(50, 4 * atOnce, probe.perSecond * seconds)))
  const result = await load(network, origin, atOnce, n)
  if (result.n === 0) throw new Error(`no fetch through the ${network.name} succeeded: ${result.why}`)
  return result
}

async function load(network: Network, origin: Origin, atOnce: number, n: number): Promise<LoadResult> {
  const args = ['--socks', network.socks, '--target', origin.web, '--n', n, '--c', atOnce, '--warm', 2 * atOnce, '--user', 'small'].map(
    String,
  )
  const program = Program.node(join(import.meta.dirname, 'load-client.ts'), args)
  const { code } = await program.waitForExit(180_000)
  if (code !== 0) throw new Error(`the load client failed: ${program.tail(1000)}`)
  return JSON.parse(program.stdout) as LoadResult
}
