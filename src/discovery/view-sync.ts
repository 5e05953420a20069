import type { Connection, Stream } from '@libp2p/interface'
import { type Logger, messageOf, type NodeId, type Random, sensitive } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import { type PullOutcome, SYNC_FRAME_MAX, SYNC_REQUEST_MAX, type View, ViewPuller, ViewServer } from '../directory/index.ts'
import { FrameStream } from './frames.ts'
import { type DiscoveryHost, type PeerSource, Peers } from './peers.ts'

export const VIEW_PROTOCOL = '/shallot/view/1'
/** Sessions served at the same time: in all, and for one peer. */
export const SERVED_SESSIONS_MAX = 64
export const SERVED_SESSIONS_PER_PEER_MAX = 2
/** Requests of one session, and how long the peer may wait before each. */
export const SERVED_REQUESTS_MAX = 4_096
const REQUEST_WAIT_MS = 15_000
const SERVED_SESSION_MS = 300_000

export interface ViewSyncModules {
  readonly host: DiscoveryHost
  readonly peers: Peers
  readonly view: View
  readonly suite: CryptoSuite
  readonly random: Random
  readonly logger: Logger
  /** Wall-clock ms. */
  readonly now: () => number
}

/** Carries the pull protocol over libp2p: asks, and (serving nodes) answers. */
export class ViewSync {
  readonly #modules: ViewSyncModules
  readonly #puller: ViewPuller
  readonly #server: ViewServer
  readonly #served = new Map<NodeId, number>()
  #serving = 0
  #closing: AbortController | null = null

  constructor(modules: ViewSyncModules) {
    this.#modules = modules
    this.#puller = new ViewPuller(modules.view, modules.suite, modules.random)
    this.#server = new ViewServer(modules.view, modules.now())
  }

  /** Answers requests from now on. Only serving nodes do: a client never offers the protocol. */
  async serve(): Promise<void> {
    this.#closing = new AbortController()
    await this.#modules.host.handle(VIEW_PROTOCOL, (stream, connection) => this.#accept(stream, connection), {
      maxInboundStreams: SERVED_SESSIONS_PER_PEER_MAX,
      maxOutboundStreams: 16,
    })
  }

  async stop(): Promise<void> {
    if (!this.#closing) return
    this.#closing.abort(new Error('shutting down'))
    this.#closing = null
    await this.#modules.host.unhandle(VIEW_PROTOCOL)
  }

  /** Pulls from one peer. Never throws: what failed is in the outcome. */
  async pull(source: PeerSource, options: { readonly ages: boolean }, signal: AbortSignal): Promise<PullOutcome> {
    const { now } = this.#modules
    const session = this.#puller.begin(source.id, options)
    let frames: FrameStream | null = null
    try {
      frames = new FrameStream(await this.#modules.peers.openStream(source, VIEW_PROTOCOL, signal), SYNC_FRAME_MAX)
      let output = session.start(now())
      while (output.type === 'send') {
        frames.send(output.frame)
        const wait = Math.max(0, (session.pollTimeout() ?? now()) - now())
        const timeout = AbortSignal.timeout(wait + 1)
        const answer = await frames.read(AbortSignal.any([signal, timeout])).catch((error) => {
          if (timeout.aborted) return 'timeout' as const
          throw error
        })
        if (answer === null) break
        output = answer === 'timeout' ? session.handleTimeout(session.pollTimeout() ?? now())! : session.handleAnswer(answer, now())
      }
      if (output.type === 'done') return this.#finished(source, output.outcome)
    } catch (error) {
      this.#modules.logger.debug('a pull of the view failed', { peer: sensitive(source.id), problem: messageOf(error) })
    } finally {
      frames?.close()
    }
    const lost = session.handleLost()
    return this.#finished(source, lost?.type === 'done' ? lost.outcome : lostOutcome)
  }

  #finished(source: PeerSource, outcome: PullOutcome): PullOutcome {
    if (outcome.end === 'violation') {
      this.#modules.logger.warn('a peer served what is not valid and is not asked again', {
        peer: sensitive(source.id),
        problem: outcome.detail,
      })
    }
    return outcome
  }

  #accept(stream: Stream, connection: Connection): void {
    const id = Peers.idOf(connection)
    const closing = this.#closing
    const mine = id === null ? 0 : (this.#served.get(id) ?? 0)
    if (id === null || !closing || this.#serving >= SERVED_SESSIONS_MAX || mine >= SERVED_SESSIONS_PER_PEER_MAX) {
      stream.abort(new Error('no room for another session'))
      return
    }
    const frames = new FrameStream(stream, SYNC_REQUEST_MAX)
    this.#serving++
    this.#served.set(id, mine + 1)
    this.#answer(id, frames, closing.signal)
      .catch((error) => {
        this.#modules.logger.debug('a peer that asked for the view went away', { problem: messageOf(error) })
        frames.abort()
      })
      .finally(() => {
        this.#serving--
        const left = (this.#served.get(id) ?? 1) - 1
        if (left > 0) this.#served.set(id, left)
        else this.#served.delete(id)
      })
  }

  async #answer(id: NodeId, frames: FrameStream, closing: AbortSignal): Promise<void> {
    const session = AbortSignal.any([closing, AbortSignal.timeout(SERVED_SESSION_MS)])
    for (let requests = 0; requests < SERVED_REQUESTS_MAX; requests++) {
      const request = await frames.read(AbortSignal.any([session, AbortSignal.timeout(REQUEST_WAIT_MS)]))
      if (request === null) break
      const { frame, keep } = this.#server.answer(id, request, this.#modules.now())
      frames.send(frame)
      if (!keep) break
      await frames.writable(session)
    }
    frames.close()
  }
}

const lostOutcome: PullOutcome = { end: 'lost', detail: '', same: false, relays: 0, added: 0, replaced: 0, useless: 0, requests: 0 }
