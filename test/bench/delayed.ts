import { join } from 'node:path'
import { Program } from '../support/processes.ts'

/** What stands before each hop: the address that neighbours dial, and where it leads. */
export interface DelayedHop {
  readonly dialled: string
  readonly target: string
}

/** One process of delay proxies, a listener for each hop. */
export async function startDelays(delayMs: number, hops: readonly DelayedHop[]): Promise<Program> {
  const pairs = hops.map((hop) => `${hop.dialled}=${hop.target}`)
  const program = Program.node(join(import.meta.dirname, 'delay-proxy.ts'), [String(delayMs), ...pairs])
  await program.waitFor(/^\[.*\]$/m, 15_000)
  return program
}
