import { createHash } from 'node:crypto'
import { parseIp, type Random, SeededRandom } from '../../src/base/index.ts'
import { type Endpoint, Stack, type StackEvent, type StackOptions, type TcpConnection } from '../../src/netstack/index.ts'
import { type Faults, FaultyPath, PacketBatch } from '../../src/packet/index.ts'

/** A keyed hash for tests. */
export function testHash(key: string): (bytes: Uint8Array) => number {
  return (bytes) => createHash('sha256').update(key).update(bytes).digest().readUInt32BE(0)
}

export function endpoint(address: string, port: number): Endpoint {
  return { address: parseIp(address), port }
}

/** A stack with test addresses: side 1 or 2. */
export function testStack(side: number, random: Random, options: Partial<StackOptions> = {}): Stack {
  return new Stack({
    addresses: [parseIp(`10.0.0.${side}`), parseIp(`fd00::${side}`)],
    mtu: 1420,
    random,
    hash: testHash(`side ${side}`),
    ...options,
  })
}

/** Two stacks joined by two bad paths, in virtual time. */
export class VirtualNet {
  readonly random: SeededRandom
  readonly a: Stack
  readonly b: Stack
  readonly toA: FaultyPath
  readonly toB: FaultyPath
  now = 1000
  /** Called with each event as it comes. */
  onEvent: (side: 'a' | 'b', event: StackEvent) => void = () => {}
  /** Called with each packet as it is sent. */
  onPacket: (side: 'a' | 'b', packet: Uint8Array) => void = () => {}
  readonly #batch = new PacketBatch(64, 64 * 1504)

  constructor(seed: number, faults: Faults = {}, options: { a?: Partial<StackOptions>; b?: Partial<StackOptions> } = {}) {
    this.random = new SeededRandom(seed)
    this.a = testStack(1, this.random, options.a)
    this.b = testStack(2, this.random, options.b)
    this.toA = new FaultyPath(faults, this.random)
    this.toB = new FaultyPath(faults, this.random)
  }

  /** Lets happen what is due now, without letting time pass. */
  settle(): void {
    for (let again = true; again; ) {
      again = this.#deliver(this.toA, this.a)
      again = this.#deliver(this.toB, this.b) || again
      for (const [side, stack, path] of [
        ['a', this.a, this.toB],
        ['b', this.b, this.toA],
      ] as const) {
        for (let event = stack.nextEvent(); event !== null; event = stack.nextEvent()) {
          this.onEvent(side, event)
          again = true
        }
        for (;;) {
          this.#batch.clear()
          if (stack.output(this.#batch, this.now) === 0) break
          for (let i = 0; i < this.#batch.count; i++) {
            this.onPacket(side, this.#batch.packet(i))
            path.push(this.#batch.packet(i), this.now)
          }
          again = true
        }
      }
    }
  }

  /** Runs until something holds; false when nothing more will happen, or `forMs` have passed. */
  run(until: () => boolean, forMs = 3_600_000): boolean {
    const end = this.now + forMs
    for (;;) {
      this.settle()
      if (until()) return true
      const next = Math.min(
        this.toA.deadline ?? Number.POSITIVE_INFINITY,
        this.toB.deadline ?? Number.POSITIVE_INFINITY,
        this.a.deadline ?? Number.POSITIVE_INFINITY,
        this.b.deadline ?? Number.POSITIVE_INFINITY,
      )
      if (next > end) {
        if (next === Number.POSITIVE_INFINITY && forMs === 3_600_000) return false
        this.now = end
        return false
      }
      this.now = Math.max(this.now, next)
      this.a.poll(this.now)
      this.b.poll(this.now)
    }
  }

  /** Lets so much time pass. */
  wait(ms: number): void {
    this.run(() => false, ms)
  }

  #deliver(path: FaultyPath, stack: Stack): boolean {
    this.#batch.clear()
    while (this.#batch.count < this.#batch.capacity) {
      const packet = path.pop(this.now)
      if (packet === null || !this.#batch.add(packet)) break
    }
    if (this.#batch.count === 0) return false
    stack.input(this.#batch, this.now)
    return true
  }
}

/** Writes `total` bytes made from a seed to a connection as it takes them, then ends it. */
export class Source {
  readonly #connection: TcpConnection
  readonly #random: SeededRandom
  readonly #hash = createHash('sha256')
  #left: number
  #piece: Uint8Array = new Uint8Array(0)

  constructor(connection: TcpConnection, seed: number, total: number) {
    this.#connection = connection
    this.#random = new SeededRandom(seed)
    this.#left = total
  }

  pump(): void {
    for (;;) {
      if (this.#piece.length === 0) {
        if (this.#left === 0) {
          this.#connection.end()
          return
        }
        this.#piece = this.#random.bytes(Math.min(this.#left, 1 + this.#random.int(20_000)))
        this.#left -= this.#piece.length
        this.#hash.update(this.#piece)
      }
      const taken = this.#connection.write(this.#piece)
      this.#piece = this.#piece.subarray(taken)
      if (this.#piece.length > 0) return
    }
  }

  digest(): string {
    return this.#hash.digest('hex')
  }
}

/** Reads all there is. */
export class Sink {
  readonly #hash = createHash('sha256')
  bytes = 0
  ended = false

  read(connection: TcpConnection): void {
    while (connection.readable > 0) {
      const piece = connection.peek()
      this.#hash.update(piece)
      this.bytes += piece.length
      connection.consume(piece.length)
    }
    this.ended ||= connection.remoteEnded
  }

  digest(): string {
    return this.#hash.digest('hex')
  }
}

/** Moves bytes both ways over one connection from a to b and closes it; what came and what both ends say. */
export function transfer(net: VirtualNet, bytes: number, port = 80, v6 = false) {
  net.b.listen({ address: null, port })
  const dialed = net.a.dial(endpoint(v6 ? 'fd00::2' : '10.0.0.2', port), net.now)
  const sources = new Map<TcpConnection, Source>()
  const sinks = new Map<TcpConnection, Sink>()
  const closed: string[] = []
  let accepted: TcpConnection | null = null
  net.onEvent = (_side, event) => {
    switch (event.type) {
      case 'incoming':
        event.connection.accept()
        accepted = event.connection
        break
      case 'connected':
        sources.set(event.connection, new Source(event.connection, event.connection === dialed ? 1 : 2, bytes))
        sinks.set(event.connection, new Sink())
        sources.get(event.connection)!.pump()
        break
      case 'readable':
      case 'remote-end':
        sinks.get(event.connection)?.read(event.connection)
        break
      case 'drained':
        sources.get(event.connection)?.pump()
        break
      case 'closed':
        closed.push(event.reason)
        break
    }
  }
  const begin = net.now
  const finished = net.run(() => closed.length === 2)
  const both = [dialed, accepted as TcpConnection | null].filter((one) => one !== null)
  return {
    finished,
    closed,
    ms: net.now - begin,
    retransmissions: both.map((one) => one.info.retransmissions),
    received: both.map((one) => sinks.get(one)?.bytes),
    intact:
      both.length === 2 &&
      sinks.get(both[0]!)?.digest() === sources.get(both[1]!)?.digest() &&
      sinks.get(both[1]!)?.digest() === sources.get(both[0]!)?.digest(),
  }
}
