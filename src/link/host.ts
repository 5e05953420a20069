import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import type { Connection, Libp2p, PeerId, ServiceMap, Transport } from '@libp2p/interface'
import { noise } from '@libp2p/noise'
import { peerIdFromString } from '@libp2p/peer-id'
import { tls } from '@libp2p/tls'
import { yamux } from '@libp2p/yamux'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { createLibp2p, type ServiceFactoryMap } from 'libp2p'
import { type Logger, messageOf, type NodeId, nodeIdFromKey, ShallotError, silentLogger } from '../base/index.ts'
import type { BatchMemory } from '../onion/index.ts'
import { BatchPool } from './batch-pool.ts'
import { ByteMeter } from './byte-meter.ts'
import { ed25519PublicKey, identityMismatch, makeCertificate } from './certificate.ts'
import type { CellChannel, ChannelAcceptor, ChannelDialer } from './channel.ts'
import { defaultLinkLimits, type LinkLimits } from './config.ts'
import { CIRCUIT_PROTOCOL, Libp2pChannel } from './libp2p-channel.ts'
import { formatTcpAddress, outboundAddressFor, parseTcpAddress, type TcpAddress } from './multiaddrs.ts'
import { tcpTransport } from './tcp-transport.ts'
import { TlsLinks } from './tls-links.ts'
import { aborted, connectFailed } from './tls-sockets.ts'
import { Turns } from './turns.ts'

export interface HostOptions<Services extends ServiceMap = ServiceMap> {
  /** Ed25519 seed, 32 bytes, borrowed. A client gives a fresh one at every start. */
  readonly key: Uint8Array
  /** A client listens to nothing, advertises nothing and takes no channels. */
  readonly mode: 'client' | 'server'
  /** Multiaddrs `/ip4/A/tcp/P`, `/ip6/A/tcp/P`; port 0 takes a free one. Not for clients. */
  readonly listen?: readonly string[]
  /** The local address to dial from, or 'auto' (the default). */
  readonly outboundAddress?: string
  /** Further libp2p services (DHT, gossip …). */
  readonly services?: ServiceFactoryMap<Services>
  /** Further libp2p transports. */
  readonly transports?: readonly ((components: never) => Transport)[]
  readonly limits?: LinkLimits
  readonly meter?: ByteMeter
  readonly memory?: BatchPool
  readonly logger?: Logger
  /** Asked before libp2p dials: false forbids it. Channels that are opened by `dialer` are not asked for. */
  readonly mayDial?: (peer: NodeId | null, address: string | null) => boolean
}

/** What is known of a link or connection that may carry channels: for status. */
export interface LinkStatus {
  readonly peer: NodeId
  readonly kind: 'tls' | 'libp2p'
  readonly direction: 'inbound' | 'outbound'
  /** Sensitive. */
  readonly remoteAddress: string
  readonly channels: number
  /** Null where it is not counted. */
  readonly bytesIn: number | null
  readonly bytesOut: number | null
  /** Wall-clock ms. */
  readonly since: number
  readonly rttMs: number | null
}

export interface Host<Services extends ServiceMap = ServiceMap> {
  readonly id: NodeId
  readonly libp2p: Libp2p<Services>
  /** All bytes queued by channels. */
  readonly meter: ByteMeter
  /** The memory of large batches: machines take theirs from here too, so that what was sent is used again. */
  readonly memory: BatchMemory
  readonly dialer: ChannelDialer
  /** Who is given the channels that peers open; before it is set, and with null, they are refused. */
  onChannel(acceptor: ChannelAcceptor | null): void
  links(): LinkStatus[]
  /** Where the node listens, as multiaddrs: for libp2p and, with `/tls`, for direct links. */
  addresses(): string[]
  /** Keeps the peer's libp2p connection from being pruned; counted, so that each `tag` wants its `untag`. */
  tag(peer: NodeId): void
  untag(peer: NodeId): void
  stop(): Promise<void>
}

/** All nodes say the same of themselves: nothing for a peer to tell versions or people apart by. */
const AGENT = 'shallot/1'
const TAG = 'shallot-circuit'
const MEASURE_MS = 1000
const YAMUX = {
  maxInboundStreams: 16_384,
  maxOutboundStreams: 16_384,
  // A read buffer above the window, or pausing a fast stream aborts it.
  streamOptions: { maxStreamWindowSize: 1 << 20, maxReadBufferLength: 2 << 20 },
}

/**
 * Starts the node's libp2p host with direct links beside it, on the same ports.
 * @throws ShallotError 'address-in-use', 'address-unavailable', 'address-not-allowed', 'bad-address' (kind 'host' or 'config')
 */
export async function createHost<Services extends ServiceMap = ServiceMap>(options: HostOptions<Services>): Promise<Host<Services>> {
  const { mode, logger = silentLogger, limits = defaultLinkLimits, meter = new ByteMeter(), memory = new BatchPool() } = options
  const listen = mode === 'client' ? [] : (options.listen ?? [])
  for (const address of listen) checkListenAddress(address)
  const id = nodeIdFromKey(ed25519PublicKey(options.key))
  const localFor = (host: string): string | undefined => outboundAddressFor(host, options.outboundAddress ?? 'auto', listen)
  const state: { acceptor: ChannelAcceptor | null } = { acceptor: null }
  const links = new TlsLinks({
    id,
    certificate: makeCertificate(options.key, Date.now()),
    limits,
    meter,
    pool: memory,
    logger,
    outboundAddressFor: localFor,
    acceptor: () => (mode === 'client' ? null : state.acceptor),
  })
  let listenFailure: ShallotError | null = null
  /** Whom `dialer` is dialling by libp2p just now. */
  const dialling = new Map<string, number>()
  const denied = (peer: NodeId | null, address: string | null): boolean => {
    if (peer !== null && dialling.has(peer)) return false
    return options.mayDial !== undefined && !options.mayDial(peer, address)
  }
  const tcp = tcpTransport({
    outboundAddressFor: localFor,
    takeTls: (socket) => links.take(socket),
    firstByteTimeoutMs: limits.handshakeTimeoutMs,
    maxSilent: limits.maxHandshakes,
    listenFailed: (address, error) => {
      listenFailure ??= listenError(address, error)
    },
  })
  let libp2p: Libp2p<Services>
  try {
    libp2p = (await createLibp2p({
      privateKey: await generateKeyPairFromSeed('Ed25519', options.key),
      nodeInfo: { name: 'shallot', version: '1', userAgent: AGENT },
      addresses: { listen: [...listen], ...(mode === 'client' ? { announceFilter: () => [] } : {}) },
      transports: [tcp, ...((options.transports ?? []) as [])],
      connectionEncrypters: [tls(), noise()],
      streamMuxers: [yamux(YAMUX)],
      connectionManager: {
        maxConnections: limits.maxLibp2pConnections,
        inboundConnectionThreshold: limits.inboundPerSecondPerAddress,
        maxIncomingPendingConnections: limits.maxHandshakes,
        inboundUpgradeTimeout: limits.handshakeTimeoutMs,
        dialTimeout: limits.connectTimeoutMs,
      },
      connectionMonitor: { pingInterval: limits.pingAfterMs, protocolPrefix: 'shallot' },
      connectionGater: {
        denyDialPeer: (peer: PeerId) => denied(peer.toString() as NodeId, null),
        denyDialMultiaddr: (address: Multiaddr) => denied(null, address.toString()),
      },
      services: { identify: identify({ protocolPrefix: 'shallot', maxInboundStreams: 8 }), ...options.services },
    } as never)) as unknown as Libp2p<Services>
  } catch (error) {
    await links.stop()
    throw listenFailure ?? error
  }
  return new RunningHost({ id, mode, libp2p, links, meter, memory, limits, logger, listen, dialling, state }).started()
}

interface Parts<Services extends ServiceMap> {
  readonly id: NodeId
  readonly mode: 'client' | 'server'
  readonly libp2p: Libp2p<Services>
  readonly links: TlsLinks
  readonly meter: ByteMeter
  readonly memory: BatchMemory
  readonly limits: LinkLimits
  readonly logger: Logger
  readonly listen: readonly string[]
  readonly dialling: Map<string, number>
  readonly state: { acceptor: ChannelAcceptor | null }
}

class RunningHost<Services extends ServiceMap> implements Host<Services> {
  readonly id: NodeId
  readonly libp2p: Libp2p<Services>
  readonly meter: ByteMeter
  readonly memory: BatchMemory
  readonly dialer: ChannelDialer
  readonly #parts: Parts<Services>
  readonly #turns = new Turns()
  readonly #channels: Set<Libp2pChannel> = new Set()
  readonly #tags: Map<NodeId, number> = new Map()
  readonly #timer: NodeJS.Timeout

  constructor(parts: Parts<Services>) {
    this.#parts = parts
    this.id = parts.id
    this.libp2p = parts.libp2p
    this.meter = parts.meter
    this.memory = parts.memory
    this.dialer = { openChannel: (id, addresses, signal) => this.#open(id, addresses, signal) }
    this.#timer = setInterval(() => this.#measure(), MEASURE_MS)
    this.#timer.unref()
  }

  async started(): Promise<this> {
    const { mode, libp2p, limits } = this.#parts
    if (mode === 'server') {
      await libp2p.handle(CIRCUIT_PROTOCOL, (stream, connection) => this.#accept(stream, connection), {
        maxInboundStreams: limits.maxChannelsPerPeer,
        maxOutboundStreams: limits.maxChannelsPerPeer,
        runOnLimitedConnection: true,
      })
    }
    return this
  }

  onChannel(acceptor: ChannelAcceptor | null): void {
    this.#parts.state.acceptor = acceptor
  }

  addresses(): string[] {
    const found: string[] = []
    for (const address of this.libp2p.getMultiaddrs()) {
      const tcp = safeParse(address.toString())
      if (tcp === null || tcp.isDirect) continue
      found.push(formatTcpAddress(tcp.host, tcp.port, false), formatTcpAddress(tcp.host, tcp.port, true))
    }
    return found
  }

  links(): LinkStatus[] {
    const now = performance.now()
    const wall = Date.now()
    const status: LinkStatus[] = [...this.#parts.links.links].map((link) => ({
      peer: link.peer,
      kind: 'tls',
      direction: link.isDialer ? 'outbound' : 'inbound',
      remoteAddress: link.remoteAddress,
      channels: link.channels,
      bytesIn: link.bytesIn,
      bytesOut: link.bytesOut,
      since: wall - (now - link.openedAt),
      rttMs: link.rttMs,
    }))
    for (const connection of this.libp2p.getConnections()) {
      status.push({
        peer: connection.remotePeer.toString() as NodeId,
        kind: 'libp2p',
        direction: connection.direction,
        remoteAddress: connection.remoteAddr.toString(),
        channels: connection.streams.filter((stream) => stream.protocol === CIRCUIT_PROTOCOL).length,
        bytesIn: null,
        bytesOut: null,
        since: connection.timeline.open,
        rttMs: connection.rtt ?? null,
      })
    }
    return status
  }

  tag(peer: NodeId): void {
    const count = this.#tags.get(peer) ?? 0
    this.#tags.set(peer, count + 1)
    if (count === 0) this.#setTag(peer, true)
  }

  untag(peer: NodeId): void {
    const count = this.#tags.get(peer) ?? 0
    if (count > 1) {
      this.#tags.set(peer, count - 1)
    } else if (count === 1) {
      this.#tags.delete(peer)
      this.#setTag(peer, false)
    }
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    this.#parts.state.acceptor = null
    for (const channel of [...this.#channels]) channel.abort()
    await this.#parts.links.stop()
    await this.libp2p.stop()
  }

  async #open(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<CellChannel> {
    if (signal.aborted) throw aborted()
    const { links } = this.#parts
    const known = addresses.map(safeParse).filter((address): address is TcpAddress => address !== null && (address.id ?? id) === id)
    const direct = known.filter((address) => address.isDirect)
    let failure: ShallotError | null = null
    if (direct.length > 0 || links.has(id)) {
      try {
        return await links.openChannel(id, direct, signal)
      } catch (error) {
        if (!(error instanceof ShallotError)) throw error
        failure = error
        if (error.code === 'aborted' || error.code === 'link-limit') throw error
      }
    }
    // Where TCP itself gave no answer, asking the same port again by libp2p gives none either.
    const tried = new Set(failure === null ? [] : direct.map((address) => `${address.host} ${address.port}`))
    const others = addresses.filter((text) => {
      const tcp = safeParse(text)
      return tcp === null ? isDialable(text) : !tcp.isDirect && !tried.has(`${tcp.host} ${tcp.port}`)
    })
    if (others.length === 0 && failure !== null) throw failure
    try {
      return await this.#openStream(id, others, signal)
    } catch (error) {
      throw failure?.code === 'identity-mismatch' ? failure : error
    }
  }

  async #openStream(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<CellChannel> {
    const { dialling, limits } = this.#parts
    const peer = peerIdFromString(id)
    const patience = AbortSignal.any([signal, AbortSignal.timeout(limits.connectTimeoutMs)])
    dialling.set(id, (dialling.get(id) ?? 0) + 1)
    this.tag(id)
    try {
      const targets = addresses.map((text) => multiaddr(text.endsWith(`/p2p/${id}`) ? text : `${text}/p2p/${id}`))
      const connection = await this.libp2p.dial(targets.length > 0 ? targets : peer, { signal: patience })
      const stream = await connection.newStream(CIRCUIT_PROTOCOL, {
        signal: patience,
        maxOutboundStreams: limits.maxChannelsPerPeer,
        runOnLimitedConnection: true,
        negotiateFully: true,
      })
      // Over the peer's limit a stream comes that is reset already.
      if (stream.status !== 'open') throw connectFailed('the peer refused the stream')
      this.tag(id)
      return this.#channel(stream, connection)
    } catch (error) {
      if (signal.aborted) throw aborted()
      if (error instanceof ShallotError) throw error
      if (isUnexpectedPeer(error)) throw identityMismatch()
      throw connectFailed(messageOf(error), error)
    } finally {
      this.untag(id)
      const count = (dialling.get(id) ?? 1) - 1
      if (count === 0) dialling.delete(id)
      else dialling.set(id, count)
    }
  }

  #accept(stream: Parameters<Parameters<Libp2p['handle']>[1]>[0], connection: Connection): void {
    const { acceptor } = this.#parts.state
    if (acceptor === null) {
      stream.abort(new Error('no channels are taken'))
      return
    }
    this.tag(connection.remotePeer.toString() as NodeId)
    const channel = this.#channel(stream, connection)
    if (!acceptor(channel)) channel.abort()
  }

  /** The peer must have been tagged once for it. */
  #channel(stream: Parameters<Parameters<Libp2p['handle']>[1]>[0], connection: Connection): Libp2pChannel {
    const { meter, limits } = this.#parts
    const peer = connection.remotePeer.toString() as NodeId
    const channel = new Libp2pChannel({
      stream,
      peer,
      remoteAddress: safeParse(connection.remoteAddr.toString())?.host ?? connection.remoteAddr.toString(),
      meter,
      turns: this.#turns,
      closeTimeoutMs: limits.closeTimeoutMs,
      now: () => performance.now(),
      over: (over) => {
        if (this.#channels.delete(over)) this.untag(peer)
      },
    })
    this.#channels.add(channel)
    return channel
  }

  #measure(): void {
    for (const channel of this.#channels) channel.measure()
  }

  #setTag(peer: NodeId, isWanted: boolean): void {
    const tags = { [TAG]: isWanted ? { value: 100 } : undefined }
    this.libp2p.peerStore.merge(peerIdFromString(peer), { tags }).catch((error) => {
      this.#parts.logger.debug('a peer could not be tagged', { why: messageOf(error) })
    })
  }
}

function checkListenAddress(text: string): void {
  const tcp = safeParse(text)
  if (tcp !== null && !tcp.isDirect && tcp.id === null) return
  throw new ShallotError(
    'bad-address',
    `listen: ${JSON.stringify(text)} is not of the form /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT`,
    {
      kind: 'config',
      retry: 'never',
    },
  )
}

function listenError(address: TcpAddress, error: NodeJS.ErrnoException): ShallotError {
  const where = `${address.host} port ${address.port}`
  const facts = { kind: 'host', retry: 'later', cause: error } as const
  switch (error.code) {
    case 'EADDRINUSE':
      return new ShallotError('address-in-use', `cannot listen on ${where}: another program listens there`, facts)
    case 'EADDRNOTAVAIL':
      return new ShallotError('address-unavailable', `cannot listen on ${where}: this machine does not have that address`, facts)
    case 'EACCES':
      return new ShallotError('address-not-allowed', `cannot listen on ${where}: not permitted (ports below 1024 want privileges)`, facts)
    default:
      return new ShallotError('address-unavailable', `cannot listen on ${where}: ${error.message}`, facts)
  }
}

function safeParse(text: string): TcpAddress | null {
  try {
    return parseTcpAddress(text)
  } catch {
    return null
  }
}

function isDialable(text: string): boolean {
  try {
    multiaddr(text)
    return true
  } catch {
    return false
  }
}

function isUnexpectedPeer(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  // libp2p wraps it as an EncryptionFailedError that keeps only the message.
  if (error.name === 'UnexpectedPeerError' || error.message === 'Unexpected Peer') return true
  return error instanceof AggregateError && error.errors.some(isUnexpectedPeer)
}
