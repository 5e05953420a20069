import { nodeKey } from '../src/base/index.ts'
import {
  CELL_BYTES,
  type CellBatch,
  type ChannelEnd,
  type CircuitOutput,
  createClientCircuit,
  createRelayCircuit,
  type RelayCircuitMachine,
} from '../src/onion/index.ts'
import type { CircuitFailure } from '../src/path/index.ts'
import type { Cancel } from './event-queue.ts'
import { DIAL_TIMEOUT_MS, type Place } from './network.ts'
import type { SimulatedRelay } from './relay.ts'
import type { World } from './world.ts'

/** A client gives a build up after this: the default of `buildTimeoutMs`. */
export const BUILD_TIMEOUT_MS = 10_000

export interface BuildEnd {
  /** Null: built. */
  readonly failure: CircuitFailure | null
  readonly established: number
  readonly tookMs: number
}

/** Who builds: where it is, and the key its link shows. */
export interface Builder {
  readonly place: Place
  readonly key: Uint8Array
}

export type Build = (world: World, builder: Builder, hops: readonly SimulatedRelay[], done: (end: BuildEnd) => void) => void

/**
 * A build as its messages on the virtual network: every leg with its delay, every relay extending only to relays of its own (real) view,
 * no cryptography. What `buildWithMachines` does with real cells; a test holds both to the same ends.
 */
export const buildAsMessages: Build = (world, builder, hops, done) => {
  const { queue, network } = world
  const startedAt = queue.now
  let established = 0
  let ended = false
  const finish = (failure: CircuitFailure | null): void => {
    if (ended) return
    ended = true
    cancel()
    done({ failure, established, tookMs: queue.now - startedAt })
  }
  const cancel = queue.after(BUILD_TIMEOUT_MS, () => finish({ reason: 'timeout', origin: 'local', hop: null, established }))
  const places = [builder.place, ...hops.map((hop) => hop.place)]

  /** One cell along the path from place `at` to place `to`, either way. */
  const carry = (at: number, to: number, arrived: () => void): void => {
    if (at === to) {
      arrived()
      return
    }
    const next = at < to ? at + 1 : at - 1
    network.send(places[at]!, places[next]!, CELL_BYTES, () => carry(next, to, arrived), lostBetween(Math.min(at, next)))
  }
  /** The link between place `near` and the one after it is gone: the side towards the client says so. */
  const lostBetween = (near: number) => (): void =>
    say(near, near === 0 ? null : { reason: 'channel-lost', origin: 'remote', hop: near - 1, established })
  const say = (from: number, failure: CircuitFailure | null): void => {
    if (failure === null) finish({ reason: 'channel-lost', origin: 'local', hop: null, established })
    else carry(from, 0, () => finish(failure))
  }

  const extend = (): void => {
    if (ended) return
    const target = established
    if (target === hops.length) {
      finish(null)
      return
    }
    carry(0, target, () => {
      if (ended) return
      const here = hops[target - 1]
      const refuse = (reason: 'unknown-relay' | 'connect-failed'): void =>
        say(target, here ? { reason, origin: 'remote', hop: target - 1, established } : null)
      if (here && !here.view.isKnown(hops[target]!.id)) {
        refuse('unknown-relay')
        return
      }
      if (!hops[target]!.isReached) {
        queue.after(DIAL_TIMEOUT_MS, () => refuse('connect-failed'))
        return
      }
      // The channel is opened first (there and back), then the first cell goes there and the answer all the way back.
      const opened = (): void =>
        carry(target, target + 1, () =>
          carry(target + 1, 0, () => {
            established++
            extend()
          }),
        )
      network.send(
        places[target]!,
        places[target + 1]!,
        64,
        () => network.send(places[target + 1]!, places[target]!, 64, opened),
        () => refuse('connect-failed'),
      )
    })
  }
  extend()
}

/** A build with the real circuit machines: real handshakes, real cells in memory pipes that follow the virtual network. */
export const buildWithMachines: Build = (world, builder, hops, done) => {
  new MachineBuild(world, builder, hops, done).start()
}

class MachineBuild {
  readonly #world: World
  readonly #builder: Builder
  readonly #hops: readonly SimulatedRelay[]
  readonly #done: (end: BuildEnd) => void
  readonly #client: ReturnType<typeof createClientCircuit>
  readonly #relays: (RelayCircuitMachine | null)[]
  readonly #timers: (Cancel | null)[]
  readonly #startedAt: number
  #established = 0
  #ended = false
  #stopTimer: Cancel = () => {}

  constructor(world: World, builder: Builder, hops: readonly SimulatedRelay[], done: (end: BuildEnd) => void) {
    this.#world = world
    this.#builder = builder
    this.#hops = hops
    this.#done = done
    this.#client = createClientCircuit({ suite: world.suite })
    this.#relays = hops.map(() => null)
    this.#timers = hops.map(() => null)
    this.#startedAt = world.queue.now
  }

  start(): void {
    this.#stopTimer = this.#world.queue.after(BUILD_TIMEOUT_MS, () =>
      this.#finish({ reason: 'timeout', origin: 'local', hop: null, established: this.#established }),
    )
    this.#dial(
      0,
      () => this.#extend(),
      () => this.#finish({ reason: 'channel-lost', origin: 'local', hop: null, established: 0 }),
    )
  }

  /** Opens the channel from party `from` (0 the client, i the relay i - 1) to the hop of that number. */
  #dial(from: number, opened: () => void, failed: () => void): void {
    const { network, queue } = this.#world
    if (!this.#hops[from]!.isReached) {
      queue.after(DIAL_TIMEOUT_MS, failed)
      return
    }
    const here = this.#place(from)
    const there = this.#place(from + 1)
    network.send(here, there, 64, () => network.send(there, here, 64, () => {
      this.#open(from)
      opened()
    }), failed) // biome-ignore format: dial and answer
  }

  #open(hop: number): void {
    const { suite, queue } = this.#world
    const { id, keyring } = this.#hops[hop]!
    const previous = hop === 0 ? this.#builder.key : nodeKey(this.#hops[hop - 1]!.id)
    this.#relays[hop] = createRelayCircuit({ suite, keyring, self: nodeKey(id), previous, servesExit: false, openedAt: queue.now })
  }

  #extend(): void {
    const hop = this.#hops[this.#client.hops]!
    this.#client.extend({ id: nodeKey(hop.id), onionKey: hop.signed.descriptor.onionKey }, this.#world.queue.now)
    this.#drainClient()
  }

  #drainClient(): void {
    const { now } = this.#world.queue
    for (;;) {
      for (let output = this.#client.pollOutput(); output; output = this.#client.pollOutput()) this.#handleClientOutput(output)
      if (this.#ended) return
      const batch = this.#client.pollCells(16, now)
      if (!batch) return
      this.#carry(0, 1, batch)
    }
  }

  #handleClientOutput(output: CircuitOutput): void {
    if (output.type === 'cells') this.#carry(0, 1, output.batch)
    else if (output.type === 'closed') {
      this.#finish({ reason: output.reason, origin: output.origin, hop: output.hop, established: this.#established })
    } else if (output.type === 'hop') {
      this.#established = output.index + 1
      if (this.#established === this.#hops.length) this.#finish(null)
      else this.#extend()
    }
  }

  #drainRelay(hop: number): void {
    const machine = this.#relays[hop]!
    const { now } = this.#world.queue
    for (;;) {
      for (let output = machine.pollOutput(); output; output = machine.pollOutput()) {
        if (output.type === 'cells') this.#carry(hop + 1, output.to === 'client' ? hop : hop + 2, output.batch)
        else if (output.type === 'extend') this.#extendFrom(hop)
      }
      const batch = machine.pollCells(16, now)
      if (!batch) break
      this.#carry(hop + 1, hop, batch)
    }
    this.#timers[hop]?.()
    const deadline = machine.pollTimeout()
    this.#timers[hop] =
      deadline === null || this.#ended
        ? null
        : this.#world.queue.at(deadline, () => this.#relay(hop, (relay, at) => relay.handleTimeout(at)))
  }

  #extendFrom(hop: number): void {
    const target = this.#hops[hop + 1]
    if (!target || !this.#hops[hop]!.view.isKnown(target.id)) {
      this.#relay(hop, (relay, now) => relay.handleNextFailed('unknown-relay', now))
      return
    }
    this.#dial(
      hop + 1,
      () => this.#relay(hop, (relay, now) => relay.handleNextOpen(now)),
      () => this.#relay(hop, (relay, now) => relay.handleNextFailed('connect-failed', now)),
    )
  }

  #relay(hop: number, act: (machine: RelayCircuitMachine, now: number) => void): void {
    const machine = this.#relays[hop]
    if (!machine || this.#ended) return
    act(machine, this.#world.queue.now)
    this.#drainRelay(hop)
  }

  #carry(from: number, to: number, batch: CellBatch): void {
    const arrive = (): void => {
      if (this.#ended) return
      const { now } = this.#world.queue
      if (to === 0) {
        this.#client.handleCells(batch, now)
        this.#drainClient()
      } else {
        this.#relay(to - 1, (machine) => machine.handleCells(from < to ? 'client' : 'next', batch, now))
      }
    }
    this.#world.network.send(this.#place(from), this.#place(to), batch.count * CELL_BYTES, arrive, () => this.#cut(from, to))
  }

  /** The link between two neighbours is gone: the side that sent sees the channel end. */
  #cut(from: number, to: number): void {
    if (this.#ended) return
    const how: ChannelEnd = 'reset'
    const { now } = this.#world.queue
    if (from === 0) {
      this.#client.handleChannelEnd(how, now)
      this.#drainClient()
    } else {
      this.#relay(from - 1, (machine) => machine.handleChannelEnd(to > from ? 'next' : 'client', how, now))
    }
  }

  #place(party: number): Place {
    return party === 0 ? this.#builder.place : this.#hops[party - 1]!.place
  }

  #finish(failure: CircuitFailure | null): void {
    if (this.#ended) return
    this.#ended = true
    this.#stopTimer()
    for (const cancel of this.#timers) cancel?.()
    this.#done({ failure, established: this.#established, tookMs: this.#world.queue.now - this.#startedAt })
  }
}
