import { equalBytes, MalformedError, type NodeId, type Random, shuffle, TokenBucket } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import { isMisbehaviour } from './add-result.ts'
import { BUCKETS, shortDigest } from './buckets.ts'
import {
  AGE_ENTRIES_MAX,
  type AgeEntry,
  decodeSyncAnswer,
  decodeSyncRequest,
  differingBuckets,
  encodeSyncAnswer,
  encodeSyncRequest,
  FETCH_MAX,
  LIST_ENTRIES_MAX,
  type SyncAnswer,
  type SyncRefusal,
  type SyncRequest,
} from './sync-messages.ts'
import type { View } from './view.ts'

/**
 * The pull protocol, both sides, without a socket (docs/spec/directory.md §5). A session of the asking side:
 *
 *   summary ──same──────────────────────────▶ ages? ──▶ done
 *      └─differs─▶ list … ─▶ fetch … ────────▲
 *
 * Every answer that breaks the protocol ends the session and names the peer.
 */

/** How long one answer may take, and a whole session. */
export const SYNC_ANSWER_MS = 10_000
export const SYNC_SESSION_MS = 120_000
/** Fetched descriptors that were of no use (expired, dated ahead, crowded) before a session is ended. */
export const SYNC_USELESS_MAX = 256
/** Answers to FETCH in a row that hold nothing, before a session is ended. */
const EMPTY_FETCHES_MAX = 3

export type PullEnd =
  | 'complete'
  | 'refused' // by the peer
  | 'useless' // too much that could not be used
  | 'violation' // the peer broke the protocol or served what is invalid: don't ask it again
  | 'timeout'
  | 'lost' // the connection ended

export interface PullOutcome {
  readonly end: PullEnd
  /** What broke the protocol, or why the peer refused. */
  readonly detail: string
  /** Whether the peer's view and ours had been the same at the start. */
  readonly same: boolean
  /** Known relays the peer claims. */
  readonly relays: number
  readonly added: number
  readonly replaced: number
  readonly useless: number
  readonly requests: number
}

export type PullOutput = { readonly type: 'send'; readonly frame: Uint8Array } | { readonly type: 'done'; readonly outcome: PullOutcome }

/** The asking side, for all peers: what one session fetches, no other fetches at the same time. */
export class ViewPuller {
  readonly view: View
  readonly #suite: CryptoSuite
  readonly #random: Random
  readonly #inFlight = new Set<string>()

  constructor(view: View, suite: CryptoSuite, random: Random) {
    this.view = view
    this.#suite = suite
    this.#random = random
  }

  /** A session with a peer. The first frame to send is in `session.start(now)`. */
  begin(peer: NodeId, options: { readonly ages: boolean }): PullSession {
    return new PullSession(this.view, this.#suite, this.#random, this.#inFlight, peer, options.ages)
  }
}

interface Wanted {
  readonly tag: string
  readonly sequence: number
  readonly digest: string
}

/** One session with one peer, asking side: answers in, requests out, until `done`. Made by ViewPuller. */
export class PullSession {
  readonly peer: NodeId
  readonly #view: View
  readonly #suite: CryptoSuite
  readonly #random: Random
  /** Digests that some session is fetching; ours are in `#fetching`. */
  readonly #inFlight: Set<string>
  readonly #ages: boolean
  #state: 'new' | 'summary' | 'list' | 'fetch' | 'ages' | 'done' = 'new'
  #deadline = 0
  #answerBy = 0
  #toList: number[] = []
  #listed = 0
  #wanted: Wanted[] = []
  #fetching: readonly string[] = []
  #emptyFetches = 0
  #agesFrom = 0
  readonly #heard = new Map<string, number>()
  #same = false
  #relays = 0
  #added = 0
  #replaced = 0
  #useless = 0
  #requests = 0

  constructor(view: View, suite: CryptoSuite, random: Random, inFlight: Set<string>, peer: NodeId, ages: boolean) {
    this.#view = view
    this.#suite = suite
    this.#random = random
    this.#inFlight = inFlight
    this.peer = peer
    this.#ages = ages
  }

  /** The first request. @param now wall-clock ms, here and below */
  start(now: number): PullOutput {
    this.#deadline = now + SYNC_SESSION_MS
    this.#state = 'summary'
    return this.#ask({ type: 'summary', networkId: this.#view.networkId }, now)
  }

  /** When `handleTimeout` wants to be called, or null. */
  pollTimeout(): number | null {
    return this.#state === 'done' ? null : Math.min(this.#answerBy, this.#deadline)
  }

  handleTimeout(now: number): PullOutput | null {
    const at = this.pollTimeout()
    return at !== null && at <= now ? this.#finish('timeout', 'took too long') : null
  }

  /** The connection to the peer ended. */
  handleLost(): PullOutput | null {
    return this.#state === 'done' ? null : this.#finish('lost', 'connection ended')
  }

  handleAnswer(frame: Uint8Array, now: number): PullOutput {
    let answer: SyncAnswer
    try {
      answer = decodeSyncAnswer(frame)
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      return this.#finish('violation', error.message)
    }
    if (answer.type === 'refused') return this.#finish('refused', answer.reason)
    if (answer.type !== this.#state) return this.#finish('violation', 'answers something else than what was asked')
    switch (answer.type) {
      case 'summary':
        return this.#handleSummary(answer, now)
      case 'list':
        return this.#handleList(answer, now)
      case 'fetch':
        return this.#handleFetch(answer, now)
      case 'ages':
        return this.#handleAges(answer, now)
    }
  }

  #handleSummary(answer: SyncAnswer & { type: 'summary' }, now: number): PullOutput {
    this.#relays = answer.relays
    const { buckets } = this.#view
    this.#same = equalBytes(answer.root, buckets.root())
    if (!this.#same) this.#toList = differingBuckets((bucket) => buckets.digest(bucket), answer.digests)
    return this.#next(now)
  }

  #handleList(answer: SyncAnswer & { type: 'list' }, now: number): PullOutput {
    if (answer.buckets.size === 0) return this.#finish('violation', 'lists no bucket of those it was asked for')
    for (const [bucket, entries] of answer.buckets) {
      const at = this.#toList.indexOf(bucket)
      if (at < 0) return this.#finish('violation', 'lists a bucket it was not asked for')
      this.#toList.splice(at, 1)
      this.#listed += entries.length
      // As many again as a view holds: beyond that the lists are made up.
      if (this.#listed > 2 * this.#view.rules.admission.maxRelays)
        return this.#finish('violation', 'lists more relays than a view can hold')
      for (const entry of entries) if (this.#view.wants(entry.tag, entry.sequence, entry.digest, now)) this.#wanted.push(entry)
    }
    if (this.#toList.length === 0) shuffle(this.#wanted, this.#random)
    return this.#next(now)
  }

  #handleFetch(answer: SyncAnswer & { type: 'fetch' }, now: number): PullOutput {
    const asked = new Set(this.#fetching)
    this.#release()
    for (const bytes of answer.descriptors) {
      if (!asked.delete(shortDigest(this.#suite.sha256(bytes)))) return this.#finish('violation', 'sends a descriptor it was not asked for')
      const result = this.#view.add(bytes, now)
      if (result.type === 'added') this.#added++
      else if (result.type === 'replaced') this.#replaced++
      else if (result.type === 'refused' && isMisbehaviour(result.reason)) {
        return this.#finish('violation', `sends an invalid descriptor: ${result.reason}, ${result.detail}`)
      } else if (result.type !== 'duplicate') this.#useless++
    }
    this.#emptyFetches = answer.descriptors.length === 0 ? this.#emptyFetches + 1 : 0
    if (this.#useless > SYNC_USELESS_MAX || this.#emptyFetches >= EMPTY_FETCHES_MAX)
      return this.#finish('useless', 'most of it is of no use')
    return this.#next(now)
  }

  #handleAges(answer: SyncAnswer & { type: 'ages' }, now: number): PullOutput {
    if (answer.next <= this.#agesFrom) return this.#finish('violation', 'does not get on with its ages')
    for (const { tag, ageSeconds } of answer.ages) this.#heard.set(tag, ageSeconds * 1_000)
    if (this.#heard.size > 2 * this.#view.rules.admission.maxRelays)
      return this.#finish('violation', 'tells more ages than a view can hold')
    this.#agesFrom = answer.next
    if (this.#agesFrom >= BUCKETS) this.#view.hearAges(this.peer, this.#heard, now)
    return this.#next(now)
  }

  /** The next request, or the end. */
  #next(now: number): PullOutput {
    if (this.#toList.length > 0) {
      this.#state = 'list'
      return this.#ask({ type: 'list', buckets: this.#toList }, now)
    }
    const digests = this.#claimBatch(now)
    if (digests.length > 0) {
      this.#state = 'fetch'
      this.#fetching = digests
      return this.#ask({ type: 'fetch', digests }, now)
    }
    if (this.#ages && this.#agesFrom < BUCKETS && this.#view.ages.wantsHearsay) {
      this.#state = 'ages'
      return this.#ask({ type: 'ages', from: this.#agesFrom }, now)
    }
    return this.#finish('complete', '')
  }

  /** Takes up to FETCH_MAX descriptors that are still wanted and that no other session is fetching. */
  #claimBatch(now: number): string[] {
    const digests: string[] = []
    const later: Wanted[] = []
    while (digests.length < FETCH_MAX) {
      const entry = this.#wanted.pop()
      if (!entry) break
      if (!this.#view.wants(entry.tag, entry.sequence, entry.digest, now)) continue
      if (this.#inFlight.has(entry.digest)) later.push(entry)
      else {
        this.#inFlight.add(entry.digest)
        digests.push(entry.digest)
      }
    }
    // What others are fetching may still be wanted when they are done or have failed; when nothing else is left, the next pull will see.
    if (digests.length > 0) this.#wanted.unshift(...later)
    return digests
  }

  #release(): void {
    for (const digest of this.#fetching) this.#inFlight.delete(digest)
    this.#fetching = []
  }

  #ask(request: SyncRequest, now: number): PullOutput {
    this.#requests++
    this.#answerBy = now + SYNC_ANSWER_MS
    return { type: 'send', frame: encodeSyncRequest(request) }
  }

  #finish(end: PullEnd, detail: string): PullOutput {
    this.#release()
    this.#state = 'done'
    const outcome: PullOutcome = {
      end,
      detail,
      same: this.#same,
      relays: this.#relays,
      added: this.#added,
      replaced: this.#replaced,
      useless: this.#useless,
      requests: this.#requests,
    }
    return { type: 'done', outcome }
  }
}

/** What serving the view may cost, bytes a second: for one peer, and for all together. A whole view of 10,000 relays is about 10 MB. */
export const SERVE_PEER_RATE = 1_000_000
export const SERVE_PEER_BURST = 24_000_000
export const SERVE_RATE = 8_000_000
export const SERVE_BURST = 96_000_000
/** Peers whose share is remembered. */
export const SERVE_PEERS_MAX = 1_024

/** The answering side: a function of the view, the request and the budget. */
export class ViewServer {
  readonly #view: View
  readonly #peers = new Map<NodeId, TokenBucket>()
  readonly #all: TokenBucket

  /** @param now wall-clock ms, as in `answer`: ages are told by it, and the budget runs on it too */
  constructor(view: View, now: number) {
    this.#view = view
    this.#all = new TokenBucket(SERVE_RATE, SERVE_BURST, now)
  }

  /** The answer to a request. `keep` says whether the peer may ask on: one that breaks the protocol or its budget may not. */
  answer(peer: NodeId, frame: Uint8Array, now: number): { readonly frame: Uint8Array; readonly keep: boolean } {
    let request: SyncRequest
    try {
      request = decodeSyncRequest(frame)
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      return refuse('malformed')
    }
    const share = this.#share(peer, now)
    // Spending into debt and refusing while in debt: the size of an answer is not known before it is made.
    if (!this.#all.take(1, now) || !share.take(1, now)) return refuse('busy')
    if (request.type === 'summary' && !equalBytes(request.networkId, this.#view.networkId)) return refuse('network')
    const bytes = encodeSyncAnswer(this.#answer(request, now))
    share.spend(bytes.length, now)
    this.#all.spend(bytes.length, now)
    return { frame: bytes, keep: true }
  }

  #answer(request: SyncRequest, now: number): SyncAnswer {
    const { buckets } = this.#view
    switch (request.type) {
      case 'summary': {
        const digests = Array.from({ length: BUCKETS }, (_, bucket) => buckets.digest(bucket))
        return { type: 'summary', relays: this.#view.size, root: buckets.root(), digests }
      }
      case 'list': {
        const lists = new Map<number, ReturnType<typeof buckets.entries>>()
        let room = LIST_ENTRIES_MAX
        for (const bucket of request.buckets) {
          const entries = buckets.entries(bucket)
          if (lists.size > 0 && entries.length > room) break
          lists.set(bucket, entries.slice(0, room))
          room -= Math.min(room, entries.length)
        }
        return { type: 'list', buckets: lists }
      }
      case 'fetch': {
        const descriptors: Uint8Array[] = []
        for (const digest of request.digests) {
          const entry = this.#view.byDigest(digest)
          if (entry) descriptors.push(entry.signed.bytes)
        }
        return { type: 'fetch', descriptors }
      }
      case 'ages':
        return this.#agesFrom(request.from, now)
    }
  }

  /** Only what this node saw itself: hearsay is not passed on. */
  #agesFrom(from: number, now: number): SyncAnswer {
    const { buckets, ages } = this.#view
    const firstSeen = new Map<string, number>()
    for (const { id, tag } of this.#view.relays()) firstSeen.set(tag, ages.get(id)?.first ?? now)
    const entries: AgeEntry[] = []
    let bucket = from
    for (; bucket < BUCKETS; bucket++) {
      const here = buckets.entries(bucket)
      if (bucket > from && entries.length + here.length > AGE_ENTRIES_MAX) break
      for (const { tag } of here.slice(0, AGE_ENTRIES_MAX)) {
        const seconds = Math.floor((now - (firstSeen.get(tag) ?? now)) / 1_000)
        entries.push({ tag, ageSeconds: Math.min(0xffff_ffff, Math.max(0, seconds)) })
      }
    }
    return { type: 'ages', next: bucket, ages: entries }
  }

  #share(peer: NodeId, now: number): TokenBucket {
    let share = this.#peers.get(peer)
    if (share) this.#peers.delete(peer)
    else share = new TokenBucket(SERVE_PEER_RATE, SERVE_PEER_BURST, now)
    this.#peers.set(peer, share)
    const oldest = this.#peers.size > SERVE_PEERS_MAX ? this.#peers.keys().next().value : undefined
    if (oldest !== undefined) this.#peers.delete(oldest)
    return share
  }
}

function refuse(reason: SyncRefusal): { frame: Uint8Array; keep: boolean } {
  return { frame: encodeSyncAnswer({ type: 'refused', reason }), keep: false }
}
