import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import type { CircuitFacts } from '../../src/node/node-control.ts'
import { certificateAuthority } from '../support/certificates.ts'
import { Control } from '../support/control.ts'
import {
  type ExtraNode,
  Program,
  startNode,
  startTestnet,
  type Testnet,
  type TestnetOptions,
  temporaryFolder,
  until,
  writeClientConfig,
} from '../support/processes.ts'
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
  /** The processes that streams of this SOCKS user go through. */
  path(user: string): Promise<Pids>
  /** SOCKS ports of clients that hold so many circuits between them, 250 each: more than a client holds without being told to. */
  manyCircuits(circuits: number): Promise<{ readonly socks: readonly string[]; stop(): Promise<void> }>
  stop(): Promise<void>
}

/** Below the limit that a relay sets for one client. */
const circuitsPerClient = 250

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
    async path(user) {
      const circuit = await circuitOf(control, testnet.ready.socks, user)
      const pid = (hop: number): number => testnet.node(circuit.path[hop]!.id).pid
      return { client: testnet.client.pid, guard: pid(0), middle: pid(1), exit: pid(2) }
    },
    async manyCircuits(circuits) {
      const folder = temporaryFolder('clients')
      const nodes: ExtraNode[] = []
      for (let i = 0; i * circuitsPerClient < circuits; i++) {
        const config = writeClientConfig(testnet, join(folder.path, `client${i}`), ['[path]', `max_circuits = ${circuitsPerClient + 50}`])
        nodes.push(await startNode(config))
      }
      return {
        socks: nodes.map((node) => node.ready.socks!),
        async stop() {
          await Promise.all(nodes.map((node) => node.stop()))
          folder.remove()
        },
      }
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

/** The circuit that a SOCKS user's streams take now: opens one to a server of its own, and looks. */
export async function circuitOf(control: Control, socks: string, user: string): Promise<CircuitFacts> {
  const server = createServer((socket) => socket.on('error', () => {}))
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  const socket = await socksConnect('127.0.0.1', port, { proxy: socks, user })
  socket.on('error', () => {})
  try {
    return await until('the stream and its circuit are listed', 5000, async () => {
      const stream = (await control.streams()).find((one) => one.target === `127.0.0.1:${port}` && one.circuit !== null)
      return stream && (await control.circuits()).find((circuit) => circuit.id === stream.circuit)
    })
  } finally {
    socket.destroy()
    server.close()
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
    manyCircuits: async () => ({ socks: [socks], stop: async () => {} }),
    async stop() {
      await Promise.all(programs.map((program) => program.stop()))
    },
  }
}
