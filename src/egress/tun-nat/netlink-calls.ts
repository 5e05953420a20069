import { endianness } from 'node:os'
import { messageOf } from '../../base/index.ts'
import { tunNatError } from './errors.ts'

const LITTLE = endianness() === 'LE'
const AF_NETLINK = 16
const SOCK_RAW_CLOEXEC = 3 | 0o2000000
const NETLINK_NETFILTER = 12
const SOL_SOCKET = 1
const SO_RCVTIMEO = 20
const MSG_DONTWAIT = 0x40
const ENOBUFS = 105
/** struct sockaddr_nl */
const ADDRESS_BYTES = 12

/** The kernel's netfilter by netlink sockets, which Node has no words for. The caller closes what it opened, with `fs.closeSync`. */
export interface NetlinkCalls {
  /** A socket; below zero: there is none. @param waitSeconds of a `receive` that waits, @param group of messages to all, by its number */
  open(options: { readonly waitSeconds?: number; readonly group?: number }): number
  /** In one of libuv's threads; what was sent of it. */
  send(fd: number, bytes: Uint8Array): Promise<number>
  /** In one of libuv's threads: waits. The length of one message; 0 or less: none came. */
  receive(fd: number, into: Uint8Array): Promise<number>
  /** What is there now: a length, 'nothing', or 'lost': some were, for want of room. */
  receiveNow(fd: number, into: Uint8Array): number | 'nothing' | 'lost'
  /** Calls `ready` in turns of their own whenever something is there, until the function it gives is called. */
  watch(fd: number, ready: () => void): () => void
}

interface PollHandle {
  close(): void
}

/** @throws ShallotError 'exit-tun-unavailable' */
export async function loadNetlink(): Promise<NetlinkCalls> {
  try {
    const koffi = (await import('koffi')).default
    const libc = koffi.load(null)
    const socket = libc.func('int socket(int, int, int)')
    const bind = libc.func('int bind(int, uint8_t *, unsigned int)')
    const setsockopt = libc.func('int setsockopt(int, int, int, uint8_t *, unsigned int)')
    const send = libc.func('long send(int, uint8_t *, size_t, int)')
    const receive = libc.func('long recv(int, _Out_ uint8_t *, size_t, int)')
    const poll = koffi.node.poll as unknown as (fd: number, wants: object, ready: () => void) => PollHandle
    const inThread = (call: typeof send, ...args: unknown[]) =>
      new Promise<number>((resolve, reject) => {
        call.async(...args, (error: unknown, result: number) => (error ? reject(error) : resolve(result)))
      })
    return {
      open({ waitSeconds = 0, group = 0 }) {
        const fd: number = socket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_NETFILTER)
        if (fd < 0) return fd
        const wait = new Uint8Array(16)
        new DataView(wait.buffer).setBigInt64(0, BigInt(waitSeconds), LITTLE)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, wait, wait.length)
        const address = new Uint8Array(ADDRESS_BYTES)
        const view = new DataView(address.buffer)
        view.setUint16(0, AF_NETLINK, LITTLE)
        view.setUint32(8, group === 0 ? 0 : 1 << (group - 1), LITTLE)
        bind(fd, address, address.length)
        return fd
      },
      send: (fd, bytes) => inThread(send, fd, bytes, bytes.length, 0),
      receive: (fd, into) => inThread(receive, fd, into, into.length, 0),
      receiveNow(fd, into) {
        const length: number = receive(fd, into, into.length, MSG_DONTWAIT)
        if (length > 0) return length
        return length < 0 && koffi.errno() === ENOBUFS ? 'lost' : 'nothing'
      },
      watch(fd, ready) {
        let over = false
        // What is thrown within the library's callback would surface at some other call of it.
        const handle = poll(fd, { readable: true }, () => setImmediate(() => over || ready()))
        return () => {
          over = true
          handle.close()
        }
      },
    }
  } catch (error) {
    throw tunNatError('exit-tun-unavailable', `the library koffi can't be loaded (${messageOf(error)})`, 'never', error)
  }
}
