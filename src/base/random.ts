import { assert } from './errors.ts'

/** A source of randomness: the system's in a node, a seeded one in a simulation or a test. */
export interface Random {
  /** `length` fresh bytes. */
  bytes(length: number): Uint8Array
  /** A uniform integer in [0, below). */
  int(below: number): number
  /** A uniform number in [0, 1). */
  unit(): number
}

/** Deterministic randomness (xoshiro128**, Blackman and Vigna 2018). Never for keys in a real node. */
export class SeededRandom implements Random {
  readonly #state: Uint32Array

  constructor(seed: number) {
    // SplitMix32 spreads the seed over the state.
    let x = seed >>> 0
    const next = (): number => {
      x = (x + 0x9e3779b9) >>> 0
      let z = x
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
      return (z ^ (z >>> 16)) >>> 0
    }
    this.#state = Uint32Array.of(next(), next(), next(), next())
  }

  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let i = 0; i < length; i += 4) {
      let word = this.#word()
      for (let j = i; j < i + 4 && j < length; j++) {
        bytes[j] = word & 0xff
        word >>>= 8
      }
    }
    return bytes
  }

  int(below: number): number {
    assert(Number.isSafeInteger(below) && below > 0, 'int needs a positive bound')
    return Math.floor(this.unit() * below)
  }

  unit(): number {
    return (this.#word() * 0x200000 + (this.#word() >>> 11)) / 2 ** 53
  }

  #word(): number {
    const s = this.#state
    const s1 = s[1]!
    const scaled = Math.imul(s1, 5)
    const result = Math.imul((scaled << 7) | (scaled >>> 25), 9) >>> 0
    const t = s1 << 9
    s[2]! ^= s[0]!
    s[3]! ^= s[1]!
    s[1]! ^= s[2]!
    s[0]! ^= s[3]!
    s[2]! ^= t
    s[3] = (s[3]! << 11) | (s[3]! >>> 21)
    return result
  }
}

/** Fisher and Yates, in place. */
export function shuffle<T>(items: T[], random: Random): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = random.int(i + 1)
    const swap = items[i]!
    items[i] = items[j]!
    items[j] = swap
  }
  return items
}
