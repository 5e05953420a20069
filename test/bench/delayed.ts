import { join } from 'node:path'
import { Program } from '../support/processes.ts'
import { chainNetwork, type Network } from './network.ts'
import { freePort, type Origin } from './origin.ts'
import { measureSmallFetches } from './small-fetches.ts'
import { measureTransfers } from './transfers.ts'

export interface DelayedOptions {
  readonly delayMs: number
  /** Most bytes under way in each direction of a link. */
  readonly heldBytes: number
  readonly runs: number
}

/** One stream over long links. MB/s; `down` leaves out the time to the first byte, which the chain spends on TLS handshakes. */
export interface DelayedFigures {
  readonly down: number
  readonly downWhole: number
  readonly up: number
  readonly firstByteMs: number
}

export interface DelayedResult {
  readonly delayMs: number
  readonly heldBytes: number
  readonly mesh: DelayedFigures | null
  readonly chain: DelayedFigures
}

/** MB of one transfer: long enough that the start does not count. */
const transferMb = 200

/** The mesh, and a plain chain of three TLS proxies, with the same delay on each of their three links. */
export async function measureDelayed(origin: Origin, options: DelayedOptions, say: (text: string) => void): Promise<DelayedResult> {
  say(`plain chain with ${options.delayMs} ms on every link`)
  const chain = await withNetwork(await delayedChain(options), (network) => figuresOf(network, origin, options))
  return { delayMs: options.delayMs, heldBytes: options.heldBytes, mesh: null, chain }
}

async function figuresOf(network: Network, origin: Origin, options: DelayedOptions): Promise<DelayedFigures> {
  const plan = { streams: 1, ownCircuits: false, runs: options.runs, seconds: 0, mb: transferMb }
  const down = await measureTransfers(network, origin, { ...plan, up: false })
  const up = await measureTransfers(network, origin, { ...plan, up: true })
  const small = await measureSmallFetches(network, origin, 1, 20, 2)
  return {
    down: down.afterFirstByte!.median,
    downWhole: down.mbPerSecond.median,
    up: up.mbPerSecond.median,
    firstByteMs: small.firstByteMs.p50,
  }
}

async function withNetwork<T>(network: Network, work: (network: Network) => Promise<T>): Promise<T> {
  try {
    return await work(network)
  } finally {
    await network.stop()
  }
}

async function delayedChain(options: DelayedOptions): Promise<Network> {
  const address = async (): Promise<string> => `127.0.0.1:${await freePort()}`
  const triple = async (): Promise<[string, string, string]> => [await address(), await address(), await address()]
  const dialled = await triple()
  const listen = await triple()
  const delays = await startDelays(
    options,
    dialled.map((near, i) => ({ dialled: near, target: listen[i]! })),
  )
  const chain = await chainNetwork({ listen, dialled })
  return {
    ...chain,
    async stop() {
      await chain.stop()
      await delays.stop()
    },
  }
}

/** What stands before a hop: the address that neighbours dial, and where it leads. */
export interface DelayedHop {
  readonly dialled: string
  readonly target: string
}

/** One process of delay proxies, a listener for each hop. */
export async function startDelays(options: Pick<DelayedOptions, 'delayMs' | 'heldBytes'>, hops: readonly DelayedHop[]): Promise<Program> {
  const pairs = hops.map((hop) => `${hop.dialled}=${hop.target}`)
  const program = Program.node(join(import.meta.dirname, 'delay-proxy.ts'), [String(options.delayMs), String(options.heldBytes), ...pairs])
  await program.waitFor(/^\[.*\]$/m, 15_000)
  return program
}
