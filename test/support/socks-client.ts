import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { connect, isIP, type Socket } from 'node:net'
import { parseIp } from '../../src/base/index.ts'

/** A SOCKS5 client (RFC 1928, RFC 1929) for tests, independent of the project's own SOCKS code. */

export interface SocksOptions {
  /** "ADDRESS:PORT" of the proxy. */
  readonly proxy: string
  readonly user?: string | undefined
  readonly timeoutMs?: number
}

/** The proxy's reply was not "succeeded". `reply` is RFC 1928 §6's number. */
export class SocksRefusal extends Error {
  readonly reply: number
  constructor(reply: number) {
    super(`SOCKS reply ${reply}`)
    this.name = 'SocksRefusal'
    this.reply = reply
  }
}

/** A connection through the proxy. It is paused, so that nothing is lost: its reader resumes it. @throws SocksRefusal */
export async function socksConnect(host: string, port: number, options: SocksOptions): Promise<Socket> {
  return (await request(1, host, port, options)).socket
}

/** Tor's RESOLVE (0xF0): the first address of the name. */
export async function socksResolve(name: string, options: SocksOptions): Promise<string> {
  const { socket, bound } = await request(0xf0, name, 0, options)
  socket.destroy()
  return bound.host
}

/** One datagram through UDP ASSOCIATE, and the first that comes back. */
export async function socksUdpExchange(host: string, port: number, bytes: Uint8Array, options: SocksOptions): Promise<Uint8Array> {
  const { socket, bound } = await request(3, '0.0.0.0', 0, options)
  const udp: UdpSocket = createSocket('udp4')
  try {
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no datagram came back')), options.timeoutMs ?? 10_000)
      udp.on('error', reject)
      udp.on('message', (message) => {
        clearTimeout(timer)
        resolve(message.subarray(3 + addressLength(message, 3)))
      })
      const relay = isIP(bound.host) === 4 && bound.host !== '0.0.0.0' ? bound.host : splitAddress(options.proxy)[0]
      udp.send(Buffer.concat([Uint8Array.of(0, 0, 0), encodeTarget(host, port), bytes]), bound.port, relay)
    })
  } finally {
    udp.close()
    socket.destroy()
  }
}

/** The last colon parts address and port. */
export function splitAddress(address: string): [string, number] {
  const at = address.lastIndexOf(':')
  return [address.slice(0, at).replace(/^\[|\]$/g, ''), Number(address.slice(at + 1))]
}

interface Reply {
  readonly socket: Socket
  readonly bound: { readonly host: string; readonly port: number }
}

async function request(command: number, host: string, port: number, options: SocksOptions): Promise<Reply> {
  const [proxyHost, proxyPort] = splitAddress(options.proxy)
  const socket = connect({ host: proxyHost, port: proxyPort, noDelay: true, allowHalfOpen: true })
  const input = new Input(socket, options.timeoutMs ?? 20_000)
  try {
    socket.write(Uint8Array.of(5, 1, options.user === undefined ? 0 : 2))
    const method = await input.take(2)
    if (method[1] === 0xff) throw new Error('the proxy accepts no offered method')
    if (method[1] === 2) {
      const user = Buffer.from(options.user ?? '')
      socket.write(Buffer.concat([Uint8Array.of(1, user.length), user, Uint8Array.of(1, 0x78)]))
      const verdict = await input.take(2)
      if (verdict[1] !== 0) throw new Error('the proxy refuses the credentials')
    }
    socket.write(Buffer.concat([Uint8Array.of(5, command, 0), encodeTarget(host, port)]))
    const head = await input.take(4)
    if (head[1] !== 0) throw new SocksRefusal(head[1]!)
    const size = head[3] === 1 ? 4 : head[3] === 4 ? 16 : (await input.take(1))[0]!
    const address = await input.take(size)
    const portBytes = await input.take(2)
    input.release()
    const text =
      head[3] === 1 ? address.join('.') : head[3] === 4 ? (address.toString('hex').match(/.{4}/g) ?? []).join(':') : address.toString()
    return { socket, bound: { host: text, port: portBytes.readUInt16BE(0) } }
  } catch (error) {
    socket.destroy()
    throw error
  }
}

function encodeTarget(host: string, port: number): Uint8Array {
  const portBytes = Uint8Array.of(port >> 8, port & 0xff)
  if (isIP(host) === 4) return Buffer.concat([Uint8Array.of(1), parseIp(host).bytes, portBytes])
  if (isIP(host) === 6) return Buffer.concat([Uint8Array.of(4), parseIp(host).bytes, portBytes])
  return Buffer.concat([Uint8Array.of(3, host.length), Buffer.from(host, 'latin1'), portBytes])
}

/** Length of ATYP, address and port that begin at `at`. */
function addressLength(bytes: Uint8Array, at: number): number {
  const type = bytes[at]
  return 3 + (type === 1 ? 4 : type === 4 ? 16 : 1 + bytes[at + 1]!)
}

/** Exact reads from a socket that is handed on afterwards. */
class Input {
  readonly #socket: Socket
  #held = Buffer.alloc(0)
  #wanted: { size: number; resolve(bytes: Buffer): void; reject(error: Error): void } | null = null
  #failed: Error | null = null
  readonly #timer: NodeJS.Timeout
  readonly #onData = (bytes: Buffer): void => {
    this.#held = Buffer.concat([this.#held, bytes])
    this.#serve()
  }
  readonly #onError = (error: Error): void => this.#fail(error)
  readonly #onEnd = (): void => this.#fail(new Error('the proxy closed the connection'))

  constructor(socket: Socket, timeoutMs: number) {
    this.#socket = socket
    this.#timer = setTimeout(() => this.#fail(new Error(`the proxy has not answered in ${timeoutMs} ms`)), timeoutMs)
    socket.on('data', this.#onData).on('error', this.#onError).on('end', this.#onEnd).on('close', this.#onEnd)
  }

  take(size: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#wanted = { size, resolve, reject }
      this.#serve()
    })
  }

  /** Gives the socket back, with what was read too far. It is paused: the new reader resumes it. */
  release(): void {
    clearTimeout(this.#timer)
    this.#socket.pause()
    this.#socket.off('data', this.#onData).off('error', this.#onError).off('end', this.#onEnd).off('close', this.#onEnd)
    if (this.#held.length > 0) this.#socket.unshift(this.#held)
  }

  #serve(): void {
    const wanted = this.#wanted
    if (!wanted) return
    if (this.#held.length >= wanted.size) {
      this.#wanted = null
      const bytes = this.#held.subarray(0, wanted.size)
      this.#held = this.#held.subarray(wanted.size)
      wanted.resolve(bytes)
    } else if (this.#failed) {
      this.#wanted = null
      wanted.reject(this.#failed)
    }
  }

  #fail(error: Error): void {
    clearTimeout(this.#timer)
    this.#failed ??= error
    this.#serve()
  }
}
