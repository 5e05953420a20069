import { join } from 'node:path'
import type { CircuitFacts } from '../../src/node/node-control.ts'
import { certificateAuthority } from '../support/certificates.ts'
import { Control } from '../support/control.ts'
import { Program, startTestnet, type Testnet, type TestnetOptions, until } from '../support/processes.ts'
import { socksConnect } from '../support/socks-client.ts'

export const positions = ['client', 'guard', 'middle', 'exit'] as const
export type Position = (typeof positions)[number]
export type Pids = Readonly<Record<Position, number>>

/** What is measured: a chain of four processes behind a SOCKS port. The mesh is one; a plain chain of TLS proxies is another. */
export interface Network {
  readonly name: 'mesh' | 'chain'
  /** "127.0.0.1:PORT" */
  readonly socks: string
  readonly control: Control | null
  readonly allPids: readonly number[]
  /** The processes that streams of this SOCKS user go through. `via` is an address that accepts connections. */
  path(user: string, via: string): Promise<Pids>
  stop(): Promise<void>
}

/** A testnet of separate processes. */
export async function meshNetwork(options: TestnetOptions): Promise<Network & { readonly testnet: Testnet }> {
  const testnet = await startTestnet(options)
  const control = controlOf(testnet)
  return {
    name: 'mesh',
    testnet,
    socks: testnet.ready.socks,
    control,
    allPids: testnet.ready.nodes.map((node) => node.pid),
    async path(user, via) {
      const circuit = await circuitOf(control, testnet.ready.socks, user, via)
      const pid = (hop: number): number => testnet.node(circuit.path[hop]!.id).pid
      return { client: testnet.client.pid, guard: pid(0), middle: pid(1), exit: pid(2) }
    },
    async stop() {
      await testnet.stop()
    },
  }
}

/** The control API of a testnet's client. */
export function controlOf(testnet: Testnet): Control {
  return new Control(testnet.ready.control, testnet.client.dir)
}

/** The circuit that a SOCKS user's streams take now: opens one to an address that accepts connections, and looks. */
export async function circuitOf(control: Control, socks: string, user: string, via: string): Promise<CircuitFacts> {
  const before = new Set((await control.streams()).map((stream) => stream.id))
  const [host, port] = [via.slice(0, via.lastIndexOf(':')), Number(via.slice(via.lastIndexOf(':') + 1))]
  const socket = await socksConnect(host, port, { proxy: socks, user })
  socket.on('error', () => {})
  try {
    return await until('the stream and its circuit are listed', 5000, async () => {
      const stream = (await control.streams()).find((one) => !before.has(one.id) && one.target === via && one.circuit !== null)
      return stream && (await control.circuits()).find((circuit) => circuit.id === stream.circuit)
    })
  } finally {
    socket.destroy()
  }
}

export interface ChainOptions {
  /** Addresses of guard, middle and exit that their neighbours dial, when something stands before them. */
  readonly listen?: readonly [string, string, string]
  readonly dialled?: readonly [string, string, string]
  readonly wrapper?: readonly string[]
}

/** A SOCKS front and three TLS proxies, each a process. */
export async function chainNetwork(options: ChainOptions = {}): Promise<Network> {
  const authority = certificateAuthority()
  const { certificate, key } = authority.issue('chain.test')
  const file = join(import.meta.dirname, 'tls-chain.ts')
  const programs: Program[] = []
  const start = async (role: string, listen: string, next?: string): Promise<string> => {
    const program = Program.node(file, [role, listen, ...(next ? [next] : [])], {
      env: { CHAIN_CERT: certificate, CHAIN_KEY: key },
      wrapper: options.wrapper,
    })
    programs.unshift(program)
    return (await program.waitFor(/^\S+:\d+$/m, 15_000))[0]
  }
  const listen = options.listen ?? ['127.0.0.1:0', '127.0.0.1:0', '127.0.0.1:0']
  const exit = await start('exit', listen[2])
  const middle = await start('hop', listen[1], options.dialled?.[2] ?? exit)
  const guard = await start('hop', listen[0], options.dialled?.[1] ?? middle)
  const socks = await start('front', '127.0.0.1:0', options.dialled?.[0] ?? guard)
  const pids = Object.fromEntries(positions.map((position, i) => [position, programs[i]!.pid])) as Pids
  return {
    name: 'chain',
    socks,
    control: null,
    allPids: Object.values(pids),
    path: async () => pids,
    async stop() {
      await Promise.all(programs.map((program) => program.stop()))
    },
  }
}
