import { createRequire } from 'node:module'
import type { Connection, Startable, Transport } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { type Logger, messageOf, type NodeId, ShallotError } from '../../base/index.ts'
import type { IceRules } from './ice-rules.ts'
import { guarded, type NativePeerConnection } from './peer-connection.ts'

/** libp2p's protocol for the session descriptions of two nodes behind NAT (private to private). */
export const SIGNALLING_PROTOCOL = '/webrtc-signaling/0.0.1'
/** Servers asked for the public address; more make the library complain. */
const MAX_STUN_SERVERS = 4
/** What waits in a data channel: the onion's own flow control wants little. */
const MAX_BUFFERED_BYTES = 256 * 1024
/** Attempts that peers began and that are under way. */
const MAX_INBOUND = 8

/** What `createHost` hands to a service: the parts of libp2p that this one needs. */
export interface WebRtcComponents {
  readonly upgrader: {
    upgradeInbound(connection: never, options: object): Promise<void>
    upgradeOutbound(connection: never, options: object): Promise<Connection>
  }
  readonly registrar: {
    handle(protocol: string, handler: SignallingHandler, options?: object): Promise<void>
    unhandle(protocol: string): Promise<void>
  }
}

type SignallingHandler = (stream: never, connection: Connection) => void | Promise<void>

export interface WebRtcOptions {
  readonly components: WebRtcComponents
  /** STUN servers, "ADDRESS:PORT" (IPv6 in brackets). Asked for at each attempt. */
  readonly stunServers: () => readonly string[]
  /** Local address to send from; null for all. */
  readonly bindAddress: () => string | null
  /** How long an attempt that a peer began may take. */
  readonly timeoutMs: number
  /** Whether the attempt of a peer is welcome, and by which rules; null refuses it. */
  readonly admit: (peer: NodeId) => IceRules | null
  /** An attempt that a peer began is over. */
  readonly ended: (peer: NodeId) => void
  readonly logger: Logger
}

/** The parts of `@libp2p/webrtc` and `node-datachannel` that are used, loaded at the first attempt. */
interface Libraries {
  readonly webRTC: (init: object) => (components: never) => Transport & Startable
  readonly PeerConnection: new (name: string, config: object) => NativePeerConnection
  readonly cleanup: () => void
}

/**
 * Direct connections over UDP: ICE, DTLS and SCTP of `@libp2p/webrtc`, with its signalling over a relayed connection and our rules for the
 * candidates. What comes out is an unlimited libp2p connection. The libraries (some 20 MB) are loaded at the first attempt.
 */
export class WebRtcPath {
  readonly #options: WebRtcOptions
  /** Peers that have begun attempts which may still be under way. */
  readonly #inbound: Set<NodeId> = new Set()
  #libraries: Promise<Libraries> | null = null
  #unavailable: string | null
  #isServing = false

  constructor(options: WebRtcOptions) {
    this.#options = options
    this.#unavailable = missingPackage()
  }

  /** Why it can't be used on this machine, in a sentence; null when it can, as far as is known without loading it. */
  get unavailable(): string | null {
    return this.#unavailable
  }

  /** Whether an attempt that this peer began is under way. */
  isBusyWith(peer: NodeId): boolean {
    return this.#inbound.has(peer)
  }

  /** Begins to take the attempts of peers. */
  async serve(): Promise<void> {
    if (this.#unavailable !== null || this.#isServing) return
    this.#isServing = true
    await this.#options.components.registrar.handle(SIGNALLING_PROTOCOL, (stream, connection) => this.#take(stream, connection), {
      runOnLimitedConnection: true,
      maxInboundStreams: 1,
      maxOutboundStreams: 1,
    })
  }

  async stop(): Promise<void> {
    if (this.#isServing) {
      this.#isServing = false
      await this.#options.components.registrar.unhandle(SIGNALLING_PROTOCOL)
    }
    if (this.#libraries === null) return
    const loaded = await this.#libraries.catch(() => null)
    this.#libraries = null
    if (loaded !== null) released(loaded)
  }

  /**
   * Until an unlimited libp2p connection to the peer of a relayed one is up.
   * @throws ShallotError 'punch-failed', 'aborted'
   */
  async connect(relayed: Connection, rules: IceRules, signal: AbortSignal): Promise<void> {
    const libraries = await this.#load()
    const peer = relayed.remotePeer.toString()
    const { upgrader } = this.#options.components
    const transport = libraries.webRTC(this.#init(libraries, rules))({
      ...this.#facade(),
      // Its own search could find another connection than the relayed one, or make one.
      connectionManager: { getConnections: () => [relayed] },
    } as never)
    try {
      await transport.dial(multiaddr(`/webrtc/p2p/${peer}`), { upgrader, signal } as never)
    } catch (error) {
      if (signal.aborted) throw new ShallotError('aborted', 'meeting the peer over UDP took too long', { kind: 'link', retry: 'later' })
      throw new ShallotError('punch-failed', `no UDP path to the peer: ${messageOf(error)}`, { kind: 'link', retry: 'later', cause: error })
    }
  }

  async #take(stream: { abort(error: Error): void }, connection: Connection): Promise<void> {
    const refuse = (why: string): void => {
      this.#options.logger.debug('an attempt over UDP was refused', { why })
      stream.abort(new Error(why))
    }
    const peer = connection.remotePeer.toString() as NodeId
    // The library believes the address, not the proof: whoever the relay names must be who proved it.
    const isRelayed = connection.remoteAddr.toString().endsWith(`/p2p-circuit/p2p/${peer}`)
    const rules = !isRelayed || this.#inbound.has(peer) || this.#inbound.size >= MAX_INBOUND ? null : this.#options.admit(peer)
    if (rules === null) {
      refuse(isRelayed ? 'it is not welcome now' : 'it did not come over a relayed connection')
      return
    }
    this.#inbound.add(peer)
    const over = (): void => {
      this.#inbound.delete(peer)
      this.#options.ended(peer)
    }
    try {
      const libraries = await this.#load()
      let handler: SignallingHandler | null = null
      let native: NativePeerConnection | null = null
      const init = this.#init(libraries, rules, (made) => {
        native = made
      })
      const isConnected = (): boolean => (native as NativePeerConnection | null)?.state() === 'connected'
      const transport = libraries.webRTC(init)({
        ...this.#facade({ isConnected, over }),
        registrar: {
          handle: async (_protocol: string, given: SignallingHandler) => {
            handler = given
          },
          unhandle: async () => {},
        },
      } as never)
      await transport.start?.()
      // It returns at once, ends or resets the stream itself, and clears its signal when it is done.
      const begin = handler as SignallingHandler | null
      if (begin === null) throw new Error('the library takes no signalling')
      await begin(stream as never, connection)
    } catch (error) {
      over()
      refuse(messageOf(error))
    }
  }

  /** @param made told of the connection that the library is about to use */
  #init(libraries: Libraries, rules: IceRules, made: (native: NativePeerConnection) => void = () => {}): object {
    const { stunServers, bindAddress } = this.#options
    const iceServers = stunServers()
      .slice(0, MAX_STUN_SERVERS)
      .map((server) => `stun:${server}`)
    const address = bindAddress()
    return {
      rtcConfiguration: () => {
        const native = new libraries.PeerConnection('shallot', { iceServers, ...(address === null ? {} : { bindAddress: address }) })
        made(native)
        return { iceServers: iceServers.map((urls) => ({ urls })), peerConnection: guarded(native, rules) }
      },
      dataChannel: { maxBufferedAmount: MAX_BUFFERED_BYTES },
    }
  }

  /** @param inbound of an attempt that a peer began: whether it has worked, and what to do when it is over */
  #facade(inbound: { isConnected(): boolean; over(): void } | null = null): object {
    const { upgrader, ...rest } = this.#options.components
    const { timeoutMs } = this.#options
    return {
      ...rest,
      logger: libraryLogger,
      upgrader: {
        upgradeInbound: async (connection: never, options: object) => {
          // Signalling that ends early is success to the library.
          if (inbound?.isConnected() === false) throw new Error('the peer gave up')
          await upgrader.upgradeInbound(connection, options)
        },
        upgradeOutbound: upgrader.upgradeOutbound.bind(upgrader),
        createInboundAbortSignal: (signal: AbortSignal) =>
          Object.assign(AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]), { clear: () => inbound?.over() }),
      },
    }
  }

  #load(): Promise<Libraries> {
    this.#libraries ??= load().catch((error) => {
      this.#unavailable = `WebRTC's library does not load: ${messageOf(error)}`
      this.#options.logger.warn('WebRTC is not there: peers that only UDP can meet stay on their relay', { why: messageOf(error) })
      this.#libraries = null
      throw new ShallotError('punch-failed', this.#unavailable, { kind: 'host', retry: 'never', cause: error })
    })
    return this.#libraries
  }
}

/** How many in this process have it loaded: its threads are the process's. */
let users = 0

async function load(): Promise<Libraries> {
  const [libp2p, native] = await Promise.all([import('@libp2p/webrtc'), import('node-datachannel')])
  users++
  return { webRTC: libp2p.webRTC as never, PeerConnection: native.PeerConnection as never, cleanup: native.cleanup }
}

/** The last one out ends the library's threads: with them the process would linger. */
function released(libraries: Libraries): void {
  users--
  if (users === 0) libraries.cleanup()
}

/** Says why the library can't be there, without loading it. */
function missingPackage(): string | null {
  try {
    createRequire(import.meta.url).resolve('node-datachannel')
    import.meta.resolve('@libp2p/webrtc')
    return null
  } catch {
    return 'the packages @libp2p/webrtc and node-datachannel are not installed'
  }
}

const nothing = Object.assign(() => {}, { error: () => {}, trace: () => {}, enabled: false, newScope: () => nothing }) as never
/** What the library would log holds addresses. */
const libraryLogger = { forComponent: () => nothing }
