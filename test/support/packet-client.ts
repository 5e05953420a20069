import { type IpAddress, parseIp, SeededRandom } from '../../src/base/index.ts'
import { Deadline } from '../../src/drive/index.ts'
import {
  type CloseReason,
  type Datagram,
  type Echo,
  Stack,
  type StackEvent,
  StackOnPort,
  type TcpConnection,
} from '../../src/netstack/index.ts'
import {
  batchOfPackets,
  ipHeaderBytes,
  type PacketPort,
  Protocol,
  writeIcmp,
  writeIp,
  writeTransportChecksum,
  writeUdp,
} from '../../src/packet/index.ts'
import { testHash } from './virtual-net.ts'

/** What a client has of a lease, whether from the exit or through circuits. */
export interface AnyLease {
  readonly address4: IpAddress | null
  readonly address6: IpAddress | null
  readonly port: PacketPort
}

/** A machine behind a packet lease: our netstack with the leased addresses, with promises for tests. */
export class PacketClient {
  readonly lease: AnyLease
  readonly stack: Stack
  readonly datagrams: Datagram[] = []
  readonly echoes: Echo[] = []
  readonly undelivered: Extract<StackEvent, { type: 'undelivered' }>[] = []
  /** Undefined until the port has ended. */
  ended: string | null | undefined
  readonly #driver: StackOnPort
  readonly #deadline: Deadline
  readonly #flows = new Map<TcpConnection, ClientTcp>()

  constructor(lease: AnyLease, seed = 1) {
    this.lease = lease
    this.stack = new Stack({
      addresses: [lease.address4, lease.address6].filter((address) => address !== null),
      mtu: lease.port.mtu,
      random: new SeededRandom(seed),
      hash: testHash(`client ${seed}`),
      echo: 'drop',
    })
    const now = (): number => performance.now()
    this.#driver = new StackOnPort({
      stack: this.stack,
      port: lease.port,
      now,
      soon: setImmediate,
      event: (event) => this.#handle(event),
      timeoutChanged: () => this.#deadline.update(),
      ended: (error) => {
        this.ended = error?.code ?? null
      },
    })
    this.#deadline = new Deadline(this.#driver, now, () => this.#driver.expired())
    this.#driver.start()
  }

  /** The lease's address of a family. */
  address(family: 4 | 6): IpAddress {
    return (family === 4 ? this.lease.address4 : this.lease.address6)!
  }

  /** @throws Error with the reason of the refusal */
  async connect(host: string, port: number): Promise<ClientTcp> {
    const flow = this.dial(host, port)
    await flow.connected
    return flow
  }

  dial(host: string, port: number): ClientTcp {
    const connection = this.stack.dial({ address: parseIp(host), port }, performance.now())
    const flow = new ClientTcp(connection, () => this.#driver.touch())
    this.#flows.set(connection, flow)
    this.#driver.touch()
    return flow
  }

  sendDatagram(fromPort: number, host: string, port: number, data: Uint8Array): boolean {
    const to = { address: parseIp(host), port }
    const sent = this.stack.sendDatagram(
      { from: { address: this.address(to.address.family), port: fromPort }, to, data },
      performance.now(),
    )
    this.#driver.touch()
    return sent
  }

  sendEcho(host: string, identifier: number, sequence: number, data: Uint8Array): boolean {
    const to = parseIp(host)
    const sent = this.stack.sendEcho('echo-request', { from: this.address(to.family), to, identifier, sequence, data })
    this.#driver.touch()
    return sent
  }

  /** Packets beside the stack's. */
  raw(...packets: Uint8Array[]): void {
    this.lease.port.send(batchOfPackets(packets))
  }

  close(): void {
    this.#deadline.stop()
    this.lease.port.close()
  }

  #handle(event: StackEvent): void {
    switch (event.type) {
      case 'datagram':
        this.datagrams.push(event)
        return
      case 'echo-reply':
        this.echoes.push(event)
        return
      case 'undelivered':
        this.undelivered.push(event)
        return
      case 'connected':
      case 'readable':
      case 'drained':
      case 'remote-end':
        this.#flows.get(event.connection)?.handle(event.type)
        return
      case 'closed':
        this.#flows.get(event.connection)?.close(event.reason)
        this.#flows.delete(event.connection)
    }
  }
}

/** A TCP connection of a PacketClient. */
export class ClientTcp {
  readonly connection: TcpConnection
  readonly connected: Promise<void>
  /** Why it is over, once it is. */
  readonly closed: Promise<CloseReason>
  reason: CloseReason | null = null
  received = 0
  remoteEnded = false
  /** Whether what comes is taken. */
  reading = true
  onData: (bytes: Uint8Array) => void = (bytes) => void this.#chunks.push(Buffer.from(bytes))
  readonly #touch: () => void
  readonly #chunks: Buffer[] = []
  #toSend: Uint8Array[] = []
  #ending = false
  #resolveConnected: () => void = () => {}
  #rejectConnected: (error: Error) => void = () => {}
  #resolveClosed: (reason: CloseReason) => void = () => {}

  constructor(connection: TcpConnection, touch: () => void) {
    this.connection = connection
    this.#touch = touch
    this.connected = new Promise((resolve, reject) => {
      this.#resolveConnected = resolve
      this.#rejectConnected = reject
    })
    this.connected.catch(() => {})
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
  }

  write(bytes: Uint8Array | string): void {
    this.#toSend.push(Buffer.from(bytes))
    this.#pump()
  }

  end(bytes?: Uint8Array | string): void {
    if (bytes !== undefined) this.#toSend.push(Buffer.from(bytes))
    this.#ending = true
    this.#pump()
  }

  abort(): void {
    this.connection.abort()
    this.#touch()
  }

  read(): void {
    this.reading = true
    this.handle('readable')
  }

  /** What has come so far. */
  get text(): string {
    return Buffer.concat(this.#chunks).toString()
  }

  /** What came, once the other side has ended. */
  async all(): Promise<Buffer> {
    const reason = await this.closed
    if (reason !== 'done') throw new Error(`closed: ${reason}`)
    return Buffer.concat(this.#chunks)
  }

  handle(type: 'connected' | 'readable' | 'drained' | 'remote-end'): void {
    if (type === 'connected') this.#resolveConnected()
    if (type === 'connected' || type === 'drained') this.#pump()
    if (type === 'remote-end') this.remoteEnded = true
    while (this.reading && this.connection.readable > 0) {
      const bytes = this.connection.peek()
      this.received += bytes.length
      this.onData(bytes)
      this.connection.consume(bytes.length)
    }
    this.#touch()
  }

  close(reason: CloseReason): void {
    this.reason = reason
    this.#rejectConnected(new Error(reason))
    this.#resolveClosed(reason)
  }

  #pump(): void {
    for (;;) {
      const next = this.#toSend[0]
      if (next === undefined) break
      const taken = this.connection.write(next)
      if (taken < next.length) {
        this.#toSend[0] = next.subarray(taken)
        break
      }
      this.#toSend.shift()
    }
    if (this.#ending && this.#toSend.length === 0) this.connection.end()
    this.#touch()
  }
}

export interface RawOptions {
  readonly from: IpAddress
  readonly to: string
  readonly hopLimit?: number
}

/** An echo request as a packet. */
export function echoPacket(options: RawOptions, identifier: number, sequence: number, data: Uint8Array): Uint8Array {
  const { packet, view, at } = rawPacket(options, options.from.family === 4 ? Protocol.icmp : Protocol.icmp6, 8 + data.length)
  packet.set(data, at + 8)
  writeIcmp(view, 0, at, 'echo-request', ((identifier << 16) | sequence) >>> 0, data.length)
  return packet
}

/** A datagram as a packet. */
export function udpPacket(options: RawOptions, fromPort: number, toPort: number, data: Uint8Array): Uint8Array {
  const { packet, view, at } = rawPacket(options, Protocol.udp, 8 + data.length)
  packet.set(data, writeUdp(view, at, fromPort, toPort, data.length))
  writeTransportChecksum(view, 0, Protocol.udp, at, packet.length, at + 6)
  return packet
}

/** A packet of any protocol with zeros in it. */
export function rawPacket(options: RawOptions, protocol: number, length: number) {
  const to = parseIp(options.to)
  const packet = new Uint8Array(ipHeaderBytes(to.bytes.length) + length)
  const view = new DataView(packet.buffer)
  const fields = { source: options.from.bytes, destination: to.bytes, protocol, hopLimit: options.hopLimit ?? 64 }
  return { packet, view, at: writeIp(packet, view, 0, fields, length) }
}
