import type { Duplex } from 'node:stream'
import { formatIp, type Host, type IpAddress, MalformedError, messageOf, parseHost, sensitive, TokenBucket } from '../base/index.ts'
import type { ResolveAnswer, Target } from '../onion/index.ts'
import { type DatagramPort, type ExitCircuit, type ExitPacketLease, ExitRefusal, endReasonOf } from '../relaying/index.ts'
import type { ExitSocket } from './backend.ts'
import { dialFirst, dialOrder } from './dial.ts'
import type { DnsCircuit } from './dns/forwarder.ts'
import type { ExitEngine } from './exit.ts'
import { ExitDatagrams } from './exit-datagrams.ts'
import { LeasedPort } from './leased-port.ts'
import type { PacketUse } from './packet-backend.ts'
import { ByteRate, ThrottledSocket } from './throttle.ts'

/** What was seen of a socket at the last sweep that saw it move. */
interface Progress {
  bytes: number
  at: number
}

/** One circuit at an exit: its limits, and everything that is open on it. */
export class Circuit implements ExitCircuit {
  readonly sockets = new Map<ExitSocket, Progress>()
  readonly #exit: ExitEngine
  readonly #associations = new Set<ExitDatagrams>()
  readonly #leases = new Set<LeasedPort>()
  #dns: DnsCircuit | null = null
  #rate!: ByteRate
  #connects!: TokenBucket | null
  readonly #over = new AbortController()
  /** Connecting and connected. */
  #streams = 0
  #resolving = 0
  #leasing = 0

  constructor(exit: ExitEngine) {
    this.#exit = exit
    this.reconfigure()
  }

  /** The rates are those of the configuration now, for what is opened from now on. */
  reconfigure(): void {
    const { config, now } = this.#exit.m
    this.#rate = new ByteRate(config.rateBytesPerSecondPerCircuit, now)
    this.#connects = config.connectsPerSecond === 0 ? null : new TokenBucket(config.connectsPerSecond, config.connectBurst, now())
  }

  async connect(target: Target, signal: AbortSignal): Promise<{ socket: Duplex; address: string }> {
    const { socket, address } = await this.#open(() => readHost(target.host), target.port, signal)
    return { socket, address: formatIp(address) }
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
      rates: this.#rates(),
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
    try {
      this.#over.signal.throwIfAborted()
      this.#dns ??= this.#exit.forwarder.openCircuit(this.#rates())
      return this.#dns.connect()
    } catch (error) {
      throw this.#refusal(error, this.#over.signal)
    }
  }

  async openPackets(mtu: number, signal: AbortSignal): Promise<ExitPacketLease> {
    const { config, packets } = this.#exit.m
    if (!packets || !this.#exit.servesPackets) throw this.#exit.count(new ExitRefusal('not-exit', 'raw packets are not served'))
    if (this.#leasing >= config.maxPacketLeasesPerCircuit || this.#exit.packetLeases >= config.maxPacketLeases)
      throw this.#exit.count(new ExitRefusal('resource-limit', 'too many packet leases'))
    this.#leasing++
    this.#exit.packetLeases++
    let port: LeasedPort | null = null
    const given = (): void => {
      if (port) this.#leases.delete(port)
      this.#leasing--
      this.#exit.packetLeases--
    }
    try {
      const lease = await this.#within(config.connectTimeoutMs, signal, (within) => packets.open(this.#packetUse, mtu, within))
      port = new LeasedPort(lease.port, given)
      this.#leases.add(port)
      // Whoever asked may be gone by now.
      if (this.#over.signal.aborted || signal.aborted) port.close()
      return { ...lease, port }
    } catch (error) {
      given()
      throw this.#refusal(error, signal)
    }
  }

  close(): void {
    if (this.#over.signal.aborted) return
    this.#over.abort(new ExitRefusal('internal', 'the circuit is over'))
    for (const socket of this.sockets.keys()) socket.resetAndDestroy()
    for (const association of this.#associations) association.close()
    for (const port of this.#leases) port.close()
    this.#dns?.close()
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

  /** Those that are any. */
  #rates(): readonly ByteRate[] {
    return [this.#rate, this.#exit.rate].filter((rate) => rate.limited)
  }

  /** What this circuit's raw packets come under: the same as its streams and datagrams. */
  readonly #packetUse: PacketUse = {
    allows: (address, port) => (port === null ? this.#exit.policy.checkAnyPort(address) : this.#exit.policy.check(address, port)).allowed,
    takeRate: (bytes) => this.#rates().every((rate) => rate.take(bytes)),
    connect: async ({ address, port }, signal) =>
      (await this.#open(() => ({ type: 'ip', ip: address, text: formatIp(address) }), port, signal)).socket,
    openDatagrams: (receive) => this.openDatagrams(receive),
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

  /** A stream under all rules and limits. */
  async #open(host: () => Host, port: number, signal: AbortSignal): Promise<{ readonly socket: Duplex; readonly address: IpAddress }> {
    this.#checkLimits()
    this.#streams++
    this.#exit.streams++
    const given = (): void => {
      this.#streams--
      this.#exit.streams--
    }
    try {
      const step = (within: AbortSignal) => this.#dial(host(), port, within)
      const { socket, address } = await this.#within(this.#exit.m.config.connectTimeoutMs, signal, step)
      this.#keep(socket, given)
      this.#exit.opened++
      const rates = this.#rates()
      return { socket: rates.length === 0 ? socket : new ThrottledSocket(socket, rates), address }
    } catch (error) {
      given()
      throw this.#refusal(error, signal)
    }
  }

  async #dial(host: Host, port: number, signal: AbortSignal): Promise<{ readonly socket: ExitSocket; readonly address: IpAddress }> {
    const { backend, config } = this.#exit.m
    const addresses = await this.#allowedAddresses(host, port, signal)
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
