import { connect, type Socket } from 'node:net'
import { ShallotError } from '../base/index.ts'

/** Credentials for the proxy; different ones get different circuits. */
export interface ProxyUser {
  readonly name: string
  readonly password: string
}

const CONNECT_TIMEOUT_MS = 130_000

/** What the node's reply codes mean for a person. RFC 1928 §6 */
const replies: Readonly<Record<number, string>> = {
  1: 'the circuit or the exit failed',
  2: 'the exit does not allow this target',
  3: 'the network of the target is not reachable',
  4: 'the host cannot be reached, or its name has no address',
  5: 'the server refused the connection',
  6: 'the connection took too long',
  7: 'the proxy does not know this command',
  8: 'the proxy does not know this kind of address',
}

/**
 * A connection to a host and port through a SOCKS5 proxy (RFC 1928, RFC 1929); the name goes to the proxy as it is.
 * @throws ShallotError 'proxy-failed', 'proxy-refused'
 */
export async function connectThroughSocks(proxy: string, host: string, port: number, user: ProxyUser): Promise<Socket> {
  const colon = proxy.lastIndexOf(':')
  const socket = connect({ host: proxy.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(proxy.slice(colon + 1)), allowHalfOpen: true })
  const reader = new ReplyReader(socket)
  socket.setTimeout(CONNECT_TIMEOUT_MS, () => socket.destroy(new Error('no answer in time')))
  try {
    // No authentication, or name and password.
    socket.write(Uint8Array.of(5, 2, 0, 2))
    const [, method] = await reader.take(2)
    if (method === 2) {
      const name = Buffer.from(user.name)
      const password = Buffer.from(user.password)
      socket.write(Buffer.concat([Buffer.of(1, name.length), name, Buffer.of(password.length), password]))
      const [, verdict] = await reader.take(2)
      if (verdict !== 0)
        throw refused(`the SOCKS5 proxy at ${proxy} does not accept these credentials; give the configured ones with --user NAME:PASSWORD`)
    } else if (method !== 0) {
      throw refused(`the SOCKS5 proxy at ${proxy} asks for an authentication that is not name and password`)
    }
    const name = Buffer.from(host)
    if (name.length > 255) throw refused('the host name is too long')
    socket.write(Buffer.concat([Buffer.of(5, 1, 0, 3, name.length), name, Buffer.of(port >> 8, port & 0xff)]))
    const [, code = 1, , type] = await reader.take(4)
    if (code !== 0) throw refused(`${host}:${port}: ${replies[code] ?? `the proxy answered with code ${code}`}`)
    await reader.take((type === 4 ? 16 : type === 1 ? 4 : (await reader.take(1))[0]!) + 2)
    socket.setTimeout(0)
    reader.release()
    return socket
  } catch (error) {
    socket.destroy()
    if (error instanceof ShallotError) throw error
    throw new ShallotError('proxy-failed', `the SOCKS5 proxy at ${proxy} failed: ${String((error as Error).message)}`, {
      kind: 'process',
      retry: 'later',
      cause: error,
    })
  }
}

function refused(message: string): ShallotError {
  return new ShallotError('proxy-refused', message, { kind: 'exit', retry: 'elsewhere' })
}

/** Reads exact lengths from a socket, and gives back what came too much. */
class ReplyReader {
  readonly #socket: Socket
  #held = Buffer.alloc(0)
  #wake: () => void = () => {}
  #failure: Error | null = null
  readonly #data = (chunk: Buffer): void => {
    this.#held = Buffer.concat([this.#held, chunk])
    this.#wake()
  }
  readonly #ended = (error?: unknown): void => {
    this.#failure ??= error instanceof Error ? error : new Error('it closed the connection')
    this.#wake()
  }

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', this.#data).on('error', this.#ended).on('close', this.#ended).on('end', this.#ended)
  }

  async take(length: number): Promise<Buffer> {
    while (this.#held.length < length) {
      if (this.#failure !== null) throw this.#failure
      await new Promise<void>((wake) => {
        this.#wake = wake
      })
    }
    const taken = this.#held.subarray(0, length)
    this.#held = this.#held.subarray(length)
    return taken
  }

  release(): void {
    this.#socket.off('data', this.#data).off('close', this.#ended).off('end', this.#ended).off('error', this.#ended)
    this.#socket.pause()
    if (this.#held.length > 0) this.#socket.unshift(this.#held)
  }
}
