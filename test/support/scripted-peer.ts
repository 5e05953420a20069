import { SeededRandom } from '../../src/base/index.ts'
import type { Endpoint, Stack, StackEvent, StackOptions, TcpConnection } from '../../src/netstack/index.ts'
import {
  batchOfPackets,
  IpHeader,
  PacketBatch,
  Protocol,
  type TcpFields,
  TcpFlag,
  TcpHeader,
  type TcpOptions,
  transportChecksumHolds,
  writeIp,
  writeTcp,
  writeTransportChecksum,
} from '../../src/packet/index.ts'
import { endpoint, testStack } from './virtual-net.ts'

/** A segment as a script says it: `S` SYN, `A` ACK, `F` FIN, `R` RST, `P` PSH, `U` URG. Sequence numbers count from each side's initial one. */
export interface Said extends TcpOptions {
  readonly flags: string
  readonly seq?: number
  readonly ack?: number
  readonly window?: number
  readonly data?: string | number
  readonly urgent?: number
}

/** What the stack sent. */
export interface Heard {
  readonly at: number
  readonly flags: string
  readonly seq: number
  readonly ack: number
  readonly window: number
  readonly length: number
  readonly text: string
  readonly mss: number
  readonly windowScale: number
  readonly sackPermitted: boolean
  readonly timestamp: number | null
  readonly timestampEcho: number | null
  /** Pairs, relative to the peer's initial number. */
  readonly sack: readonly number[]
}

const letters: readonly (readonly [string, number])[] = [
  ['S', TcpFlag.syn],
  ['R', TcpFlag.rst],
  ['F', TcpFlag.fin],
  ['P', TcpFlag.psh],
  ['A', TcpFlag.ack],
  ['U', TcpFlag.urg],
]

/**
 * A peer that says exactly what a test writes, in virtual time, and hears what a stack answers. The stack is 10.0.0.1, the peer 10.0.0.2.
 * `said` numbers are relative to `iss`, the peer's; the stack's are learnt from its SYN.
 */
export class ScriptedPeer {
  readonly stack: Stack
  readonly peer: Endpoint
  readonly own: Endpoint
  now = 10_000
  readonly iss: number
  /** The stack's initial sequence number. */
  irs: number | null = null
  connection: TcpConnection | null = null
  readonly events: StackEvent[] = []
  readonly #heard: Heard[] = []
  /** Packets that are no TCP. */
  readonly others: Uint8Array[] = []
  acceptsAll = true
  readonly #batch = new PacketBatch(64, 64 * 1504)

  constructor(options: Partial<StackOptions> = {}, iss = 0x7fff_fff0, ports: { own?: number; peer?: number } = {}) {
    this.stack = testStack(1, new SeededRandom(5), options)
    this.own = endpoint('10.0.0.1', ports.own ?? 80)
    this.peer = endpoint('10.0.0.2', ports.peer ?? 5000)
    this.iss = iss | 0
  }

  /** The stack opens; its SYN is heard. */
  dial(from?: number): TcpConnection {
    this.connection = this.stack.dial(this.peer, this.now, { address: this.own.address, port: from ?? this.own.port })
    this.#collect()
    return this.connection
  }

  /** The peer opens, and data may flow. */
  establish(syn: Partial<Said> = {}, roundTripMs = 0): TcpConnection {
    this.stack.listen({ address: null, port: this.own.port })
    this.say({ flags: 'S', seq: 0, mss: 1380, sackPermitted: true, windowScale: 7, ...syn })
    this.expect({ flags: 'SA', seq: 0, ack: 1 })
    this.wait(roundTripMs)
    this.say({ flags: 'A', seq: 1, ack: 1, ...(syn.timestamp === undefined ? {} : { timestamp: syn.timestamp }) })
    this.silence()
    return this.connection!
  }

  /** A segment from the peer; what the stack answers is kept for `expect`. */
  say(said: Said): this {
    return this.packet(this.segment(said))
  }

  segment(said: Said): Uint8Array {
    const data = typeof said.data === 'number' ? new Uint8Array(said.data).fill(120) : new TextEncoder().encode(said.data ?? '')
    const bytes = new Uint8Array(1600 + data.length)
    const view = new DataView(bytes.buffer)
    let flags = 0
    for (const [letter, bit] of letters) if (said.flags.includes(letter)) flags |= bit
    const fields: TcpFields = {
      sourcePort: this.peer.port,
      destinationPort: this.own.port,
      sequence: (this.iss + (said.seq ?? 1)) | 0,
      acknowledgment: (flags & TcpFlag.ack) === 0 ? 0 : ((this.irs ?? 0) + (said.ack ?? 1)) | 0,
      flags,
      window: said.window ?? 65_535,
      urgent: said.urgent ?? 0,
    }
    const options = said.sack === undefined ? said : { ...said, sack: said.sack.map((edge) => ((this.irs ?? 0) + edge) | 0) }
    const dataAt = writeTcp(view, 20, fields, options)
    bytes.set(data, dataAt)
    const end = dataAt + data.length
    writeIp(
      bytes,
      view,
      0,
      { source: this.peer.address.bytes, destination: this.own.address.bytes, protocol: Protocol.tcp, hopLimit: 64 },
      end - 20,
    )
    writeTransportChecksum(view, 0, Protocol.tcp, 20, end, 36)
    return bytes.subarray(0, end)
  }

  /** Any packet from the peer. */
  packet(...packets: Uint8Array[]): this {
    this.stack.input(batchOfPackets(packets), this.now)
    this.#collect()
    return this
  }

  /** The application does something. */
  act(what: (connection: TcpConnection) => void): this {
    what(this.connection!)
    this.#collect()
    return this
  }

  /** Time passes. */
  wait(ms: number): this {
    const end = this.now + ms
    for (;;) {
      const next = this.stack.deadline
      if (next === null || next > end) break
      this.now = Math.max(this.now, next)
      this.stack.poll(this.now)
      this.#collect()
    }
    this.now = end
    return this
  }

  /** The next segment that was heard, which must be so. */
  expect(what: Partial<Heard>): Heard {
    const heard = this.#heard.shift()
    if (heard === undefined) throw new Error(`nothing was said; expected ${JSON.stringify(what)}`)
    for (const [key, value] of Object.entries(what)) {
      const got = heard[key as keyof Heard]
      if (JSON.stringify(got) !== JSON.stringify(value))
        throw new Error(`${key} is ${JSON.stringify(got)}, not ${JSON.stringify(value)}: ${JSON.stringify(heard)}`)
    }
    return heard
  }

  /** Nothing more was said. */
  silence(): this {
    if (this.#heard.length > 0) throw new Error(`not silent: ${JSON.stringify(this.#heard)}`)
    return this
  }

  /** All that was heard and not looked at. */
  all(): Heard[] {
    return this.#heard.splice(0)
  }

  /** The types of the events since the last call. */
  told(): string[] {
    return this.events.splice(0).map((event) => (event.type === 'closed' ? `closed ${event.reason}` : event.type))
  }

  /** What the application can read, taken. */
  readText(): string {
    const bytes = new Uint8Array(this.connection!.readable)
    this.connection!.read(bytes)
    this.#collect()
    return new TextDecoder().decode(bytes)
  }

  #collect(): void {
    for (let again = true; again; ) {
      again = false
      for (let event = this.stack.nextEvent(); event !== null; event = this.stack.nextEvent()) {
        this.events.push(event)
        again = true
        if (event.type !== 'incoming') continue
        this.connection = event.connection
        if (this.acceptsAll) event.connection.accept()
      }
      this.#batch.clear()
      if (this.stack.output(this.#batch, this.now) > 0) again = true
      for (let i = 0; i < this.#batch.count; i++) this.#hear(this.#batch.packet(i).slice())
    }
  }

  #hear(packet: Uint8Array): void {
    const view = new DataView(packet.buffer)
    const ip = new IpHeader()
    const problem = ip.parse(view, 0, packet.length)
    if (problem !== null) throw new Error(`the stack sent a packet that is ${problem}`)
    if (ip.protocol !== Protocol.tcp) {
      this.others.push(packet)
      return
    }
    if (!transportChecksumHolds(view, ip)) throw new Error('the stack sent a wrong checksum')
    const tcp = new TcpHeader()
    if (tcp.parse(view, ip.payloadStart, ip.end) !== null) throw new Error('the stack sent a malformed segment')
    if ((tcp.flags & TcpFlag.syn) !== 0) this.irs = tcp.sequence
    const sack: number[] = []
    for (let i = 0; i < tcp.sackCount; i++) sack.push((tcp.sackLeft[i]! - this.iss) | 0, (tcp.sackRight[i]! - this.iss) | 0)
    this.#heard.push({
      at: this.now,
      flags: letters
        .filter(([, bit]) => (tcp.flags & bit) !== 0)
        .map(([letter]) => letter)
        .join(''),
      seq: (tcp.sequence - (this.irs ?? 0)) | 0,
      ack: (tcp.flags & TcpFlag.ack) === 0 ? 0 : (tcp.acknowledgment - this.iss) | 0,
      window: tcp.window,
      length: tcp.payloadBytes,
      text: tcp.payloadBytes > 64 ? '' : new TextDecoder().decode(packet.subarray(tcp.payloadStart, tcp.end)),
      mss: tcp.mss,
      windowScale: tcp.windowScale,
      sackPermitted: tcp.sackPermitted,
      timestamp: tcp.hasTimestamps ? tcp.timestamp : null,
      timestampEcho: tcp.hasTimestamps ? tcp.timestampEcho : null,
      sack,
    })
  }
}
