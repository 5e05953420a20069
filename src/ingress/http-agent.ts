import type { AgentOptions, ClientRequest, ClientRequestArgs } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Target } from '../onion/index.ts'

// Not `import`: docs/decisions/2026-11-20-memory-of-a-node.md
const { Agent } = process.getBuiltinModule('node:http')

/** What a request through the agent carries beside node:http's own options. */
export interface CircuitRequestArgs extends ClientRequestArgs {
  readonly target: Target
  readonly isolation: string
  /** Ends the opening of the stream; not the request. */
  readonly opening: AbortSignal
}

export interface CircuitAgentOptions {
  readonly open: (target: Target, isolation: string, signal: AbortSignal) => Promise<Duplex>
  /** How long an idle stream is kept. */
  readonly idleTimeoutMs: number
  /** Idle streams kept at once. */
  readonly maxIdle: number
}

/** Keeps streams to servers for the next request with the same target and isolation key. */
export class CircuitAgent extends Agent {
  readonly #options: CircuitAgentOptions
  readonly #idle = new Map<Duplex, NodeJS.Timeout>()
  /** Streams that have been idle before: their end is listened to already. */
  readonly #known = new WeakSet<Duplex>()

  constructor(options: CircuitAgentOptions) {
    super({ keepAlive: true, scheduling: 'lifo', maxFreeSockets: Math.max(1, options.maxIdle) } satisfies AgentOptions)
    this.#options = options
  }

  get idle(): number {
    return this.#idle.size
  }

  override getName(options?: unknown): string {
    const { target, isolation } = options as CircuitRequestArgs
    return `${isolation} ${target.host} ${target.port}`
  }

  override createConnection(options: ClientRequestArgs, callback?: (error: Error | null, stream: Duplex) => void): undefined {
    const { target, isolation, opening } = options as CircuitRequestArgs
    this.#options.open(target, isolation, opening).then(
      (stream) => callback?.(null, likeSocket(stream)),
      (error: Error) => callback?.(error, undefined as unknown as Duplex),
    )
  }

  override keepSocketAlive(stream: Duplex): boolean {
    if (this.#idle.size >= this.#options.maxIdle) return false
    const timer = setTimeout(() => stream.destroy(), this.#options.idleTimeoutMs)
    this.#idle.set(stream, timer)
    if (!this.#known.has(stream)) stream.once('close', () => this.#take(stream))
    this.#known.add(stream)
    return true
  }

  override reuseSocket(stream: Duplex, request: ClientRequest): void {
    this.#take(stream)
    super.reuseSocket(stream, request)
  }

  /** Closes the idle streams of a target: after one of them turned out to be stale, the others are under suspicion. */
  dropIdle(options: CircuitRequestArgs): void {
    for (const stream of this.freeSockets[this.getName(options)] ?? []) stream.destroy()
  }

  #take(stream: Duplex): void {
    clearTimeout(this.#idle.get(stream))
    this.#idle.delete(stream)
  }
}

/** node:http calls these on what it takes for a TCP socket; on a stream of a circuit they mean nothing. */
const socketMethods = ['ref', 'unref', 'setKeepAlive', 'setNoDelay', 'setTimeout'] as const

function likeSocket(stream: Duplex): Duplex {
  for (const method of socketMethods) {
    if (!(method in stream)) Object.defineProperty(stream, method, { value: () => stream })
  }
  return stream
}
