import { type Logger, type NodeId, nodeKey } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import { ReadBuffers } from '../drive/index.ts'
import type { ByteMeter, CellChannel, ChannelDialer } from '../link/index.ts'
import { type BatchMemory, type CloseReason, createRelayCircuit, type OnionKeyring } from '../onion/index.ts'
import type { RelayingConfig } from './config.ts'
import type { ExitService } from './exit-service.ts'
import { type AdmissionRefusal, PeerQuota } from './peer-quota.ts'
import { ServedCircuit } from './served-circuit.ts'

/** What the engine asks of the node's view. */
export interface RelayDirectory {
  /**
   * Where a relay of the view is dialled (`dialAddresses`): its signed addresses, or the way through its NAT relays; null when it is not known.
   * Empty when it is known and there is no way to it but a link that stands.
   */
  addressesOf(id: NodeId): readonly string[] | null
}

export interface RelayEngineModules {
  readonly config: RelayingConfig
  readonly self: NodeId
  readonly suite: CryptoSuite
  readonly keyring: OnionKeyring
  readonly directory: RelayDirectory
  readonly dialer: ChannelDialer
  /** All bytes queued in channels of this node. */
  readonly meter: ByteMeter
  /** The link's memory of large batches. */
  readonly memory: BatchMemory
  /** Null where the node is no exit. */
  readonly exit: ExitService | null
  /** Whether peers that are no known relay may open circuits here: the role `guard`. */
  readonly servesClients: boolean
  readonly now: () => number
  readonly logger: Logger
}

/** Counters since the start; coarse, and of nobody in particular. */
export interface RelayStats {
  readonly circuits: number
  readonly circuitsServed: number
  readonly cellsRelayed: number
  readonly refused: Readonly<Record<string, number>>
  readonly closed: Readonly<Record<string, number>>
  readonly queuedBytes: number
  readonly queueBudgetBytes: number
  readonly maxCircuits: number
}

/** How often stalled circuits are looked for. */
const SWEEP_INTERVAL_MS = 1_000
/** A circuit that ends here, has no stream, and carried nothing for this long is not waited for by a relay that is leaving. */
const LEAVING_IDLE_MS = 5_000
/** Under pressure circuits are closed until this share of the budget is in use. */
const RELIEF_SHARE = 0.85

/** Serves circuits for others: admission, pumps, EXTEND, and the byte budget over all of them. */
export class RelayEngine {
  readonly #m: RelayEngineModules
  readonly #quota: PeerQuota
  readonly #circuits = new Set<ServedCircuit>()
  readonly #dirty = new Set<ServedCircuit>()
  readonly #sweep: NodeJS.Timeout
  readonly #selfKey: Uint8Array
  readonly #buffers = new ReadBuffers()
  readonly #release = (bytes: Uint8Array): void => this.#buffers.release(bytes)
  /** While leaving: since when (monotonic ms) circuits that end here carry nothing. */
  readonly #emptySince = new WeakMap<ServedCircuit, number>()
  readonly #refused: Record<string, number> = {}
  readonly #closed: Record<string, number> = {}
  #flushing = false
  #refusing: 'leaving' | 'shutting-down' | null = null
  #served = 0
  #cells = 0

  constructor(modules: RelayEngineModules) {
    this.#m = modules
    this.#selfKey = nodeKey(modules.self)
    this.#quota = new PeerQuota(modules.config, modules.now())
    this.#sweep = setInterval(() => {
      this.#closeStalled()
      if (this.#refusing === 'leaving') this.#closeEmpty()
    }, SWEEP_INTERVAL_MS)
    this.#sweep.unref()
  }

  /** Takes a channel that a peer opened, or refuses it. The link's acceptor. */
  accept(channel: CellChannel): boolean {
    const { config, directory, exit, servesClients, suite, keyring, now, logger } = this.#m
    const isRelay = directory.addressesOf(channel.peer) !== null
    const refusal: AdmissionRefusal | 'leaving' | 'shutting-down' | 'unknown-peer' | null =
      this.#refusing ??
      (!isRelay && !servesClients ? 'unknown-peer' : this.#quota.admit(channel.peer, isRelay, channel.remoteAddress, now()))
    if (refusal !== null) {
      this.#refused[refusal] = (this.#refused[refusal] ?? 0) + 1
      logger.debug('channel refused', { reason: refusal })
      return false
    }
    // Nothing leaves here for a peer that is not in the view: an exit is no open one-hop proxy.
    const servesExit = exit !== null && isRelay
    const circuit = new ServedCircuit({
      machine: createRelayCircuit({
        suite,
        keyring,
        self: this.#selfKey,
        previous: nodeKey(channel.peer),
        servesExit,
        memory: this.#m.memory,
        release: this.#release,
        openedAt: now(),
      }),
      memory: this.#m.memory,
      buffers: this.#buffers,
      client: channel,
      dialer: this.#m.dialer,
      directory,
      exit: servesExit ? exit : null,
      extendTimeoutMs: config.extendTimeoutMs,
      now,
      logger,
      schedule: (dirty) => this.#schedule(dirty),
      count: (cells) => {
        this.#cells += cells
        if (this.#m.meter.total > config.queueBudgetBytes) this.#relieve()
      },
      closed: (ended, reason) => {
        this.#circuits.delete(ended)
        this.#dirty.delete(ended)
        this.#closed[reason] = (this.#closed[reason] ?? 0) + 1
        this.#quota.release(channel.peer, isRelay, channel.remoteAddress, now())
      },
    })
    this.#circuits.add(circuit)
    this.#served++
    return true
  }

  /** The configuration has other values now. Limits are looked at each time; rates are told. */
  reconfigure(): void {
    this.#quota.reconfigure(this.#m.now())
  }

  stats(): RelayStats {
    return {
      circuits: this.#circuits.size,
      circuitsServed: this.#served,
      cellsRelayed: this.#cells,
      refused: { ...this.#refused },
      closed: { ...this.#closed },
      queuedBytes: this.#m.meter.total,
      queueBudgetBytes: this.#m.config.queueBudgetBytes,
      maxCircuits: this.#m.config.maxCircuits,
    }
  }

  /** Takes no new circuits from now on; those there are go on, but for the ones that end here and carry nothing. */
  leave(): void {
    this.#refusing ??= 'leaving'
  }

  /** Circuits of now. */
  get circuits(): number {
    return this.#circuits.size
  }

  /** Takes no new circuits and closes those there are. */
  stop(reason: CloseReason = 'shutting-down'): void {
    this.#refusing = 'shutting-down'
    clearInterval(this.#sweep)
    for (const circuit of [...this.#circuits]) circuit.close(reason)
  }

  #schedule(circuit: ServedCircuit): void {
    this.#dirty.add(circuit)
    if (this.#flushing) return
    this.#flushing = true
    setImmediate(() => {
      this.#flushing = false
      const dirty = [...this.#dirty]
      this.#dirty.clear()
      for (const one of dirty) one.flush()
    })
  }

  /** Beyond the byte budget: the circuits with the oldest queued data go first, until there is room again. */
  #relieve(): void {
    const { config, meter, logger } = this.#m
    const oldest = [...this.#circuits]
      .map((circuit) => ({ circuit, since: circuit.queuedSince }))
      .filter((entry): entry is { circuit: ServedCircuit; since: number } => entry.since !== null)
      .sort((a, b) => a.since - b.since)
    let closed = 0
    for (const { circuit } of oldest) {
      if (meter.total <= config.queueBudgetBytes * RELIEF_SHARE) break
      circuit.abort('overloaded')
      closed++
    }
    logger.warn('byte budget reached: circuits closed', { closed, queueBudgetBytes: config.queueBudgetBytes })
  }

  #closeStalled(): void {
    const { config, meter, now } = this.#m
    const pressed = meter.total > config.queueBudgetBytes / 2
    const before = now() - (pressed ? config.pressedStallTimeoutMs : config.stallTimeoutMs)
    for (const circuit of [...this.#circuits]) {
      const since = circuit.queuedSince
      if (since !== null && since < before) circuit.abort('timeout')
    }
  }

  /** Leaving: a circuit whose last hop is here and that has no stream is only kept ready by somebody. Whether one that goes on has any, nobody can see. */
  #closeEmpty(): void {
    const now = this.#m.now()
    for (const circuit of [...this.#circuits]) {
      if (circuit.state !== 'open' || circuit.openStreams > 0) this.#emptySince.set(circuit, now)
      else if (now - (this.#emptySince.get(circuit) ?? circuit.openedAt) > LEAVING_IDLE_MS) circuit.close('shutting-down')
    }
  }
}
