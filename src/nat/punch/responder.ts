import type { Endpoint } from '../behaviour.ts'
import type { Accepted } from './candidates.ts'
import type { PunchingConfig } from './config.ts'
import type { HolePunch } from './hole-punch.ts'

/** What the responder knows when the stream comes in. */
export interface ResponderFacts {
  /** Addresses for the answer; none when TCP can't be punched from here. */
  readonly addresses: readonly Uint8Array[]
  readonly config: PunchingConfig
  /** The rules for what the peer offers. */
  readonly accept: (addresses: readonly Uint8Array[]) => Accepted
}

export type ResponderInput =
  | { readonly type: 'message'; readonly message: HolePunch }
  | { readonly type: 'closed' }
  /** The attempt that the last `punch` began is over. */
  | { readonly type: 'tried'; readonly why: string | null }
  | { readonly type: 'upgraded' }

export type ResponderOutput =
  | { readonly type: 'send'; readonly message: HolePunch }
  | { readonly type: 'punch'; readonly endpoints: readonly Endpoint[]; readonly forMs: number }
  /** Ends the attempt under way: the peer wants another round. */
  | { readonly type: 'stop-punching' }
  /** Ends the stream, and what is still being tried. */
  | { readonly type: 'over'; readonly outcome: 'upgraded' | 'failed' | 'violation'; readonly why: string }

/*
 *            CONNECT             SYNC
 *  idle ──────────────► answered ────► punching ──failed──► idle …       closed, late, too many rounds ──► over
 *                                          └──── CONNECT: another round ────► answered
 */
type State =
  | { readonly name: 'idle'; readonly until: number }
  | { readonly name: 'answered'; readonly until: number; readonly endpoints: readonly Endpoint[] }
  | { readonly name: 'punching'; readonly until: number }
  | { readonly name: 'over' }

/** The side that dialled the relayed connection: it answers, and punches at each SYNC. Pure. docs/spec/punching.md §2 */
export class Responder {
  readonly #facts: ResponderFacts
  readonly #steps: string[] = []
  #state: State
  #round = 0
  #isHopeless = false

  constructor(facts: ResponderFacts, now: number) {
    this.#facts = facts
    this.#state = { name: 'idle', until: now + facts.config.answerTimeoutMs }
  }

  get steps(): readonly string[] {
    return this.#steps
  }

  /** Whether the two NATs can't meet, by what the peer says of its own. */
  get isHopeless(): boolean {
    return this.#isHopeless
  }

  get deadline(): number | null {
    return 'until' in this.#state ? this.#state.until : null
  }

  handle(input: ResponderInput, now: number): ResponderOutput[] {
    const state = this.#state
    if (state.name === 'over') return []
    switch (input.type) {
      case 'upgraded':
        return this.#over('upgraded', 'a direct link is up')
      case 'closed':
        // The peer's side may have it already: the attempt under way goes on.
        if (state.name === 'punching') return []
        return this.#over('failed', 'the peer has ended the coordination')
      case 'tried':
        if (state.name !== 'punching') return []
        if (input.why === null) return this.#over('upgraded', 'the TCP connections met')
        this.#steps.push(`round ${this.#round} failed: ${input.why}`)
        return this.#idle(now)
      case 'message':
        return input.message.type === 'connect' ? this.#connect(input.message, now) : this.#sync(now)
    }
  }

  tick(now: number): ResponderOutput[] {
    const state = this.#state
    if (!('until' in state) || now < state.until) return []
    return this.#over('failed', state.name === 'answered' ? 'the peer gave no sign to begin' : 'the peer asked no more')
  }

  #connect(message: HolePunch, now: number): ResponderOutput[] {
    const { config, addresses, accept } = this.#facts
    const { name } = this.#state
    if (name === 'answered') return this.#over('violation', 'connect out of turn')
    if (this.#round === config.rounds) return this.#over('violation', 'too many rounds')
    this.#round++
    const accepted = accept(message.addresses)
    if (accepted.endpoints.length === 0 && accepted.refused > 0) this.#steps.push('the peer named only addresses that it may not name')
    this.#isHopeless = accepted.prospects === 'none'
    if (this.#isHopeless) this.#steps.push('a NAT gives each destination another port, and the other lets in only answers')
    const endpoints = this.#isHopeless ? [] : accepted.endpoints
    this.#state = { name: 'answered', until: now + config.answerTimeoutMs, endpoints }
    const answer: ResponderOutput = { type: 'send', message: { type: 'connect', addresses: this.#isHopeless ? [] : addresses } }
    return name === 'punching' ? [{ type: 'stop-punching' }, answer] : [answer]
  }

  #sync(now: number): ResponderOutput[] {
    const state = this.#state
    if (state.name !== 'answered') return this.#over('violation', 'sync out of turn')
    if (state.endpoints.length === 0 || this.#facts.addresses.length === 0) return this.#idle(now)
    const { roundTimeoutMs, answerTimeoutMs } = this.#facts.config
    this.#steps.push(`TCP from both sides, round ${this.#round}`)
    this.#state = { name: 'punching', until: now + roundTimeoutMs + answerTimeoutMs }
    return [{ type: 'punch', endpoints: state.endpoints, forMs: roundTimeoutMs }]
  }

  #idle(now: number): ResponderOutput[] {
    this.#state = { name: 'idle', until: now + this.#facts.config.answerTimeoutMs }
    return []
  }

  #over(outcome: 'upgraded' | 'failed' | 'violation', why: string): ResponderOutput[] {
    this.#state = { name: 'over' }
    this.#steps.push(why)
    return [{ type: 'over', outcome, why }]
  }
}
