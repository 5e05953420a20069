import { parseIp } from '../../src/base/index.ts'
import { nativeSuite } from '../../src/crypto/index.ts'
import {
  CELL_BYTES,
  type CellBatch,
  type ChannelEnd,
  type CircuitLimits,
  type CircuitOutput,
  type ClientCircuitMachine,
  createClientCircuit,
  createRelayCircuit,
  type HopTarget,
  OnionKeyring,
  type PacketGrant,
  type RelayCircuitMachine,
  type RelayCircuitOptions,
} from '../../src/onion/index.ts'

export type Direction = 'forward' | 'backward'

/** What a hook does with a batch on a link: other cells, or the end of the channel in its place. */
export type Tampered = CellBatch | ChannelEnd | null

export interface ChainOptions {
  readonly relays?: number
  readonly limits?: Partial<CircuitLimits>
  /** One way, on every link. */
  readonly latencyMs?: number
  /** Called for every batch that enters a link (from 0, the client's); returns what arrives. */
  readonly tamper?: (link: number, direction: Direction, batch: CellBatch) => Tampered
  /** Whether an application takes data as it comes (default), or the test calls `consume`. */
  readonly consumes?: boolean
  /** Which relays serve streams; default all. */
  readonly servesExit?: (relay: number) => boolean
  /** Another machine in a relay's place. */
  readonly relay?: (index: number, options: RelayCircuitOptions) => RelayCircuitMachine | null
  /** How many cells endpoints pack at a time. */
  readonly most?: number
}

/** A stream's life at one end, as its application sees it. */
export interface SeenStream {
  readonly received: Uint8Array[]
  ends: string[]
  connected: boolean
}

type Party = number // -1: the client; i: relay i

interface Parcel {
  readonly at: number
  readonly batch: CellBatch | null
  readonly end: ChannelEnd | null
}

interface Pipe {
  readonly to: Party
  readonly side: 'client' | 'next'
  readonly parcels: Parcel[]
  ended: boolean
}

const suite = nativeSuite()

/** What a relay leases to whoever asks. */
export const leasedPackets: PacketGrant = { address4: parseIp('100.64.0.2'), address6: parseIp('fd00::2'), mtu: 1420 }

/** Relays' keys cost time to make; tests share them. */
const keyrings: OnionKeyring[] = []
function keyringOf(index: number): OnionKeyring {
  keyrings[index] ??= OnionKeyring.create(suite, suite.ed25519.keyPair().publicKey, 0)
  return keyrings[index]
}

/** One client machine and some relay machines, joined in memory by links with a virtual time. Everything is deterministic but the keys. */
export class CircuitChain {
  now = 0
  readonly client: ClientCircuitMachine
  readonly relays: RelayCircuitMachine[] = []
  readonly keyrings: OnionKeyring[] = []
  /** Every output but cells, of each party in order. */
  readonly outputs: { party: Party; output: CircuitOutput }[] = []
  /** By party and stream, what the application there saw. */
  readonly seen = new Map<string, SeenStream>()
  readonly #packets = new Map<string, Uint8Array[]>()
  /** Called for each output; true when the test has handled it. */
  on: (party: Party, output: CircuitOutput) => boolean = () => false
  /** Batches and cells that were delivered. */
  cells = 0
  readonly #options: ChainOptions
  readonly #forward: Pipe[] = []
  readonly #backward: Pipe[] = []

  constructor(options: ChainOptions = {}) {
    this.#options = options
    const count = options.relays ?? 3
    const limits = options.limits ?? {}
    this.client = createClientCircuit({ suite, limits })
    for (let i = 0; i < count; i++) {
      const keyring = keyringOf(i)
      this.keyrings.push(keyring)
      const previous = i > 0 ? keyringOf(i - 1).identity : new Uint8Array(32).fill(7)
      const servesExit = options.servesExit?.(i) ?? true
      const relay: RelayCircuitOptions = { suite, keyring, self: keyring.identity, previous, servesExit, limits }
      this.relays.push(options.relay?.(i, relay) ?? createRelayCircuit(relay))
      this.#forward.push({ to: i, side: 'client', parcels: [], ended: false })
      this.#backward.push({ to: i - 1, side: 'next', parcels: [], ended: false })
    }
  }

  target(relay: number): HopTarget {
    const { identity, current } = this.keyrings[relay]!
    return { id: identity, onionKey: current }
  }

  /** Builds all hops, and throws unless every one is there. */
  build(): this {
    for (let i = 0; i < this.relays.length; i++) {
      this.client.extend(this.target(i), this.now)
      this.run()
    }
    if (this.client.hops !== this.relays.length) throw new Error(`built ${this.client.hops} hops`)
    return this
  }

  machine(party: Party): ClientCircuitMachine | RelayCircuitMachine {
    return party < 0 ? this.client : this.relays[party]!
  }

  seenAt(party: Party, stream: number): SeenStream {
    const key = `${party}/${stream}`
    let seen = this.seen.get(key)
    if (!seen) {
      seen = { received: [], ends: [], connected: false }
      this.seen.set(key, seen)
    }
    return seen
  }

  /** Copies of the packets that came on a lease. */
  packetsAt(party: Party, stream: number): Uint8Array[] {
    const key = `${party}/${stream}`
    let packets = this.#packets.get(key)
    if (!packets) {
      packets = []
      this.#packets.set(key, packets)
    }
    return packets
  }

  bytesAt(party: Party, stream: number): Uint8Array {
    return new Uint8Array(Buffer.concat(this.seenAt(party, stream).received))
  }

  outputsOf<Type extends CircuitOutput['type']>(party: Party, type: Type): Extract<CircuitOutput, { type: Type }>[] {
    return this.outputs.filter((entry) => entry.party === party && entry.output.type === type).map(({ output }) => output) as Extract<
      CircuitOutput,
      { type: Type }
    >[]
  }

  closedAt(party: Party): Extract<CircuitOutput, { type: 'closed' }> | undefined {
    return this.outputsOf(party, 'closed')[0]
  }

  /** Ends a link from the outside: both neighbours see it. */
  cut(link: number, how: ChannelEnd = 'reset'): void {
    for (const pipe of [this.#forward[link]!, this.#backward[link]!]) {
      pipe.parcels.length = 0
      pipe.parcels.push({ at: this.now, batch: null, end: how })
      pipe.ended = true
    }
  }

  /** Puts cells on a link as a neighbour would. */
  inject(link: number, direction: Direction, batch: CellBatch): void {
    this.#pipe(link, direction).parcels.push({ at: this.now, batch, end: null })
  }

  /** Runs until nothing moves; timers do not fire unless `until` (virtual ms) is given. */
  run(until?: number): this {
    for (;;) {
      this.#flushAll()
      const next = this.#nextPipe()
      const timer = until === undefined ? null : this.#nextTimer(until)
      if (next && (!timer || next.parcels[0]!.at <= timer.at) && (until === undefined || next.parcels[0]!.at <= until)) this.#deliver(next)
      else if (timer) {
        this.now = Math.max(this.now, timer.at)
        this.machine(timer.party).handleTimeout(this.now)
        this.#drain(timer.party)
      } else break
    }
    if (until !== undefined) this.now = Math.max(this.now, until)
    return this
  }

  #pipe(link: number, direction: Direction): Pipe {
    return (direction === 'forward' ? this.#forward : this.#backward)[link]!
  }

  #flushAll(): void {
    for (let party = -1; party < this.relays.length; party++) {
      const machine = this.machine(party)
      this.#drain(party)
      for (;;) {
        const batch = machine.pollCells(this.#options.most ?? 40, this.now)
        if (!batch) break
        if (party < 0) this.#send(0, 'forward', batch)
        else this.#send(party, 'backward', batch)
        this.#drain(party)
      }
      this.#drain(party)
    }
  }

  #drain(party: Party): void {
    const machine = this.machine(party)
    for (let output = machine.pollOutput(); output; output = machine.pollOutput()) this.#handle(party, output)
  }

  #handle(party: Party, output: CircuitOutput): void {
    if (output.type === 'cells') {
      if (output.to === 'client') this.#send(party, 'backward', output.batch)
      else this.#send(party + 1, 'forward', output.batch)
      return
    }
    this.outputs.push({ party, output })
    if (output.type === 'packets') {
      const { batch } = output
      for (let i = 0; i < batch.count; i++) this.packetsAt(party, output.stream).push(batch.packet(i).slice())
    }
    if (output.type === 'data') this.seenAt(party, output.stream).received.push(output.bytes)
    if (output.type === 'end') this.seenAt(party, output.stream).ends.push(output.reason)
    if (output.type === 'connected') this.seenAt(party, output.stream).connected = true
    if (output.type === 'closed') {
      if (party >= 0) this.#end(party, 'backward')
      if (party + 1 < this.relays.length) this.#end(party + 1, 'forward')
    }
    if (this.on(party, output)) return
    const machine = this.machine(party)
    if (output.type === 'data' && this.#options.consumes !== false) machine.consume(output.stream, output.bytes.length, this.now)
    if (party < 0) return
    const relay = this.relays[party]!
    if (output.type === 'extend') {
      const known = this.keyrings[party + 1]
      if (known && Buffer.compare(known.identity, output.target) === 0) relay.handleNextOpen(this.now)
      else relay.handleNextFailed('unknown-relay', this.now)
    } else if (output.type === 'begin') relay.accept(output.stream, '203.0.113.5')
    else if (output.type === 'dns-open') relay.accept(output.stream, null)
    else if (output.type === 'packets-open') relay.acceptPackets(output.stream, leasedPackets)
    else if (output.type === 'resolve') relay.answer(output.stream, [{ type: 'address', value: '203.0.113.6', ttlSeconds: 60 }])
  }

  #send(link: number, direction: Direction, batch: CellBatch): void {
    const pipe = this.#pipe(link, direction)
    if (!pipe || pipe.ended) return
    const at = this.now + (this.#options.latencyMs ?? 0)
    const arrives = this.#options.tamper ? this.#options.tamper(link, direction, batch) : batch
    if (arrives === null) return
    if (typeof arrives === 'string') {
      // The channel ends for both of its neighbours.
      for (const side of [this.#forward[link]!, this.#backward[link]!]) {
        if (!side.ended) side.parcels.push({ at, batch: null, end: arrives })
        side.ended = true
      }
    } else if (arrives.count > 0) pipe.parcels.push({ at, batch: arrives, end: null })
  }

  #end(link: number, direction: Direction): void {
    const pipe = this.#pipe(link, direction)
    if (pipe.ended) return
    pipe.ended = true
    pipe.parcels.push({ at: this.now + (this.#options.latencyMs ?? 0), batch: null, end: 'fin' })
  }

  #nextPipe(): Pipe | null {
    let best: Pipe | null = null
    for (const pipe of [...this.#forward, ...this.#backward]) {
      const at = pipe.parcels[0]?.at
      if (at !== undefined && (!best || at < best.parcels[0]!.at)) best = pipe
    }
    return best
  }

  #nextTimer(until: number): { at: number; party: Party } | null {
    let best: { at: number; party: Party } | null = null
    for (let party = -1; party < this.relays.length; party++) {
      const at = this.machine(party).pollTimeout()
      if (at !== null && at <= until && (!best || at < best.at)) best = { at, party }
    }
    return best
  }

  #deliver(pipe: Pipe): void {
    const { at, batch, end } = pipe.parcels.shift()!
    this.now = Math.max(this.now, at)
    if (pipe.to < 0) {
      if (batch) this.client.handleCells(batch, this.now)
      else this.client.handleChannelEnd(end!, this.now)
    } else {
      const relay = this.relays[pipe.to]!
      if (batch) relay.handleCells(pipe.side, batch, this.now)
      else relay.handleChannelEnd(pipe.side, end!, this.now)
    }
    this.cells += batch?.count ?? 0
    this.#drain(pipe.to)
  }
}

/** Cell `index` of a batch, a view. */
export function cellOf(batch: CellBatch, index: number): Uint8Array {
  const at = batch.start + index * CELL_BYTES
  return batch.bytes.subarray(at, at + CELL_BYTES)
}
