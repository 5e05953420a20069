import type { Connection, Stream } from '@libp2p/interface'
import { type LengthPrefixedStream, lpStream } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import {
  formatIp,
  type IpAddress,
  type Logger,
  MalformedError,
  messageOf,
  type NodeId,
  parseIp,
  type Random,
  ShallotError,
  sensitive,
  TokenBucket,
} from '../../base/index.ts'
import { addressScope } from '../../directory/index.ts'
import { parseTcpAddress, type TcpAddress } from '../../link/index.ts'
import type { DialBackConfig } from './config.ts'
import { type DialMessage, decodeDialMessage, dialStatus, encodeDialMessage, MESSAGE_BYTES_MAX, responseStatus } from './messages.ts'
import { DIAL_BACK_COST_BYTES, dialBackOnce } from './one-shot-dialer.ts'
import { AddressRates } from './rates.ts'

/** Dial data for an address that the asker is seen at: what the dial-back may cost, with room to spare. */
export const OWN_ADDRESS_DATA_BYTES = DIAL_BACK_COST_BYTES + 1024
/** For any other address the specification wants 30 to 100 kB. */
const OTHER_ADDRESS_DATA_MIN = 30_000
const OTHER_ADDRESS_DATA_MAX = 100_000
/** Addresses whose rates are remembered. */
const RATED_ADDRESSES = 4096
/** What a stream may hold that was not read yet: all dial data, sent at once. */
const STREAM_BUFFER_BYTES = 192 * 1024
const CLOSE_MS = 2_000

export interface DialBackServerOptions {
  readonly config: DialBackConfig
  /** `network.admission.privateAddresses`. */
  readonly privateAddresses: boolean
  /** This node's own addresses, as multiaddrs: it does not dial itself. */
  readonly ownAddresses: () => readonly string[]
  /** The local address to dial a host from. */
  readonly outboundAddressFor?: ((host: string) => string | undefined) | undefined
  /** Monotonic ms. */
  readonly now: () => number
  readonly random: Random
  readonly logger: Logger
}

/** What was asked of a server, in all. */
export interface DialBackStats {
  readonly served: number
  readonly refused: number
  readonly reached: number
  /** Dial data that came in, and bytes that dial-backs wrote. */
  readonly dataBytes: number
  readonly sentBytes: number
}

/** Dials peers back that ask whether they can be reached (AutoNAT v2). No address is sent more than the asker has paid in dial data before. */
export class DialBackServer {
  readonly #o: DialBackServerOptions
  readonly #all: TokenBucket
  readonly #askers: AddressRates
  readonly #targets: AddressRates
  readonly #stats = { served: 0, refused: 0, reached: 0, dataBytes: 0, sentBytes: 0 }
  #running = 0

  constructor(options: DialBackServerOptions) {
    this.#o = options
    const { perMinute, perAskerPerMinute, perTargetPerMinute } = options.config
    this.#all = new TokenBucket(perMinute / 60, perMinute, options.now())
    this.#askers = new AddressRates(perAskerPerMinute, RATED_ADDRESSES)
    this.#targets = new AddressRates(perTargetPerMinute, RATED_ADDRESSES)
  }

  get stats(): DialBackStats {
    return { ...this.#stats }
  }

  /** Serves one stream of `DIAL_REQUEST_PROTOCOL`. Never throws. */
  async serve(stream: Stream, connection: Connection, signal: AbortSignal): Promise<void> {
    const { config, logger } = this.#o
    const patience = AbortSignal.any([signal, AbortSignal.timeout(config.timeoutMs)])
    const messages = lpStream(stream, { maxDataLength: MESSAGE_BYTES_MAX, maxBufferSize: STREAM_BUFFER_BYTES })
    try {
      const request = await read(messages, patience)
      if (request.type !== 'request') throw new MalformedError('dial request', 'is something else')
      const answer = await this.#answer(request, messages, connection, patience)
      await messages.write(encodeDialMessage(answer), { signal: AbortSignal.timeout(CLOSE_MS) })
      await stream.close({ signal: AbortSignal.timeout(CLOSE_MS) })
    } catch (error) {
      logger.debug('a dial request was not served', { peer: sensitive(connection.remotePeer.toString()), why: messageOf(error) })
      stream.abort(new Error('the dial request was not served'))
    }
  }

  async #answer(
    request: DialMessage & { type: 'request' },
    messages: LengthPrefixedStream,
    connection: Connection,
    signal: AbortSignal,
  ): Promise<DialMessage> {
    const { config, now, random } = this.#o
    const seen = observedIp(connection)
    // Whoever comes through a relay is seen at the relay's address: nothing says what is his own.
    if (seen === null) return this.#refuse(responseStatus.dialRefused)
    if (this.#running >= config.maxAtOnce || !this.#askers.take(seen, now()) || !this.#all.take(1, now()))
      return this.#refuse(responseStatus.requestRejected)
    this.#running++
    try {
      const id = connection.remotePeer.toString() as NodeId
      const chosen = request.addresses.map((bytes) => this.#dialable(bytes, id))
      const index = chosen.findIndex((one) => one !== null)
      if (index < 0) return this.#refuse(responseStatus.dialRefused)
      const { host, port } = chosen[index]!
      const target = parseIp(host)
      if (!this.#targets.take(target, now())) return this.#refuse(responseStatus.requestRejected)
      const isOwn = formatIp(seen) === formatIp(target)
      const bytes = isOwn
        ? OWN_ADDRESS_DATA_BYTES
        : OTHER_ADDRESS_DATA_MIN + random.int(OTHER_ADDRESS_DATA_MAX - OTHER_ADDRESS_DATA_MIN + 1)
      await this.#collect(messages, index, bytes, signal)
      const localAddress = this.#o.outboundAddressFor?.(host)
      const { connectTimeoutMs } = config
      const result = await dialBackOnce({ host, port, id, nonce: request.nonce, localAddress, connectTimeoutMs }, signal)
      this.#stats.served++
      this.#stats.sentBytes += result.sentBytes
      if (result.status === dialStatus.ok) this.#stats.reached++
      return { type: 'response', status: responseStatus.ok, index, dialStatus: result.status }
    } finally {
      this.#running--
    }
  }

  /** Has the asker send as many bytes as the dial-back will cost at most. */
  async #collect(messages: LengthPrefixedStream, index: number, bytes: number, signal: AbortSignal): Promise<void> {
    await messages.write(encodeDialMessage({ type: 'data-request', index, bytes }), { signal })
    for (let received = 0; received < bytes; ) {
      const message = await read(messages, signal)
      if (message.type !== 'data' || message.data.length === 0) throw new MalformedError('dial data', 'is something else, or empty')
      received += message.data.length
      this.#stats.dataBytes += message.data.length
    }
  }

  #refuse(status: number): DialMessage {
    this.#stats.refused++
    return { type: 'response', status, index: 0, dialStatus: dialStatus.unused }
  }

  /** The address when this node is willing and able to dial it for this peer. */
  #dialable(bytes: Uint8Array, peer: NodeId): TcpAddress | null {
    const address = decodeAddress(bytes)
    if (address === null || address.isDirect || address.port === 0) return null
    if (address.id !== null && address.id !== peer) return null
    const ip = parseIp(address.host)
    const scope = addressScope(ip)
    if (scope === 'unusable' || (scope === 'private' && !this.#o.privateAddresses)) return null
    const own = this.#o.ownAddresses().flatMap((text) => safely(() => parseTcpAddress(text)) ?? [])
    if (own.some(({ host }) => formatIp(parseIp(host)) === formatIp(ip))) return null
    // A node without IPv6 cannot tell whether an IPv6 address is reachable.
    return own.some(({ host }) => parseIp(host).family === ip.family) ? address : null
  }
}

/** Where a connection comes from; null when it is relayed. */
export function observedIp(connection: Pick<Connection, 'remoteAddr' | 'limits'>): IpAddress | null {
  if (connection.limits !== undefined) return null
  const address = safely(() => parseTcpAddress(connection.remoteAddr.toString()))
  return address === null ? null : parseIp(address.host)
}

async function read(messages: LengthPrefixedStream, signal: AbortSignal): Promise<DialMessage> {
  return decodeDialMessage((await messages.read({ signal })).subarray())
}

function decodeAddress(bytes: Uint8Array): TcpAddress | null {
  return safely(() => parseTcpAddress(multiaddr(bytes).toString()))
}

/** Null for what is malformed: a multiaddr that the library or we can't read is one that can't be dialled. */
function safely<T>(parse: () => T | null): T | null {
  try {
    return parse()
  } catch (error) {
    if (error instanceof ShallotError && !(error instanceof MalformedError)) throw error
    return null
  }
}
