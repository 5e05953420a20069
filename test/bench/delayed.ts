import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Control } from '../support/control.ts'
import { type ExtraNode, Program, startNode, startTestnet, temporaryFolder } from '../support/processes.ts'
import { splitAddress } from '../support/socks-client.ts'
import { chainNetwork, circuitOf, type Network } from './network.ts'
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
  readonly mesh: DelayedFigures
  readonly chain: DelayedFigures
}

/** MB of one transfer: long enough that the start does not count. */
const transferMb = 400

/** The mesh, and a plain chain of three TLS proxies, with the same delay on each of their three links. */
export async function measureDelayed(origin: Origin, options: DelayedOptions, say: (text: string) => void): Promise<DelayedResult> {
  say(`plain chain with ${options.delayMs} ms on every link`)
  const chain = await withNetwork(await delayedChain(options), (network) => figuresOf(network, origin, options))
  say(`mesh with ${options.delayMs} ms on every link`)
  const mesh = await withNetwork(await delayedMesh(options), (network) => figuresOf(network, origin, options))
  return { delayMs: options.delayMs, heldBytes: options.heldBytes, mesh, chain }
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

/**
 * A mesh whose nodes tell the others the address of a delay proxy before them, so that every link goes through one. The files of a testnet are
 * taken for it: its keys, its network's rules and its addresses.
 */
async function delayedMesh(options: DelayedOptions): Promise<Network> {
  const folder = temporaryFolder('delayed')
  const testnet = await startTestnet({ relays: 3, exits: 1, dir: folder.path })
  await testnet.stop()
  const servers = testnet.ready.nodes.filter((node) => node.address !== null)
  const hops = servers.map((node): DelayedHop => {
    const [host, port] = splitAddress(node.address!)
    return { dialled: `${host}:${port + 1}`, target: node.address! }
  })
  const networkFile = join(folder.path, 'network.toml')
  replaceInFile(networkFile, tcpAddress(hops[0]!.target), tcpAddress(hops[0]!.dialled))
  for (const [i, node] of testnet.ready.nodes.entries()) {
    for (const name of readdirSync(node.dir)) {
      if (name !== 'keys' && name !== 'shallot.toml') rmSync(join(node.dir, name), { recursive: true })
    }
    const hop = hops[i]
    if (hop) replaceInFile(join(node.dir, 'shallot.toml'), '[node]\n', `[node]\nadvertise = ["${tcpAddress(hop.dialled)}"]\n`)
  }

  const delays = await startDelays(options, hops)
  const nodes: ExtraNode[] = []
  const stop = async (): Promise<void> => {
    for (const node of nodes.toReversed()) await node.stop()
    await delays.stop()
    folder.remove()
  }
  try {
    for (const node of testnet.ready.nodes) nodes.push(await startNode(join(node.dir, 'shallot.toml')))
  } catch (error) {
    await stop()
    throw error
  }
  const client = nodes.at(-1)!
  const control = new Control(client.ready.control!, client.dir)
  return {
    name: 'mesh',
    socks: client.ready.socks!,
    control,
    allPids: nodes.map((node) => node.pid),
    async path(user) {
      const circuit = await circuitOf(control, client.ready.socks!, user)
      const pid = (hop: number): number => nodes.find((node) => node.ready.id === circuit.path[hop]!.id)!.pid
      return { client: client.pid, guard: pid(0), middle: pid(1), exit: pid(2) }
    },
    manyCircuits: async () => ({ socks: [client.ready.socks!], stop: async () => {} }),
    stop,
  }
}

function tcpAddress(address: string): string {
  const [host, port] = splitAddress(address)
  return `/ip4/${host}/tcp/${port}`
}

function replaceInFile(path: string, from: string, to: string): void {
  const text = readFileSync(path, 'utf8')
  if (!text.includes(from)) throw new Error(`${path} does not hold ${JSON.stringify(from)}`)
  writeFileSync(path, text.replace(from, to))
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
