import type { Duplex } from 'node:stream'
import {
  formatIp,
  type Host,
  type IpAddress,
  type Logger,
  MalformedError,
  messageOf,
  parseHost,
  sensitive,
  TokenBucket,
} from '../base/index.ts'
import type { PolicySummary } from '../directory/index.ts'
import type { EndReason, ResolveAnswer, Target } from '../onion/index.ts'
import { type DatagramPort, type ExitCircuit, type ExitPacketLease, ExitRefusal, type ExitService, endReasonOf } from '../relaying/index.ts'
import type { ExitBackend, ExitSocket } from './backend.ts'
import type { ExitConfig } from './config.ts'
import { dialFirst, dialOrder } from './dial.ts'
import { type DatagramCounts, ExitDatagrams } from './exit-datagrams.ts'
import { hasGlobalIpv6 } from './own-addresses.ts'
import { ExitPolicy } from './policy.ts'
import type { Resolver } from './resolver.ts'
import { ByteRate, ThrottledSocket } from './throttle.ts'

export interface ExitModules {
  readonly config: ExitConfig
  readonly backend: ExitBackend
  readonly resolver: Resolver
  /** Networks that may be reached although they are private, by the network's rules. */
  readonly privateDestinations: readonly string[]
  readonly isRelayAddress: (ip: IpAddress) => boolean
  readonly isOwnAddress: (ip: IpAddress) => boolean
  /** Monotonic milliseconds. */
  readonly now: () => number
  readonly logger: Logger
}

/** What an exit has done, without a word of where to. */
export interface ExitCounts {
  readonly circuits: number
  readonly streams: number
  readonly associations: number
  /** Streams opened since the start. */
  readonly opened: number
  /** Streams, resolutions and associations not served, by reason. */
  readonly refused: Readonly<Partial<Record<EndReason, number>>>
  readonly bytesFromServers: number
  readonly bytesToServers: number
  readonly datagrams: Readonly<DatagramCounts>
}

export interface Exit extends ExitService {
  /** For the descriptor. */
  summary(): PolicySummary
  readonly counts: ExitCounts
  /** Resets every stream and closes every association. */
  close(): void
}

/** An exit: policy, names, policy again, then the backend; with limits per circuit and in all. @throws MalformedError for an unsound policy */
export function createExitService(modules: ExitModules): Exit {
  return new ExitEngine(modules)
}

/** What the circuits of an exit share. */
class ExitEngine implements Exit {
  readonly m: ExitModules
  readonly policy: ExitPolicy
  readonly rate: ByteRate
  readonly datagrams: DatagramCounts = { sent: 0, received: 0, dropped: 0 }
  readonly circuits = new Set<Circuit>()
  streams = 0
  associations = 0
  opened = 0
  readonly refused: Partial<Record<EndReason, number>> = {}
  bytesFromServers = 0
  bytesToServers = 0
  #sweeper: NodeJS.Timeout | undefined

  constructor(modules: ExitModules) {
    this.m = modules
    const { config, privateDestinations, isOwnAddress, isRelayAddress, now } = modules
    const families = servedFamilies(config, privateDestinations)
    this.policy = new ExitPolicy({ lines: config.policy, privateDestinations, families, isOwnAddress, isRelayAddress })
    this.rate = new ByteRate(config.rateBytesPerSecond, now)
  }

  openCircuit(): ExitCircuit {
    const circuit = new Circuit(this)
    this.circuits.add(circuit)
    this.#sweeper ??= this.#startSweeper()
    return circuit
  }

  forget(circuit: Circuit): void {
    this.circuits.delete(circuit)
    if (this.circuits.size > 0) return
    clearInterval(this.#sweeper)
    this.#sweeper = undefined
  }

  summary(): PolicySummary {
    return this.policy.summary()
  }

  get counts(): ExitCounts {
    let { bytesFromServers, bytesToServers } = this
    for (const circuit of this.circuits) {
      for (const socket of circuit.sockets.keys()) {
        bytesFromServers += socket.bytesRead
        bytesToServers += socket.bytesWritten
      }
    }
    return {
      circuits: this.circuits.size,
      streams: this.streams,
      associations: this.associations,
      opened: this.opened,
      refused: { ...this.refused },
      bytesFromServers,
      bytesToServers,
      datagrams: { ...this.datagrams },
    }
  }

  close(): void {
    for (const circuit of this.circuits) circuit.close()
  }

  /** Counts a refusal and gives it back, to be thrown. */
  count(refusal: ExitRefusal): ExitRefusal {
    this.refused[refusal.reason] = (this.refused[refusal.reason] ?? 0) + 1
    return refusal
  }

  #startSweeper(): NodeJS.Timeout {
    const { streamIdleTimeoutMs, udpIdleTimeoutMs } = this.m.config
    const every = Math.min(60_000, Math.max(10, Math.min(streamIdleTimeoutMs, udpIdleTimeoutMs) / 4))
    const timer = setInterval(() => {
      const now = this.m.now()
      for (const circuit of this.circuits) circuit.sweep(now)
    }, every)
    return timer.unref()
  }
}

/** What was seen of a socket at the last sweep that saw it move. */
interface Progress {
  bytes: number
  at: number
}

class Circuit implements ExitCircuit {
  readonly sockets = new Map<ExitSocket, Progress>()
  readonly #exit: ExitEngine
  readonly #associations = new Set<ExitDatagrams>()
  readonly #rate: ByteRate
  readonly #connects: TokenBucket | null
  readonly #over = new AbortController()
  /** Connecting and connected. */
  #streams = 0
  #resolving = 0

  constructor(exit: ExitEngine) {
    this.#exit = exit
    const { config, now } = exit.m
    this.#rate = new ByteRate(config.rateBytesPerSecondPerCircuit, now)
    this.#connects = config.connectsPerSecond === 0 ? null : new TokenBucket(config.connectsPerSecond, config.connectBurst, now())
  }

  async connect(target: Target, signal: AbortSignal): Promise<{ socket: Duplex; address: string }> {
    this.#checkLimits()
    this.#streams++
    this.#exit.streams++
    const given = (): void => {
      this.#streams--
      this.#exit.streams--
    }
    try {
      const { socket, address } = await this.#within(this.#exit.m.config.connectTimeoutMs, signal, (within) => this.#dial(target, within))
      this.#keep(socket, given)
      this.#exit.opened++
      const rates = [this.#rate, this.#exit.rate].filter((rate) => rate.limited)
      return { socket: rates.length === 0 ? socket : new ThrottledSocket(socket, rates), address: formatIp(address) }
    } catch (error) {
      given()
      throw this.#refusal(error, signal)
    }
  }

  async resolve(name: string, signal: AbortSignal): Promise<readonly ResolveAnswer[]> {
    const { config } = this.#exit.m
    if (this.#resolving >= config.maxResolvesPerCircuit)
      throw this.#exit.count(new ExitRefusal('resource-limit', 'too many names at once on the circuit'))
    this.#resolving++
    try {
      return await this.#within(config.resolveTimeoutMs, signal, (within) => this.#answers(readHost(name), within))
    } catch (error) {
      throw this.#refusal(error, signal)
    } finally {
      this.#resolving--
    }
  }

  openDatagrams(receive: (from: Target, bytes: Uint8Array) => void): DatagramPort {
    const { config, backend, resolver, now } = this.#exit.m
    const full = this.#associations.size >= config.maxAssociationsPerCircuit || this.#exit.associations >= config.maxAssociations
    if (full || this.#over.signal.aborted) throw this.#exit.count(new ExitRefusal('resource-limit', 'too many UDP associations'))
    const association: ExitDatagrams = new ExitDatagrams({
      config,
      backend,
      resolver,
      policy: this.#exit.policy,
      rates: [this.#rate, this.#exit.rate].filter((rate) => rate.limited),
      counts: this.#exit.datagrams,
      receive,
      closed: () => {
        this.#associations.delete(association)
        this.#exit.associations--
      },
      now,
    })
    this.#associations.add(association)
    this.#exit.associations++
    return association
  }

  connectResolver(): Duplex {
    throw this.#exit.count(new ExitRefusal('not-exit', 'not served'))
  }

  async openPackets(): Promise<ExitPacketLease> {
    throw this.#exit.count(new ExitRefusal('not-exit', 'not served'))
  }

  close(): void {
    if (this.#over.signal.aborted) return
    this.#over.abort(new ExitRefusal('internal', 'the circuit is over'))
    for (const socket of this.sockets.keys()) socket.resetAndDestroy()
    for (const association of this.#associations) association.close()
    this.#exit.forget(this)
  }

  /** Ends what has not moved for too long. */
  sweep(now: number): void {
    for (const [socket, progress] of this.sockets) {
      const bytes = socket.bytesRead + socket.bytesWritten
      if (bytes !== progress.bytes) {
        progress.bytes = bytes
        progress.at = now
      } else if (now - progress.at >= this.#exit.m.config.streamIdleTimeoutMs) {
        socket.destroy(new ExitRefusal('timeout', 'nothing moved for too long'))
      }
    }
    for (const association of this.#associations) association.sweep(now)
  }

  #checkLimits(): void {
    const { config, now } = this.#exit.m
    const refuse = (why: string): never => {
      throw this.#exit.count(new ExitRefusal('resource-limit', why))
    }
    if (this.#over.signal.aborted) throw this.#over.signal.reason
    if (this.#streams >= config.maxStreamsPerCircuit) refuse('too many streams on the circuit')
    if (this.#exit.streams >= config.maxStreams) refuse('too many streams')
    if (this.#connects && !this.#connects.take(1, now())) refuse('too many new streams a second on the circuit')
  }

  async #dial(target: Target, signal: AbortSignal): Promise<{ readonly socket: ExitSocket; readonly address: IpAddress }> {
    const { backend, config } = this.#exit.m
    const { port } = target
    const addresses = await this.#allowedAddresses(readHost(target.host), port, signal)
    return dialFirst(dialOrder(addresses, config.maxAddresses), (address, own) => backend.connect({ address, port }, own), config, signal)
  }

  /** Policy before resolution (port, literal address) and after it (each address). @throws ExitRefusal */
  async #allowedAddresses(host: Host, port: number, signal: AbortSignal): Promise<readonly IpAddress[]> {
    const { policy, m } = this.#exit
    if (port < 1 || port > 65_535) throw new ExitRefusal('policy', 'no such port')
    if (host.type === 'ip') {
      const verdict = policy.check(host.ip, port)
      if (!verdict.allowed) throw new ExitRefusal('policy', verdict.rule)
      return [host.ip]
    }
    const early = policy.checkPort(port)
    if (!early.allowed) throw new ExitRefusal('policy', early.rule)
    const { value } = await m.resolver.addresses(host.text, signal)
    const verdicts = value.map((address) => ({ address, ...policy.check(address, port) }))
    const allowed = verdicts.filter((verdict) => verdict.allowed)
    if (allowed.length === 0) throw new ExitRefusal('policy', `no address of the name is allowed: ${verdicts[0]?.rule}`)
    return allowed.map(({ address }) => address)
  }

  /** Private addresses and their names are as little told as they are connected to. */
  async #answers(host: Host, signal: AbortSignal): Promise<readonly ResolveAnswer[]> {
    const { policy, m } = this.#exit
    if (host.type === 'ip') {
      const verdict = policy.checkAddress(host.ip)
      if (!verdict.allowed) throw new ExitRefusal('policy', verdict.rule)
      const { value, ttlSeconds } = await m.resolver.names(host.ip, signal)
      return value.slice(0, m.config.maxAddresses).map((name) => ({ type: 'name', value: name, ttlSeconds }))
    }
    const { value, ttlSeconds } = await m.resolver.addresses(host.text, signal)
    const allowed = value.filter((address) => policy.checkAddress(address).allowed)
    if (allowed.length === 0) throw new ExitRefusal('policy', 'no address of the name is public')
    return allowed.slice(0, m.config.maxAddresses).map((address) => ({ type: 'address', value: formatIp(address), ttlSeconds }))
  }

  #keep(socket: ExitSocket, given: () => void): void {
    if (this.#over.signal.aborted) {
      socket.resetAndDestroy()
      throw this.#over.signal.reason
    }
    if (socket.destroyed) throw new ExitRefusal('reset', 'the connection was lost at once')
    this.sockets.set(socket, { bytes: 0, at: this.#exit.m.now() })
    socket.once('close', () => {
      this.sockets.delete(socket)
      this.#exit.bytesFromServers += socket.bytesRead
      this.#exit.bytesToServers += socket.bytesWritten
      given()
    })
  }

  /** Runs a step that ends with the asker, the circuit or its time, whichever is first. */
  async #within<T>(timeoutMs: number, signal: AbortSignal, step: (within: AbortSignal) => Promise<T>): Promise<T> {
    const abort = new AbortController()
    const slow = setTimeout(() => abort.abort(new ExitRefusal('timeout', 'it took too long')), timeoutMs)
    const over = (): void => abort.abort(new ExitRefusal('internal', 'given up'))
    const enders = [signal, this.#over.signal]
    for (const ender of enders) {
      if (ender.aborted) over()
      ender.addEventListener('abort', over, { once: true })
    }
    try {
      abort.signal.throwIfAborted()
      return await step(abort.signal)
    } finally {
      clearTimeout(slow)
      for (const ender of enders) ender.removeEventListener('abort', over)
    }
  }

  #refusal(error: unknown, signal: AbortSignal): ExitRefusal {
    const refusal = error instanceof ExitRefusal ? error : new ExitRefusal(endReasonOf(error), messageOf(error), error)
    // Who gave up needs no answer, and it is nobody's refusal.
    if (signal.aborted || this.#over.signal.aborted) return refusal
    if (refusal.reason === 'internal') this.#exit.m.logger.warn('a stream failed unexpectedly', { error: sensitive(messageOf(error)) })
    return this.#exit.count(refusal)
  }
}

/** @throws ExitRefusal */
function readHost(text: string): Host {
  try {
    return parseHost(text)
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error
    throw new ExitRefusal('resolve-failed', error.message, error)
  }
}

function servedFamilies(config: ExitConfig, privateDestinations: readonly string[]): readonly (4 | 6)[] {
  switch (config.families) {
    case 'ipv4':
      return [4]
    case 'ipv6':
      return [6]
    case 'both':
      return [4, 6]
    case 'auto':
      return hasGlobalIpv6() || privateDestinations.some((network) => network.includes(':')) ? [4, 6] : [4]
  }
}
