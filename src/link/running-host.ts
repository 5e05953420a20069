import type { Libp2p, ServiceMap } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { type NodeId, ShallotError } from '../base/index.ts'
import type { BatchMemory } from '../onion/index.ts'
import type { ByteMeter } from './byte-meter.ts'
import type { CellChannel, ChannelAcceptor, ChannelDialer } from './channel.ts'
import type { ConnectionProbes } from './connection-probes.ts'
import type { Host, LinkStatus, ObservedEndpoint, PunchTarget } from './host-types.ts'
import { CIRCUIT_PROTOCOL } from './libp2p-channel.ts'
import type { Link } from './link.ts'
import type { Listeners } from './listeners.ts'
import { MOVING_PROTOCOL } from './moving-channels.ts'
import { formatTcpAddress, relayOf, type TcpAddress, tryTcpAddress } from './multiaddrs.ts'
import type { ObservedEndpoints } from './observed-endpoints.ts'
import type { Punching } from './punching.ts'
import type { StreamChannels } from './stream-channels.ts'
import type { TlsLinks } from './tls-links.ts'
import { aborted } from './tls-sockets.ts'

const MEASURE_MS = 1000
const CHANNEL_PROTOCOLS: ReadonlySet<string> = new Set([CIRCUIT_PROTOCOL, MOVING_PROTOCOL])
/** How long direct addresses are tried when there is a relay too. */
const DIRECT_BEFORE_RELAY_MS = 2500

/** What a running host is made of. */
export interface HostParts<Services extends ServiceMap> {
  readonly id: NodeId
  readonly libp2p: Libp2p<Services>
  readonly links: TlsLinks
  readonly streams: StreamChannels
  readonly listeners: Listeners
  readonly punching: Punching
  readonly observed: ObservedEndpoints
  readonly probes: ConnectionProbes
  readonly meter: ByteMeter
  readonly memory: BatchMemory
  readonly state: { acceptor: ChannelAcceptor | null }
}

/** A host whose libp2p node has started. */
export class RunningHost<Services extends ServiceMap> implements Host<Services> {
  readonly id: NodeId
  readonly libp2p: Libp2p<Services>
  readonly meter: ByteMeter
  readonly memory: BatchMemory
  readonly dialer: ChannelDialer
  readonly #parts: HostParts<Services>
  readonly #stopping = new AbortController()
  readonly #timer: NodeJS.Timeout

  constructor(parts: HostParts<Services>) {
    this.#parts = parts
    this.id = parts.id
    this.libp2p = parts.libp2p
    this.meter = parts.meter
    this.memory = parts.memory
    this.dialer = { openChannel: (id, addresses, signal) => this.#open(id, addresses, signal) }
    this.#timer = setInterval(() => parts.streams.measure(), MEASURE_MS)
    this.#timer.unref()
  }

  onChannel(acceptor: ChannelAcceptor | null): void {
    this.#parts.state.acceptor = acceptor
  }

  addresses(): string[] {
    return this.#parts.listeners
      .addresses()
      .flatMap(({ host, port }) => [formatTcpAddress(host, port, false), formatTcpAddress(host, port, true)])
  }

  links(): LinkStatus[] {
    const now = performance.now()
    const wall = Date.now()
    const status: LinkStatus[] = [...this.#parts.links.links].map((link) => linkStatus(link, now, wall))
    for (const connection of this.libp2p.getConnections()) {
      status.push({
        peer: connection.remotePeer.toString() as NodeId,
        kind: 'libp2p',
        direction: connection.direction,
        origin: connection.direction === 'inbound' ? 'accepted' : 'dialed',
        via: relayOf(connection.remoteAddr.toString()),
        remoteAddress: connection.remoteAddr.toString(),
        channels: connection.streams.filter((stream) => CHANNEL_PROTOCOLS.has(stream.protocol)).length,
        bytesIn: null,
        bytesOut: null,
        since: connection.timeline.open,
        rttMs: connection.rtt ?? null,
      })
    }
    return status
  }

  tag(peer: NodeId): void {
    this.#parts.streams.tag(peer)
  }

  untag(peer: NodeId): void {
    this.#parts.streams.untag(peer)
  }

  get punching(): { readonly unavailable: string | null } {
    return { unavailable: this.#parts.punching.unavailable }
  }

  preparePunching(): Promise<void> {
    return this.#parts.punching.prepare()
  }

  observed(): readonly ObservedEndpoint[] {
    return this.#parts.observed.endpoints
  }

  async connectDirect(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<void> {
    await this.#parts.links.connect(id, directTargets(id, addresses), signal)
  }

  punch(target: PunchTarget, signal: AbortSignal): Promise<void> {
    return this.#parts.punching.punch(target, AbortSignal.any([signal, this.#stopping.signal]))
  }

  directLink(id: NodeId): LinkStatus | null {
    const link = this.#parts.links.usable(id)
    return link === null ? null : linkStatus(link, performance.now(), Date.now())
  }

  onDirectLink(listener: (link: LinkStatus) => void): () => void {
    return this.#parts.links.onUp((link) => listener(linkStatus(link, performance.now(), Date.now())))
  }

  onMovingChannel(listener: (peer: NodeId) => void): () => void {
    return this.#parts.streams.moving.onTaken(listener)
  }

  suspect(id: NodeId | null = null): void {
    this.#parts.links.suspect(id)
    this.#parts.probes.suspect(id)
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    this.#stopping.abort()
    this.#parts.probes.stop()
    this.#parts.observed.stop()
    this.#parts.state.acceptor = null
    this.#parts.streams.stop()
    await this.#parts.links.stop()
    await this.libp2p.stop()
  }

  /** Direct links first, then libp2p: its own addresses, an unlimited connection that is up, a relay. */
  async #open(id: NodeId, addresses: readonly string[], signal: AbortSignal): Promise<CellChannel> {
    if (signal.aborted) throw aborted()
    const { links, streams } = this.#parts
    const patience = addresses.some((text) => relayOf(text) !== null) ? AbortSignal.timeout(DIRECT_BEFORE_RELAY_MS) : signal
    const known = addresses.map(tryTcpAddress).filter((address): address is TcpAddress => address !== null && (address.id ?? id) === id)
    const direct = known.filter((address) => address.isDirect)
    let failure: ShallotError | null = null
    if (direct.length > 0 || links.usable(id) !== null) {
      try {
        return await links.openChannel(id, direct, AbortSignal.any([signal, patience]))
      } catch (error) {
        if (!(error instanceof ShallotError)) throw error
        failure = error
        if (signal.aborted || error.code === 'link-limit') throw error
      }
    }
    // Where TCP itself gave no answer, asking the same port again by libp2p gives none either.
    const tried = new Set(failure === null ? [] : direct.map((address) => `${address.host} ${address.port}`))
    const others = addresses.filter((text) => {
      const tcp = tryTcpAddress(text)
      return tcp === null ? isDialable(text) : !tcp.isDirect && !tried.has(`${tcp.host} ${tcp.port}`)
    })
    if (others.length === 0 && failure !== null) throw failure
    try {
      return await streams.open(id, others, signal)
    } catch (error) {
      throw failure?.code === 'identity-mismatch' ? failure : error
    }
  }
}

function linkStatus(link: Link, now: number, wall: number): LinkStatus {
  return {
    peer: link.peer,
    kind: 'tls',
    direction: link.isDialer ? 'outbound' : 'inbound',
    origin: link.origin,
    via: null,
    remoteAddress: link.remoteAddress,
    channels: link.channels,
    bytesIn: link.bytesIn,
    bytesOut: link.bytesOut,
    since: wall - (now - link.openedAt),
    rttMs: link.rttMs,
  }
}

/** Where the addresses of a peer say that a direct link could be had, each once. */
function directTargets(id: NodeId, addresses: readonly string[]): TcpAddress[] {
  const found = new Map<string, TcpAddress>()
  for (const text of addresses) {
    const tcp = tryTcpAddress(text)
    if (tcp !== null && (tcp.id ?? id) === id) found.set(`${tcp.host} ${tcp.port}`, tcp)
  }
  return [...found.values()]
}

function isDialable(text: string): boolean {
  try {
    multiaddr(text)
    return true
  } catch {
    return false
  }
}
