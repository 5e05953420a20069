import net, { isIPv6, type Socket } from 'node:net'
import { endianness } from 'node:os'
import { getSystemErrorName } from 'node:util'
import { messageOf, parseIp } from '../base/index.ts'
import { aborted } from './tls-sockets.ts'

/** Where a socket that listens is bound, and its descriptor; null where this platform does not tell. */
export interface BoundListener {
  readonly host: string
  readonly port: number
  readonly fd: number | null
}

/** A failed system call, as Node's own sockets report theirs. */
export class SystemCallError extends Error {
  readonly code: string
  constructor(call: string, errno: number) {
    const code = getSystemErrorName(-errno)
    super(`${call} ${code}`)
    this.name = 'SystemCallError'
    this.code = code
  }
}

// Linux' numbers (uapi/asm-generic/socket.h, uapi/linux/in6.h), the same on every architecture that Node is made for.
const AF_INET = 2
const AF_INET6 = 10
const SOCK_STREAM = 1
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const SO_ERROR = 4
const SO_LINGER = 13
const SO_REUSEPORT = 15
const IPPROTO_IPV6 = 41
const IPV6_V6ONLY = 26
const EINPROGRESS = 115
const ETIMEDOUT = 110
/** How long an attempt whose SYN was answered by the peer's may go on: the system repeats the answer after a second, and twice more. */
const ANSWER_MS = 4000
const IPPROTO_TCP = 6
/** Its first byte is the state of the connection (include/net/tcp_states.h). */
const TCP_INFO = 11
const TCP_SYN_RECV = 3
/** struct linger { int onoff; int linger; }: closing throws the connection away at once, or is orderly. */
const LINGER_NONE = Uint8Array.from(new Uint8Array(Int32Array.of(1, 0).buffer))
const LINGER_OFF = new Uint8Array(8)
const ON = Uint8Array.from(new Uint8Array(Int32Array.of(1).buffer))
const SOCKADDR_IN_BYTES = 16
const SOCKADDR_IN6_BYTES = 28

interface SystemCalls {
  socket(domain: number, type: number, protocol: number): number
  setsockopt(fd: number, level: number, name: number, value: Uint8Array, length: number): number
  getsockopt(fd: number, level: number, name: number, value: Uint8Array, length: Uint32Array): number
  bind(fd: number, address: Uint8Array, length: number): number
  connect(fd: number, address: Uint8Array, length: number): number
  close(fd: number): number
  errno(): number
  /** Calls back once the descriptor can be written to, or has failed. Returns what ends the watch. */
  whenWritable(fd: number, then: () => void): () => void
}

/**
 * TCP sockets that dial from a port which this process listens on. Node has no way to make one (its dials from that port end in EADDRINUSE):
 * the socket is made by system calls and becomes a `net.Socket` only once it is connected.
 */
export class PortSockets {
  readonly #calls: SystemCalls

  private constructor(calls: SystemCalls) {
    this.#calls = calls
  }

  /** Loads the foreign-function library: about 7 MB of memory. @throws Error that says in a sentence why it can't be had */
  static async load(): Promise<PortSockets> {
    if (process.platform !== 'linux') throw new Error(`dialling from the listening port is not built for ${process.platform} yet`)
    let koffi: typeof import('koffi').default
    try {
      koffi = (await import('koffi')).default
      const libc = koffi.load(null)
      return new PortSockets({
        socket: libc.func('int socket(int, int, int)'),
        setsockopt: libc.func('int setsockopt(int, int, int, const void *, uint32_t)'),
        getsockopt: libc.func('int getsockopt(int, int, int, void *, uint32_t *)'),
        bind: libc.func('int bind(int, const void *, uint32_t)'),
        connect: libc.func('int connect(int, const void *, uint32_t)'),
        close: libc.func('int close(int)'),
        errno: () => koffi.errno(),
        whenWritable(fd, then) {
          const watch = koffi.node.poll(fd, { writable: true }, then)
          return () => {
            watch.stop()
            watch.close()
          }
        },
      })
    } catch (error) {
      throw new Error(`the library koffi can't be loaded: ${messageOf(error)}`)
    }
  }

  /**
   * Lets sockets of this user dial from the listener's port. Before and without this, whoever binds the port is refused; after it, still
   * everybody who does not ask for SO_REUSEPORT, as no other node does.
   * @throws Error
   */
  share(listener: BoundListener): void {
    if (listener.fd === null) throw new Error('Node does not tell the descriptor of the listening socket')
    this.#set(listener.fd, SOL_SOCKET, SO_REUSEPORT)
    // The system says whether it works, not a table of versions.
    this.#calls.close(this.#bound(listener))
  }

  /**
   * Connects from the listener's address and port.
   *
   * The system repeats a SYN that is not answered, which must be left to it: a second attempt would begin at another sequence number, while the
   * peer may have taken up the first. So an attempt is given up late, and later still when the peer's SYN has come and only the answer is missing.
   * @param host an IP address of the listener's family
   * @param patienceMs how long to wait for a sign of the peer; null waits for the signal
   * @throws SystemCallError 'ECONNREFUSED', 'EADDRNOTAVAIL' (there is a connection of these two ports already), 'ETIMEDOUT' …; ShallotError 'aborted'
   */
  dial(listener: BoundListener, host: string, port: number, patienceMs: number | null, signal: AbortSignal): Promise<Socket> {
    const calls = this.#calls
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(aborted())
        return
      }
      const fd = this.#bound(listener)
      const to = socketAddress(host, port)
      if (calls.connect(fd, to, to.length) !== 0 && calls.errno() !== EINPROGRESS) {
        reject(this.#closing(fd, 'connect'))
        return
      }
      let unwatch = (): void => {}
      let timer: NodeJS.Timeout | undefined
      const giveUp = (error: Error): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', onAbort)
        unwatch()
        calls.close(fd)
        reject(error)
      }
      const onAbort = (): void => giveUp(aborted())
      const onPatienceEnded = (): void => {
        if (this.#state(fd) === TCP_SYN_RECV) timer = setTimeout(() => giveUp(new SystemCallError('connect', ETIMEDOUT)), ANSWER_MS)
        else giveUp(new SystemCallError('connect', ETIMEDOUT))
      }
      const onWritable = (): void => {
        // The descriptor must be let go of before Node's socket may watch it.
        unwatch()
        clearTimeout(timer)
        signal.removeEventListener('abort', onAbort)
        const error = new Int32Array(1)
        calls.getsockopt(fd, SOL_SOCKET, SO_ERROR, new Uint8Array(error.buffer), Uint32Array.of(4))
        if (error[0] !== 0) {
          calls.close(fd)
          reject(new SystemCallError('connect', error[0]!))
          return
        }
        this.#adopt(fd).then(resolve, reject)
      }
      try {
        unwatch = calls.whenWritable(fd, onWritable)
      } catch (error) {
        calls.close(fd)
        reject(error)
        return
      }
      signal.addEventListener('abort', onAbort, { once: true })
      if (patienceMs !== null) timer = setTimeout(onPatienceEnded, patienceMs)
    })
  }

  #state(fd: number): number {
    const state = new Uint8Array(1)
    this.#calls.getsockopt(fd, IPPROTO_TCP, TCP_INFO, state, Uint32Array.of(1))
    return state[0]!
  }

  async #adopt(fd: number): Promise<Socket> {
    let socket: Socket
    try {
      this.#set(fd, SOL_SOCKET, SO_LINGER, LINGER_OFF)
      socket = new net.Socket({ fd })
    } catch (error) {
      this.#calls.close(fd)
      throw error
    }
    // Dialling the own address from the own port, TCP connects to itself (RFC 9293 §3.5, simultaneous open).
    if (socket.remoteAddress === undefined || (socket.remotePort === socket.localPort && socket.remoteAddress === socket.localAddress)) {
      socket.destroy()
      throw new Error('connected to nobody else')
    }
    socket.setNoDelay(true)
    socket.setKeepAlive(true)
    return socket
  }

  /** A socket bound to the listener's address and port; whoever calls closes it. */
  #bound(listener: BoundListener): number {
    const isV6 = isIPv6(listener.host)
    const fd = this.#calls.socket(isV6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if (fd < 0) throw new SystemCallError('socket', this.#calls.errno())
    try {
      this.#set(fd, SOL_SOCKET, SO_REUSEADDR)
      this.#set(fd, SOL_SOCKET, SO_REUSEPORT)
      // An attempt that is given up half-way would else hold the pair of ports for a minute.
      this.#set(fd, SOL_SOCKET, SO_LINGER, LINGER_NONE)
      if (isV6) this.#set(fd, IPPROTO_IPV6, IPV6_V6ONLY)
    } catch (error) {
      this.#calls.close(fd)
      throw error
    }
    const from = socketAddress(listener.host, listener.port)
    if (this.#calls.bind(fd, from, from.length) !== 0) throw this.#closing(fd, 'bind')
    return fd
  }

  #set(fd: number, level: number, name: number, value = ON): void {
    if (this.#calls.setsockopt(fd, level, name, value, value.length) !== 0) throw new SystemCallError('setsockopt', this.#calls.errno())
  }

  #closing(fd: number, call: string): SystemCallError {
    const error = new SystemCallError(call, this.#calls.errno())
    this.#calls.close(fd)
    return error
  }
}

/** sockaddr_in: family u16 (of the machine), port u16, address; sockaddr_in6: family, port, flow u32, address, scope u32. */
function socketAddress(host: string, port: number): Uint8Array {
  const ip = parseIp(host)
  const bytes = new Uint8Array(ip.family === 4 ? SOCKADDR_IN_BYTES : SOCKADDR_IN6_BYTES)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, ip.family === 4 ? AF_INET : AF_INET6, endianness() === 'LE')
  view.setUint16(2, port)
  bytes.set(ip.bytes, ip.family === 4 ? 4 : 8)
  return bytes
}
