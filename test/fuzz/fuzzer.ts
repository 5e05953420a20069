import { MalformedError, type Random, SeededRandom } from '../../src/base/index.ts'
import { megabytesInUse } from '../support/memory-in-use.ts'

/** Something that reads bytes from the outside. */
export interface FuzzTarget {
  readonly name: string
  /** Reads the bytes (its own copy). Throwing MalformedError, or returning a refusal, is fine; anything else that is thrown is a failure. */
  readonly decode: (bytes: Uint8Array) => unknown
  /** Valid inputs, from which others are made. */
  readonly seeds: () => readonly Uint8Array[]
  /** Of the iterations asked for, this share is enough: for what is dear. Default 1. */
  readonly share?: number
  /** Inputs of `npm run fuzz` when it is not told how many; default 100,000. */
  readonly runs?: number
  /** For what keeps something from input to input: the memory in use may be so much more than it was after the first tenth. */
  readonly mostGrowthMegabytes?: number
}

/** A crash: what was thrown, and the input that replays it. */
export interface FuzzFailure {
  readonly target: string
  readonly iteration: number
  readonly input: Uint8Array
  readonly thrown: unknown
}

export interface FuzzResult {
  readonly target: string
  readonly iterations: number
  readonly refused: number
  readonly failure: FuzzFailure | null
}

const MOST_RANDOM_BYTES = 2048
const MOST_INPUT_BYTES = 128 * 1024
/** Values at which lengths and counts go wrong. */
const EDGES = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff]

/** Feeds one target with random and mutated inputs. The same seed gives the same inputs, whatever other targets there are. */
export function fuzz(target: FuzzTarget, iterations: number, seed: number): FuzzResult {
  const random = new SeededRandom(seed ^ hash(target.name))
  const seeds = target.seeds()
  const count = Math.max(1, Math.round(iterations * (target.share ?? 1)))
  const memory = target.mostGrowthMegabytes === undefined ? null : new MemoryWatch(count, target.mostGrowthMegabytes)
  let refused = 0
  for (let iteration = 0; iteration < count; iteration++) {
    const input = iteration < seeds.length ? seeds[iteration]!.slice() : makeInput(seeds, random)
    try {
      target.decode(input.slice())
      memory?.after(iteration)
    } catch (thrown) {
      if (!(thrown instanceof MalformedError))
        return { target: target.name, iterations: iteration + 1, refused, failure: { target: target.name, iteration, input, thrown } }
      refused++
    }
  }
  return { target: target.name, iterations: count, refused, failure: null }
}

const PARTS = 10

/** Looks at the memory in use, after a collection, at each tenth of the way. */
class MemoryWatch {
  readonly #part: number
  readonly #mostGrowth: number
  #first: number | null = null

  constructor(iterations: number, mostGrowthMegabytes: number) {
    this.#part = Math.max(1, Math.floor(iterations / PARTS))
    this.#mostGrowth = mostGrowthMegabytes
  }

  after(iteration: number): void {
    if ((iteration + 1) % this.#part !== 0) return
    const now = megabytesInUse()
    this.#first ??= now
    const growth = now - this.#first
    if (growth > this.#mostGrowth) throw new Error(`${growth.toFixed(1)} MB more in use than after the first tenth`)
  }
}

function makeInput(seeds: readonly Uint8Array[], random: Random): Uint8Array {
  if (seeds.length === 0 || random.int(8) === 0) return random.bytes(random.int(random.int(4) === 0 ? MOST_RANDOM_BYTES : 64))
  let bytes: Uint8Array = seeds[random.int(seeds.length)]!.slice()
  for (let left = 1 + random.int(4); left > 0; left--) bytes = mutate(bytes, seeds, random)
  return bytes.length > MOST_INPUT_BYTES ? bytes.slice(0, MOST_INPUT_BYTES) : bytes
}

function mutate(bytes: Uint8Array, seeds: readonly Uint8Array[], random: Random): Uint8Array {
  const at = bytes.length > 0 ? random.int(bytes.length) : 0
  switch (random.int(9)) {
    case 0: // a bit
      if (bytes.length > 0) bytes[at]! ^= 1 << random.int(8)
      return bytes
    case 1: // a byte
      if (bytes.length > 0) bytes[at] = random.int(256)
      return bytes
    case 2: // an edge, where lengths and counts mostly stand: near the start
      if (bytes.length > 0) bytes[random.int(Math.min(bytes.length, 64))] = EDGES[random.int(EDGES.length)]!
      return bytes
    case 3: // a wider edge
      for (let i = at; i < Math.min(bytes.length, at + 4); i++) bytes[i] = random.int(2) === 0 ? 0 : 0xff
      return bytes
    case 4: // cut
      return bytes.slice(0, at)
    case 5: // a piece missing
      return join(bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + 1 + random.int(16))))
    case 6: // a piece twice, or new bytes in between
      return join(
        bytes.subarray(0, at),
        random.int(2) === 0 ? bytes.subarray(at, at + 1 + random.int(32)) : random.bytes(1 + random.int(16)),
        bytes.subarray(at),
      )
    case 7: {
      // the end of another seed
      const other = seeds[random.int(seeds.length)]!
      return join(bytes.subarray(0, at), other.subarray(other.length > 0 ? random.int(other.length) : 0))
    }
    default: // more at the end
      return join(bytes, random.bytes(1 + random.int(32)))
  }
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  return value >>> 0
}
