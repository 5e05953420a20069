import type { Connection } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { type Logger, messageOf, type NodeId, type Random, ShallotError } from '../../base/index.ts'
import { type Host, hasSignOfLife } from '../../link/index.ts'
import type { ReservationFacts } from '../facts.ts'
import { chooseRelay, type RelayCandidate } from './choose-relays.ts'
import type { ReservationsConfig } from './config.ts'
import { readMessage, writeMessage } from './handshake.ts'
import { decodeHop, encodeHop, HOP_PROTOCOL, STATUS, statusName } from './messages.ts'
import { RelayMemory } from './relay-memory.ts'
import { StopService } from './stop-service.ts'
import { isOwnConnection, type RelayTransport } from './transport.ts'

export interface ReservationsModules {
  readonly host: Pick<Host, 'id' | 'libp2p' | 'tag' | 'untag'>
  readonly transport: RelayTransport
  /** Relays of the view, as they are now: see `relayCandidates`. */
  readonly candidates: () => readonly RelayCandidate[]
  /** Whether the view has been brought up to date; the first relay is not drawn from one that has barely begun. Without it, at once. */
  readonly isViewReady?: () => boolean
  /** Relays of an earlier life, the best first: they are taken again when they can be. */
  readonly preferred?: readonly NodeId[]
  readonly random: Random
  readonly logger: Logger
  /** Monotonic ms, and wall-clock ms. */
  readonly now: () => number
  readonly wall: () => number
}

/** A relay in front of this node. */
interface Held {
  readonly candidate: RelayCandidate
  readonly connection: Connection
  /** Wall-clock ms. */
  readonly since: number
  expiresAt: number
  /** Monotonic ms. */
  renewAt: number
  probeAt: number
  isBusy: boolean
}

/** A place that was granted, until when (wall-clock ms), and over which connection. */
interface Reserved {
  readonly connection: Connection
  readonly expiresAt: number
}

interface Attempt {
  readonly candidate: RelayCandidate
  readonly startedAt: number
  readonly abort: AbortController
}

/** How often is looked for what is due, while relays are missing and while none is. */
const HURRIED_MS = 100
const CALM_MS = 1000
/**
 * So long a young view is given to become a choice: nodes that start at the same time would all take the one relay that is known then, and no circuit goes
 * through two nodes behind the same relay.
 */
const YOUNG_VIEW_MS = 4_000
/** Attempts beside each other, for each relay that is wanted. */
const ATTEMPTS_PER_RELAY = 3
/** A reservation is taken to last between these, whatever the relay's clock says: clocks differ. */
const SHORTEST_MS = 60_000
const LONGEST_MS = 24 * 3_600_000
/** After a renewal that failed. */
const RENEW_RETRY_MS = 30_000
/** A relay that is lost so soon has failed. */
const FLAP_MS = 30_000
/** A connection that was there may be dead: it is given this long for an answer before another one is made. */
const REUSE_MS = 1_000
/** After a relay has given no sign of life no connection is used that was there before. */
const DOUBT_MS = 5_000

/**
 * Keeps a node behind NAT reachable: reservations with a few relays of the view, drawn at random by weight and diverse, kept for as long as they last, renewed,
 * and replaced as soon as one is lost. Inert until `start`; connections that the relays bring are taken from then on.
 */
export class Reservations {
  readonly #config: ReservationsConfig
  readonly #modules: ReservationsModules
  readonly #memory: RelayMemory
  readonly #stopService: StopService
  readonly #held = new Map<NodeId, Held>()
  readonly #attempts = new Map<NodeId, Attempt>()
  readonly #listeners = new Set<(relays: NodeId[]) => void>()
  #preferred: readonly NodeId[]
  #closing: AbortController | null = null
  #timer: NodeJS.Timeout | null = null
  #told = ''
  /** Monotonic ms: when a relay last gave no sign of life. */
  #silentAt = Number.NEGATIVE_INFINITY
  /** Monotonic ms: a young view is not waited for longer. */
  #patientUntil = Number.NEGATIVE_INFINITY
  readonly #onConnectionClose = (event: CustomEvent<Connection>): void => this.#closed(event.detail)

  constructor(config: ReservationsConfig, modules: ReservationsModules) {
    const { host, transport, logger, now } = modules
    this.#config = config
    this.#modules = modules
    this.#memory = new RelayMemory(config, modules.random)
    this.#preferred = modules.preferred ?? []
    const mayBring = (relay: NodeId): boolean => this.#held.has(relay) || this.#attempts.has(relay)
    this.#stopService = new StopService(config, { host, transport, mayBring, logger, now })
  }

  /** Begins to look for relays. */
  async start(): Promise<void> {
    if (this.#closing !== null) return
    this.#closing = new AbortController()
    this.#modules.host.libp2p.addEventListener('connection:close', this.#onConnectionClose)
    await this.#stopService.start()
    this.#patientUntil = this.#modules.now() + YOUNG_VIEW_MS
    this.#turn()
  }

  /** Gives up all reservations; connections through the relays end. */
  async stop(): Promise<void> {
    if (this.#closing === null) return
    this.#closing.abort(new Error('stopping'))
    this.#closing = null
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#modules.host.libp2p.removeEventListener('connection:close', this.#onConnectionClose)
    await this.#stopService.stop()
    this.#drop()
    this.#tell()
  }

  /** The relays in front of this node, the one held longest first. */
  current(): NodeId[] {
    return [...this.#held.keys()]
  }

  /** The same for status. */
  facts(): ReservationFacts[] {
    return [...this.#held].map(([relay, { since, expiresAt }]) => ({ relay, since, expiresAt }))
  }

  /** Connections that relays have brought and that are open. */
  get inbound(): number {
    return this.#stopService.open
  }

  /** Told whenever `current()` has changed. Returns what ends the telling. */
  onChange(listener: (relays: NodeId[]) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** The machine is somewhere else now: connections are of no more use, failures tell nothing any more. The same relays are asked first. */
  networkChanged(): void {
    if (this.#closing === null) return
    this.#preferred = [...this.current(), ...this.#preferred.filter((id) => !this.#held.has(id))]
    const connections = [...this.#held.values()].map(({ connection }) => connection)
    this.#drop()
    for (const connection of connections) connection.abort(new Error('the network has changed'))
    this.#memory.clear()
    this.#tell()
    this.#turn()
  }

  #drop(): void {
    for (const { abort } of this.#attempts.values()) abort.abort(new Error('not wanted any more'))
    this.#attempts.clear()
    for (const id of this.#held.keys()) this.#modules.host.untag(id)
    this.#held.clear()
  }

  // ---- what is due

  #turn(): void {
    if (this.#closing === null) return
    if (this.#timer !== null) clearTimeout(this.#timer)
    const now = this.#modules.now()
    for (const held of [...this.#held.values()]) {
      if (held.expiresAt <= this.#modules.wall()) this.#lose(held, 'its time is over')
      else if (held.isBusy) continue
      else if (held.renewAt <= now) void this.#renew(held)
      else if (held.probeAt <= now) void this.#probe(held)
    }
    const isHurried = this.#fill(now)
    const due = Math.min(...[...this.#held.values()].map(({ isBusy, probeAt }) => (isBusy ? Number.POSITIVE_INFINITY : probeAt - now)))
    this.#timer = setTimeout(() => this.#turn(), isHurried ? HURRIED_MS : Math.max(HURRIED_MS, Math.min(CALM_MS, due)))
    this.#timer.unref()
  }

  /** Asks further relays when some are missing. Returns whether answers are awaited. */
  #fill(now: number): boolean {
    const { relays, nextAfterMs } = this.#config
    const missing = relays - this.#held.size
    if (missing <= 0) return false
    const awaited = [...this.#attempts.values()].filter(({ startedAt }) => now - startedAt < nextAfterMs).length
    let wanted = Math.min(missing - awaited, relays * ATTEMPTS_PER_RELAY - this.#attempts.size)
    if (wanted <= 0) return true
    const candidates = this.#modules.candidates()
    if (now < this.#patientUntil && !this.#isChoice(candidates)) return true
    this.#patientUntil = Number.NEGATIVE_INFINITY
    const isUsable = (id: NodeId): boolean => this.#memory.isUsable(id, this.#held.size === 0, now)
    while (wanted-- > 0) {
      const taken = [...this.#held.values(), ...this.#attempts.values()].map(({ candidate }) => candidate)
      const candidate = chooseRelay({ candidates, taken, preferred: this.#preferred, isUsable }, this.#modules.random)
      if (candidate === null) break
      void this.#attempt(candidate, now)
    }
    return this.#attempts.size > 0
  }

  /** Whether drawing is worth it: more relays are known than wanted, or it is known which ones to come back to. */
  #isChoice(candidates: readonly RelayCandidate[]): boolean {
    const { isViewReady } = this.#modules
    if (isViewReady === undefined || this.#preferred.length > 0) return true
    return isViewReady() && candidates.length > this.#config.relays
  }

  async #attempt(candidate: RelayCandidate, now: number): Promise<void> {
    const attempt: Attempt = { candidate, startedAt: now, abort: new AbortController() }
    const { id } = candidate
    this.#attempts.set(id, attempt)
    const signal = AbortSignal.any([attempt.abort.signal, AbortSignal.timeout(this.#config.attemptTimeoutMs)])
    try {
      // When one has just died, the others are likely to be dead as well.
      const isDoubtful = now - this.#silentAt < DOUBT_MS
      const before = isDoubtful ? null : this.#connectionWith(id)
      const { connection, expiresAt } = (before && (await this.#reuse(before, signal))) ?? (await this.#reserveAnew(candidate, signal))
      if (attempt.abort.signal.aborted || !isOwnConnection(connection)) throw lost()
      this.#attempts.delete(id)
      this.#memory.succeed(id)
      // Others may have been quicker; then this one's place lapses by itself.
      if (this.#held.size < this.#config.relays) this.#hold(candidate, connection, expiresAt)
      else if (connection !== before) await connection.close().catch(() => {})
    } catch (error) {
      if (attempt.abort.signal.aborted) return
      this.#attempts.delete(id)
      this.#memory.fail(id, isRefusal(error), this.#modules.now())
      this.#modules.logger.debug('a relay gave no reservation', { why: messageOf(error) })
      this.#turn()
    }
  }

  #hold(candidate: RelayCandidate, connection: Connection, expiresAt: number): void {
    const { now, wall, host, logger } = this.#modules
    const held: Held = {
      candidate,
      connection,
      since: wall(),
      expiresAt,
      renewAt: this.#renewAt(expiresAt),
      probeAt: now() + this.#config.probeMs,
      isBusy: false,
    }
    this.#held.set(candidate.id, held)
    host.tag(candidate.id)
    this.#preferred = [candidate.id, ...this.#preferred.filter((id) => id !== candidate.id)].slice(0, this.#config.relays * 2)
    logger.info('reachable through a relay', { relays: this.#held.size })
    this.#tell()
  }

  async #renew(held: Held): Promise<void> {
    held.isBusy = true
    try {
      held.expiresAt = await this.#reserve(held.connection, AbortSignal.timeout(this.#config.attemptTimeoutMs))
      held.renewAt = this.#renewAt(held.expiresAt)
    } catch (error) {
      held.renewAt = this.#modules.now() + RENEW_RETRY_MS
      if (isRefusal(error) && this.#held.get(held.candidate.id) === held) {
        this.#memory.fail(held.candidate.id, true, this.#modules.now())
        this.#lose(held, 'it was not renewed')
      }
    }
    held.isBusy = false
  }

  async #probe(held: Held): Promise<void> {
    held.isBusy = true
    const { connection } = held
    const isAlive = await hasSignOfLife(connection, this.#config.probeTimeoutMs)
    if (!isAlive && connection.status === 'open') {
      this.#silentAt = this.#modules.now()
      connection.abort(new Error('no sign of life'))
    }
    held.isBusy = false
    held.probeAt = this.#modules.now() + this.#config.probeMs
  }

  #closed(connection: Connection): void {
    for (const held of this.#held.values()) {
      if (held.connection.id !== connection.id) continue
      this.#lose(held, 'the connection has ended')
      return
    }
  }

  #lose(held: Held, why: string): void {
    const { id } = held.candidate
    if (this.#held.get(id) !== held) return
    this.#held.delete(id)
    this.#modules.host.untag(id)
    // The first to be asked again: it may have been the way to it, and not the relay, that failed.
    if (this.#modules.wall() - held.since < FLAP_MS) this.#memory.fail(id, false, this.#modules.now())
    this.#modules.logger.info('a relay in front of this node was lost', { why, relays: this.#held.size })
    this.#tell()
    this.#turn()
  }

  #tell(): void {
    const relays = this.current()
    const text = relays.join(' ')
    if (text === this.#told) return
    this.#told = text
    for (const listener of [...this.#listeners]) listener(relays)
  }

  // ---- with a relay

  #connectionWith(id: NodeId): Connection | null {
    return this.#modules.host.libp2p.getConnections(peerIdFromString(id)).find(isOwnConnection) ?? null
  }

  /** Asks over a connection that is there; null when it does not answer soon: it may be dead. @throws ShallotError 'relay-refused' */
  async #reuse(connection: Connection, signal: AbortSignal): Promise<Reserved | null> {
    const patience = AbortSignal.any([signal, AbortSignal.timeout(REUSE_MS)])
    try {
      return { connection, expiresAt: await this.#reserve(connection, patience) }
    } catch (error) {
      if (signal.aborted || isRefusal(error)) throw error
      return null
    }
  }

  async #reserveAnew({ id, addresses }: RelayCandidate, signal: AbortSignal): Promise<Reserved> {
    const targets = addresses.map((text) => multiaddr(`${text}/p2p/${id}`))
    const connection = await this.#modules.host.libp2p.dial(targets, { signal, force: true })
    return { connection, expiresAt: await this.#reserve(connection, signal) }
  }

  /** Asks for a place, or for more time. Returns until when, wall-clock ms. @throws ShallotError 'relay-refused', 'stream-lost' */
  async #reserve(connection: Connection, signal: AbortSignal): Promise<number> {
    const stream = await connection.newStream(HOP_PROTOCOL, { signal })
    try {
      writeMessage(stream, encodeHop({ type: 'reserve' }))
      const answer = decodeHop(await readMessage(stream, signal))
      if (answer.type !== 'status' || answer.status !== STATUS.ok || answer.reservation === null) {
        throw new ShallotError('relay-refused', `the relay refused: ${statusName(answer.status)}`, { kind: 'link', retry: 'elsewhere' })
      }
      stream.close({ signal }).catch((error) => stream.abort(error))
      // Where the relay says it is does not count: that is in its descriptor.
      const wall = this.#modules.wall()
      return wall + Math.min(LONGEST_MS, Math.max(SHORTEST_MS, answer.reservation.expiresAt * 1000 - wall))
    } catch (error) {
      stream.abort(error as Error)
      throw error
    }
  }

  /** At about half of its time. */
  #renewAt(expiresAt: number): number {
    const { now, wall, random } = this.#modules
    return now() + (expiresAt - wall()) * (0.4 + 0.2 * random.unit())
  }
}

function isRefusal(error: unknown): boolean {
  return error instanceof ShallotError && error.code === 'relay-refused'
}

function lost(): ShallotError {
  return new ShallotError('stream-lost', 'the connection with the relay was lost', { kind: 'link', retry: 'later' })
}
