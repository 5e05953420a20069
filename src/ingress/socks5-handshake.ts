import { concatBytes, formatHostPort, isIpText, MalformedError, parseHost, utf8Bytes } from '../base/index.ts'
import type { Target } from '../onion/index.ts'
import {
  AuthMethod,
  decodeGreeting,
  decodeRequest,
  decodeSocks4Request,
  decodeUserPassword,
  encodeMethod,
  encodeReply,
  encodeSocks4Reply,
  encodeUserPasswordStatus,
  SOCKS4_VERSION,
  SOCKS5_VERSION,
  type SocksCommand,
  SocksRefusal,
  SocksReply,
  type SocksReplyCode,
  type UserPassword,
} from './socks5-codec.ts'

/** What an application asks for, complete and checked. */
export interface SocksAsk {
  readonly version: 4 | 5
  readonly command: SocksCommand
  /** Canonical host. For 'associate' the address the client says it will send from. */
  readonly target: Target
  readonly credentials: UserPassword | null
}

/** One thing to do for each. After 'ask' and 'refuse' nothing more comes. */
export type SocksOutput =
  | { readonly type: 'send'; readonly bytes: Uint8Array }
  | { readonly type: 'ask'; readonly ask: SocksAsk; readonly rest: Uint8Array } // what came behind the request: the application's first bytes
  | { readonly type: 'refuse'; readonly bytes: Uint8Array; readonly why: string } // send the bytes, then close

export interface SocksHandshakeOptions {
  /** When given, only these are let in; when null, any credentials are taken (they isolate) and none are needed. */
  readonly checkCredentials: ((credentials: UserPassword) => boolean) | null
}

type State =
  | { readonly is: 'greeting' }
  | { readonly is: 'credentials' }
  | { readonly is: 'request'; readonly credentials: UserPassword | null }
  | { readonly is: 'over' }

/**
 * The server's side of a SOCKS handshake, without I/O.
 *
 *     greeting ──(methods hold 02)──> credentials ──(let in)──> request ──> over ('ask' or 'refuse')
 *        ├─────(methods hold 00)───────────────────────────────────^           ^
 *        └─────(SOCKS 4; HTTP or other noise)──────────────────────────────────┘
 */
export class SocksHandshake {
  readonly #options: SocksHandshakeOptions
  #state: State = { is: 'greeting' }
  #bytes: Uint8Array = new Uint8Array(0)

  constructor(options: SocksHandshakeOptions) {
    this.#options = options
  }

  /** Takes what was received (borrowed) and says what to do, in order. Holds at most one incomplete message, which is at most 520 bytes. */
  handleBytes(received: Uint8Array): readonly SocksOutput[] {
    const outputs: SocksOutput[] = []
    this.#bytes = this.#bytes.length === 0 ? new Uint8Array(received) : concatBytes(this.#bytes, received)
    try {
      while (this.#state.is !== 'over' && this.#bytes.length > 0 && this.#step(outputs)) {}
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      outputs.push(this.#refuse(new Uint8Array(0), error.message))
    }
    return outputs
  }

  /** One message forward; false when it needs more bytes. */
  #step(outputs: SocksOutput[]): boolean {
    const state = this.#state
    if (state.is === 'greeting') {
      const first = this.#bytes[0]!
      if (first === SOCKS4_VERSION) return this.#socks4(outputs)
      if (first !== SOCKS5_VERSION) {
        outputs.push(looksLikeHttp(first) ? this.#refuse(httpAnswer, 'HTTP on a SOCKS port') : this.#refuse(new Uint8Array(0), 'not SOCKS'))
        return false
      }
      return this.#greeting(outputs)
    }
    if (state.is === 'credentials') return this.#credentials(outputs)
    return state.is === 'request' && this.#request(outputs, state.credentials)
  }

  #greeting(outputs: SocksOutput[]): boolean {
    const greeting = decodeGreeting(this.#bytes)
    if (!greeting) return false
    this.#take(greeting.used)
    if (greeting.value.includes(AuthMethod.userPassword)) {
      this.#state = { is: 'credentials' }
      outputs.push({ type: 'send', bytes: encodeMethod(AuthMethod.userPassword) })
    } else if (greeting.value.includes(AuthMethod.none) && !this.#options.checkCredentials) {
      this.#state = { is: 'request', credentials: null }
      outputs.push({ type: 'send', bytes: encodeMethod(AuthMethod.none) })
    } else {
      outputs.push(this.#refuse(encodeMethod(AuthMethod.notAcceptable), 'no acceptable authentication method'))
    }
    return true
  }

  #credentials(outputs: SocksOutput[]): boolean {
    const credentials = decodeUserPassword(this.#bytes)
    if (!credentials) return false
    this.#take(credentials.used)
    if (this.#options.checkCredentials && !this.#options.checkCredentials(credentials.value)) {
      outputs.push(this.#refuse(encodeUserPasswordStatus(false), 'wrong credentials'))
      return false
    }
    this.#state = { is: 'request', credentials: credentials.value }
    outputs.push({ type: 'send', bytes: encodeUserPasswordStatus(true) })
    return true
  }

  #request(outputs: SocksOutput[], credentials: UserPassword | null): boolean {
    try {
      const request = decodeRequest(this.#bytes)
      if (!request) return false
      this.#take(request.used)
      const { command, target } = request.value
      this.#ask(outputs, { version: 5, command, target: checkTarget(command, target), credentials })
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      const reply = error instanceof SocksRefusal ? error.reply : SocksReply.generalFailure
      outputs.push(this.#refuse(encodeReply(reply), error.message))
    }
    return false
  }

  #socks4(outputs: SocksOutput[]): boolean {
    try {
      const request = decodeSocks4Request(this.#bytes)
      if (!request) return false
      this.#take(request.used)
      const { command, target, user } = request.value
      // SOCKS 4 has no password: it can't prove anything.
      if (this.#options.checkCredentials) throw new SocksRefusal(SocksReply.notAllowed, 'credentials are required')
      const credentials = user === '' ? null : { user, password: '' }
      this.#ask(outputs, { version: 4, command, target: checkTarget(command, target), credentials })
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      outputs.push(this.#refuse(encodeSocks4Reply(false), error.message))
    }
    return false
  }

  #take(length: number): void {
    this.#bytes = this.#bytes.subarray(length)
  }

  #ask(outputs: SocksOutput[], ask: SocksAsk): void {
    outputs.push({ type: 'ask', ask, rest: this.#bytes })
    this.#end()
  }

  #refuse(bytes: Uint8Array, why: string): SocksOutput {
    this.#end()
    return { type: 'refuse', bytes, why }
  }

  #end(): void {
    this.#state = { is: 'over' }
    this.#bytes = new Uint8Array(0)
  }
}

/** The answer to an ask, in the version it came in. @param bound an address and port, or for RESOLVE_PTR a name */
export function encodeAnswer(version: 4 | 5, reply: SocksReplyCode, bound?: Target): Uint8Array {
  return version === 5 ? encodeReply(reply, bound) : encodeSocks4Reply(reply === SocksReply.succeeded, bound)
}

/** @throws MalformedError, SocksRefusal */
function checkTarget(command: SocksCommand, target: Target): Target {
  // Where the datagrams will come from (RFC 1928 §7): a hint that programs fill in as they like, PySocks with the name "0".
  if (command === 'associate') return isIpText(target.host) ? target : { host: '0.0.0.0', port: target.port }
  const host = parseHost(target.host)
  if (command === 'connect' && target.port === 0) throw new MalformedError('SOCKS request', 'the port is 0')
  if (command === 'resolve-pointer' && host.type !== 'ip') {
    throw new SocksRefusal(SocksReply.addressTypeNotSupported, 'RESOLVE_PTR wants an address')
  }
  return { host: host.text, port: target.port }
}

/** The first letter of every HTTP method in use. */
function looksLikeHttp(first: number): boolean {
  return first >= 0x41 && first <= 0x5a
}

const httpBody = 'This is a SOCKS5 port. Set it as a SOCKS5 proxy (socks5h://), or use the HTTP proxy port for HTTP.\n'
const httpAnswer = utf8Bytes(
  `HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${httpBody.length}\r\nConnection: close\r\n\r\n${httpBody}`,
)

/** The address an association's datagrams will come from, or null for "not known yet" (RFC 1928 §7). */
export function announcedSource(target: Target): { readonly host: string | null; readonly port: number | null } {
  const unspecified = target.host === '0.0.0.0' || target.host === '::'
  return { host: unspecified ? null : target.host, port: target.port === 0 ? null : target.port }
}

/** For debug logs only. */
export function describeAsk(ask: SocksAsk): string {
  return `SOCKS${ask.version} ${ask.command} ${formatHostPort(ask.target.host, ask.target.port)}`
}
