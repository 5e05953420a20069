import { chmodSync, closeSync, rmSync } from 'node:fs'
import { endianness } from 'node:os'
import { getSystemErrorName } from 'node:util'
import { messageOf, ShallotError } from '../base/index.ts'

// Linux' numbers (uapi/asm-generic/socket.h, linux/socket.h), the same on every architecture that Node is made for.
const AF_UNIX = 1
const SOCK_STREAM_CLOEXEC = 0o2000001
const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const SO_RCVTIMEO = 20
const MSG_NOSIGNAL = 0x4000
const MSG_CMSG_CLOEXEC = 0x40000000
/** struct cmsghdr: length (8 bytes), level, type; then one descriptor, padded to 8. */
const CONTROL_BYTES = 24
const CONTROL_LENGTH = 20
const CONTROL_DESCRIPTOR = 16
/** sun_path, with its closing zero. */
const PATH_BYTES = 108
const LITTLE = endianness() === 'LE'
/** How long either side waits for the other. */
export const HANDOVER_MS = 10_000

interface SystemCalls {
  socket(domain: number, type: number, protocol: number): number
  bind(fd: number, address: Uint8Array, length: number): number
  listen(fd: number, backlog: number): number
  connect(fd: number, address: Uint8Array, length: number): number
  setsockopt(fd: number, level: number, name: number, value: Uint8Array, length: number): number
  /** Waits in a thread of the pool, at most as long as SO_RCVTIMEO says. */
  accept(fd: number): Promise<number>
  sendmsg(fd: number, message: object, flags: number): number
  /** As `accept`. */
  recvmsg(fd: number, message: object, flags: number): Promise<number>
  errno(): number
}

let loaded: SystemCalls | null = null

async function load(): Promise<SystemCalls> {
  if (process.platform !== 'linux')
    throw new ShallotError('tun-not-on-this-platform', `a TUN device is not built for ${process.platform} yet; it works on Linux`, {
      kind: 'host',
      retry: 'never',
    })
  if (loaded !== null) return loaded
  try {
    const koffi = (await import('koffi')).default
    const libc = koffi.load(null)
    koffi.struct('shallot_iovec', { base: 'uint8_t *', length: 'size_t' })
    koffi.struct('shallot_msghdr', {
      name: 'void *',
      nameLength: 'uint32_t',
      parts: 'shallot_iovec *',
      partCount: 'size_t',
      control: 'uint8_t *',
      controlLength: 'size_t',
      flags: 'int',
    })
    const accept = libc.func('int accept4(int, void *, void *, int)')
    const recvmsg = libc.func('long recvmsg(int, shallot_msghdr *, int)')
    const SOCK_CLOEXEC = 0o2000000
    const later = (call: typeof accept, ...args: unknown[]): Promise<number> =>
      new Promise((resolve, reject) =>
        call.async(...args, (error: Error | null, result: number) => {
          if (error === null) resolve(result)
          else reject(error)
        }),
      )
    loaded = {
      socket: libc.func('int socket(int, int, int)'),
      bind: libc.func('int bind(int, uint8_t *, unsigned int)'),
      listen: libc.func('int listen(int, int)'),
      connect: libc.func('int connect(int, uint8_t *, unsigned int)'),
      setsockopt: libc.func('int setsockopt(int, int, int, uint8_t *, unsigned int)'),
      accept: (fd) => later(accept, fd, null, null, SOCK_CLOEXEC),
      sendmsg: libc.func('long sendmsg(int, shallot_msghdr *, int)'),
      recvmsg: (fd, message, flags) => later(recvmsg, fd, message, flags),
      errno: () => koffi.errno(),
    }
    return loaded
  } catch (error) {
    throw failed(`the library koffi can't be loaded (${messageOf(error)})`, error)
  }
}

/**
 * Waits on a UNIX socket of this path for one process, and gives it a copy of the descriptor (SCM_RIGHTS). Whoever may enter the path's directory
 * may have it. The socket's file is gone afterwards; the caller keeps its own descriptor.
 * @throws ShallotError 'descriptor-not-handed-over' when nobody comes in time, 'tun-not-on-this-platform'
 */
export async function offerDescriptor(path: string, fd: number, { waitMs = HANDOVER_MS, ready = () => {} } = {}): Promise<void> {
  const calls = await load()
  const listener = openSocket(calls, waitMs)
  let taker = -1
  try {
    const address = addressOf(path)
    if (calls.bind(listener, address, address.length) !== 0) throw failed(`bind: ${errorName(calls)}`)
    try {
      // The path's directory decides who comes; a node of another user is among them.
      chmodSync(path, 0o666)
      if (calls.listen(listener, 1) !== 0) throw failed(`listen: ${errorName(calls)}`)
      ready()
      taker = await calls.accept(listener)
      if (taker < 0) throw failed('nobody came for it')
    } finally {
      rmSync(path, { force: true })
    }
    const control = new Uint8Array(CONTROL_BYTES)
    const view = new DataView(control.buffer)
    view.setBigUint64(0, BigInt(CONTROL_LENGTH), LITTLE)
    view.setInt32(8, SOL_SOCKET, LITTLE)
    view.setInt32(12, SCM_RIGHTS, LITTLE)
    view.setInt32(CONTROL_DESCRIPTOR, fd, LITTLE)
    if (calls.sendmsg(taker, message(new Uint8Array(1), control), MSG_NOSIGNAL) !== 1) throw failed(`sendmsg: ${errorName(calls)}`)
  } finally {
    if (taker >= 0) closeSync(taker)
    closeSync(listener)
  }
}

/**
 * The descriptor that is offered on a UNIX socket of this path: now the caller's, to be closed by it or given to `adoptTun`.
 * @throws ShallotError 'descriptor-not-handed-over', 'tun-not-on-this-platform'
 */
export async function takeDescriptor(path: string, { waitMs = HANDOVER_MS } = {}): Promise<number> {
  const calls = await load()
  const socket = openSocket(calls, waitMs)
  try {
    const address = addressOf(path)
    if (calls.connect(socket, address, address.length) !== 0) throw failed(`connect: ${errorName(calls)}`)
    const control = new Uint8Array(CONTROL_BYTES)
    const got = await calls.recvmsg(socket, message(new Uint8Array(1), control), MSG_CMSG_CLOEXEC)
    const view = new DataView(control.buffer)
    const given =
      got === 1 &&
      Number(view.getBigUint64(0, LITTLE)) === CONTROL_LENGTH &&
      view.getInt32(8, LITTLE) === SOL_SOCKET &&
      view.getInt32(12, LITTLE) === SCM_RIGHTS
    if (!given) throw failed(got === 0 ? 'the other side went away' : 'no descriptor came')
    return view.getInt32(CONTROL_DESCRIPTOR, LITTLE)
  } finally {
    closeSync(socket)
  }
}

function openSocket(calls: SystemCalls, waitMs: number): number {
  const socket = calls.socket(AF_UNIX, SOCK_STREAM_CLOEXEC, 0)
  if (socket < 0) throw failed(`socket: ${errorName(calls)}`)
  const time = new Uint8Array(16)
  const view = new DataView(time.buffer)
  view.setBigInt64(0, BigInt(Math.floor(waitMs / 1000)), LITTLE)
  view.setBigInt64(8, BigInt(Math.floor(waitMs % 1000) * 1000), LITTLE)
  calls.setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, time, time.length)
  return socket
}

/** struct sockaddr_un */
function addressOf(path: string): Uint8Array {
  const name = new TextEncoder().encode(path)
  if (name.length === 0 || name.length >= PATH_BYTES || name.includes(0)) throw failed(`a socket's path has 1 to ${PATH_BYTES - 1} bytes`)
  const address = new Uint8Array(2 + PATH_BYTES)
  new DataView(address.buffer).setUint16(0, AF_UNIX, LITTLE)
  address.set(name, 2)
  return address
}

function message(part: Uint8Array, control: Uint8Array): object {
  return {
    name: null,
    nameLength: 0,
    parts: { base: part, length: part.length },
    partCount: 1,
    control,
    controlLength: control.length,
    flags: 0,
  }
}

function errorName(calls: SystemCalls): string {
  return getSystemErrorName(-calls.errno())
}

function failed(why: string, cause?: unknown): ShallotError {
  return new ShallotError('descriptor-not-handed-over', `the descriptor was not handed over: ${why}`, {
    kind: 'host',
    retry: 'later',
    cause,
  })
}
