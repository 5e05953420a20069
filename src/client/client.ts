import { isIpText, type Logger, messageOf, type NodeId, parseIp } from '../base/index.ts'
import type { ResolveAnswer, Target } from '../onion/index.ts'
import type { CircuitPurpose } from '../path/index.ts'
import type { CircuitPool } from './circuit-pool.ts'
import type { CircuitStream } from './circuit-stream.ts'
import type { ClientConfig } from './config.ts'
import type { OwnCircuit } from './own-circuit.ts'
import type { PooledCircuit } from './pooled-circuit.ts'
import type { ClientService, DatagramAssociation, PacketLease, StreamOptions } from './service.ts'
import { StreamError } from './stream-error.ts'

export interface ClientModules {
  readonly config: ClientConfig
  readonly pool: CircuitPool
  readonly logger: Logger
}

/** Failures at one exit that another exit may not have: tried again elsewhere, but not often, since they are usually the server's. */
const ELSEWHERE_ATTEMPTS = 2

/** Opens streams, questions and associations on the pool's circuits, and tries again before the application sees a failure where it may. */
export class Client implements ClientService {
  readonly #m: ClientModules
  readonly #stopped = new AbortController()
  #opened = 0
  #failed = 0

  constructor(modules: ClientModules) {
    this.#m = modules
  }

  get counts(): { readonly opened: number; readonly failed: number } {
    return { opened: this.#opened, failed: this.#failed }
  }

  async connect(target: Target, options: StreamOptions): Promise<{ stream: CircuitStream; address: string | null }> {
    const family = isIpText(target.host) ? parseIp(target.host).family : null
    return this.#attempt({ purpose: 'streams', port: target.port, family }, options, (circuit, signal) => circuit.connect(target, signal))
  }

  async resolve(name: string, options: StreamOptions): Promise<readonly ResolveAnswer[]> {
    return this.#attempt({ purpose: 'streams', port: null, family: null }, options, (circuit, signal) => circuit.resolve(name, signal))
  }

  async openDatagrams(
    options: StreamOptions,
    receive: (from: Target, bytes: Uint8Array) => void,
    closed: () => void,
  ): Promise<DatagramAssociation> {
    return this.#attempt({ purpose: 'datagrams', port: null, family: null }, options, async (circuit) =>
      circuit.openDatagrams(receive, closed),
    )
  }

  async connectResolver(options: StreamOptions): Promise<{ stream: CircuitStream }> {
    return this.#attempt({ purpose: 'streams', port: null, family: null }, options, (circuit, signal) => circuit.connectResolver(signal))
  }

  async openPackets(options: StreamOptions): Promise<PacketLease> {
    return this.#attempt({ purpose: 'packets', port: null, family: null }, options, (circuit, signal) => circuit.openPackets(signal))
  }

  stop(): void {
    this.#stopped.abort()
  }

  /** No application byte has left before the promise of `use` resolves, so every failure of it may be tried again. */
  async #attempt<T>(
    wanted: { purpose: CircuitPurpose; port: number | null; family: 4 | 6 | null },
    options: StreamOptions,
    use: (circuit: OwnCircuit, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { config, pool, logger } = this.#m
    const excludeExits = new Set<NodeId>()
    const given = [this.#stopped.signal, ...(options.signal ? [options.signal] : [])]
    let elsewhere = 0
    let failure = new StreamError('no-circuit')
    for (let attempt = 0; attempt < config.connectAttempts; attempt++) {
      const signal = AbortSignal.any(given)
      let entry: PooledCircuit
      try {
        const wait = AbortSignal.any([...given, AbortSignal.timeout(config.circuitWaitMs)])
        entry = await pool.acquire({ ...wanted, isolation: options.isolation, excludeExits }, wait)
      } catch (error) {
        this.#failed++
        if (signal.aborted) throw new StreamError('aborted')
        // What an exit said tells more than that there is no other exit to ask.
        throw failure.reason === 'no-circuit' && error instanceof StreamError ? error : failure
      }
      const { circuit } = entry
      if (!circuit) continue
      try {
        const result = await use(circuit, signal)
        pool.noteUse(entry, true)
        this.#opened++
        return result
      } catch (error) {
        failure = error instanceof StreamError ? error : new StreamError('internal', messageOf(error))
        logger.debug('request failed on a circuit', { circuit: entry.id, reason: failure.reason })
        if (failure.reason !== 'circuit-lost' && failure.reason !== 'aborted') pool.noteUse(entry, true)
        if (isOfServer(failure) && ++elsewhere >= ELSEWHERE_ATTEMPTS) break
        if (!mayRetry(failure)) break
        if (failure.reason !== 'circuit-lost') excludeExits.add(entry.choice.path[2])
      }
    }
    this.#failed++
    throw failure
  }
}

/** What usually lies with the server, but may lie with this exit's way to it. */
function isOfServer({ reason }: StreamError): boolean {
  return reason === 'unreachable' || reason === 'resolve-failed' || reason === 'timeout'
}

/** A server that refused or reset is not asked again; whatever lies with a circuit or an exit is tried elsewhere. */
function mayRetry({ reason }: StreamError): boolean {
  return reason !== 'refused' && reason !== 'reset' && reason !== 'done' && reason !== 'aborted' && reason !== 'no-circuit'
}
