import { parseIp, SeededRandom, silentLogger } from '../../src/base/index.ts'
import type { ClientService, DatagramAssociation, PacketLease, StreamOptions } from '../../src/client/index.ts'
import { Deadline } from '../../src/drive/index.ts'
import { type DnsAsker, type TunConfig, TunIngress, type TunModules, tunConfig } from '../../src/ingress/index.ts'
import { type Endpoint, type Stack, type StackEvent, StackOnPort, type StackOptions, type TcpConnection } from '../../src/netstack/index.ts'
import type { Target } from '../../src/onion/index.ts'
import { batchOfPackets, type MemoryPort, memoryPortPair } from '../../src/packet/index.ts'
import { DirectClientService } from './direct-client-service.ts'
import { type SeenPacket, seePacket } from './ip-packets.ts'
import { testStack } from './virtual-net.ts'

/** The device as the defaults make it. */
export const device = { own4: '10.83.104.2', own6: 'fd73:6861:6c6c:6f74::2', hop4: '10.83.104.1', hop6: 'fd73:6861:6c6c:6f74::1' } as const

/**
 * A client without a mesh for which every address outside is this machine: 11.x and other addresses are served on 127.0.0.1 (IPv6 ones on ::1), by port.
 * Answers come from where they were sent.
 */
export class OutsideClient extends DirectClientService {
  /** Waits before a stream is opened. */
  hold: Promise<void> | null = null
  /** Streams asked for and neither open nor failed. */
  opening = 0
  aborted = 0
  readonly isolations: string[] = []

  override async connect(target: Target, options: StreamOptions): ReturnType<ClientService['connect']> {
    this.isolations.push(options.isolation)
    const where = `${target.host}:${target.port}`
    const failure = this.failures.get(where)
    if (failure !== undefined) this.failures.set(`${loopbackFor(target.host)}:${target.port}`, failure)
    this.opening++
    options.signal?.addEventListener('abort', () => this.aborted++, { once: true })
    try {
      if (this.hold !== null) await this.hold
      return await super.connect({ host: loopbackFor(target.host), port: target.port }, options)
    } finally {
      this.opening--
    }
  }

  override async openDatagrams(
    options: StreamOptions,
    receive: (from: Target, bytes: Uint8Array) => void,
    closed: () => void,
  ): Promise<DatagramAssociation> {
    this.isolations.push(options.isolation)
    if (this.hold !== null) await this.hold
    /** Who stands for whom, by port. */
    const outside = new Map<number, string>()
    const association = await super.openDatagrams(
      options,
      (from, bytes) => receive({ host: outside.get(from.port) ?? from.host, port: from.port }, bytes),
      closed,
    )
    return {
      send: (to, bytes) => {
        outside.set(to.port, to.host)
        association.send({ host: '127.0.0.1', port: to.port }, Uint8Array.from(bytes))
      },
      close: association.close,
    }
  }
}

function loopbackFor(host: string): string {
  return host.includes(':') ? '::1' : '127.0.0.1'
}

export interface WorldOptions {
  readonly config?: Partial<TunConfig>
  readonly client?: ClientService
  readonly dns?: DnsAsker | null
  readonly modules?: Partial<TunModules>
  readonly mtu?: number
  readonly queuePackets?: number
}

/** A TunIngress on one end of a pair in memory; the other end is the machine's. */
export class TunWorld {
  readonly client: OutsideClient
  readonly ingress: TunIngress
  readonly machine: MemoryPort
  readonly endings: (string | null)[] = []

  constructor(options: WorldOptions = {}) {
    this.client = (options.client as OutsideClient | undefined) ?? new OutsideClient()
    const [inner, outer] = memoryPortPair({
      carry: setImmediate,
      mtu: options.mtu ?? 1420,
      ...(options.queuePackets === undefined ? {} : { queuePackets: options.queuePackets }),
    })
    this.machine = outer
    const config = { ...tunConfig.parse({}), ...options.config }
    this.ingress = new TunIngress(config, {
      client: this.client,
      dns: options.dns ?? null,
      logger: silentLogger,
      random: new SeededRandom(7),
      ...options.modules,
    })
    this.ingress.attach(inner, config.addresses, (error) => this.endings.push(error?.code ?? null))
  }

  stop(): void {
    void this.ingress.stop()
    this.machine.close()
  }
}

/** The machine's kernel: a stack of its own, with the device's addresses. */
export class StackMachine {
  readonly stack: Stack
  readonly driver: StackOnPort
  readonly events: StackEvent[] = []
  onEvent: (event: StackEvent) => void = () => {}
  readonly #deadline: Deadline

  constructor(port: MemoryPort, options: Partial<StackOptions> = {}) {
    const now = (): number => performance.now()
    this.stack = testStack(1, new SeededRandom(11), { addresses: [parseIp(device.own4), parseIp(device.own6)], ...options })
    this.driver = new StackOnPort({
      stack: this.stack,
      port,
      now,
      soon: setImmediate,
      event: (event) => {
        this.events.push(event)
        this.onEvent(event)
      },
      timeoutChanged: () => this.#deadline.update(),
      ended: () => this.#deadline.stop(),
    })
    this.#deadline = new Deadline(this.driver, now, () => this.driver.expired())
    this.driver.start()
  }

  dial(to: Endpoint, from?: { readonly address: Endpoint['address'] }): TcpConnection {
    const connection = this.stack.dial(to, performance.now(), from)
    this.driver.touch()
    return connection
  }

  send(fromPort: number, to: Endpoint, data: Uint8Array): void {
    const from = { address: parseIp(to.address.family === 4 ? device.own4 : device.own6), port: fromPort }
    this.stack.sendDatagram({ from, to, data }, performance.now())
    this.driver.touch()
  }

  /** The events of one kind so far. */
  of<T extends StackEvent['type']>(type: T): Extract<StackEvent, { type: T }>[] {
    return this.events.filter((event): event is Extract<StackEvent, { type: T }> => event.type === type)
  }
}

/** The machine's side by the packet. */
export class RawMachine {
  readonly received: Uint8Array[] = []
  onPacket: (packet: Uint8Array) => void = () => {}
  readonly #port: MemoryPort

  constructor(port: MemoryPort) {
    this.#port = port
    port.attach({
      packets: (batch) => {
        for (let i = 0; i < batch.count; i++) {
          const packet = batch.packet(i).slice()
          this.received.push(packet)
          this.onPacket(packet)
        }
      },
      drained: () => {},
      ended: () => {},
    })
  }

  send(...packets: readonly Uint8Array[]): void {
    this.#port.send(batchOfPackets(packets))
  }

  /** What came, read. */
  get seen(): readonly SeenPacket[] {
    return this.received.map(seePacket)
  }
}

/** An exit that serves raw packets: what it is sent is seen here, and what it says is sent from here. */
export class FakeExit {
  readonly address4: string | null
  readonly address6: string | null
  readonly leases: RawMachine[] = []
  readonly #ports: MemoryPort[] = []
  readonly #mtu: number
  /** What is sent in answer to a packet that came. */
  answer: (packet: SeenPacket) => readonly Uint8Array[] = () => []
  /** Why leases are refused now; null: they are given. */
  refuses: Error | null = null
  opened = 0

  constructor(options: { readonly address4?: string | null; readonly address6?: string | null; readonly mtu?: number } = {}) {
    this.address4 = options.address4 === undefined ? '100.70.0.9' : options.address4
    this.address6 = options.address6 === undefined ? 'fd99::9' : options.address6
    this.#mtu = options.mtu ?? 1420
  }

  readonly lease = (): PacketLease => {
    if (this.refuses !== null) throw this.refuses
    this.opened++
    const [inner, outer] = memoryPortPair({ carry: setImmediate, mtu: this.#mtu })
    const there = new RawMachine(outer)
    there.onPacket = (packet) => {
      const answers = this.answer(seePacket(packet))
      if (answers.length > 0) there.send(...answers)
    }
    this.leases.push(there)
    this.#ports.push(outer)
    return {
      address4: this.address4 === null ? null : parseIp(this.address4),
      address6: this.address6 === null ? null : parseIp(this.address6),
      port: inner,
    }
  }

  /** The lease given last. */
  get last(): RawMachine {
    return this.leases.at(-1)!
  }

  /** The circuits of all leases are lost. */
  lose(): void {
    for (const port of this.#ports.splice(0)) port.close()
  }
}
