import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { type LengthPrefixedStream, lpStream } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import { type Logger, MalformedError, messageOf, type NodeId, networkKey, parseIp, type Random, shuffle } from '../../base/index.ts'
import { parseTcpAddress } from '../../link/index.ts'
import type { DialBackVerdict } from '../address-checks.ts'
import type { DialBackConfig } from './config.ts'
import {
  DIAL_BACK_PROTOCOL,
  DIAL_DATA_CHUNK_BYTES,
  DIAL_REQUEST_PROTOCOL,
  decodeDialBack,
  decodeDialMessage,
  dialStatus,
  encodeDialBackResponse,
  encodeDialMessage,
  MESSAGE_BYTES_MAX,
  responseStatus,
} from './messages.ts'
import { DialBackServer, type DialBackStats, observedIp } from './server.ts'

/** A peer that could be asked to dial back. */
export interface DialBackHelper {
  readonly id: NodeId
  /** Its multiaddrs for libp2p, `/ip4/…/tcp/…`. */
  readonly addresses: readonly string[]
}

export interface DialBackOptions {
  readonly libp2p: Libp2p
  readonly config: DialBackConfig
  /** `network.admission.privateAddresses`. */
  readonly privateAddresses: boolean
  /** Peers that are reached directly: serving nodes of the view, bootstrap nodes. */
  readonly helpers: () => readonly DialBackHelper[]
  /** This node's own addresses, as multiaddrs. */
  readonly ownAddresses: () => readonly string[]
  /** The local address to dial a host from; the system's choice without it. */
  readonly outboundAddressFor?: ((host: string) => string | undefined) | undefined
  /** Monotonic ms. */
  readonly now: () => number
  readonly random: Random
  readonly logger: Logger
}

/** What came of one check of one address: the fields of `Reachability`'s `dial-back` event, and who said what. */
export interface DialBackRound {
  readonly address: string
  readonly available: number
  readonly verdicts: readonly (DialBackVerdict & { readonly peer: NodeId })[]
}

interface Pending {
  readonly family: 4 | 6
  reached: boolean
}

/** More dial data than the specification's 100 kB is not sent. */
const DIAL_DATA_MAX = 100_000
/** Streams of one peer that bring a nonce, at once. */
const MAX_STREAMS = 4
/** Of those that are asked, so many in place of ones that give no answer. */
const ASKED_FACTOR = 3
const READ_TIMEOUT_MS = 10_000
const IPV4_NETWORK_BITS = 16
const IPV6_NETWORK_BITS = 32

/** Finds out by other nodes' dialling whether this node is reached at an address, and does that for others. AutoNAT v2's wire protocol. */
export class DialBack {
  readonly #o: DialBackOptions
  readonly #server: DialBackServer
  readonly #pending = new Map<bigint, Pending>()
  #stopping = new AbortController()
  #serving = false

  constructor(options: DialBackOptions) {
    this.#o = options
    this.#server = new DialBackServer(options)
  }

  get stats(): DialBackStats {
    return this.#server.stats
  }

  /** Takes dial-backs from now on. Serves nobody before `serve(true)`. */
  async start(): Promise<void> {
    this.#stopping = new AbortController()
    await this.#o.libp2p.handle(DIAL_BACK_PROTOCOL, (stream, connection) => this.#take(stream, connection), {
      maxInboundStreams: MAX_STREAMS,
      runOnLimitedConnection: false,
    })
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.serve(false)
    await this.#o.libp2p.unhandle(DIAL_BACK_PROTOCOL).catch(() => {})
    this.#pending.clear()
  }

  /** Whether others are dialled back: to be true while this node is reached directly itself. */
  async serve(isWanted: boolean): Promise<void> {
    const wanted = isWanted && this.#o.config.serve
    if (wanted === this.#serving) return
    this.#serving = wanted
    const { libp2p } = this.#o
    if (!wanted) return void (await libp2p.unhandle(DIAL_REQUEST_PROTOCOL).catch(() => {}))
    await libp2p.handle(DIAL_REQUEST_PROTOCOL, (stream, connection) => void this.#server.serve(stream, connection, this.#stopping.signal), {
      maxInboundStreams: MAX_STREAMS,
      runOnLimitedConnection: false,
    })
  }

  /**
   * Has peers of different networks dial the address (`/ip4/…/tcp/…`), and says what each of them found. Where some do not answer, others are
   * asked. Without anybody to ask the round is empty. @throws MalformedError on another form of address; the signal's reason
   */
  async check(address: string, signal: AbortSignal): Promise<DialBackRound> {
    const target = parseTcpAddress(address)
    if (target === null || target.isDirect) throw new MalformedError('address', 'is not of the form /ip4/A/tcp/P or /ip6/A/tcp/P')
    const { config } = this.#o
    const helpers = this.#choose(target.host)
    const most = config.witnesses * ASKED_FACTOR
    const verdicts: (DialBackVerdict & { peer: NodeId })[] = []
    let next = 0
    const ask = async (): Promise<void> => {
      while (next < Math.min(helpers.length, most)) {
        const { helper, network } = helpers[next++]!
        const verdict = await this.#ask(helper, address, target.host.includes(':') ? 6 : 4, signal)
        signal.throwIfAborted()
        verdicts.push({ peer: helper.id, network, verdict })
        if (verdict !== 'no-answer') return
      }
    }
    await Promise.all(Array.from({ length: config.witnesses }, ask))
    const answered = verdicts.filter(({ verdict }) => verdict !== 'no-answer').length
    // Peers that give no answer are not there; those that were not asked may be.
    return { address, available: answered + (helpers.length - next), verdicts }
  }

  /** One helper of each network, in random order; none of the address's own network, which may be behind the same router. */
  #choose(host: string): { helper: DialBackHelper; network: string }[] {
    const { helpers, libp2p, random } = this.#o
    const self = libp2p.peerId.toString()
    const own = networkOf(host)
    const family = parseIp(host).family
    const chosen = new Map<string, DialBackHelper>()
    for (const helper of shuffle([...helpers()], random)) {
      if (helper.id === self) continue
      const networks = helper.addresses.flatMap((text) => {
        const address = parseTcpAddress(text)
        return address === null || address.isDirect ? [] : [networkOf(address.host)]
      })
      // By its address of the same family: it must have one to dial from. IPv4 comes first where both are meant.
      const network = networks.find((one) => one.includes(':') === (family === 6))
      if (network === undefined || network === own || chosen.has(network)) continue
      chosen.set(network, helper)
    }
    return [...chosen].map(([network, helper]) => ({ helper, network }))
  }

  async #ask(helper: DialBackHelper, address: string, family: 4 | 6, signal: AbortSignal): Promise<DialBackVerdict['verdict']> {
    const patience = AbortSignal.any([signal, this.#stopping.signal, AbortSignal.timeout(this.#o.config.timeoutMs)])
    // Twice, the second time over a fresh connection: the one that is there may just be closing, as one does that a dial-back came in by.
    const verdict = await this.#askOnce(helper, address, family, false, patience)
    return verdict ?? (await this.#askOnce(helper, address, family, true, patience)) ?? 'no-answer'
  }

  /** Null when the connection was lost in between. */
  async #askOnce(
    helper: DialBackHelper,
    address: string,
    family: 4 | 6,
    isAfresh: boolean,
    patience: AbortSignal,
  ): Promise<DialBackVerdict['verdict'] | null> {
    if (patience.aborted) return 'no-answer'
    const { libp2p, random, logger } = this.#o
    const nonce = new DataView(random.bytes(8).buffer).getBigUint64(0)
    const pending: Pending = { family, reached: false }
    this.#pending.set(nonce, pending)
    let connection: Connection | null = null
    let stream: Stream | null = null
    try {
      const peer = peerIdFromString(helper.id)
      const addresses = helper.addresses.filter((text) => parseTcpAddress(text)?.isDirect === false)
      connection = await libp2p.dial(
        addresses.map((text) => multiaddr(text.includes('/p2p/') ? text : `${text}/p2p/${peer}`)),
        { signal: patience, force: isAfresh },
      )
      stream = await connection.newStream(DIAL_REQUEST_PROTOCOL, { signal: patience, runOnLimitedConnection: false })
      const messages = lpStream(stream, { maxDataLength: MESSAGE_BYTES_MAX, maxBufferSize: 4 * MESSAGE_BYTES_MAX })
      const said = await converse(messages, { address, nonce, signal: patience })
      // What came in is proof, whatever the peer says; what it says without that is none.
      if (pending.reached) return 'reached'
      return said === dialStatus.dialError ? 'unreachable' : said === dialStatus.dialBackError ? 'other' : 'no-answer'
    } catch (error) {
      logger.debug('a peer did not dial back', { why: messageOf(error) })
      if (pending.reached) return 'reached'
      const isRefusal = error instanceof MalformedError || (error instanceof Error && error.name === 'UnsupportedProtocolError')
      return connection === null || patience.aborted || isRefusal ? 'no-answer' : null
    } finally {
      this.#pending.delete(nonce)
      void this.#leave(stream, isAfresh ? connection : null)
    }
  }

  /** @param connection to be closed as well, when nobody else has begun to use it */
  async #leave(stream: Stream | null, connection: Connection | null): Promise<void> {
    const signal = AbortSignal.timeout(READ_TIMEOUT_MS)
    await stream?.close({ signal }).catch((error) => stream.abort(error as Error))
    if (connection?.streams.length === 0) await connection.close({ signal }).catch((error) => connection.abort(error as Error))
  }

  /** A dial-back: an inbound connection, not through a relay, of the family that was asked for, with a nonce that is waited for. */
  #take(stream: Stream, connection: Connection): void {
    const run = async (): Promise<void> => {
      const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(READ_TIMEOUT_MS)])
      const messages = lpStream(stream, { maxDataLength: 64, maxBufferSize: 256 })
      const nonce = decodeDialBack((await messages.read({ signal })).subarray())
      const pending = this.#pending.get(nonce)
      const from = observedIp(connection)
      if (pending === undefined || connection.direction !== 'inbound' || from?.family !== pending.family)
        throw new MalformedError('dial-back', 'brings a number that is not waited for')
      pending.reached = true
      await messages.write(encodeDialBackResponse(), { signal })
      await stream.close({ signal })
    }
    run().catch((error) => {
      this.#o.logger.debug('a dial-back was not taken', { why: messageOf(error) })
      stream.abort(new Error('not waited for'))
    })
  }
}

/** Asks, pays, and hears the answer. @returns the DialStatus of the address; `unused` when the peer did not try */
async function converse(
  messages: LengthPrefixedStream,
  { address, nonce, signal }: { readonly address: string; readonly nonce: bigint; readonly signal: AbortSignal },
): Promise<number> {
  await messages.write(encodeDialMessage({ type: 'request', addresses: [multiaddr(address).bytes], nonce }), { signal })
  let hasPaid = false
  for (;;) {
    const message = decodeDialMessage((await messages.read({ signal })).subarray())
    if (message.type === 'response') {
      return message.status === responseStatus.ok && message.index === 0 ? message.dialStatus : dialStatus.unused
    }
    if (message.type !== 'data-request' || hasPaid || message.index !== 0 || message.bytes > DIAL_DATA_MAX)
      throw new MalformedError('dial message', 'is not what was asked for')
    hasPaid = true
    for (let sent = 0; sent < message.bytes; ) {
      const length = Math.min(DIAL_DATA_CHUNK_BYTES, message.bytes - sent)
      await messages.write(encodeDialMessage({ type: 'data', data: new Uint8Array(length) }), { signal })
      sent += length
    }
  }
}

function networkOf(host: string): string {
  const ip = parseIp(host)
  return networkKey(ip, ip.family === 4 ? IPV4_NETWORK_BITS : IPV6_NETWORK_BITS)
}
