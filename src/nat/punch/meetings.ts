import type { Connection, Stream } from '@libp2p/interface'
import { messageOf, type NodeId } from '../../base/index.ts'
import type { Host } from '../../link/index.ts'
import type { Endpoint } from '../behaviour.ts'
import { hostAndPort } from './candidates.ts'
import { Exchange } from './exchange.ts'
import { PUNCH_PROTOCOL } from './hole-punch.ts'
import { Initiator, type InitiatorFacts, type InitiatorInput, type InitiatorOutput } from './initiator.ts'
import { Responder, type ResponderFacts, type ResponderInput, type ResponderOutput } from './responder.ts'

/** How an attempt ended. */
export interface MeetingEnd {
  readonly outcome: 'upgraded' | 'failed' | 'violation'
  readonly why: string
  readonly steps: readonly string[]
  /** Whether the NATs of both are known to be such that they can't meet. */
  readonly isHopeless: boolean
}

/** What an attempt acts on. */
export interface MeetingModules {
  readonly host: Host
  readonly now: () => number
  /** Meets the peer over UDP. */
  readonly udp: (connection: Connection, signal: AbortSignal) => Promise<void>
}

/** Carries the inputs and outputs of one machine: timers, the stream, what is under way. */
abstract class Meeting<Input, Output> {
  protected readonly connection: Connection
  protected readonly modules: MeetingModules
  protected readonly peer: NodeId
  protected exchange: Exchange | null = null
  readonly #ended = Promise.withResolvers<MeetingEnd>()
  readonly #over = new AbortController()
  #step: AbortController | null = null
  #timer: NodeJS.Timeout | undefined

  protected constructor(connection: Connection, modules: MeetingModules) {
    this.connection = connection
    this.modules = modules
    this.peer = connection.remotePeer.toString() as NodeId
  }

  protected abstract readonly machine: {
    readonly deadline: number | null
    readonly steps: readonly string[]
    readonly isHopeless?: boolean
    handle(input: Input, now: number): Output[]
    tick(now: number): Output[]
  }
  protected abstract act(output: Output): void
  protected abstract readonly upgraded: Input

  /** Until it is over; never throws. Aborting the signal ends it as failed. */
  async run(signal: AbortSignal): Promise<MeetingEnd> {
    const onAbort = (): void => this.finish('failed', 'given up')
    signal.addEventListener('abort', onAbort, { once: true })
    const stopTelling = this.modules.host.onDirectLink((link) => {
      if (link.peer === this.peer) this.input(this.upgraded)
    })
    try {
      if (signal.aborted) onAbort()
      else if (this.modules.host.directLink(this.peer) !== null) this.input(this.upgraded)
      return await this.#ended.promise
    } finally {
      stopTelling()
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** A direct connection of another kind has come up. */
  noteUpgrade(): void {
    this.input(this.upgraded)
  }

  protected input(input: Input): void {
    this.perform(this.machine.handle(input, this.modules.now()))
  }

  protected perform(outputs: readonly Output[]): void {
    if (this.#over.signal.aborted) return
    for (const output of outputs) this.act(output)
    clearTimeout(this.#timer)
    const { deadline } = this.machine
    if (deadline === null) return
    this.#timer = setTimeout(() => this.perform(this.machine.tick(this.modules.now())), Math.max(0, deadline - this.modules.now()))
  }

  /** Begins a step that ends by itself, by its time, or by another one; `done` is told why it failed, null when it did not. */
  protected begin(forMs: number, step: (signal: AbortSignal) => Promise<void>, done: (why: string | null) => void): void {
    this.stopStep()
    const controller = new AbortController()
    this.#step = controller
    const signal = AbortSignal.any([controller.signal, AbortSignal.timeout(forMs)])
    const settle = (why: string | null): void => {
      if (this.#step !== controller) return
      this.#step = null
      done(why)
    }
    step(signal).then(
      () => settle(null),
      (error) =>
        settle((error as { code?: unknown }).code === 'aborted' || error === signal.reason ? `not within ${forMs} ms` : messageOf(error)),
    )
  }

  protected stopStep(): void {
    const running = this.#step
    this.#step = null
    running?.abort()
  }

  protected punch(endpoints: readonly Endpoint[], tlsRole: 'client' | 'server', signal: AbortSignal): Promise<void> {
    return this.modules.host.punch({ id: this.peer, endpoints: endpoints.map(hostAndPort), tlsRole }, signal)
  }

  protected finish(outcome: MeetingEnd['outcome'], why: string): void {
    if (this.#over.signal.aborted) return
    this.#over.abort()
    clearTimeout(this.#timer)
    this.stopStep()
    if (outcome === 'violation') this.exchange?.abort()
    else this.exchange?.close()
    this.#ended.resolve({ outcome, why, steps: [...this.machine.steps], isHopeless: this.machine.isHopeless ?? false })
  }
}

/** An attempt that this node begins: over a relayed connection that it received. */
export class InitiatorMeeting extends Meeting<InitiatorInput, InitiatorOutput> {
  protected readonly machine: Initiator
  protected readonly upgraded = { type: 'upgraded' } as const
  readonly #directAddresses: readonly string[]
  readonly #opening = new AbortController()

  constructor(connection: Connection, facts: InitiatorFacts, directAddresses: readonly string[], modules: MeetingModules) {
    super(connection, modules)
    this.machine = new Initiator(facts)
    this.#directAddresses = directAddresses
  }

  override run(signal: AbortSignal): Promise<MeetingEnd> {
    const ended = super.run(signal)
    this.perform(this.machine.start(this.modules.now()))
    return ended
  }

  protected act(output: InitiatorOutput): void {
    const { host, udp } = this.modules
    const tried = (step: 'reverse' | 'punch' | 'udp') => (why: string | null) => this.input({ type: 'tried', step, why })
    switch (output.type) {
      case 'reverse':
        this.begin(output.forMs, (signal) => host.connectDirect(this.peer, this.#directAddresses, signal), tried('reverse'))
        break
      case 'open':
        void this.#open()
        break
      case 'send':
        this.exchange?.send(output.message)
        break
      case 'punch':
        // The other side, which dialled, is the client of TLS.
        this.begin(output.forMs, (signal) => this.punch(output.endpoints, 'server', signal), tried('punch'))
        break
      case 'udp':
        this.begin(output.forMs, (signal) => udp(this.connection, signal), tried('udp'))
        break
      case 'close':
        this.#opening.abort()
        this.exchange?.close()
        break
      case 'over':
        this.#opening.abort()
        this.finish(output.outcome, output.why)
        break
    }
  }

  async #open(): Promise<void> {
    const { signal } = this.#opening
    let stream: Stream
    try {
      stream = await this.connection.newStream(PUNCH_PROTOCOL, { signal, runOnLimitedConnection: true, negotiateFully: true })
    } catch (error) {
      if (!signal.aborted) this.input({ type: 'closed', why: messageOf(error) })
      return
    }
    this.exchange = new Exchange(stream, {
      message: (message) => this.input({ type: 'message', message }),
      closed: (why) => this.input({ type: 'closed', why }),
      malformed: () => this.finish('violation', 'the peer sent what is no message'),
    })
    if (signal.aborted) this.exchange.abort()
    else this.input({ type: 'opened' })
  }
}

/** An attempt that the peer begins: over a relayed connection that this node dialled. */
export class ResponderMeeting extends Meeting<ResponderInput, ResponderOutput> {
  protected readonly machine: Responder
  protected readonly upgraded = { type: 'upgraded' } as const

  /** To be made in the turn the stream is obtained in. */
  constructor(connection: Connection, stream: Stream, facts: ResponderFacts, modules: MeetingModules) {
    super(connection, modules)
    this.machine = new Responder(facts, modules.now())
    this.exchange = new Exchange(stream, {
      message: (message) => this.input({ type: 'message', message }),
      closed: () => this.input({ type: 'closed' }),
      malformed: () => this.finish('violation', 'the peer sent what is no message'),
    })
  }

  override run(signal: AbortSignal): Promise<MeetingEnd> {
    const ended = super.run(signal)
    this.perform(this.machine.tick(this.modules.now()))
    return ended
  }

  protected act(output: ResponderOutput): void {
    switch (output.type) {
      case 'send':
        this.exchange?.send(output.message)
        break
      case 'punch':
        this.begin(
          output.forMs,
          (signal) => this.punch(output.endpoints, 'client', signal),
          (why) => this.input({ type: 'tried', why }),
        )
        break
      case 'stop-punching':
        this.stopStep()
        break
      case 'over':
        this.finish(output.outcome, output.why)
        break
    }
  }
}
