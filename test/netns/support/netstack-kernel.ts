import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import fs from 'node:fs'
import net from 'node:net'
import { parseArgs } from 'node:util'
import koffi from 'koffi'
import { parseIp, SeededRandom } from '../../../src/base/index.ts'
import { Stack, type TcpConnection } from '../../../src/netstack/index.ts'
import { type Faults, FaultyPath, PacketBatch } from '../../../src/packet/index.ts'
import { endpoint, testHash } from '../../support/virtual-net.ts'

/**
 * Our netstack and the kernel's TCP, over a TUN device in a namespace of its own: `unshare --net node netstack-kernel.ts [--mb N] [--loss SHARE] …`.
 * Each direction of opening moves N megabytes both ways at once. Prints one line of JSON.
 */
const { values } = parseArgs({
  options: {
    mb: { type: 'string', default: '10' },
    loss: { type: 'string', default: '0' },
    reorder: { type: 'string', default: '0' },
    duplicate: { type: 'string', default: '0' },
    delay: { type: 'string', default: '0' },
    seed: { type: 'string', default: '1' },
    v6: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '100' },
  },
})
const bytes = Math.round(Number(values.mb) * 1e6)
const faults: Faults = {
  loss: Number(values.loss),
  reorder: Number(values.reorder),
  duplicate: Number(values.duplicate),
  delayMs: Number(values.delay),
}
const isPerfect = Object.values(faults).every((share) => share === 0)
const MTU = 1420
const kernelAddress = values.v6 ? 'fd09::1' : '10.9.0.1'
const ourAddress = values.v6 ? 'fd09::2' : '10.9.0.2'

function command(program: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(program, args)
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`)
}

/** linux/if_tun.h: TUNSETIFF, IFF_TUN | IFF_NO_PI. */
function openTun(name: string): number {
  const ioctl = koffi.load('libc.so.6').func('int ioctl(int fd, unsigned long request, uint8_t *argument)')
  const fd = fs.openSync('/dev/net/tun', fs.constants.O_RDWR | fs.constants.O_NONBLOCK)
  const request = new Uint8Array(40)
  request.set(new TextEncoder().encode(name))
  new DataView(request.buffer).setUint16(16, 0x1001, true)
  if (ioctl(fd, 0x400454ca, request) !== 0) throw new Error('TUNSETIFF failed')
  return fd
}

const tun = openTun('tun9')
command('ip', 'link', 'set', 'lo', 'up')
command('ip', 'link', 'set', 'tun9', 'mtu', String(MTU), 'up')
command('ip', 'address', 'add', '10.9.0.1/24', 'dev', 'tun9')
command('ip', '-6', 'address', 'add', 'fd09::1/64', 'dev', 'tun9', 'nodad')

const random = new SeededRandom(Number(values.seed))
const stack = new Stack({
  addresses: [parseIp('10.9.0.2'), parseIp('fd09::2')],
  mtu: MTU,
  random,
  hash: testHash('kernel'),
})
const toStack = new FaultyPath(faults, random)
const toKernel = new FaultyPath(faults, random)
const incoming = new PacketBatch(64, 64 * 1504)
const outgoing = new PacketBatch(64, 64 * 1504)
const piece = randomBytes(1 << 16)

/** One end of a transfer: what it sends is the piece over and over. */
class End {
  readonly #hash = createHash('sha256')
  received = 0
  left = bytes
  ended = false

  take(data: Uint8Array): void {
    this.#hash.update(data)
    this.received += data.length
  }

  next(): Uint8Array {
    const at = (bytes - this.left) % piece.length
    return piece.subarray(at, Math.min(piece.length, at + this.left))
  }

  digest(): string {
    return this.#hash.digest('hex')
  }
}

const ends: { ours: End; theirs: End }[] = []
const byConnection = new Map<TcpConnection, End>()
const closed: string[] = []

function pump(connection: TcpConnection, end: End): void {
  while (end.left > 0) {
    const offered = end.next()
    const taken = connection.write(offered)
    end.left -= taken
    if (taken < offered.length) return
  }
  connection.end()
}

function events(): void {
  for (let event = stack.nextEvent(); event !== null; event = stack.nextEvent()) {
    switch (event.type) {
      case 'incoming':
        byConnection.set(event.connection, ends[0]!.ours)
        event.connection.accept()
        break
      case 'connected':
      case 'drained':
        pump(event.connection, byConnection.get(event.connection)!)
        break
      case 'readable':
        while (event.connection.readable > 0) {
          const data = event.connection.peek()
          byConnection.get(event.connection)!.take(data)
          event.connection.consume(data.length)
        }
        break
      case 'remote-end':
        byConnection.get(event.connection)!.ended = true
        break
      case 'closed':
        closed.push(event.reason)
        retransmissions += event.connection.info.retransmissions
        break
    }
  }
}

let retransmissions = 0
let readAny = false

function readTun(now: number): void {
  readAny = false
  incoming.clear()
  for (;;) {
    const at = incoming.reserve(1504)
    if (at < 0) break
    let length: number
    try {
      length = fs.readSync(tun, incoming.bytes, at, 1504, null)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      break
    }
    incoming.commit(length)
    readAny = true
  }
  if (isPerfect) {
    if (incoming.count > 0) stack.input(incoming, now)
    return
  }
  for (let i = 0; i < incoming.count; i++) toStack.push(incoming.packet(i), now)
  incoming.clear()
  for (let packet = toStack.pop(now); packet !== null && incoming.add(packet); packet = toStack.pop(now));
  if (incoming.count > 0) stack.input(incoming, now)
}

function write(packet: Uint8Array): void {
  try {
    fs.writeSync(tun, packet)
  } catch (error) {
    if (!['EAGAIN', 'EIO', 'EINVAL'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
  }
}

function writeTun(now: number): void {
  for (;;) {
    outgoing.clear()
    if (stack.output(outgoing, now) === 0) break
    for (let i = 0; i < outgoing.count; i++) {
      if (isPerfect) write(outgoing.packet(i))
      else toKernel.push(outgoing.packet(i), now)
    }
  }
  for (let packet = toKernel.pop(now); packet !== null; packet = toKernel.pop(now)) write(packet)
}

/** The kernel's end. */
function serve(socket: net.Socket, end: End): void {
  socket.on('data', (data) => end.take(data))
  socket.on('end', () => {
    end.ended = true
  })
  socket.on('error', (error) => closed.push(`kernel ${error.message}`))
  const more = (): void => {
    while (end.left > 0) {
      const data = end.next()
      end.left -= data.length
      if (!socket.write(data)) {
        socket.once('drain', more)
        return
      }
    }
    socket.end()
  }
  more()
}

const newPair = () => {
  const pair = { ours: new End(), theirs: new End() }
  ends.push(pair)
  return pair
}

const begin = performance.now()
// The kernel opens.
const first = newPair()
stack.listen({ address: null, port: 80 })
serve(net.connect({ host: ourAddress, port: 80, allowHalfOpen: true }), first.theirs)
// We open.
const second = newPair()
const server = net.createServer({ allowHalfOpen: true }, (socket) => serve(socket, second.theirs))
server.listen({ host: kernelAddress, port: 8080 }, () => {
  const connection = stack.dial(endpoint(kernelAddress, 8080), performance.now())
  byConnection.set(connection, second.ours)
})

function isOver(): boolean {
  return ends.every(({ ours, theirs }) => ours.ended && theirs.ended && ours.left === 0 && theirs.left === 0) && closed.length >= 2
}

function turn(): void {
  const now = performance.now()
  readTun(now)
  stack.poll(now)
  events()
  writeTun(now)
  if (isOver() || now - begin > Number(values.seconds) * 1000) {
    finish()
    return
  }
  if (readAny) setImmediate(turn)
  else setTimeout(turn, 1)
}

function finish(): void {
  const seconds = (performance.now() - begin) / 1000
  const whole = createHash('sha256')
  for (let left = bytes; left > 0; left -= piece.length) whole.update(piece.subarray(0, Math.min(left, piece.length)))
  const expected = whole.digest('hex')
  const intact = ends.map(({ ours, theirs }) => ours.digest() === expected && theirs.digest() === expected)
  const { user, system } = process.cpuUsage()
  console.log(
    JSON.stringify({
      over: isOver(),
      intact,
      closed,
      seconds,
      megabytesPerSecond: (4 * bytes) / 1e6 / seconds,
      cpuSeconds: (user + system) / 1e6,
      retransmissions,
      lost: toKernel.lost + toStack.lost,
      received: ends.map(({ ours, theirs }) => [ours.received, theirs.received]),
      facts: stack.facts,
    }),
  )
  process.exit(0)
}

turn()
