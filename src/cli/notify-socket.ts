import { endianness } from 'node:os'

/**
 * Datagrams to a service manager, sd_notify(3). Node has no UNIX datagram sockets, so the C library's are called; the program systemd-notify would
 * need NotifyAccess=all and is missing where there is no systemd, as in a container (docs/decisions/2026-11-21-service-manager.md).
 */

const AF_UNIX = 1
/** SOCK_DGRAM, SOCK_CLOEXEC and SOCK_NONBLOCK: the same on every architecture that Node is made for. */
const SOCK_DGRAM = 0o2004002
const MSG_NOSIGNAL = 0x4000
const CLOCK_MONOTONIC = 1
/** sun_path */
const PATH_BYTES = 108

export interface NotifySocket {
  /** Sends `KEY=value` lines. False when nobody took them. */
  send(fields: Readonly<Record<string, string>>): boolean
  /** CLOCK_MONOTONIC, microseconds: what RELOADING=1 must be sent with. */
  monotonicUsec(): bigint
}

/**
 * The socket that NOTIFY_SOCKET names; null when it names none that can be had: an absolute path, or `@NAME` in the abstract namespace.
 * @throws what koffi throws where it can't be loaded
 */
export async function openNotifySocket(name: string): Promise<NotifySocket | null> {
  const address = process.platform === 'linux' ? addressOf(name) : null
  if (address === null) return null
  const koffi = (await import('koffi')).default
  const libc = koffi.load(null)
  const socket = libc.func('int socket(int, int, int)')
  const sendto = libc.func('long sendto(int, uint8_t *, size_t, int, uint8_t *, unsigned int)')
  const clockGettime = libc.func('int clock_gettime(int, _Out_ uint8_t *)')
  const fd: number = socket(AF_UNIX, SOCK_DGRAM, 0)
  if (fd < 0) return null
  return {
    send(fields) {
      const lines = Object.entries(fields).map(([key, value]) => `${key}=${value.replaceAll('\n', ' ')}`)
      const bytes = new TextEncoder().encode(lines.join('\n'))
      return Number(sendto(fd, bytes, bytes.length, MSG_NOSIGNAL, address, address.length)) === bytes.length
    },
    monotonicUsec() {
      const time = new Uint8Array(16)
      if (clockGettime(CLOCK_MONOTONIC, time) !== 0) return 0n
      const view = new DataView(time.buffer)
      const little = endianness() === 'LE'
      return view.getBigInt64(0, little) * 1_000_000n + view.getBigInt64(8, little) / 1000n
    },
  }
}

/** struct sockaddr_un of the name's own length: an abstract name has no closing zero. */
function addressOf(name: string): Uint8Array | null {
  const isAbstract = name.startsWith('@')
  if (!isAbstract && !name.startsWith('/')) return null
  const path = new TextEncoder().encode(name)
  if (path.length < 2 || path.length >= PATH_BYTES) return null
  if (isAbstract) path[0] = 0
  const address = new Uint8Array(2 + path.length + (isAbstract ? 0 : 1))
  new DataView(address.buffer).setUint16(0, AF_UNIX, endianness() === 'LE')
  address.set(path, 2)
  return address
}
