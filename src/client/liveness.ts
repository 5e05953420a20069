/** Silence after which an unused stream's circuit is probed at last: each answered probe doubles the wait up to this. */
const LONGEST_SILENCE_MS = 60_000
/** An answer may take this many times the round trip measured so far. */
const ROUND_TRIPS = 4
/** A timer that fires later than this tells that this machine stood still, and nothing of the circuit. */
const LATE_MS = 500

export interface LivenessOptions {
  /** Silence, while an answer is expected, after which the circuit is probed. */
  readonly probeAfterMs: number
  /** A circuit that has not answered a probe by then is dead; slow ones get longer (4 round trips). */
  readonly probeTimeoutMs: number
}

/** What to do now: ask the last hop; ask the others too, so that it is known where the circuit broke; give it up. */
export type LivenessStep = 'probe' | 'widen' | 'dead'

/**
 *   idle ──something opens──▶ quiet ──silence──▶ probing ──half the time──▶ doubtful ──the other half──▶ dead
 *    ▲                       │  ▲  ▲               │ a cell of the last hop          │
 *    └──────all closed───────┘  │  └───────────────┴─────────────────────────────────┘
 *                               └─ a cell, or bytes that leave: the wait begins again
 */
type State =
  | { readonly is: 'idle' }
  /** Silent since `since`; `isAwaiting`: bytes have left since the last cell. */
  | { readonly is: 'quiet'; since: number; patienceMs: number; isAwaiting: boolean }
  | { readonly is: 'probing' | 'doubtful'; at: number; readonly timeoutMs: number; readonly patienceMs: number }

/**
 * Tells when a circuit is to be probed, and when it is dead: a relay that vanished without a word, such as one whose router restarted, would
 * otherwise hold its streams until a link notices. Only circuits that carry something are watched, and a silent one is asked less and less
 * often while it answers, so the cost of an open stream that nobody uses is a cell a minute. Pure; times are monotonic ms.
 */
export class Liveness {
  readonly #options: LivenessOptions
  #state: State = { is: 'idle' }
  #isActive = false
  #heardAt = Number.NEGATIVE_INFINITY

  constructor(options: LivenessOptions) {
    this.#options = options
  }

  /** Half of the time for an answer is over, or a circuit through the same relay has just died: nothing new should be begun on it. */
  get isDoubtful(): boolean {
    return this.#state.is === 'doubtful'
  }

  /** Of the last cell of the last hop; -Infinity before the first. */
  get heardAt(): number {
    return this.#heardAt
  }

  /**
   * Whether anything is open on the circuit. Without, it is not watched, but for an answer that is still due: an application that gave up waiting
   * tells nothing of the circuit, and the next one should not have to begin the wait anew.
   */
  setActive(isActive: boolean, now: number): void {
    if (this.#isActive === isActive) return
    this.#isActive = isActive
    if (isActive && this.#state.is === 'idle') this.#wait(now, this.#options.probeAfterMs)
    else if (!isActive && this.#state.is === 'quiet' && !this.#state.isAwaiting) this.#state = { is: 'idle' }
  }

  /** Something was handed to the circuit that the other side answers sooner or later: a question, bytes, a datagram. */
  noteSent(now: number): void {
    if (this.#state.is !== 'quiet' || this.#state.isAwaiting) return
    this.#state.isAwaiting = true
    this.#state.since = now
    this.#state.patienceMs = this.#options.probeAfterMs
  }

  /** A cell of the last hop came. */
  noteHeard(now: number): void {
    this.#heardAt = now
    const state = this.#state
    if (state.is === 'quiet' && !this.#isActive) {
      this.#state = { is: 'idle' }
    } else if (state.is === 'quiet') {
      state.since = now
      state.patienceMs = this.#options.probeAfterMs
      state.isAwaiting = false
    } else if (state.is !== 'idle') {
      if (this.#isActive) this.#wait(now, Math.min(LONGEST_SILENCE_MS, state.patienceMs * 2))
      else this.#state = { is: 'idle' }
    }
  }

  /** Somebody else has reason to doubt the circuit: it is probed at once. Returns what to do, or null when that is under way. */
  suspect(now: number, rttMs: number | null): LivenessStep | null {
    if (this.#state.is === 'probing' || this.#state.is === 'doubtful') return null
    const { patienceMs } = this.#state.is === 'quiet' ? this.#state : { patienceMs: this.#options.probeAfterMs }
    const timeoutMs = this.#timeoutMs(rttMs)
    this.#state = { is: 'doubtful', at: now + timeoutMs, timeoutMs, patienceMs }
    return 'widen'
  }

  pollTimeout(): number | null {
    switch (this.#state.is) {
      case 'idle':
        return null
      case 'quiet':
        return this.#state.since + this.#state.patienceMs
      default:
        return this.#state.at
    }
  }

  /** Call when the time of `pollTimeout` has come. @param rttMs the round trip to the last hop as measured so far, or null */
  handleTimeout(now: number, rttMs: number | null): LivenessStep | null {
    const at = this.pollTimeout()
    if (at === null || now < at) return null
    const state = this.#state
    if (state.is === 'idle') return null
    if (state.is === 'quiet') {
      const timeoutMs = this.#timeoutMs(rttMs)
      this.#state = { is: 'probing', at: now + timeoutMs / 2, timeoutMs, patienceMs: state.patienceMs }
      return 'probe'
    }
    if (now - at > LATE_MS) {
      // What came in meanwhile has not been read yet.
      state.at = now + state.timeoutMs / 2
      return null
    }
    if (state.is === 'probing') {
      this.#state = { ...state, is: 'doubtful', at: now + state.timeoutMs / 2 }
      return 'widen'
    }
    return 'dead'
  }

  #wait(now: number, patienceMs: number): void {
    this.#state = { is: 'quiet', since: now, patienceMs, isAwaiting: false }
  }

  #timeoutMs(rttMs: number | null): number {
    return Math.max(this.#options.probeTimeoutMs, ROUND_TRIPS * (rttMs ?? 0))
  }
}
