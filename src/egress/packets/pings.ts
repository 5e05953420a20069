import { equalBytes, type IpAddress, type Logger, messageOf, parseIp } from '../../base/index.ts'
import { netstackLimits } from './limits.ts'
import type { OpenPingSocket, PingSocket } from './ping-system.ts'

/** An echo request of a client, on its way out. */
export interface EchoRequest {
  readonly to: IpAddress
  readonly identifier: number
  readonly sequence: number
  /** Borrowed. */
  readonly data: Uint8Array
  /** What the packet may still do beyond this exit; at least 1. */
  readonly hopLimit: number
}

/** Whom answers go to: one per lease. Bytes are lent for the call. */
export interface EchoClient {
  reply(from: IpAddress, identifier: number, sequence: number, data: Uint8Array, hopLimit: number): void
  /** @param message the request from its ICMP type on, as far as it was quoted, with the client's own numbers */
  failed(reporter: IpAddress, to: IpAddress, type: number, code: number, mtu: number, message: Uint8Array): void
  /** The request was not sent after all: this machine may not, or knows no way. */
  refused(request: EchoRequest, why: EchoRefusal): void
}

/** Why an echo request was not sent. 'forbidden': this machine gives no ping sockets; 'limit': too many are unanswered. */
export type EchoRefusal = 'forbidden' | 'limit' | 'unreachable' | 'too-long'

export interface PingsModules {
  readonly load: () => Promise<OpenPingSocket>
  /** Source addresses; '' lets the system choose. */
  readonly outboundIpv4: string
  readonly outboundIpv6: string
  /** A first number for requests. */
  readonly firstNumber: number
  /** Monotonic ms. */
  readonly now: () => number
  readonly logger: Logger
}

interface Pending {
  readonly client: EchoClient
  readonly to: IpAddress
  readonly identifier: number
  readonly sequence: number
  readonly sentAt: number
}

/** Type, code, checksum, identifier, sequence. */
const HEADER_BYTES = 8
const REQUEST = { 4: 8, 6: 128 } as const
const REPLY = { 4: 0, 6: 129 } as const
const SEQUENCES = 65_536

/**
 * The echo requests of all leases over one ping socket a family. The sequence number on the wire is the exit's, so that neither a client's
 * identifier nor its count is seen beyond it; answers count only from where the request went.
 */
export class Pings {
  readonly #m: PingsModules
  readonly #sockets = new Map<4 | 6, PingSocket>()
  /** By family and the number on the wire, in the order of sending. */
  readonly #pending: Readonly<Record<4 | 6, Map<number, Pending>>> = { 4: new Map(), 6: new Map() }
  readonly #perClient = new Map<EchoClient, number>()
  #next: number
  #open: OpenPingSocket | null = null
  #waiting: { readonly client: EchoClient; readonly request: EchoRequest }[] | null = null
  readonly #refusedUntil = { 4: 0, 6: 0 }
  /** Why there are no ping sockets, as of the last try; null when nothing speaks against them. */
  refusal: string | null = null
  #closed = false

  constructor(modules: PingsModules) {
    this.#m = modules
    this.#next = modules.firstNumber % SEQUENCES
  }

  /** Null: it is sent, or waits for the sockets. */
  send(client: EchoClient, request: EchoRequest): EchoRefusal | null {
    if (this.#closed) return 'forbidden'
    if (this.#open) return this.#send(client, request, this.#open)
    if (this.#m.now() < this.#refusedUntil[request.to.family]) return 'forbidden'
    if (!this.#waiting) {
      this.#waiting = []
      void this.#load()
    }
    if (this.#waiting.length >= netstackLimits.waitingEchoes) return 'limit'
    this.#waiting.push({ client, request: { ...request, data: request.data.slice() } })
    return null
  }

  /** Nothing comes for this client any more. */
  forget(client: EchoClient): void {
    this.#perClient.delete(client)
    for (const pending of [this.#pending[4], this.#pending[6]])
      for (const [number, one] of pending) if (one.client === client) pending.delete(number)
  }

  get pending(): number {
    return this.#pending[4].size + this.#pending[6].size
  }

  /** Forgets what nobody has answered. */
  sweep(now: number): void {
    for (const pending of [this.#pending[4], this.#pending[6]]) {
      for (const [number, one] of pending) {
        if (now - one.sentAt < netstackLimits.echoTimeoutMs) break
        this.#forget(pending, number, one)
      }
    }
  }

  close(): void {
    this.#closed = true
    for (const socket of this.#sockets.values()) socket.close()
    this.#sockets.clear()
    this.#pending[4].clear()
    this.#pending[6].clear()
    this.#perClient.clear()
    this.#waiting = null
  }

  async #load(): Promise<void> {
    try {
      this.#open = await this.#m.load()
    } catch (error) {
      this.#refuse(error, [4, 6])
    }
    const waiting = this.#waiting ?? []
    this.#waiting = null
    for (const { client, request } of waiting) {
      const why = this.#open && !this.#closed ? this.#send(client, request, this.#open) : 'forbidden'
      if (why) client.refused(request, why)
    }
  }

  #refuse(error: unknown, families: readonly (4 | 6)[]): void {
    const why = messageOf(error)
    if (this.refusal !== why) this.#m.logger.warn(`clients cannot ping through this exit: ${why}`)
    this.refusal = why
    for (const family of families) this.#refusedUntil[family] = this.#m.now() + netstackLimits.pingRetryMs
  }

  #send(client: EchoClient, request: EchoRequest, open: OpenPingSocket): EchoRefusal | null {
    const { to, data } = request
    const now = this.#m.now()
    const socket = this.#socket(to.family, open, now)
    if (!socket) return 'forbidden'
    const pending = this.#pending[to.family]
    this.sweep(now)
    const mine = this.#perClient.get(client) ?? 0
    if (mine >= netstackLimits.pendingEchoes || this.pending >= netstackLimits.pendingEchoesInAll) return 'limit'
    do this.#next = (this.#next + 1) % SEQUENCES
    while (pending.has(this.#next))
    const number = this.#next
    const message = new Uint8Array(HEADER_BYTES + data.length)
    message[0] = REQUEST[to.family]
    message[6] = number >> 8
    message[7] = number & 0xff
    message.set(data, HEADER_BYTES)
    const failure = socket.send(message, to, request.hopLimit)
    if (failure === 'EMSGSIZE') return 'too-long'
    if (failure !== null) return failure === 'EAGAIN' || failure === 'ENOBUFS' ? 'limit' : 'unreachable'
    pending.set(number, { client, to, identifier: request.identifier, sequence: request.sequence, sentAt: now })
    this.#perClient.set(client, mine + 1)
    return null
  }

  #socket(family: 4 | 6, open: OpenPingSocket, now: number): PingSocket | null {
    const socket = this.#sockets.get(family)
    if (socket || now < this.#refusedUntil[family]) return socket ?? null
    const source = family === 4 ? this.#m.outboundIpv4 : this.#m.outboundIpv6
    try {
      const opened = open(family, source === '' ? null : parseIp(source), {
        answer: (from, message, hopLimit) => this.#answer(family, from, message, hopLimit),
        error: (reporter, type, code, mtu, message) => this.#error(family, reporter, type, code, mtu, message),
      })
      this.#sockets.set(family, opened)
      this.refusal = null
      return opened
    } catch (error) {
      this.#refuse(error, [family])
      return null
    }
  }

  #answer(family: 4 | 6, from: IpAddress, message: Uint8Array, hopLimit: number): void {
    if (message.length < HEADER_BYTES || message[0] !== REPLY[family]) return
    const found = this.#find(family, message)
    // An answer from elsewhere (a broadcast address, a liar) is nobody's.
    if (!found || !equalBytes(found.to.bytes, from.bytes)) return
    this.#forget(this.#pending[family], numberOf(message), found)
    found.client.reply(from, found.identifier, found.sequence, message.subarray(HEADER_BYTES), hopLimit)
  }

  #error(family: 4 | 6, reporter: IpAddress, type: number, code: number, mtu: number, message: Uint8Array): void {
    if (message.length < HEADER_BYTES || message[0] !== REQUEST[family]) return
    const found = this.#find(family, message)
    if (!found) return
    this.#forget(this.#pending[family], numberOf(message), found)
    const quoted = message.slice()
    new DataView(quoted.buffer).setUint32(4, ((found.identifier << 16) | found.sequence) >>> 0)
    found.client.failed(reporter, found.to, type, code, mtu, quoted)
  }

  #find(family: 4 | 6, message: Uint8Array): Pending | undefined {
    return this.#pending[family].get(numberOf(message))
  }

  #forget(pending: Map<number, Pending>, number: number, one: Pending): void {
    pending.delete(number)
    const left = (this.#perClient.get(one.client) ?? 1) - 1
    if (left > 0) this.#perClient.set(one.client, left)
    else this.#perClient.delete(one.client)
  }
}

function numberOf(message: Uint8Array): number {
  return (message[6]! << 8) | message[7]!
}
