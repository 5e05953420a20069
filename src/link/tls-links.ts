import type { Socket } from 'node:net'
import { type Logger, messageOf, type NodeId, ShallotError, sensitive, TokenBucket } from '../base/index.ts'
import { BatchPool } from './batch-pool.ts'
import type { ByteMeter } from './byte-meter.ts'
import type { LinkCertificate } from './certificate.ts'
import type { ChannelAcceptor } from './channel.ts'
import type { LinkLimits } from './config.ts'
import { GoAwayReason } from './frames.ts'
import { Link, type LinkOrigin } from './link.ts'
import type { TlsChannel } from './tls-channel.ts'
import { readTls } from './tls-read.ts'
import { aborted, connectFailed, dialTls, type ProvenSocket, TlsAcceptor, wireOver } from './tls-sockets.ts'
import { Turns } from './turns.ts'

export interface TlsLinksOptions {
  readonly id: NodeId
  readonly certificate: LinkCertificate
  readonly limits: LinkLimits
  readonly meter: ByteMeter
  readonly logger: Logger
  /** The local address to dial a host from. */
  readonly outboundAddressFor: (host: string) => string | undefined
  /** Whether a peer that connects from there was being punched: for status only. */
  readonly expects?: (peer: NodeId, remoteAddress: string) => boolean
  /** Whether the node takes channels at all. */
  readonly acceptor: () => ChannelAcceptor | null
  /** As `LinkOptions.acceptMove`; null where no channels move. */
  readonly acceptMove?: (channel: TlsChannel, token: Uint8Array) => (() => void) | null
  /** A peer has owed a sign of life for so long that its other connections are in doubt too. */
  readonly doubted?: (peer: NodeId) => void
  /** Monotonic ms. */
  readonly now?: () => number
  readonly sweepMs?: number
  readonly pool?: BatchPool
}

/** Where to dial a direct link. */
export interface DirectAddress {
  readonly host: string
  readonly port: number
}

interface PendingDial {
  readonly promise: Promise<Link>
  readonly controller: AbortController
  waiting: number
}

const SWEEP_MS = 1000
/** How often is looked whether peers are still there. */
const ATTEND_MS = 250
/** A timer this late means that this node stood still. */
const LATE_MS = 500

/** All direct links of a node: dialled once and shared, accepted within limits, kept while they are of use. */
export class TlsLinks {
  readonly #options: TlsLinksOptions
  readonly #limits: LinkLimits
  readonly #now: () => number
  readonly #turns = new Turns()
  readonly #pool: BatchPool
  readonly #acceptor: TlsAcceptor
  readonly #links: Set<Link> = new Set()
  readonly #byPeer: Map<NodeId, Link[]> = new Map()
  readonly #dials: Map<NodeId, PendingDial> = new Map()
  readonly #handshakes: Set<Socket> = new Set()
  readonly #inboundByAddress: Map<string, number> = new Map()
  readonly #ratesByAddress: Map<string, TokenBucket> = new Map()
  readonly #listeners: Set<(link: Link) => void> = new Set()
  /** Links whose doubtfulness has been told. */
  readonly #doubted: WeakSet<Link> = new WeakSet()
  readonly #timer: NodeJS.Timeout
  #lookedAt: number
  #sweptAt: number
  #stopped = false

  constructor(options: TlsLinksOptions) {
    this.#options = options
    this.#limits = options.limits
    this.#pool = options.pool ?? new BatchPool()
    this.#now = options.now ?? (() => performance.now())
    this.#acceptor = new TlsAcceptor(
      options.certificate,
      options.limits.handshakeTimeoutMs,
      (proven) => this.#accepted(proven, this.#options.expects?.(proven.peer, proven.remoteAddress) === true ? 'punched' : 'accepted'),
      (why) => options.logger.debug('a direct link failed in its handshake', { why }),
    )
    this.#lookedAt = this.#now()
    this.#sweptAt = this.#lookedAt
    const sweepMs = options.sweepMs ?? SWEEP_MS
    this.#timer = setInterval(() => this.#look(sweepMs), Math.min(ATTEND_MS, sweepMs))
    this.#timer.unref()
  }

  get links(): ReadonlySet<Link> {
    return this.#links
  }

  /** A link to the peer that is up and takes another channel, or null. One of which there is reason to think that it is dead is none. */
  usable(id: NodeId): Link | null {
    for (const link of this.#byPeer.get(id) ?? []) if (link.isUsable && !link.isDoubtful) return link
    return null
  }

  /** Links that are asked for a sign of life now, and given up soon when none comes: those with the peer, or all. */
  suspect(id: NodeId | null): void {
    for (const link of id === null ? [...this.#links] : [...(this.#byPeer.get(id) ?? [])]) link.suspect()
  }

  /** Told of every link that comes up. Returns what ends the telling. */
  onUp(listener: (link: Link) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Makes sure of a link to the peer. @throws as `openChannel` does */
  async connect(id: NodeId, addresses: readonly DirectAddress[], signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw aborted()
    if (this.usable(id) === null) await this.#dialled(id, addresses, signal)
  }

  /**
   * A fresh channel to the peer, over a link that is up, one being dialled, or a new one.
   * @throws ShallotError 'connect-failed', 'identity-mismatch', 'link-limit', 'aborted'
   */
  async openChannel(id: NodeId, addresses: readonly DirectAddress[], signal: AbortSignal): Promise<TlsChannel> {
    if (signal.aborted) throw aborted()
    const ready = this.usable(id)
    if (ready !== null) return ready.open()
    const link = await this.#dialled(id, addresses, signal)
    if (!link.isUsable) throw connectFailed('the link ended as soon as it was up')
    return link.open()
  }

  /**
   * Makes a link of a connection that came up while both sides punched, as TLS client. The connection is ours from here on.
   * @throws as `openChannel` does
   */
  async connectOver(socket: Socket, id: NodeId, signal: AbortSignal): Promise<void> {
    const { handshakeTimeoutMs, maxLinks } = this.#limits
    if (this.#stopped || this.#links.size >= maxLinks) {
      socket.destroy()
      throw connectFailed('no more links are taken')
    }
    const { remoteAddress = '', remotePort = 0 } = socket
    const patience = AbortSignal.any([signal, AbortSignal.timeout(handshakeTimeoutMs)])
    this.#startHandshake(socket)
    const proven = await dialTls({ host: remoteAddress, port: remotePort, socket, id }, this.#options.certificate, patience)
    if (this.#stopped) proven.socket.destroy()
    else this.#start(proven, 'punched', true)
  }

  /** The same as TLS server; resolves when it is a link, and when it is gone: failed, given up, or because the peer proved to be another. */
  async acceptOver(socket: Socket, id: NodeId, signal: AbortSignal): Promise<void> {
    const { certificate, logger } = this.#options
    const done = Promise.withResolvers<void>()
    const onAbort = (): void => void socket.destroy()
    // Stays for good: a socket without a listener would throw.
    socket.on('error', () => {})
    socket.once('close', () => done.resolve())
    this.#startHandshake(socket)
    const acceptor = new TlsAcceptor(
      certificate,
      this.#limits.handshakeTimeoutMs,
      (proven) => {
        signal.removeEventListener('abort', onAbort)
        if (proven.peer === id) this.#accepted(proven, 'punched')
        else proven.socket.on('error', () => {}).destroy()
        done.resolve()
      },
      (why) => {
        logger.debug('a punched connection failed in its handshake', { why })
        done.resolve()
      },
    )
    acceptor.take(socket)
    signal.addEventListener('abort', onAbort, { once: true })
    await done.promise
    signal.removeEventListener('abort', onAbort)
  }

  /** An inbound connection whose first byte says that it is TLS. Refused by destroying it. */
  take(socket: Socket): void {
    const address = socket.remoteAddress ?? ''
    const refusal = this.#admission(address)
    if (refusal !== null) {
      this.#options.logger.debug('an inbound connection was refused', { why: refusal, address: sensitive(address) })
      socket.destroy()
      return
    }
    this.#startHandshake(socket)
    this.#inboundByAddress.set(address, (this.#inboundByAddress.get(address) ?? 0) + 1)
    socket.once('close', () => {
      const left = (this.#inboundByAddress.get(address) ?? 1) - 1
      if (left === 0) this.#inboundByAddress.delete(address)
      else this.#inboundByAddress.set(address, left)
    })
    this.#acceptor.take(socket)
  }

  #startHandshake(socket: Socket): void {
    this.#handshakes.add(socket)
    socket.once('close', () => this.#handshakes.delete(socket))
  }

  /** Ends every link and dial. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#timer)
    for (const dial of this.#dials.values()) dial.controller.abort()
    for (const socket of this.#handshakes) socket.destroy()
    const closed = [...this.#sockets].map((socket) => new Promise<void>((resolve) => socket.once('close', () => resolve())))
    for (const link of [...this.#links]) link.stop()
    await Promise.all(closed)
  }

  readonly #sockets: Set<Socket> = new Set()

  async #dialled(id: NodeId, addresses: readonly DirectAddress[], signal: AbortSignal): Promise<Link> {
    let dial = this.#dials.get(id)
    if (dial === undefined) {
      const controller = new AbortController()
      const timer = setTimeout(() => controller.abort(), this.#limits.connectTimeoutMs)
      const promise = this.#dial(id, addresses, controller.signal).finally(() => {
        clearTimeout(timer)
        this.#dials.delete(id)
      })
      promise.catch(() => {})
      dial = { promise, controller, waiting: 0 }
      this.#dials.set(id, dial)
    }
    const shared = dial
    shared.waiting++
    try {
      return await raceAbort(shared.promise, signal)
    } finally {
      shared.waiting--
      if (shared.waiting === 0) shared.controller.abort()
    }
  }

  async #dial(id: NodeId, addresses: readonly DirectAddress[], signal: AbortSignal): Promise<Link> {
    if (this.#stopped) throw aborted()
    if (this.#links.size >= this.#limits.maxLinks) {
      throw new ShallotError('link-limit', `${this.#limits.maxLinks} direct links are up, the most that limits.maxLinks allows`, {
        kind: 'link',
        retry: 'later',
      })
    }
    const proven = await this.#firstToAnswer(id, addresses, signal)
    return this.#start(proven, 'dialed', true)
  }

  /** Tries the addresses one after the other, the next when one fails or after a short wait beside it (as RFC 8305 §5 does). */
  #firstToAnswer(id: NodeId, addresses: readonly DirectAddress[], signal: AbortSignal): Promise<ProvenSocket> {
    return new Promise((resolve, reject) => {
      const losers = new AbortController()
      const both = AbortSignal.any([signal, losers.signal])
      let next = 0
      let running = 0
      let isDone = false
      let worst: ShallotError | null = null
      let timer: NodeJS.Timeout | undefined
      const attempt = (): void => {
        clearTimeout(timer)
        const address = addresses[next++]
        if (address === undefined || isDone) return
        if (next < addresses.length) timer = setTimeout(attempt, this.#limits.dialStaggerMs)
        running++
        const localAddress = this.#options.outboundAddressFor(address.host)
        dialTls({ host: address.host, port: address.port, localAddress, id }, this.#options.certificate, both).then(
          (proven) => {
            if (isDone) {
              proven.socket.destroy()
              return
            }
            isDone = true
            clearTimeout(timer)
            resolve(proven)
            losers.abort()
          },
          (error) => {
            running--
            const failure = error instanceof ShallotError ? error : connectFailed(messageOf(error), error)
            if (worst === null || failure.code === 'identity-mismatch') worst = failure
            if (isDone) return
            if (next < addresses.length && !signal.aborted) {
              attempt()
            } else if (running === 0) {
              isDone = true
              clearTimeout(timer)
              reject(signal.aborted ? connectFailed('no answer in time') : worst)
            }
          },
        )
      }
      if (addresses.length === 0) reject(connectFailed('it has no address for direct links'))
      attempt()
    })
  }

  #accepted(proven: ProvenSocket, origin: LinkOrigin): void {
    if (this.#stopped || this.#links.size >= this.#limits.maxLinks || !this.#hasRoomFor(proven.peer)) {
      this.#options.logger.debug('a direct link was refused: too many links')
      proven.socket.on('error', () => {})
      proven.socket.destroy()
      return
    }
    this.#start(proven, origin, false)
  }

  /** A peer that comes back while its old links have not been found dead takes the place of the one that has been silent longest. */
  #hasRoomFor(peer: NodeId): boolean {
    const links = this.#byPeer.get(peer) ?? []
    if (links.length < this.#limits.maxLinksPerPeer) return true
    const oldest = links.reduce((a, b) => (a.heardAt <= b.heardAt ? a : b))
    if (this.#now() - oldest.heardAt < REPLACEABLE_MS) return false
    oldest.stop('replaced by a newer one')
    return true
  }

  #start(proven: ProvenSocket, origin: LinkOrigin, isDialer: boolean): Link {
    const { socket, peer, remoteAddress } = proven
    const link: Link = new Link({
      peer,
      remoteAddress,
      origin,
      isDialer,
      limits: this.#limits,
      meter: this.#options.meter,
      turns: this.#turns,
      pool: this.#pool,
      now: this.#now,
      wire: wireOver(socket, () => link.written()),
      accept: (channel) => this.#acceptChannel(channel),
      acceptMove: (channel, token) => (this.#hasRoomForChannel(channel.peer) ? (this.#options.acceptMove?.(channel, token) ?? null) : null),
      ended: (ended, why) => this.#remove(ended, why),
    })
    this.#handshakes.delete(socket)
    this.#links.add(link)
    this.#sockets.add(socket)
    const links = this.#byPeer.get(peer)
    if (links === undefined) this.#byPeer.set(peer, [link])
    else links.push(link)
    readTls(socket, (chunk) => link.received(chunk))
    socket.once('error', (error) => link.closed(messageOf(error)))
    socket.on('error', () => {})
    socket.once('end', () => link.closed('the peer closed the connection'))
    socket.once('close', () => {
      this.#sockets.delete(socket)
      link.closed('the connection was closed')
    })
    if (this.#stopped) {
      link.stop()
      return link
    }
    // Whoever makes another one may have lost those that were there.
    for (const other of links ?? []) if (other !== link) other.suspect()
    for (const listener of this.#listeners) listener(link)
    return link
  }

  #acceptChannel(channel: TlsChannel): boolean {
    const acceptor = this.#options.acceptor()
    return acceptor !== null && this.#hasRoomForChannel(channel.peer) && acceptor(channel)
  }

  #hasRoomForChannel(peer: NodeId): boolean {
    let channels = 0
    for (const link of this.#byPeer.get(peer) ?? []) channels += link.channels
    return channels <= this.#limits.maxChannelsPerPeer
  }

  #remove(link: Link, why: string): void {
    this.#options.logger.debug('a direct link ended', { why, peer: sensitive(link.peer) })
    this.#links.delete(link)
    const left = (this.#byPeer.get(link.peer) ?? []).filter((other) => other !== link)
    if (left.length === 0) this.#byPeer.delete(link.peer)
    else this.#byPeer.set(link.peer, left)
  }

  /** Why an inbound connection is not taken, or null. */
  #admission(address: string): string | null {
    const { maxHandshakes, maxLinks, maxInboundPerAddress, inboundPerSecondPerAddress } = this.#limits
    if (this.#stopped) return 'stopping'
    if (this.#handshakes.size >= maxHandshakes) return 'too many handshakes'
    if (this.#links.size >= maxLinks) return 'too many links'
    if ((this.#inboundByAddress.get(address) ?? 0) >= maxInboundPerAddress) return 'too many connections of this address'
    const now = this.#now()
    let rate = this.#ratesByAddress.get(address)
    if (rate === undefined) {
      rate = new TokenBucket(inboundPerSecondPerAddress, 2 * inboundPerSecondPerAddress, now)
      if (this.#ratesByAddress.size < MAX_RATED_ADDRESSES) this.#ratesByAddress.set(address, rate)
    }
    return rate.take(1, now) ? null : 'too many connections a second of this address'
  }

  #ratesClearedAt = 0

  #look(sweepMs: number): void {
    const now = this.#now()
    const isLate = now - this.#lookedAt > ATTEND_MS + LATE_MS
    this.#lookedAt = now
    for (const link of [...this.#links]) {
      link.attend(now, isLate)
      if (!link.isDoubtful) {
        this.#doubted.delete(link)
      } else if (!this.#doubted.has(link)) {
        this.#doubted.add(link)
        this.#options.doubted?.(link.peer)
      }
    }
    if (now - this.#sweptAt < sweepMs) return
    this.#sweptAt = now
    this.#sweep(now)
  }

  #sweep(now: number): void {
    this.#pool.trim()
    for (const link of [...this.#links]) link.sweep(now)
    const idle = [...this.#links].filter((link) => link.channels === 0).sort((a, b) => b.usedAt - a.usedAt)
    for (const link of idle.slice(this.#limits.keepIdleLinks)) {
      if (now - link.usedAt > this.#limits.idleLinkMs) link.goAway(GoAwayReason.idle)
    }
    // A bucket is full again after two seconds: forgetting it changes nothing.
    if (now - this.#ratesClearedAt > RATES_KEPT_MS) {
      this.#ratesClearedAt = now
      this.#ratesByAddress.clear()
    }
  }
}

/** A link that has been silent this long gives way to a new one of the same peer. */
const REPLACEABLE_MS = 5_000
const MAX_RATED_ADDRESSES = 65_536
const RATES_KEPT_MS = 10_000

function raceAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(aborted())
    signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}
