import type { Connection, Libp2p } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { type Logger, type NodeId, sensitive } from '../base/index.ts'

/** Any answer, and be it that it is not spoken, is a sign of life. */
const PING_PROTOCOL = '/shallot/ping/1.0.0'
/** An answer may take this many times the round trip measured last. */
const ROUND_TRIPS = 4
/** A timer that fires later than this tells that this node stood still, and nothing of the peer. */
const LATE_MS = 250

/**
 * Asks a libp2p connection for a sign of life. False when none came in time, or it is over. It ends nothing by itself.
 * @param timeoutMs the least time for an answer: slow connections get four of their round trips
 */
export async function hasSignOfLife(connection: Connection, timeoutMs: number): Promise<boolean> {
  const abort = new AbortController()
  const wait = Math.max(timeoutMs, ROUND_TRIPS * (connection.rtt ?? 0))
  let timer: NodeJS.Timeout | undefined
  const arm = (ms: number): void => {
    const due = performance.now() + ms
    timer = setTimeout(() => {
      // What came in meanwhile has not been read yet.
      if (performance.now() - due > LATE_MS) arm(wait / 2)
      else abort.abort()
    }, ms)
  }
  arm(wait)
  try {
    const { signal } = abort
    const stream = await connection.newStream(PING_PROTOCOL, { signal, runOnLimitedConnection: true })
    stream.close({ signal: AbortSignal.timeout(wait) }).catch((error) => stream.abort(error))
    return true
  } catch {
    return !abort.signal.aborted && connection.status === 'open'
  } finally {
    clearTimeout(timer)
  }
}

/** Finds out which of a node's libp2p connections are dead, where there is a reason to think so, and ends those. */
export class ConnectionProbes {
  readonly #libp2p: Libp2p
  readonly #timeoutMs: number
  readonly #logger: Logger
  readonly #doubted: (peer: NodeId) => void
  readonly #asked: WeakSet<Connection> = new WeakSet()
  readonly #onOpen = ({ detail }: CustomEvent<Connection>): void => this.#opened(detail)

  /** @param doubted what else there is with the peer may be dead: another connection with it has come up, or was found dead */
  constructor(libp2p: Libp2p, timeoutMs: number, logger: Logger, doubted: (peer: NodeId) => void) {
    this.#libp2p = libp2p
    this.#timeoutMs = timeoutMs
    this.#logger = logger
    this.#doubted = doubted
  }

  start(): void {
    this.#libp2p.addEventListener('connection:open', this.#onOpen)
  }

  stop(): void {
    this.#libp2p.removeEventListener('connection:open', this.#onOpen)
  }

  /** Asks the connections with the peer, or all, and ends those that do not answer. */
  suspect(id: NodeId | null): void {
    for (const connection of this.#libp2p.getConnections(id === null ? undefined : peerIdFromString(id))) void this.ask(connection)
  }

  /** Asks one connection, which is ended when it does not answer. One question at a time. */
  async ask(connection: Connection): Promise<void> {
    if (connection.status !== 'open' || this.#asked.has(connection)) return
    this.#asked.add(connection)
    const isAlive = await hasSignOfLife(connection, this.#timeoutMs)
    this.#asked.delete(connection)
    if (isAlive || connection.status !== 'open') return
    this.#logger.debug('a libp2p connection gives no sign of life', { peer: sensitive(connection.remotePeer.toString()) })
    connection.abort(new Error('no sign of life'))
    this.#doubted(connection.remotePeer.toString() as NodeId)
  }

  /** Whoever makes another connection may have lost those that were there. */
  #opened(connection: Connection): void {
    for (const other of this.#libp2p.getConnections(connection.remotePeer)) if (other !== connection) void this.ask(other)
    this.#doubted(connection.remotePeer.toString() as NodeId)
  }
}
