import type { Endpoint } from '../behaviour.ts'
import type { Accepted, Prospects } from './candidates.ts'
import type { PunchingConfig } from './config.ts'
import type { HolePunch } from './hole-punch.ts'

/** What the initiator knows when it begins. */
export interface InitiatorFacts {
  /** Whether the peer has public addresses to dial. */
  readonly isPeerDirect: boolean
  /** Addresses for the CONNECT. */
  readonly addresses: readonly Uint8Array[]
  /** Why TCP can't be punched from here; null when it can. */
  readonly tcpUnavailable: string | null
  /** Why UDP can't be tried from here; null when it can. */
  readonly udpUnavailable: string | null
  readonly config: PunchingConfig
  /** The rules for what the peer offers. */
  readonly accept: (addresses: readonly Uint8Array[]) => Accepted
}

export type InitiatorInput =
  /** The stream is open. */
  | { readonly type: 'opened' }
  | { readonly type: 'message'; readonly message: HolePunch }
  /** The stream could not be opened, or has ended. */
  | { readonly type: 'closed'; readonly why: string }
  /** What the last output of this kind began is over. */
  | { readonly type: 'tried'; readonly step: 'reverse' | 'punch' | 'udp'; readonly why: string | null }
  /** A direct link to the peer is there, whoever brought it about. */
  | { readonly type: 'upgraded' }

export type InitiatorOutput =
  | { readonly type: 'reverse'; readonly forMs: number }
  | { readonly type: 'open' }
  | { readonly type: 'send'; readonly message: HolePunch }
  | { readonly type: 'punch'; readonly endpoints: readonly Endpoint[]; readonly forMs: number }
  | { readonly type: 'udp'; readonly forMs: number }
  /** Ends the stream: what comes on it after this is nobody's. */
  | { readonly type: 'close' }
  /** Ends the stream, and what is still being tried. */
  | { readonly type: 'over'; readonly outcome: 'upgraded' | 'failed' | 'violation'; readonly why: string }

/*
 *           isPeerDirect                    opened             CONNECT              half the round trip      failed, rounds left
 *  start ──► reversing ──failed──► opening ───────► asked ─────────────► waiting ──────────────► punching ──► asked …
 *                                     │ no TCP here    │ nothing usable                             │ failed, none left
 *                                     └────────────────┴────────────────► udp (udpTries) ◄──────────┘
 *  any state: upgraded, violation, or nothing left to try ──► over
 */
type State =
  | { readonly name: 'start' }
  | { readonly name: 'reversing' }
  | { readonly name: 'opening'; readonly until: number }
  | { readonly name: 'asked'; readonly sentAt: number; readonly until: number }
  | { readonly name: 'waiting'; readonly until: number; readonly endpoints: readonly Endpoint[] }
  | { readonly name: 'punching' }
  | { readonly name: 'udp' }
  | { readonly name: 'over' }

/**
 * The side that received the relayed connection: it begins. It tries the peer's public addresses, then TCP from both sides at once as DCUtR
 * coordinates it, then UDP. Pure: times are monotonic milliseconds. docs/spec/punching.md §2
 */
export class Initiator {
  readonly #facts: InitiatorFacts
  readonly #steps: string[] = []
  #state: State = { name: 'start' }
  #round = 0
  #rounds: number
  #udpTries = 0
  #prospects: Prospects = 'unknown'

  constructor(facts: InitiatorFacts) {
    this.#facts = facts
    this.#rounds = facts.config.rounds
  }

  /** What was tried, a sentence each. */
  get steps(): readonly string[] {
    return this.#steps
  }

  /** When `tick` wants to be called; null when nothing is waited for but inputs. */
  get deadline(): number | null {
    return 'until' in this.#state ? this.#state.until : null
  }

  start(now: number): InitiatorOutput[] {
    if (this.#state.name !== 'start') return []
    if (!this.#facts.isPeerDirect) return this.#open(now)
    this.#state = { name: 'reversing' }
    this.#steps.push('the peer has a public address: dialling it')
    return [{ type: 'reverse', forMs: this.#facts.config.reverseTimeoutMs }]
  }

  handle(input: InitiatorInput, now: number): InitiatorOutput[] {
    const state = this.#state
    if (state.name === 'over') return []
    switch (input.type) {
      case 'upgraded':
        return this.#over('upgraded', 'a direct link is up')
      case 'opened':
        return state.name === 'opening' ? this.#ask(now) : []
      case 'message':
        return this.#received(input.message, now)
      case 'closed':
        return this.#lost(input.why)
      case 'tried':
        return this.#tried(input.step, input.why, now)
    }
  }

  tick(now: number): InitiatorOutput[] {
    const state = this.#state
    if (!('until' in state) || now < state.until) return []
    switch (state.name) {
      case 'opening':
        return this.#lost('the peer did not take the stream in time')
      case 'asked':
        return this.#lost('the peer did not answer in time')
      case 'waiting':
        this.#state = { name: 'punching' }
        return [{ type: 'punch', endpoints: state.endpoints, forMs: this.#facts.config.roundTimeoutMs }]
    }
  }

  #open(now: number): InitiatorOutput[] {
    if (this.#facts.tcpUnavailable !== null) {
      this.#steps.push(`no TCP hole punching: ${this.#facts.tcpUnavailable}`)
      return this.#udp()
    }
    this.#state = { name: 'opening', until: now + this.#facts.config.answerTimeoutMs }
    return [{ type: 'open' }]
  }

  #ask(now: number): InitiatorOutput[] {
    this.#round++
    this.#state = { name: 'asked', sentAt: now, until: now + this.#facts.config.answerTimeoutMs }
    return [{ type: 'send', message: { type: 'connect', addresses: this.#facts.addresses } }]
  }

  #received(message: HolePunch, now: number): InitiatorOutput[] {
    const state = this.#state
    if (state.name !== 'asked' || message.type !== 'connect') return this.#over('violation', `${message.type} out of turn`)
    const accepted = this.#facts.accept(message.addresses)
    this.#prospects = accepted.prospects
    if (accepted.prospects === 'none')
      return this.#over('failed', 'a NAT gives each destination another port, and the other lets in only answers')
    if (accepted.endpoints.length === 0) {
      const isForeign = accepted.refused > 0
      this.#steps.push(isForeign ? 'the peer named only addresses that it may not name' : 'the peer has no address to be met at by TCP')
      return this.#udp()
    }
    // It works at once or not at all: the port is a guess.
    if (accepted.prospects === 'poor') this.#rounds = 1
    const roundTrip = now - state.sentAt
    this.#steps.push(`TCP from both sides, round ${this.#round}: round trip through the relay ${Math.round(roundTrip)} ms`)
    this.#state = { name: 'waiting', until: now + roundTrip / 2, endpoints: accepted.endpoints }
    return [{ type: 'send', message: { type: 'sync', addresses: [] } }, ...this.tick(now)]
  }

  /** The stream is of no more use. */
  #lost(why: string): InitiatorOutput[] {
    const { name } = this.#state
    // What is under way needs no stream.
    if (name === 'reversing' || name === 'waiting' || name === 'punching' || name === 'udp') {
      this.#rounds = this.#round
      return []
    }
    this.#steps.push(`the coordination ended: ${why}`)
    return this.#udp()
  }

  #tried(step: 'reverse' | 'punch' | 'udp', why: string | null, now: number): InitiatorOutput[] {
    const { name } = this.#state
    if (step === 'reverse' && name === 'reversing') {
      if (why === null) return this.#over('upgraded', 'the peer was dialled')
      this.#steps.push(`the peer could not be dialled: ${why}`)
      return this.#open(now)
    }
    if (step === 'punch' && name === 'punching') {
      if (why === null) return this.#over('upgraded', 'the TCP connections met')
      this.#steps.push(`round ${this.#round} failed: ${why}`)
      return this.#round < this.#rounds ? this.#ask(now) : this.#udp()
    }
    if (step === 'udp' && name === 'udp') {
      if (why === null) return this.#over('upgraded', 'UDP met')
      this.#steps.push(`UDP failed: ${why}`)
      return this.#udp()
    }
    return []
  }

  #udp(): InitiatorOutput[] {
    const { udpUnavailable, config } = this.#facts
    if (udpUnavailable !== null) return this.#over('failed', `no UDP: ${udpUnavailable}`)
    if (this.#udpTries === (this.#prospects === 'poor' ? 1 : config.udpTries)) return this.#over('failed', 'nothing is left to try')
    this.#udpTries++
    this.#state = { name: 'udp' }
    this.#steps.push(`UDP from both sides, try ${this.#udpTries}`)
    return [{ type: 'close' }, { type: 'udp', forMs: config.udpTimeoutMs }]
  }

  #over(outcome: 'upgraded' | 'failed' | 'violation', why: string): InitiatorOutput[] {
    this.#state = { name: 'over' }
    this.#steps.push(why)
    return [{ type: 'over', outcome, why }]
  }
}
