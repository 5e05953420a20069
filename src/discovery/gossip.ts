import type { Connection, Stream } from '@libp2p/interface'
import {
  equalBytes,
  type Logger,
  MalformedError,
  messageOf,
  type NodeId,
  type Random,
  ShallotError,
  sensitive,
  TokenBucket,
} from '../base/index.ts'
import {
  type AddResult,
  decodeGossip,
  encodeGossip,
  GOSSIP_DESCRIPTORS_MAX,
  GOSSIP_FRAME_MAX,
  type GossipMessage,
  isMisbehaviour,
  type SignedDescriptor,
  type View,
} from '../directory/index.ts'
import type { Bans } from './bans.ts'
import { FrameStream } from './frames.ts'
import { type DiscoveryHost, libp2pAddresses, Peers } from './peers.ts'

export const GOSSIP_PROTOCOL = '/shallot/gossip/1'
/** Links that others opened to us (nodes behind NAT have no others than theirs), and peers that have not said hello yet. */
export const GOSSIP_INBOUND_MAX = 64
export const GOSSIP_GREETINGS_MAX = 32
/** Relays whose news wait for one link; the oldest is left to the pull protocol. */
export const GOSSIP_QUEUE_MAX = 1_024
/** Descriptors that are looked at, a second and at once, from all links together; links are read more slowly beyond it. */
export const GOSSIP_RATE = 300
export const GOSSIP_BURST = 3_000
/** Editions of one relay that are handed on: a second, and at once. Of what comes faster, the newest is, when its time has come. */
export const GOSSIP_EDITIONS_RATE = 1 / 20
export const GOSSIP_EDITIONS_BURST = 4
/** Relays whose editions are counted. */
export const GOSSIP_COUNTED_MAX = 4_096
const HELLO_WAIT_MS = 10_000
/** Relays whose news a fresh link is told as well, if they are this young: what was on its way while links changed hands must not be lost. */
export const GOSSIP_RECENT_MAX = 256
const RECENT_MS = 30_000
/** News are gathered for this long before they are sent. */
const GATHER_MS = 20
const RETRY_MS = 200
/** How often missing links are looked for. */
const LINK_CHECK_MS = 500

export interface GossipOptions {
  /** Links that this node opens. */
  readonly links: number
  readonly rotateMs: number
}

export interface GossipModules {
  readonly host: DiscoveryHost
  readonly peers: Peers
  readonly view: View
  readonly self: NodeId
  /** The own descriptor, or null while there is none: then nobody is spoken to. */
  readonly own: () => SignedDescriptor | null
  readonly bans: Bans
  readonly random: Random
  readonly logger: Logger
  readonly now: () => number
}

interface Link {
  readonly peer: NodeId
  readonly frames: FrameStream
  readonly isOurs: boolean
  /** Relays whose newest edition the peer is to be told. */
  readonly queue: Set<NodeId>
}

/**
 * Hands fresh descriptors on among serving nodes: a flood over a few links, in which each node passes on what is new to it, once it has
 * found it valid. Who wants to take part shows its own valid descriptor first. Why not gossipsub: docs/decisions/2026-11-20-gossip.md
 */
export class Gossip {
  readonly #options: GossipOptions
  readonly #modules: GossipModules
  readonly #links = new Map<NodeId, Link>()
  readonly #opening = new Set<NodeId>()
  readonly #editions = new Map<NodeId, TokenBucket>()
  /** When relays had their last news, oldest first. */
  readonly #recent = new Map<NodeId, number>()
  /** Relays with a newer edition than may be handed on yet, and whom it came from. */
  readonly #late = new Map<NodeId, NodeId | null>()
  readonly #budget: TokenBucket
  #greetings = 0
  #closing = new AbortController()
  #flushTimer: NodeJS.Timeout | null = null
  #checkTimer: NodeJS.Timeout | null = null
  #rotateAt = 0

  constructor(options: GossipOptions, modules: GossipModules) {
    this.#options = options
    this.#modules = modules
    this.#budget = new TokenBucket(GOSSIP_RATE, GOSSIP_BURST, modules.now())
  }

  get links(): readonly NodeId[] {
    return [...this.#links.keys()]
  }

  async start(): Promise<void> {
    this.#closing = new AbortController()
    await this.#modules.host.handle(GOSSIP_PROTOCOL, (stream, connection) => this.#accept(stream, connection), {
      maxInboundStreams: 2,
      maxOutboundStreams: 2,
    })
    this.#rotateAt = this.#modules.now() + this.#options.rotateMs
    this.#checkTimer = setInterval(() => {
      this.#check()
      this.#spreadLate()
    }, LINK_CHECK_MS)
    this.#check()
  }

  async stop(): Promise<void> {
    this.#closing.abort(new Error('shutting down'))
    if (this.#checkTimer) clearInterval(this.#checkTimer)
    if (this.#flushTimer) clearTimeout(this.#flushTimer)
    this.#checkTimer = this.#flushTimer = null
    for (const link of this.#links.values()) link.frames.close()
    this.#links.clear()
    await this.#modules.host.unhandle(GOSSIP_PROTOCOL)
  }

  /** Hands the relay's newest edition to all links but the one it came from. */
  spread(id: NodeId, from: NodeId | null = null): void {
    if (!this.#modules.view.isKnown(id)) return
    if (this.#mayHandOn(id)) {
      this.#late.delete(id)
      this.#handOn(id, from)
      return
    }
    // A node whose NAT changes has a few editions in a row, and the last one tells where it is.
    this.#late.set(id, from)
    const oldest = this.#late.size > GOSSIP_COUNTED_MAX ? this.#late.keys().next().value : undefined
    if (oldest !== undefined) this.#late.delete(oldest)
  }

  #spreadLate(): void {
    for (const [id, from] of this.#late) {
      if (!this.#mayHandOn(id)) continue
      this.#late.delete(id)
      if (this.#modules.view.isKnown(id)) this.#handOn(id, from)
    }
  }

  #handOn(id: NodeId, from: NodeId | null): void {
    this.#recent.delete(id)
    this.#recent.set(id, this.#modules.now())
    const oldest = this.#recent.size > GOSSIP_RECENT_MAX ? this.#recent.keys().next().value : undefined
    if (oldest !== undefined) this.#recent.delete(oldest)
    for (const link of this.#links.values()) {
      if (link.peer === from || link.peer === id) continue
      link.queue.delete(id)
      link.queue.add(id)
      const oldest = link.queue.size > GOSSIP_QUEUE_MAX ? link.queue.values().next().value : undefined
      if (oldest !== undefined) link.queue.delete(oldest)
    }
    this.#flushSoon(GATHER_MS)
  }

  /** Looks at once whether links are missing. */
  check(): void {
    this.#check()
  }

  #mayHandOn(id: NodeId): boolean {
    const now = this.#modules.now()
    const editions = this.#editions.get(id) ?? new TokenBucket(GOSSIP_EDITIONS_RATE, GOSSIP_EDITIONS_BURST, now)
    this.#editions.delete(id)
    this.#editions.set(id, editions)
    const oldest = this.#editions.size > GOSSIP_COUNTED_MAX ? this.#editions.keys().next().value : undefined
    if (oldest !== undefined) this.#editions.delete(oldest)
    return editions.take(1, now)
  }

  #flushSoon(delayMs: number): void {
    if (this.#flushTimer || this.#closing.signal.aborted) return
    this.#flushTimer = setTimeout(() => {
      this.#flushTimer = null
      this.#flush()
    }, delayMs)
  }

  #flush(): void {
    let isWaiting = false
    for (const link of this.#links.values()) {
      while (link.queue.size > 0 && link.frames.isWritable) this.#sendNews(link)
      if (link.queue.size > 0) isWaiting = true
    }
    if (isWaiting) this.#flushSoon(RETRY_MS)
  }

  #sendNews(link: Link): void {
    const descriptors: Uint8Array[] = []
    for (const id of link.queue) {
      if (descriptors.length === GOSSIP_DESCRIPTORS_MAX) break
      link.queue.delete(id)
      const entry = this.#modules.view.get(id)
      if (entry?.tier === 'known') descriptors.push(entry.signed.bytes)
    }
    if (descriptors.length > 0) link.frames.send(encodeGossip({ type: 'descriptors', descriptors }))
  }

  // --- links

  #check(): void {
    if (this.#closing.signal.aborted || !this.#modules.own()) return
    const ours = [...this.#links.values()].filter((link) => link.isOurs)
    const now = this.#modules.now()
    let missing = this.#options.links - ours.length - this.#opening.size
    // All relays but ourselves that there is no link with, whoever opened it.
    const candidates = this.#modules.view.relays().length - 1 - this.#links.size - this.#opening.size
    if (candidates <= 0) return
    if (missing <= 0 && now >= this.#rotateAt && ours.length > 0) {
      this.#rotateAt = now + this.#options.rotateMs
      this.#drop(ours[this.#modules.random.int(ours.length)]!)
      missing = 1
    }
    for (let i = 0; i < missing; i++) {
      const id = this.#draw()
      if (id) this.#open(id)
    }
  }

  /** A random known relay there is no link with. */
  #draw(): NodeId | null {
    const { view, self, bans, random, now } = this.#modules
    const relays = view.relays()
    // A few tries: with thousands of relays nearly all fit, and with few they come round again.
    for (let tries = 0; tries < 8 && relays.length > 0; tries++) {
      const { id, descriptor } = relays[random.int(relays.length)]!
      const isFree = id !== self && !this.#links.has(id) && !this.#opening.has(id)
      if (isFree && !bans.has(id, now()) && libp2pAddresses(descriptor).length > 0) return id
    }
    return null
  }

  #open(id: NodeId): void {
    const entry = this.#modules.view.get(id)
    if (!entry) return
    this.#opening.add(id)
    const source = { id, addresses: libp2pAddresses(entry.descriptor) }
    this.#modules.peers
      .openStream(source, GOSSIP_PROTOCOL, this.#closing.signal)
      .then((stream) => this.#run(id, new FrameStream(stream, GOSSIP_FRAME_MAX), true))
      .catch((error) => {
        this.#modules.bans.pause(id, this.#modules.now())
        this.#modules.logger.debug('a gossip link could not be opened', { peer: sensitive(id), problem: messageOf(error) })
      })
      .finally(() => this.#opening.delete(id))
  }

  #accept(stream: Stream, connection: Connection): void {
    const id = Peers.idOf(connection)
    const inbound = [...this.#links.values()].filter((link) => !link.isOurs).length
    const { bans, own, now } = this.#modules
    if (id === null || !own() || bans.isBanned(id, now()) || inbound >= GOSSIP_INBOUND_MAX || this.#greetings >= GOSSIP_GREETINGS_MAX) {
      stream.abort(new Error('no room for another gossip link'))
      return
    }
    this.#greetings++
    void this.#run(id, new FrameStream(stream, GOSSIP_FRAME_MAX), false).finally(() => this.#greetings--)
  }

  /** Greets, and when the peer has shown who it is, lets the link live on its own. */
  async #run(id: NodeId, frames: FrameStream, isOurs: boolean): Promise<void> {
    try {
      await this.#greet(id, frames)
    } catch (error) {
      frames.abort()
      this.#failed(id, error)
      return
    }
    const existing = this.#links.get(id)
    if (existing) {
      // Both opened one: the one that the lower id opened stays, on both sides.
      const ourStays = this.#modules.self < id
      if (isOurs !== ourStays && existing.isOurs === ourStays && existing.frames.isOpen) return frames.close()
      this.#drop(existing)
    }
    const link: Link = { peer: id, frames, isOurs, queue: new Set(this.#recentNews(id)) }
    this.#links.set(id, link)
    this.#flushSoon(GATHER_MS)
    void this.#read(link)
  }

  #recentNews(peer: NodeId): NodeId[] {
    const since = this.#modules.now() - RECENT_MS
    return [...this.#recent].filter(([id, at]) => id !== peer && at >= since).map(([id]) => id)
  }

  async #greet(id: NodeId, frames: FrameStream): Promise<void> {
    const { view, own, now } = this.#modules
    const mine = own()
    if (!mine) throw new ShallotError('no-descriptor', 'there is no own descriptor to greet with', { kind: 'process', retry: 'later' })
    frames.send(encodeGossip({ type: 'hello', networkId: view.networkId, descriptor: mine.bytes }))
    const hello = await this.#next(frames, AbortSignal.any([this.#closing.signal, AbortSignal.timeout(HELLO_WAIT_MS)]))
    if (hello?.type !== 'hello') throw new MalformedError('gossip', 'does not begin with a hello')
    if (!equalBytes(hello.networkId, view.networkId)) throw new MalformedError('gossip', 'is of another network')
    this.#take(view.add(hello.descriptor, now(), id), id)
    if (!view.isKnown(id)) throw new ShallotError('peer-not-known', 'the peer is no known relay', { kind: 'peer', retry: 'later' })
  }

  async #read(link: Link): Promise<void> {
    const { view, now } = this.#modules
    try {
      for (;;) {
        const message = await this.#next(link.frames, this.#closing.signal)
        if (!message) break
        if (message.type !== 'descriptors') throw new MalformedError('gossip', 'greets twice')
        for (const bytes of message.descriptors) this.#take(view.add(bytes, now()), link.peer)
        const wait = this.#budget.spend(message.descriptors.length, now())
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait))
      }
    } catch (error) {
      this.#failed(link.peer, error)
      link.frames.abort()
    }
    this.#drop(link)
  }

  async #next(frames: FrameStream, signal: AbortSignal): Promise<GossipMessage | null> {
    const frame = await frames.read(signal)
    return frame && decodeGossip(frame)
  }

  /** What a peer handed on: new things go further, invalid ones end the link. @throws MalformedError */
  #take(result: AddResult, from: NodeId): void {
    if (result.type === 'added' || result.type === 'replaced') this.spread(result.entry.id, from)
    else if (result.type === 'duplicate') this.#links.get(from)?.queue.delete(result.entry.id)
    else if (result.type === 'refused' && isMisbehaviour(result.reason))
      throw new MalformedError('gossip', `has an invalid descriptor: ${result.detail}`)
  }

  #failed(id: NodeId, error: unknown): void {
    const { bans, logger, now } = this.#modules
    if (error instanceof MalformedError) {
      bans.ban(id, now())
      logger.warn('a gossip peer broke the protocol', { peer: sensitive(id), problem: error.message })
    } else if (!this.#closing.signal.aborted) {
      logger.debug('a gossip link ended', { peer: sensitive(id), problem: messageOf(error) })
    }
  }

  #drop(link: Link): void {
    link.frames.close()
    if (this.#links.get(link.peer) === link) this.#links.delete(link.peer)
  }
}
