import fs from 'node:fs'
import { endianness } from 'node:os'
import { getSystemErrorName } from 'node:util'
import type koffiModule from 'koffi'
import { messageOf, ShallotError } from '../base/index.ts'
import { type TunDescriptor, type TunWants, type TunWrite, tunLimits } from './tun-port.ts'

const DEVICE = '/dev/net/tun'

// Linux' numbers (uapi/linux/if_tun.h, uapi/linux/sockios.h, uapi/asm/ioctl.h, where PowerPC has the direction bits the other way round).
const turned = process.arch === 'ppc64'
const TUNSETIFF = turned ? 0x8004_54ca : 0x4004_54ca
const TUNGETIFF = turned ? 0x4004_54d2 : 0x8004_54d2
const SIOCGIFMTU = 0x8921
const IFF_TUN = 0x0001
const IFF_NO_PI = 0x1000
const IFF_VNET_HDR = 0x4000
const IFNAMSIZ = 16
/** struct ifreq: a name and a union of at most 24 bytes. */
const IFREQ_BYTES = 40
const AF_INET = 2
const SOCK_DGRAM_CLOEXEC = 0o2000002
const F_SETFD = 2
const F_SETFL = 4
const O_NONBLOCK = 0o4000
const FD_CLOEXEC = 1
const LITTLE = endianness() === 'LE'

interface PollHandle {
  start(wants: object, ready: PollCallback): void
  close(): void
}
/** The library's types leave the status out. Below zero: the descriptor failed, and is not watched any more. */
type PollCallback = (status: number, is: TunWants) => void

interface SystemCalls {
  ioctl(fd: number, request: number, argument: Uint8Array): number
  socket(domain: number, type: number, protocol: number): number
  fcntl(fd: number, command: number, argument: number): number
  errno(): number
  poll(fd: number, wants: object, ready: PollCallback): PollHandle
}

/** A name and what the kernel holds a device to be. */
export interface InterfaceFacts {
  readonly name: string
  readonly flags: number
}

const host = (code: string, message: string, retry: 'later' | 'never', cause?: unknown): ShallotError =>
  new ShallotError(code, message, { kind: 'host', retry, cause })

/** Nothing says yes to this but a person. */
export const notPermitted = (what: string, cause?: unknown): ShallotError =>
  host(
    'tun-not-permitted',
    `${what}: making a TUN device needs CAP_NET_ADMIN. Run as root or with that capability, prepare the device for this user (ip tuntap add mode tun user NAME name DEVICE), or hand its descriptor over`,
    'never',
    cause,
  )

/** The machine lacks what a TUN device needs, now. */
export const unavailable = (message: string, retry: 'later' | 'never' = 'never', cause?: unknown): ShallotError =>
  host('tun-unavailable', message, retry, cause)

const removed = (name: string, cause: unknown): ShallotError =>
  host('tun-removed', `the TUN device ${name} was removed from outside; make it anew`, 'later', cause)

const realKoffi = () => import('koffi')

/** The calls that Node lacks. One for the process; the library costs about 7 MB of memory and is loaded with the first device. */
export class TunSystem {
  static #loaded: TunSystem | null = null
  readonly #calls: SystemCalls

  private constructor(calls: SystemCalls) {
    this.#calls = calls
  }

  /** @throws ShallotError 'tun-not-on-this-platform' | 'tun-unavailable' */
  static async load(platform: string = process.platform, importKoffi = realKoffi): Promise<TunSystem> {
    if (platform !== 'linux')
      throw host('tun-not-on-this-platform', `a TUN device is not built for ${platform} yet; it works on Linux`, 'never')
    if (TunSystem.#loaded !== null && importKoffi === realKoffi) return TunSystem.#loaded
    let koffi: typeof koffiModule
    try {
      koffi = (await importKoffi()).default
      const libc = koffi.load(null)
      TunSystem.#loaded = new TunSystem({
        ioctl: libc.func('int ioctl(int, unsigned long, uint8_t *)'),
        socket: libc.func('int socket(int, int, int)'),
        fcntl: libc.func('int fcntl(int, int, int)'),
        errno: () => koffi.errno(),
        poll: koffi.node.poll as unknown as SystemCalls['poll'],
      })
      return TunSystem.#loaded
    } catch (error) {
      throw unavailable(
        `the library koffi can't be loaded (${messageOf(error)}): install the node's packages for this platform`,
        'never',
        error,
      )
    }
  }

  /**
   * A descriptor of the device with this name: made, or, when it is there already and prepared for this user, joined.
   * @param name "" or one with %d: the kernel chooses
   * @throws ShallotError 'tun-not-permitted' | 'tun-unavailable'
   */
  open(name: string): number {
    let fd: number
    try {
      fd = fs.openSync(DEVICE, fs.constants.O_RDWR | fs.constants.O_NONBLOCK)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EACCES' || code === 'EPERM') throw notPermitted(`${DEVICE} can't be opened`, error)
      throw unavailable(
        `there is no usable ${DEVICE} (${code}): load the kernel's module (modprobe tun), or let the container have the device`,
        'never',
        error,
      )
    }
    const request = interfaceRequest(name)
    new DataView(request.buffer).setUint16(IFNAMSIZ, IFF_TUN | IFF_NO_PI, LITTLE)
    if (this.#calls.ioctl(fd, TUNSETIFF, request) === 0) return fd
    const code = getSystemErrorName(-this.#calls.errno())
    fs.closeSync(fd)
    if (code === 'EPERM' || code === 'EACCES') throw notPermitted(`the device ${name} can't be made`)
    if (code === 'EBUSY') throw unavailable(`the device ${name} is in use by another program: end it, or take another name`, 'later')
    throw unavailable(`the kernel does not make a TUN device named "${name}" (${code}): is it the name of a device of another kind?`)
  }

  /** The device behind a descriptor. @throws ShallotError 'tun-unavailable' when it is none that we can use */
  facts(fd: number): InterfaceFacts {
    const request = new Uint8Array(IFREQ_BYTES)
    if (this.#calls.ioctl(fd, TUNGETIFF, request) !== 0)
      throw unavailable(`descriptor ${fd} is no TUN device (${getSystemErrorName(-this.#calls.errno())}): hand over one after TUNSETIFF`)
    const flags = new DataView(request.buffer).getUint16(IFNAMSIZ, LITTLE)
    const name = nameIn(request)
    if ((flags & IFF_TUN) === 0 || (flags & IFF_NO_PI) === 0 || (flags & IFF_VNET_HDR) !== 0)
      throw unavailable(`descriptor ${fd} (${name}) has other packets than bare IP: make it with IFF_TUN | IFF_NO_PI alone`)
    return { name, flags }
  }

  /** The MTU of a device of this process's network namespace. @throws ShallotError 'tun-unavailable' */
  mtuOf(name: string): number {
    const socket = this.#calls.socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0)
    if (socket < 0) throw unavailable(`no socket to ask for the MTU (${getSystemErrorName(-this.#calls.errno())})`, 'later')
    try {
      const request = interfaceRequest(name)
      if (this.#calls.ioctl(socket, SIOCGIFMTU, request) !== 0)
        throw unavailable(`the device ${name} has no MTU (${getSystemErrorName(-this.#calls.errno())})`, 'later')
      return new DataView(request.buffer).getInt32(IFNAMSIZ, LITTLE)
    } finally {
      fs.closeSync(socket)
    }
  }

  /** The descriptor is the port's from now on; programs that this process starts do not get it. */
  descriptor(fd: number, name: string): TunDescriptor {
    this.#calls.fcntl(fd, F_SETFD, FD_CLOEXEC)
    this.#calls.fcntl(fd, F_SETFL, O_NONBLOCK)
    return new LinuxTunDescriptor(fd, name, this.#calls)
  }
}

function interfaceRequest(name: string): Uint8Array<ArrayBuffer> {
  const request = new Uint8Array(IFREQ_BYTES)
  request.set(new TextEncoder().encode(name).subarray(0, tunLimits.nameBytes))
  return request
}

function nameIn(request: Uint8Array): string {
  const bytes = request.subarray(0, IFNAMSIZ)
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))
}

class LinuxTunDescriptor implements TunDescriptor {
  readonly #fd: number
  readonly #name: string
  readonly #calls: SystemCalls
  #poll: PollHandle | null = null
  #wants: TunWants = { readable: false, writable: false }
  #ready: ((is: TunWants, error: ShallotError | null) => void) | null = null
  #closed = false

  constructor(fd: number, name: string, calls: SystemCalls) {
    this.#fd = fd
    this.#name = name
    this.#calls = calls
  }

  read(into: Uint8Array, at: number, length: number): number {
    try {
      return fs.readSync(this.#fd, into, at, length, null)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return -1
      // EBADFD, for which Node has no name, or EFAULT when it happens meanwhile (drivers/net/tun.c).
      throw removed(this.#name, error)
    }
  }

  write(from: Uint8Array, at: number, length: number): TunWrite {
    try {
      fs.writeSync(this.#fd, from, at, length, null)
      return 'taken'
    } catch (error) {
      switch ((error as NodeJS.ErrnoException).code) {
        case 'EAGAIN':
          return 'full'
        // The device is down; no IP packet; no memory for it.
        case 'EIO':
        case 'EINVAL':
        case 'ENOMEM':
        case 'ENOBUFS':
          return 'refused'
        default:
          throw removed(this.#name, error)
      }
    }
  }

  watch(wants: TunWants, ready: (is: TunWants, error: ShallotError | null) => void): void {
    this.#ready = ready
    if (this.#poll !== null && wants.readable === this.#wants.readable && wants.writable === this.#wants.writable) return
    this.#wants = wants
    // With nothing wanted the loss of the device is still told.
    const events = { ...wants, disconnect: true }
    if (this.#poll === null) this.#poll = this.#calls.poll(this.#fd, events, this.#polled)
    else this.#poll.start(events, this.#polled)
  }

  close(): void {
    this.#closed = true
    // The watch ends before the number of the descriptor is another's. The handle must not be touched after.
    this.#poll?.close()
    this.#poll = null
    fs.closeSync(this.#fd)
  }

  /** What is thrown within the library's callback surfaces later, at some other call of it: so the work is left to the loop's next phase, where it surfaces at once. */
  readonly #polled: PollCallback = (status, is) => {
    setImmediate(() => {
      if (this.#closed) return
      this.#ready?.(is, status < 0 ? removed(this.#name, new Error(getSystemErrorName(status))) : null)
    })
  }
}
