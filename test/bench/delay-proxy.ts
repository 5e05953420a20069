import { connect, createServer, type Server, type Socket } from 'node:net'
import { splitAddress } from '../support/socks-client.ts'

/**
 * A TCP relay that delivers every byte `delayMs` after it came, in either direction, in order, at any rate: a long path without loss.
 *
 * What a path holds is bounded: at most `heldBytes` are under way in each direction, the sender is held back beyond that. 1.5 MiB
 * at 25 ms each way is what a TCP window of 3 MiB allows over a round trip of 50 ms, 63 MB/s, and 3 MiB is the window that Linux gives a
 * connection at most as it is shipped: half of the 6 MiB of tcp_rmem (tcp(7), tcp_adv_win_scale).
 * Setting up a connection costs a round trip, as TCP's does: the first bytes are delivered three delays after the connection came.
 *
 *     node test/bench/delay-proxy.ts DELAY_MS HELD_BYTES LISTEN=TARGET ...     prints one JSON line of the addresses when it listens
 */
export interface DelayOptions {
  readonly delayMs: number
  /** Most bytes under way in each direction of a connection. */
  readonly heldBytes?: number
}

export const defaultHeldBytes = 1.5 * 2 ** 20

export async function startDelayProxy(listen: string, target: string, options: DelayOptions): Promise<{ address: string; close(): void }> {
  const [host, port] = splitAddress(listen)
  const [targetHost, targetPort] = splitAddress(target)
  const sockets = new Set<Socket>()
  const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    const far = connect({ host: targetHost, port: targetPort, allowHalfOpen: true, noDelay: true })
    const connected = performance.now() + 2 * options.delayMs
    new DelayLine(near, far, options, connected)
    new DelayLine(far, near, options, 0)
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
    }
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(port, host, 4096, resolve)
  })
  const bound = server.address() as { address: string; port: number }
  return {
    address: `${bound.address}:${bound.port}`,
    close() {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** One direction: bytes wait here until their time has come, then go out as many at a time as are due. */
class DelayLine {
  readonly #from: Socket
  readonly #to: Socket
  readonly #delayMs: number
  readonly #limit: number
  readonly #notBefore: number
  /** Chunks and the times they are due; the head is at `#first`, so that taking one moves nothing. Null is the end of the stream. */
  #queue: { dueAt: number; bytes: Buffer | null }[] = []
  #first = 0
  #held = 0
  #timer: NodeJS.Timeout | null = null
  #blocked = false

  constructor(from: Socket, to: Socket, options: DelayOptions, notBefore: number) {
    this.#from = from
    this.#to = to
    this.#delayMs = options.delayMs
    this.#limit = options.heldBytes ?? defaultHeldBytes
    this.#notBefore = notBefore
    from.on('data', (bytes: Buffer) => this.#take(bytes))
    from.on('end', () => this.#push(null))
    from.on('error', () => to.destroy())
    from.on('close', () => {
      if (!from.readableEnded) setTimeout(() => to.destroy(), this.#delayMs)
    })
    to.on('drain', () => {
      this.#blocked = false
      this.#release()
    })
  }

  #take(bytes: Buffer): void {
    this.#held += bytes.length
    if (this.#held >= this.#limit) this.#from.pause()
    this.#push(bytes)
  }

  #push(bytes: Buffer | null): void {
    this.#queue.push({ dueAt: Math.max(performance.now(), this.#notBefore) + this.#delayMs, bytes })
    this.#timer ??= setTimeout(() => this.#release(), this.#queue[this.#first]!.dueAt - performance.now())
  }

  #release(): void {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    // A timer may fire up to a millisecond early or late; what is due within half of one goes now.
    const now = performance.now() + 0.5
    this.#to.cork()
    while (!this.#blocked && this.#first < this.#queue.length && this.#queue[this.#first]!.dueAt <= now) {
      const { bytes } = this.#queue[this.#first++]!
      if (bytes === null) {
        this.#to.end()
      } else {
        this.#held -= bytes.length
        if (!this.#to.write(bytes)) this.#blocked = true
      }
    }
    this.#to.uncork()
    if (this.#first > 1024 || this.#first === this.#queue.length) {
      this.#queue = this.#queue.slice(this.#first)
      this.#first = 0
    }
    if (this.#held < this.#limit && this.#from.isPaused()) this.#from.resume()
    const next = this.#queue[this.#first]
    if (next && !this.#blocked) this.#timer = setTimeout(() => this.#release(), Math.max(1, next.dueAt - performance.now()))
  }
}

if (import.meta.main) {
  const [delayMs, heldBytes, ...pairs] = process.argv.slice(2)
  const addresses: string[] = []
  for (const pair of pairs) {
    const [listen, target] = pair.split('=')
    addresses.push((await startDelayProxy(listen!, target!, { delayMs: Number(delayMs), heldBytes: Number(heldBytes) })).address)
  }
  console.log(JSON.stringify(addresses))
}
