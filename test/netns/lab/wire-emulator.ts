import { constants, openSync, readSync, writeSync } from 'node:fs'
import koffi from 'koffi'
import { type Answer, tapName, type WireOptions, type WireRequest } from './wire.ts'
import { WireDirection } from './wire-direction.ts'

/**
 * The program between the TAP devices of a lab's wires: one loop of poll, read, write, with no event loop in it. Requests come as lines of JSON
 * on standard input, one answer a line.
 */

const TUNSETIFF = 0x400454ca
const IFF_TAP = 0x0002
const IFF_NO_PI = 0x1000
const POLLIN = 0x001
const POLLHUP = 0x010
const F_SETFL = 4
const maxFrameBytes = 65_536
/** Frames read from one device before the others get their turn. */
const framesATurn = 64
const longestWaitMs = 1000

const libc = koffi.load(null)
const ioctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)')
const fcntl = libc.func('int fcntl(int fd, int command, int argument)')
const ppoll = libc.func('int ppoll(_Inout_ uint8_t *fds, unsigned long n, const uint8_t *timeout, void *mask)')

interface Tap {
  readonly fd: number
  /** Carries what is read here to the other side. */
  readonly out: WireDirection
}

const wires: [Tap, Tap][] = []
const frame = Buffer.alloc(maxFrameBytes)
const timeout = Buffer.alloc(16)
let input = ''
let running = true

fcntl(0, F_SETFL, constants.O_NONBLOCK)
let watched = pollSet()
while (running) turn()

function turn(): void {
  const now = performance.now()
  const next = Math.min(longestWaitMs, ...wires.flat().map(({ out }) => Math.max(0, out.deadline - now)))
  timeout.writeBigInt64LE(BigInt(Math.floor(next / 1000)), 0)
  timeout.writeBigInt64LE(BigInt(Math.round((next % 1000) * 1e6)), 8)
  ppoll(watched, watched.length / 8, timeout, null)
  const ready = (i: number): boolean => (watched.readUInt16LE(i * 8 + 6) & (POLLIN | POLLHUP)) !== 0
  wires.flat().forEach((tap, i) => {
    if (ready(i + 1)) readFrames(tap)
  })
  const later = performance.now()
  for (const [a, b] of wires) {
    for (const due of a.out.take(later)) send(b.fd, due)
    for (const due of b.out.take(later)) send(a.fd, due)
  }
  if (ready(0)) readRequests()
}

function readFrames(tap: Tap): void {
  for (let i = 0; i < framesATurn; i++) {
    let length: number
    try {
      length = readSync(tap.fd, frame)
    } catch {
      return // EAGAIN: nothing more; EIO: the device is down.
    }
    tap.out.put(Uint8Array.prototype.slice.call(frame, 0, length), performance.now())
  }
}

function send(fd: number, bytes: Uint8Array): void {
  try {
    writeSync(fd, bytes)
  } catch {
    // The other end is down: a wire that nobody listens to loses what it carries.
  }
}

function readRequests(): void {
  const piece = Buffer.alloc(65_536)
  let length: number
  try {
    length = readSync(0, piece)
  } catch {
    return
  }
  if (length === 0) {
    running = false
    return
  }
  const lines = (input + piece.toString('utf8', 0, length)).split('\n')
  input = lines.pop()!
  for (const line of lines) {
    let answer: Answer
    try {
      answer = serve(JSON.parse(line) as WireRequest)
    } catch (error) {
      answer = { error: String(error) }
    }
    writeSync(1, `${JSON.stringify(answer)}\n`)
  }
}

function serve(request: WireRequest): Answer {
  const options: WireOptions = request.options ?? {}
  if (request.add !== undefined) {
    const tap = (side: number): Tap => ({
      fd: openTap(tapName(request.add!, side)),
      out: new WireDirection(options, `${request.add}/${side}`),
    })
    wires[request.add] = [tap(0), tap(1)]
    watched = pollSet()
  } else if (request.change !== undefined) {
    for (const { out } of wires[request.change]!) out.change(options)
  } else if (request.stats !== undefined) {
    const [a, b] = wires[request.stats]!
    return { stats: [a.out.stats, b.out.stats] }
  }
  return {}
}

function openTap(name: string): number {
  const fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK)
  const request = Buffer.alloc(40)
  request.write(name, 'latin1')
  request.writeUInt16LE(IFF_TAP | IFF_NO_PI, 16)
  if (ioctl(fd, TUNSETIFF, request) !== 0) throw new Error(`no TAP device ${name}: is /dev/net/tun there?`)
  return fd
}

/** `struct pollfd` for standard input and every TAP: fd i32, events u16, revents u16. */
function pollSet(): Buffer {
  const fds = [0, ...wires.flat().map(({ fd }) => fd)]
  const set = Buffer.alloc(fds.length * 8)
  fds.forEach((fd, i) => {
    set.writeInt32LE(fd, i * 8)
    set.writeUInt16LE(POLLIN, i * 8 + 4)
  })
  return set
}
