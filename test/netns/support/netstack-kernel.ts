import { createHash, randomBytes } from 'node:crypto'
import net from 'node:net'
import { parseArgs } from 'node:util'
import { parseIp, SeededRandom } from '../../../src/base/index.ts'
import { Deadline } from '../../../src/drive/index.ts'
import { Stack, type StackEvent, StackOnPort, type TcpConnection } from '../../../src/netstack/index.ts'
import { type Faults, FaultyPort } from '../../../src/packet/index.ts'
import { openTun } from '../../../src/tun/index.ts'
import { shellOk } from '../../support/own-network.ts'
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

shellOk('ip link set lo up')
const tun = await openTun({ name: 'tun9', mtu: MTU, addresses: ['10.9.0.1/24', 'fd09::1/64'] })

const random = new SeededRandom(Number(values.seed))
const stack = new Stack({
  addresses: [parseIp('10.9.0.2'), parseIp('fd09::2')],
  mtu: MTU,
  random,
  hash: testHash('kernel'),
})
const now = (): number => performance.now()
const time = {
  now,
  at: (due: number, task: () => void): void => {
    if (due <= now()) setImmediate(task)
    else setTimeout(task, Math.ceil(due - now()))
  },
}
const faulty = isPerfect ? null : new FaultyPort(tun, { random, time, incoming: faults, outgoing: faults })
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

function handle(event: StackEvent): void {
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

let retransmissions = 0
const driver = new StackOnPort({
  stack,
  port: faulty ?? tun,
  now,
  soon: queueMicrotask,
  event: handle,
  timeoutChanged: () => deadline.update(),
  ended: () => finish(),
})
const deadline = new Deadline(driver, now, () => driver.expired())
driver.start()

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
  driver.touch()
})

function isOver(): boolean {
  return ends.every(({ ours, theirs }) => ours.ended && theirs.ended && ours.left === 0 && theirs.left === 0) && closed.length >= 2
}

setInterval(() => {
  if (isOver() || performance.now() - begin > Number(values.seconds) * 1000) finish()
}, 5)

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
      lost: faulty === null ? 0 : faulty.outgoing.lost + faulty.incoming.lost,
      received: ends.map(({ ours, theirs }) => [ours.received, theirs.received]),
      facts: stack.facts,
    }),
  )
  process.exit(0)
}
