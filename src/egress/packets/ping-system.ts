import fs from 'node:fs'
import { endianness } from 'node:os'
import { getSystemErrorName } from 'node:util'
import type koffiModule from 'koffi'
import { type IpAddress, ipFromBytes, messageOf, ShallotError } from '../../base/index.ts'

// Linux' numbers (uapi/asm-generic/socket.h, uapi/linux/in.h, in6.h, errqueue.h), alike on every architecture that Node runs on.
const AF = { 4: 2, 6: 10 } as const
const SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 | 0o4000 | 0o2000000
const IPPROTO = { 4: 1, 6: 58 } as const
const LEVEL = { 4: 0, 6: 41 } as const
/** IP_TTL, IPV6_UNICAST_HOPS */
const HOPS = { 4: 2, 6: 16 } as const
/** IP_RECVERR, IPV6_RECVERR; the same number names the control message. */
const RECVERR = { 4: 11, 6: 25 } as const
/** IP_RECVTTL, IPV6_RECVHOPLIMIT */
const RECVHOPS = { 4: 12, 6: 51 } as const
/** The control message that follows: IP_TTL, IPV6_HOPLIMIT */
const HOPS_MESSAGE = { 4: 2, 6: 52 } as const
const MSG_DONTWAIT = 0x40
const MSG_ERRQUEUE = 0x2000
const ORIGIN_ICMP = { 4: 2, 6: 3 } as const
const SOCKADDR_BYTES = { 4: 16, 6: 28 } as const
const LITTLE = endianness() === 'LE'

// The arena of one recvmsg(2): struct msghdr and struct iovec of a 64-bit system, then what they point to.
const IOVEC_AT = 64
const NAME_AT = 96
const CONTROL_AT = 128
const CONTROL_BYTES = 512
const DATA_AT = 1024
const DATA_BYTES = 65_536
/** Messages read before the event loop gets its turn. */
const TURN_MESSAGES = 64

interface PollHandle {
  start(wants: object, ready: PollCallback): void
  close(): void
}
type PollCallback = (status: number) => void

interface SystemCalls {
  socket(domain: number, type: number, protocol: number): number
  bind(fd: number, address: Uint8Array, length: number): number
  setsockopt(fd: number, level: number, name: number, value: Uint8Array, length: number): number
  sendto(fd: number, bytes: Uint8Array, length: number, flags: number, to: Uint8Array, toLength: number): number
  recvmsg(fd: number, message: bigint, flags: number): number
  errno(): number
  poll(fd: number, wants: object, ready: PollCallback): PollHandle
}

/** What a ping socket tells. Bytes are lent for the call. */
export interface PingHandlers {
  /** An ICMP message that answers one of ours, from its type on. @param hopLimit as it arrived */
  answer(from: IpAddress, message: Uint8Array, hopLimit: number): void
  /** A router or the host says that a request did not arrive. @param message ours, from its ICMP type on, as far as it was quoted */
  error(reporter: IpAddress, type: number, code: number, mtu: number, message: Uint8Array): void
}

/** Linux' ICMP sockets without privileges (SOCK_DGRAM, IPPROTO_ICMP or IPPROTO_ICMPV6): echo requests out, answers and errors in. */
export interface PingSocket {
  /** Sends an echo request, from its ICMP type on; the system sets its identifier and checksum. Null, or an errno name. */
  send(message: Uint8Array, to: IpAddress, hopLimit: number): string | null
  close(): void
}

/** @param source the address to send from; '' lets the system choose. @throws ShallotError */
export type OpenPingSocket = (family: 4 | 6, source: IpAddress | null, handlers: PingHandlers) => PingSocket

const refusal = (code: string, message: string, cause?: unknown): ShallotError =>
  new ShallotError(code, message, { kind: 'host', retry: 'later', cause })

const realKoffi = () => import('koffi')

/** @throws ShallotError 'ping-not-on-this-platform' | 'ping-unavailable' */
export async function loadPingSockets(platform: string = process.platform, importKoffi = realKoffi): Promise<OpenPingSocket> {
  if (platform !== 'linux')
    throw refusal('ping-not-on-this-platform', `ping without privileges is not built for ${platform} yet; it works on Linux`)
  let koffi: typeof koffiModule
  try {
    koffi = (await importKoffi()).default
  } catch (error) {
    throw refusal('ping-unavailable', `the library koffi can't be loaded (${messageOf(error)})`, error)
  }
  if (koffi.sizeof('size_t') !== 8) throw refusal('ping-unavailable', 'ping sockets are used on 64-bit systems only')
  const libc = koffi.load(null)
  const calls: SystemCalls = {
    socket: libc.func('int socket(int, int, int)'),
    bind: libc.func('int bind(int, uint8_t *, uint32_t)'),
    setsockopt: libc.func('int setsockopt(int, int, int, uint8_t *, uint32_t)'),
    sendto: libc.func('long sendto(int, uint8_t *, size_t, int, uint8_t *, uint32_t)'),
    recvmsg: libc.func('long recvmsg(int, void *, int)'),
    errno: () => koffi.errno(),
    poll: koffi.node.poll as unknown as SystemCalls['poll'],
  }
  const arena = new Arena(koffi)
  return (family, source, handlers) => new LinuxPingSocket(calls, arena, family, source, handlers)
}

/** Memory at a known address for recvmsg(2), one for all sockets: what was read is handed on before anything else is read. */
class Arena {
  readonly address: bigint
  readonly view: DataView
  readonly bytes: Uint8Array

  constructor(koffi: typeof koffiModule) {
    const length = DATA_AT + DATA_BYTES
    this.address = koffi.alloc('uint8_t', length) as unknown as bigint
    const memory = koffi.view(this.address, length)
    this.view = new DataView(memory)
    this.bytes = new Uint8Array(memory)
  }

  /** Before each call: lengths are in and out. */
  reset(): void {
    const { view, address } = this
    view.setBigUint64(0, address + BigInt(NAME_AT), LITTLE)
    view.setUint32(8, SOCKADDR_BYTES[6], LITTLE)
    view.setBigUint64(16, address + BigInt(IOVEC_AT), LITTLE)
    view.setBigUint64(24, 1n, LITTLE)
    view.setBigUint64(32, address + BigInt(CONTROL_AT), LITTLE)
    view.setBigUint64(40, BigInt(CONTROL_BYTES), LITTLE)
    view.setBigUint64(48, 0n, LITTLE)
    view.setBigUint64(IOVEC_AT, address + BigInt(DATA_AT), LITTLE)
    view.setBigUint64(IOVEC_AT + 8, BigInt(DATA_BYTES), LITTLE)
  }

  /** Where the data of a control message lie; -1 when it is not there. */
  control(level: number, type: number): number {
    const end = CONTROL_AT + Math.min(CONTROL_BYTES, Number(this.view.getBigUint64(40, LITTLE)))
    for (let at = CONTROL_AT; at + 16 <= end; ) {
      const length = Number(this.view.getBigUint64(at, LITTLE))
      if (length < 16 || at + length > end) return -1
      if (this.view.getInt32(at + 8, LITTLE) === level && this.view.getInt32(at + 12, LITTLE) === type) return at + 16
      at += (length + 7) & ~7
    }
    return -1
  }

  /** The address of a sockaddr; null when it is of another family. */
  sockaddr(at: number, family: 4 | 6): IpAddress | null {
    if (this.view.getUint16(at, LITTLE) !== AF[family]) return null
    return ipFromBytes(family === 4 ? this.bytes.slice(at + 4, at + 8) : this.bytes.slice(at + 8, at + 24))
  }
}

class LinuxPingSocket implements PingSocket {
  readonly #calls: SystemCalls
  readonly #arena: Arena
  readonly #family: 4 | 6
  readonly #handlers: PingHandlers
  readonly #fd: number
  readonly #poll: PollHandle
  #hopLimit = 0
  #closed = false

  constructor(calls: SystemCalls, arena: Arena, family: 4 | 6, source: IpAddress | null, handlers: PingHandlers) {
    this.#calls = calls
    this.#arena = arena
    this.#family = family
    this.#handlers = handlers
    this.#fd = calls.socket(AF[family], SOCK_DGRAM_NONBLOCK_CLOEXEC, IPPROTO[family])
    if (this.#fd < 0) {
      const code = errnoName(calls.errno())
      if (code === 'EACCES' || code === 'EPERM') {
        throw refusal(
          'ping-not-permitted',
          "this system gives no ping sockets to this user's groups: set sysctl net.ipv4.ping_group_range to a range that holds one of them",
        )
      }
      throw refusal('ping-unavailable', `there is no ping socket for IPv${family} (${code})`)
    }
    this.#option(RECVERR[family], 1)
    this.#option(RECVHOPS[family], 1)
    if (source && calls.bind(this.#fd, socketAddress(source), SOCKADDR_BYTES[family]) !== 0) {
      const code = errnoName(calls.errno())
      fs.closeSync(this.#fd)
      throw refusal('ping-unavailable', `a ping socket can't have the outbound address (${code})`)
    }
    this.#poll = calls.poll(this.#fd, { readable: true }, this.#polled)
  }

  send(message: Uint8Array, to: IpAddress, hopLimit: number): string | null {
    if (this.#closed) return 'EBADF'
    if (hopLimit !== this.#hopLimit) {
      this.#option(HOPS[this.#family], hopLimit)
      this.#hopLimit = hopLimit
    }
    const address = socketAddress(to)
    // The first failure may be of an earlier request, which the system tells whoever comes next.
    for (let tries = 0; ; tries++) {
      if (this.#calls.sendto(this.#fd, message, message.length, MSG_DONTWAIT, address, address.length) >= 0) return null
      const code = errnoName(this.#calls.errno())
      if (tries === 1 || code === 'EAGAIN') return code
    }
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#poll.close()
    fs.closeSync(this.#fd)
  }

  #option(name: number, value: number): void {
    const bytes = new Uint8Array(4)
    new DataView(bytes.buffer).setInt32(0, value, LITTLE)
    this.#calls.setsockopt(this.#fd, LEVEL[this.#family], name, bytes, 4)
  }

  /** What is thrown within the library's callback surfaces at some other call of it: so the work is left to the loop's next phase. */
  readonly #polled: PollCallback = (status) => {
    setImmediate(() => {
      if (this.#closed) return
      this.#read(0)
      this.#read(MSG_ERRQUEUE)
      // A waiting error ends the watch, with a status below zero.
      if (status < 0 && !this.#closed) this.#poll.start({ readable: true }, this.#polled)
    })
  }

  #read(flags: number): void {
    const { view, bytes } = this.#arena
    for (let read = 0; read < TURN_MESSAGES && !this.#closed; read++) {
      this.#arena.reset()
      const length = this.#calls.recvmsg(this.#fd, this.#arena.address, flags | MSG_DONTWAIT)
      if (length < 0) {
        // An error that waits is told once before the message behind it.
        if (errnoName(this.#calls.errno()) === 'EAGAIN') return
        continue
      }
      const message = bytes.subarray(DATA_AT, DATA_AT + length)
      if (flags === 0) {
        const from = this.#arena.sockaddr(NAME_AT, this.#family)
        const hops = this.#arena.control(LEVEL[this.#family], HOPS_MESSAGE[this.#family])
        if (from) this.#handlers.answer(from, message, hops < 0 ? 0 : view.getInt32(hops, LITTLE))
      } else this.#error(message)
    }
  }

  /** struct sock_extended_err with the reporter's address behind it. */
  #error(message: Uint8Array): void {
    const { view } = this.#arena
    const at = this.#arena.control(LEVEL[this.#family], RECVERR[this.#family])
    if (at < 0 || view.getUint8(at + 4) !== ORIGIN_ICMP[this.#family]) return
    const reporter = this.#arena.sockaddr(at + 16, this.#family)
    if (reporter) this.#handlers.error(reporter, view.getUint8(at + 5), view.getUint8(at + 6), view.getUint32(at + 8, LITTLE), message)
  }
}

function socketAddress(ip: IpAddress): Uint8Array {
  const bytes = new Uint8Array(SOCKADDR_BYTES[ip.family])
  new DataView(bytes.buffer).setUint16(0, AF[ip.family], LITTLE)
  bytes.set(ip.bytes, ip.family === 4 ? 4 : 8)
  return bytes
}

function errnoName(errno: number): string {
  return getSystemErrorName(-errno)
}
