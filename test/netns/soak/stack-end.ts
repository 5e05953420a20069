import { parseIp, SeededRandom } from '../../../src/base/index.ts'
import { Deadline } from '../../../src/drive/index.ts'
import { type CloseReason, Stack, type StackEvent, StackOnPort, type TcpConnection } from '../../../src/netstack/index.ts'
import { type Faults, FaultyPort, type PacketPort } from '../../../src/packet/index.ts'
import { endpoint, testHash } from '../../support/virtual-net.ts'
import { type Digests, FlowEnd, HEADER_BYTES, readHeader, writeHeader } from './flow.ts'

/** The kernel's addresses and ours on the device between them. */
export const addresses = { kernel4: '10.9.0.1', kernel6: 'fd09::1', ours4: '10.9.0.2', ours6: 'fd09::2' } as const

const now = (): number => performance.now()
const time = {
  now,
  at: (due: number, task: () => void): void => {
    if (due <= now()) setImmediate(task)
    else setTimeout(task, Math.ceil(due - now()))
  },
}

/** Our netstack on a port behind a bad path, with the flows it carries. */
export class StackEnd {
  readonly stack: Stack
  readonly #faulty: FaultyPort
  readonly #driver: StackOnPort
  readonly #deadline: Deadline
  readonly #flows = new Map<TcpConnection, FlowEnd>()
  readonly #closed: (digests: Digests | null, reason: CloseReason) => void
  received = 0
  retransmissions = 0

  constructor(port: PacketPort, seed: number, closed: (digests: Digests | null, reason: CloseReason) => void) {
    const random = new SeededRandom(seed)
    this.#closed = closed
    this.#faulty = new FaultyPort(port, { random, time })
    this.stack = new Stack({
      addresses: [parseIp(addresses.ours4), parseIp(addresses.ours6)],
      mtu: port.mtu,
      random,
      hash: testHash('soak'),
      // Short, so that it can be waited for that nothing is left.
      tcp: { timeWaitMs: 1000 },
    })
    this.#driver = new StackOnPort({
      stack: this.stack,
      port: this.#faulty,
      now,
      soon: queueMicrotask,
      event: (event) => this.#handle(event),
      timeoutChanged: () => this.#deadline.update(),
      ended: () => {},
    })
    this.#deadline = new Deadline(this.#driver, now, () => this.#driver.expired())
    this.#driver.start()
    this.stack.listen({ address: null, port: null })
  }

  /** From now on, both ways. */
  setFaults(faults: Faults): void {
    this.#faulty.incoming.faults = faults
    this.#faulty.outgoing.faults = faults
  }

  get lost(): number {
    return this.#faulty.incoming.lost + this.#faulty.outgoing.lost
  }

  dial(id: number, bytes: number, host: string, port: number): void {
    const connection = this.stack.dial(endpoint(host, port), now())
    connection.write(writeHeader(id, bytes))
    this.#flows.set(connection, new FlowEnd(id, bytes, 'ours'))
    this.#driver.touch()
  }

  close(): void {
    this.#deadline.stop()
    this.#faulty.close()
  }

  #handle(event: StackEvent): void {
    if (!('connection' in event)) return
    const { connection } = event
    switch (event.type) {
      case 'incoming':
        connection.accept()
        break
      case 'connected':
      case 'drained':
        this.#pump(connection)
        break
      case 'readable':
        this.#read(connection)
        break
      case 'remote-end': {
        const flow = this.#flows.get(connection)
        if (flow !== undefined) flow.ended = true
        break
      }
      case 'closed':
        this.retransmissions += connection.info.retransmissions
        this.#closed(this.#flows.get(connection)?.digests() ?? null, event.reason)
        this.#flows.delete(connection)
        break
    }
  }

  #read(connection: TcpConnection): void {
    let flow = this.#flows.get(connection)
    if (flow === undefined) {
      if (connection.readable < HEADER_BYTES) return
      const header = new Uint8Array(HEADER_BYTES)
      connection.read(header)
      const { id, bytes } = readHeader(header)
      flow = new FlowEnd(id, bytes, 'ours')
      this.#flows.set(connection, flow)
      this.#pump(connection)
    }
    while (connection.readable > 0) {
      const data = connection.peek()
      flow.take(data)
      this.received += data.length
      connection.consume(data.length)
    }
  }

  #pump(connection: TcpConnection): void {
    const flow = this.#flows.get(connection)
    if (flow === undefined) return
    while (flow.left > 0) {
      const offered = flow.next()
      const taken = connection.write(offered)
      flow.sent(taken)
      if (taken < offered.length) return
    }
    connection.end()
  }
}
