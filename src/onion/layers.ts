import { assert } from '../base/index.ts'
import { type CryptoSuite, WIDE_BLOCK_SCRATCH, type WideBlock } from '../crypto/index.ts'
import { BATCH_HEADROOM, CELL_BYTES, type CellBatch, TAG_BYTES } from './cell.ts'
import { type HopKeys, KDF, label } from './kdf.ts'

/** Cells between two key steps. docs/spec/cell.md §5 */
export const KEY_STEP_CELLS = 1024
/** The most hops a client's circuit can have. */
export const MAX_HOPS = 8
/** What `recognised` holds for a cell that is nobody's. */
export const NOT_RECOGNISED = 255

const FORWARD = 1
const BACKWARD = 2
const SEED_BYTES = 32
const CHAIN_BYTES = 16
/** direction u8, three zero bytes, counter u64, chain. */
const TWEAK_BYTES = 28
const COUNTER_AT = 4
const CHAIN_AT = 12
const stepLabel = label('step')
const keyLabel = label('key')

// Shared by all layers: calls are synchronous and not reentrant.
const presentTweak = new Uint8Array(TWEAK_BYTES)

/** The layers of one relay's hop, both directions. docs/spec/cell.md §4 */
export class RelayLayers {
  readonly #forward: Layer
  readonly #backward: Layer

  /** @param keys copied */
  constructor(suite: CryptoSuite, keys: HopKeys) {
    this.#forward = new Layer(suite, FORWARD, keys.forwardSeed, keys.forwardChain)
    this.#backward = new Layer(suite, BACKWARD, keys.backwardSeed, keys.backwardChain)
  }

  /** Decrypts cells [from, count) in place up to and including the first that shows the tag; returns its index, or -1 when none does. */
  openForward(batch: CellBatch, from: number): number {
    const { bytes, start, count } = batch
    checkBatch(batch)
    for (let i = from; i < count; i++) {
      if (this.#forward.open(bytes, start + i * CELL_BYTES)) return i
    }
    return -1
  }

  /** Encrypts every cell of the batch in place: passed on or originated, the layer makes no difference. */
  sealBackward(batch: CellBatch): void {
    const { bytes, start, count } = batch
    checkBatch(batch)
    for (let i = 0; i < count; i++) this.#backward.seal(bytes, start + i * CELL_BYTES)
  }

  /** Overwrites keys and chains. The layers are unusable afterwards. */
  destroy(): void {
    this.#forward.destroy()
    this.#backward.destroy()
  }
}

/** All layers of a client's circuit, the first hop's first. docs/spec/cell.md §4 */
export class ClientLayers {
  readonly #forward: Layer[] = []
  readonly #backward: Layer[] = []

  /** @param keys copied */
  addHop(suite: CryptoSuite, keys: HopKeys): void {
    assert(this.#forward.length < MAX_HOPS, 'a circuit has at most MAX_HOPS hops')
    this.#forward.push(new Layer(suite, FORWARD, keys.forwardSeed, keys.forwardChain))
    this.#backward.push(new Layer(suite, BACKWARD, keys.backwardSeed, keys.backwardChain))
  }

  get hops(): number {
    return this.#forward.length
  }

  /** Encrypts in place for `hop` (from 0), innermost layer first. The cells begin with the tag. */
  sealForward(batch: CellBatch, hop: number): void {
    const { bytes, start, count } = batch
    checkBatch(batch)
    assert(hop >= 0 && hop < this.#forward.length, 'the hop is established')
    for (let i = 0; i < count; i++) {
      const at = start + i * CELL_BYTES
      this.#forward[hop]!.seal(bytes, at)
      for (let layer = hop - 1; layer >= 0; layer--) this.#forward[layer]!.sealPassedOn(bytes, at)
    }
  }

  /**
   * Peels in place. recognised[i] becomes the index of the hop whose tag cell i shows, or
   * NOT_RECOGNISED; a recognised cell does not touch the layers behind its hop.
   */
  openBackward(batch: CellBatch, recognised: Uint8Array): void {
    const { bytes, start, count } = batch
    checkBatch(batch)
    assert(recognised.length >= count, 'there is a place for each cell')
    const layers = this.#backward
    for (let i = 0; i < count; i++) {
      const at = start + i * CELL_BYTES
      let hop = 0
      while (hop < layers.length && !layers[hop]!.openOwn(bytes, at)) hop++
      recognised[i] = hop < layers.length ? hop : NOT_RECOGNISED
    }
  }

  /** Overwrites keys and chains. The layers are unusable afterwards. */
  destroy(): void {
    for (const layer of this.#forward) layer.destroy()
    for (const layer of this.#backward) layer.destroy()
  }
}

/** One hop, one direction: seed, counter and chain (the last two live in the tweak), and the cipher of the present key. */
class Layer {
  readonly #suite: CryptoSuite
  readonly #seed = new Uint8Array(SEED_BYTES)
  readonly #tweak = new Uint8Array(TWEAK_BYTES)
  #counter = 0
  /** The counter before which the next key step is due. */
  #stepAt = 0
  #cipher: WideBlock | null = null

  constructor(suite: CryptoSuite, direction: number, seed: Uint8Array, chain: Uint8Array) {
    assert(seed.length === SEED_BYTES && chain.length === CHAIN_BYTES, 'a seed has 32 bytes, a chain 16')
    this.#suite = suite
    this.#seed.set(seed)
    this.#tweak[0] = direction
    this.#tweak.set(chain, CHAIN_AT)
  }

  /** Encrypts a cell whose next chain is its ciphertext side: backward, or forward for the addressee. */
  seal(bytes: Uint8Array, at: number): void {
    this.#ready().encrypt(this.#tweak, bytes, at, CELL_BYTES)
    this.#chain(bytes, at)
    this.#count()
  }

  /** Encrypts a cell whose next chain is its plaintext side: forward, for hops before the addressee. */
  sealPassedOn(bytes: Uint8Array, at: number): void {
    const cipher = this.#ready()
    this.#keepTweak()
    this.#chain(bytes, at)
    cipher.encrypt(presentTweak, bytes, at, CELL_BYTES)
    this.#count()
  }

  /** Decrypts a backward cell, whose next chain is its ciphertext side whoever made it, and says whether this hop did. */
  openOwn(bytes: Uint8Array, at: number): boolean {
    const cipher = this.#ready()
    this.#keepTweak()
    this.#chain(bytes, at)
    cipher.decrypt(presentTweak, bytes, at, CELL_BYTES)
    this.#count()
    return showsTag(bytes, at)
  }

  /** Decrypts a forward cell and says whether it is this hop's: then its next chain is the ciphertext side, else the plaintext side. */
  open(bytes: Uint8Array, at: number): boolean {
    if (this.openOwn(bytes, at)) return true
    this.#chain(bytes, at)
    return false
  }

  destroy(): void {
    this.#cipher?.destroy()
    this.#cipher = null
    this.#seed.fill(0)
    this.#tweak.fill(0)
    this.#counter = -1
    this.#stepAt = -1
  }

  /** The tweak of the cell at hand, out of the way of the next one's. */
  #keepTweak(): void {
    const tweak = this.#tweak
    for (let i = 0; i < TWEAK_BYTES; i++) presentTweak[i] = tweak[i]!
  }

  /** The cipher for the next cell, after the key step when one is due. */
  #ready(): WideBlock {
    return this.#counter < this.#stepAt ? this.#cipher! : this.#step()
  }

  #step(): WideBlock {
    assert(this.#counter >= 0, 'destroyed layers are not used')
    if (this.#counter > 0) {
      const next = KDF(this.#suite, stepLabel, SEED_BYTES, this.#seed)
      this.#seed.set(next)
      next.fill(0)
    }
    const key = KDF(this.#suite, keyLabel, 32, this.#seed)
    this.#cipher?.destroy()
    this.#cipher = this.#suite.wideBlock(key)
    this.#stepAt = this.#counter + KEY_STEP_CELLS
    key.fill(0)
    return this.#cipher
  }

  #chain(bytes: Uint8Array, at: number): void {
    const tweak = this.#tweak
    for (let i = 0; i < CHAIN_BYTES; i++) tweak[CHAIN_AT + i] = bytes[at + i]!
  }

  /** Counts one cell, big-endian in the tweak. */
  #count(): void {
    const tweak = this.#tweak
    this.#counter++
    for (let i = COUNTER_AT + 7; i >= COUNTER_AT; i--) {
      tweak[i] = tweak[i]! + 1
      if (tweak[i] !== 0) return
    }
  }
}

function showsTag(bytes: Uint8Array, at: number): boolean {
  let any = 0
  for (let i = 0; i < TAG_BYTES; i++) any |= bytes[at + i]!
  return any === 0
}

function checkBatch(batch: CellBatch): void {
  const fits = batch.start >= BATCH_HEADROOM && batch.start + batch.count * CELL_BYTES <= batch.bytes.length
  assert(fits && BATCH_HEADROOM >= WIDE_BLOCK_SCRATCH, 'a batch lies in its buffer, with headroom before it')
}
