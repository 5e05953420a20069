import { equalBytes, type Logger, MalformedError, messageOf, type NodeId, nodeIdFromKey, Reader, Writer } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import {
  type DescriptorFields,
  leadingZeroBits,
  type NetworkRules,
  networkId,
  type SignedDescriptor,
  signDescriptor,
  WORK_NONCE_BYTES,
  WorkSearch,
  workHash,
  workPeriod,
} from '../directory/index.ts'
import type { DiscoveryStore } from './store.ts'

/** How many bits above the rules' a relay works when others with more work keep it out of the view: up to sixteen times as long. */
export const EXTRA_BITS_MAX = 4

/** What a relay says of itself; the publisher adds number, times and proof of work. */
export type OwnFields = Omit<DescriptorFields, 'sequence' | 'publishedAt' | 'expiresAt' | 'work'>

export const PUBLISHER_STATE = 'publisher'
/** Longest turn of the proof-of-work search, after which the event loop goes on. */
const SLICE_MS = 4
const SLICE_ATTEMPTS = 256
/** Changes that come this soon after each other go into one edition. */
export const CHANGE_DELAY_MS = 250
/** The next period's proof is looked for when this part of a period is left. */
const AHEAD = 0.1

export interface PublisherOptions {
  readonly rules: NetworkRules
  /** The identity's Ed25519 seed. */
  readonly seed: Uint8Array
  /** Part of a core for the search, 0 to 1. */
  readonly workShare: number
  /** What holds at this moment; null while there is nothing true to say (behind NAT, before a way in is found). Called for every edition. */
  readonly fields: () => OwnFields | null
  /** Takes a new edition and spreads it. */
  readonly publish: (signed: SignedDescriptor) => void
}

export interface PublisherModules {
  readonly suite: CryptoSuite
  readonly store: DiscoveryStore
  readonly logger: Logger
  readonly now: () => number
}

export interface PublisherStatus {
  /** `waiting`: the proof is there, and nothing to say yet. */
  readonly state: 'stopped' | 'working' | 'waiting' | 'published'
  readonly sequence: number
  readonly publishedAt: number | null
  readonly expiresAt: number | null
  /** Hashes tried for the proof that is being looked for, or null when none is. */
  readonly workAttempts: number | null
}

/** Makes the node's own descriptor: finds its proof of work, signs an edition when something changed or the last one gets old. */
export class Publisher {
  readonly id: NodeId
  readonly #options: PublisherOptions
  readonly #modules: PublisherModules
  readonly #networkId: Uint8Array
  #sequence = 0
  readonly #proofs = new Map<number, Uint8Array>()
  #current: SignedDescriptor | null = null
  #search: WorkSearch | null = null
  #extra: { readonly period: number; readonly bits: number } | null = null
  #timer: NodeJS.Timeout | null = null
  #running: Promise<void> | null = null
  #again = false
  #isWaiting = false
  #stopped = true
  #stop = new AbortController()

  constructor(options: PublisherOptions, modules: PublisherModules) {
    this.#options = options
    this.#modules = modules
    this.#networkId = networkId(modules.suite, options.rules)
    this.id = nodeIdFromKey(modules.suite.ed25519.keyPair(options.seed).publicKey)
  }

  get current(): SignedDescriptor | null {
    return this.#current
  }

  get status(): PublisherStatus {
    const descriptor = this.#current?.descriptor
    return {
      state: this.#stopped ? 'stopped' : descriptor ? 'published' : this.#isWaiting ? 'waiting' : 'working',
      sequence: this.#sequence,
      publishedAt: descriptor?.publishedAt ?? null,
      expiresAt: descriptor?.expiresAt ?? null,
      workAttempts: this.#search?.attempts ?? null,
    }
  }

  /** Reads what was kept and begins. The first edition comes when the proof of work is found. */
  async start(): Promise<void> {
    const state = await this.#modules.store.loadState(PUBLISHER_STATE, decodePublisherState)
    if (state) {
      this.#sequence = state.sequence
      for (const { period, nonce } of state.proofs)
        if (this.#bits(period, nonce) >= this.#options.rules.work.bits) this.#proofs.set(period, nonce)
    }
    this.#stopped = false
    this.#stop = new AbortController()
    this.#wake()
  }

  /** Something of the fields has changed: a new edition follows soon. */
  changed(): void {
    if (!this.#stopped) this.#schedule(CHANGE_DELAY_MS, true)
  }

  /** A newer edition of this relay than ours is about (an older life of the node): go on above it. */
  noteSequence(sequence: number): void {
    if (sequence < this.#sequence) return
    this.#sequence = sequence
    this.changed()
  }

  /** Others at the same address or in the same network have worked more: look for a better proof. Returns whether that makes sense. */
  workMore(): boolean {
    const period = this.#current?.descriptor.work.period
    if (period === undefined || this.#stopped) return false
    const bits = (this.#extra?.period === period ? this.#extra.bits : 0) + 1
    if (bits > EXTRA_BITS_MAX) return false
    this.#extra = { period, bits }
    this.changed()
    return true
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#stop.abort()
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    await this.#running
  }

  #schedule(delayMs: number, sooner: boolean): void {
    if (this.#timer && !sooner) return
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#wake(), delayMs)
  }

  #wake(): void {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    if (this.#running) {
      this.#again = true
      return
    }
    this.#running = this.#run()
      .catch((error) => {
        this.#modules.logger.error('the own descriptor could not be made', { problem: messageOf(error) })
        if (!this.#stopped) this.#schedule(this.#options.rules.descriptors.republishMs, false)
      })
      .finally(() => {
        this.#running = null
        if (this.#again && !this.#stopped) {
          this.#again = false
          this.#wake()
        }
      })
  }

  async #run(): Promise<void> {
    const { work, descriptors } = this.#options.rules
    const period = workPeriod(this.#modules.now(), work.periodMs)
    const nonce = await this.#proof(period)
    if (!nonce || this.#stopped) return
    // Finding it may have taken the period's rest.
    const publishedAt = this.#modules.now()
    if (workPeriod(publishedAt, work.periodMs) !== period) {
      this.#again = true
      return
    }
    const fields = this.#options.fields()
    this.#isWaiting = fields === null
    if (fields === null) {
      // What was said before runs out by itself; `changed` tells when there is something new.
      if (this.#current && this.#current.descriptor.expiresAt <= publishedAt) this.#current = null
      this.#schedule(descriptors.republishMs, false)
      return
    }
    // Wall-clock milliseconds, so that even a node that lost its state goes on above its former numbers.
    this.#sequence = Math.max(this.#sequence + 1, publishedAt)
    await this.#save()
    if (this.#stopped) return
    const signed = signDescriptor(this.#modules.suite, this.#options.seed, {
      ...fields,
      sequence: this.#sequence,
      publishedAt,
      expiresAt: publishedAt + descriptors.lifetimeMs,
      work: { period, nonce },
    })
    this.#current = signed
    this.#options.publish(signed)
    this.#modules.logger.debug('own descriptor published', { sequence: this.#sequence })
    // Spread over a tenth, so that the relays of a network that started together do not stay together.
    this.#schedule(descriptors.republishMs * (0.9 + 0.1 * (signed.digest[0]! / 255)), false)
    const nextPeriod = (period + 1) * work.periodMs
    if (nextPeriod - publishedAt < Math.max(work.periodMs * AHEAD, 2 * descriptors.republishMs)) await this.#proof(period + 1)
  }

  /** The proof for a period: the kept one, or a new one. Null when stopped meanwhile. */
  async #proof(period: number): Promise<Uint8Array | null> {
    const bits = this.#options.rules.work.bits + (this.#extra?.period === period ? this.#extra.bits : 0)
    const kept = this.#proofs.get(period)
    if (kept && this.#bits(period, kept) >= bits) return kept
    const { suite, logger, now } = this.#modules
    const subject = { networkId: this.#networkId, id: this.id, period }
    const from = kept ? Number(new DataView(kept.buffer, kept.byteOffset).getBigUint64(0)) + 1 : 0
    const search = new WorkSearch(suite, subject, bits, from)
    this.#search = search
    const began = now()
    try {
      for (;;) {
        const sliceEnd = performance.now() + SLICE_MS
        let nonce: Uint8Array | null = null
        while (!nonce && performance.now() < sliceEnd) nonce = search.run(SLICE_ATTEMPTS)
        if (nonce) {
          logger.info('proof of work found', { attempts: search.attempts, seconds: Math.round((now() - began) / 1_000) })
          this.#keepProof(period, nonce)
          await this.#save()
          return nonce
        }
        if (this.#stopped) return null
        await pause((SLICE_MS * (1 - this.#options.workShare)) / this.#options.workShare, this.#stop.signal)
      }
    } finally {
      this.#search = null
    }
  }

  #bits(period: number, nonce: Uint8Array): number {
    return leadingZeroBits(workHash(this.#modules.suite, { networkId: this.#networkId, id: this.id, period }, nonce))
  }

  #keepProof(period: number, nonce: Uint8Array): void {
    this.#proofs.set(period, nonce)
    for (const old of this.#proofs.keys()) if (old < period - 1) this.#proofs.delete(old)
  }

  #save(): Promise<void> {
    const proofs = [...this.#proofs].map(([period, nonce]) => ({ period, nonce }))
    return this.#modules.store.write(PUBLISHER_STATE, encodePublisherState({ sequence: this.#sequence, proofs }))
  }
}

/** What a publisher keeps: its last sequence number and the proofs it has found. */
export interface PublisherState {
  readonly sequence: number
  readonly proofs: readonly { readonly period: number; readonly nonce: Uint8Array }[]
}

/** "shallot publisher 1\n" | sequence u64 | count u8, each: period u32, nonce 8 */
const magic = new TextEncoder().encode('shallot publisher 1\n')
const PROOFS_MAX = 4

/** The state as a file; of the proofs the last four. */
export function encodePublisherState(state: PublisherState): Uint8Array {
  const proofs = state.proofs.slice(-PROOFS_MAX)
  const writer = new Writer(64).bytes(magic).u64(state.sequence).u8(proofs.length)
  for (const { period, nonce } of proofs) writer.u32(period).bytes(nonce)
  return writer.finish()
}

/** @throws MalformedError */
export function decodePublisherState(bytes: Uint8Array): PublisherState {
  const reader = new Reader('publisher state', bytes)
  if (!equalBytes(reader.bytes(magic.length), magic)) throw new MalformedError('publisher state', 'does not begin like one')
  const sequence = reader.u53()
  const count = reader.u8()
  if (count > PROOFS_MAX) throw new MalformedError('publisher state', `has ${count} proofs, more than ${PROOFS_MAX}`)
  const proofs: { period: number; nonce: Uint8Array }[] = []
  for (let i = 0; i < count; i++) proofs.push({ period: reader.u32(), nonce: reader.bytes(WORK_NONCE_BYTES).slice() })
  reader.end()
  return { sequence, proofs }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
  })
}
