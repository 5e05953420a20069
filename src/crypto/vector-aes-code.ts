import { assert } from '../base/index.ts'
import { AES_BLOCK_BYTES } from './aes.ts'
import {
  and,
  bytesAdd,
  type Code,
  get,
  i32,
  i32Add,
  i32Differ,
  load,
  repeat,
  set,
  shiftRight,
  store,
  swizzle,
  type WasmFunction,
  xor,
} from './wasm-module.ts'

/*
 * AES-256 (FIPS 197) in WebAssembly's vector instructions, in constant time: no branch and no address depends on a key or a block.
 * The method is that of Hamburg, "Accelerating AES with Vector Permute Instructions", CHES 2009. All tables are worked out below.
 *
 * A byte x of GF(2^8) is i + k s', with i and k of the subfield GF(2^4) and s + s' = 1, s' = s^16; let v = s s' and j = i + k.
 * x is held as the nibbles i (high) and k (low), on which tables of 16 bytes work, one lookup for 16 bytes at a time:
 *
 *   io = 1/(1/i + 1/(v k)) + j      jo = 1/(1/j + 1/(v k)) + i      1/x = (s' + v)/io + (s + v)/jo
 *
 * (The norm of x is N = i j + v k^2, 1/x is (i s' + j s)/N, and the right-hand sides are 1/io = (i + v k)/N, 1/jo = (j + v k)/N.)
 * 1/0, infinity, is 0x80, which plus anything is looked up as 0 = 1/infinity; x = 0 gives 1/x = 0, as AES wants it.
 * Everything after the inversion is linear, so it is in the tables over io and jo: S-box, the multiples of MixColumns, and the change
 * back to nibbles. The constant of the S-box is in the round keys.
 */

// Memory: tables, the present schedule, the block before and after, a key to be expanded.
export const SCHEDULE_AT = 0x800
export const INPUT_AT = 0xa00
export const OUTPUT_AT = 0xa10
export const KEY_AT = 0xa20
const ROUNDS = 14
export const SCHEDULE_BYTES = (ROUNDS + 1) * AES_BLOCK_BYTES
/** The constant of the S-box, FIPS 197 §5.1.1. */
const CONSTANT = 0x63
/** 1/0: every lookup with it, whatever is added, gives 0. */
const INFINITY = 0x80

type Linear = (byte: number) => number

/**
 * The functions of the module (`encrypt` and `decrypt`: the input under the schedule to the output; `expandToEncrypt` and
 * `expandToDecrypt`: the key to the schedule of one direction), and the tables which its memory begins with.
 */
export function vectorAesCode(): { tables: Uint8Array; functions: readonly WasmFunction[] } {
  const { elements, sUnit, tUnit, toNibbles, inverse, divided } = towerField()
  const tables: number[] = []
  /** Lays a table of 16 bytes into memory, once, and gives the code that loads it. */
  const known = new Map<string, Code>()
  const table = (at: (n: number) => number): Code => {
    const bytes = Array.from({ length: AES_BLOCK_BYTES }, (_, n) => at(n))
    const name = bytes.join()
    const code = known.get(name) ?? load(tables.length)
    if (!known.has(name)) tables.push(...bytes)
    known.set(name, code)
    return code
  }
  const all = (byte: number): Code => table(() => byte)

  // The vector locals of every function; `numbers` are before them.
  const vectors = 13
  const locals = (numbers: number) => ({
    ...{ state: numbers, i: numbers + 1, j: numbers + 2, k: numbers + 3, vk: numbers + 4, io: numbers + 5, jo: numbers + 6 },
    ...{ once: numbers + 7, twice: numbers + 8 },
    ...{ word: numbers + 9, older: numbers + 10, newer: numbers + 11, constant: numbers + 12 },
  })
  type Locals = ReturnType<typeof locals>

  const high = (value: Code): Code => and(shiftRight(value, 4), all(0x0f))
  const low = (value: Code): Code => and(value, all(0x0f))
  /** A linear map of every byte of a local. */
  const linear = (map: Linear, local: number): Code =>
    xor(
      swizzle(
        table((n) => map(n << 4)),
        high(get(local)),
      ),
      swizzle(table(map), low(get(local))),
    )
  /** io and jo of the state. */
  const invert = ({ state, i, j, k, vk, io, jo }: Locals): Code => {
    const reciprocal = (value: Code): Code => swizzle(table(inverse), value)
    return [
      ...set(i, high(get(state))),
      ...set(k, low(get(state))),
      ...set(j, xor(get(i), get(k))),
      ...set(vk, swizzle(table(divided), get(k))),
      ...set(io, xor(reciprocal(xor(reciprocal(get(i)), get(vk))), get(j))),
      ...set(jo, xor(reciprocal(xor(reciprocal(get(j)), get(vk))), get(i))),
    ]
  }
  /** A linear map of 1/x, from io and jo. */
  const inverted = (map: Linear, { io, jo }: Locals): Code => {
    const over = (unit: number): Code => table((n) => (n === 0 ? 0 : map(multiply(reciprocalOf(elements[n]!), unit))))
    return xor(swizzle(over(sUnit), get(io)), swizzle(over(tUnit), get(jo)))
  }
  const rows = (permutation: (column: number, row: number) => number, value: Code): Code =>
    swizzle(
      value,
      table((n) => permutation(n >> 2, n & 3)),
    )
  // Byte 4c + r is row r of column c. ShiftRows, then the row that MixColumns wants m below. FIPS 197 §5.1.2, §5.3.1
  const shifted = (m: number) => (column: number, row: number) => 4 * ((column + row + m) & 3) + ((row + m) & 3)
  const shiftedBack = (m: number) => (column: number, row: number) => 4 * ((column - row - m) & 3) + ((row + m) & 3)
  const below = (m: number) => (column: number, row: number) => 4 * column + ((row + m) & 3)

  const entering: Linear = (x) => toNibbles[x]!
  const leavingRound =
    (factor: number): Linear =>
    (x) =>
      toNibbles[multiply(factor, affine(x))]!
  // Back, the inverse of the affine map comes before the inversion: the state is held with it applied.
  const enteringBack: Linear = (x) => toNibbles[affineBack[x]!]!
  const leavingRoundBack =
    (factor: number): Linear =>
    (x) =>
      enteringBack(multiply(factor, x))
  const mixBack = [14, 11, 13, 9]

  /** The first key, 13 rounds, the last round. */
  const cipher = (name: string, first: Linear, round: (locals: Locals) => Code, last: (locals: Locals) => Code): WasmFunction => {
    const at = 0
    const names = locals(1)
    const { state } = names
    const roundKey = load(SCHEDULE_AT, get(at))
    const body = [
      set(state, load(INPUT_AT)),
      set(state, xor(linear(first, state), roundKey)),
      set(at, i32(AES_BLOCK_BYTES)),
      repeat(
        [...invert(names), ...set(state, xor(round(names), roundKey)), ...set(at, i32Add(get(at), i32(AES_BLOCK_BYTES)))],
        i32Differ(get(at), i32(ROUNDS * AES_BLOCK_BYTES)),
      ),
      invert(names),
      store(OUTPUT_AT, xor(last(names), roundKey)),
    ].flat()
    return { name, numbers: 1, vectors, body }
  }
  const encrypt = cipher(
    'encrypt',
    entering,
    (names) => {
      // MixColumns: 2 a0 + 3 a1 + a2 + a3, with one and two times the S-box looked up.
      const { once, twice } = names
      return [
        ...set(once, inverted(leavingRound(1), names)),
        ...set(twice, inverted(leavingRound(2), names)),
        ...xor(
          rows(shifted(0), get(twice)),
          rows(shifted(1), xor(get(once), get(twice))),
          rows(shifted(2), get(once)),
          rows(shifted(3), get(once)),
        ),
      ]
    },
    (names) => rows(shifted(0), inverted(affine, names)),
  )
  const decrypt = cipher(
    'decrypt',
    enteringBack,
    (names) => {
      const [first, ...others] = mixBack.map((factor, m) => rows(shiftedBack(m), inverted(leavingRoundBack(factor), names)))
      return xor(first!, ...others)
    },
    (names) =>
      rows(
        shiftedBack(0),
        inverted((x) => x, names),
      ),
  )

  /**
   * FIPS 197 §5.2 for eight words of key, two round keys in locals at a time. Each is stored as the direction wants it, the first and the
   * last in their own way, `step` bytes on from one to the next.
   */
  const expansion = (
    name: string,
    step: number,
    stored: (which: 'first' | 'middle' | 'last', key: number, at: Code) => Code,
  ): WasmFunction => {
    const at = 0
    const names = locals(1)
    const { state, word, older, newer, constant } = names
    const firstAt = step > 0 ? 0 : ROUNDS * AES_BLOCK_BYTES
    const lastAt = ROUNDS * AES_BLOCK_BYTES - firstAt
    const subWord = [...set(state, linear(entering, newer)), ...invert(names)]
    const moved = (by: number): Code =>
      swizzle(
        get(older),
        table((n) => (n < by ? INFINITY : n - by)),
      )
    /** The older key becomes the next: each of its words plus all before it, plus the last word of the newer through the S-box. */
    const next = (substituted: Code): Code => [
      ...subWord,
      ...set(word, xor(substituted, all(CONSTANT))),
      ...set(older, xor(get(older), moved(4))),
      ...set(older, xor(get(older), moved(8))),
      ...set(word, xor(get(older), get(word))),
      ...set(older, get(newer)),
      ...set(newer, get(word)),
    ]
    const substituted = inverted(affine, names)
    const turned = next(
      xor(
        rows((_, row) => 12 + ((row + 1) & 3), substituted),
        get(constant),
      ),
    )
    const straight = next(rows((_, row) => 12 + row, substituted))
    const keep = [...stored('middle', newer, get(at)), ...set(at, i32Add(get(at), i32(step)))]
    const body = [
      set(older, load(KEY_AT)),
      set(newer, load(KEY_AT + AES_BLOCK_BYTES)),
      set(
        constant,
        table((n) => (n % 4 === 0 ? 1 : 0)),
      ),
      stored('first', older, i32(firstAt)),
      set(at, i32(firstAt + step)),
      keep,
      repeat(
        [...turned, ...set(constant, bytesAdd(get(constant), get(constant))), ...keep, ...straight, ...keep],
        i32Differ(get(at), i32(lastAt)),
      ),
      turned,
      stored('last', newer, i32(lastAt)),
    ].flat()
    return { name, numbers: 1, vectors, body }
  }
  const expandToEncrypt = expansion('expandToEncrypt', AES_BLOCK_BYTES, (which, key, at) => {
    if (which === 'last') return store(SCHEDULE_AT, xor(get(key), all(CONSTANT)), at)
    const nibbles = linear(entering, key)
    return store(SCHEDULE_AT, which === 'first' ? nibbles : xor(nibbles, all(entering(CONSTANT))), at)
  })
  // The equivalent inverse cipher, FIPS 197 §5.3.5: from the last key to the first, MixColumns undone in those between.
  const expandToDecrypt = expansion('expandToDecrypt', -AES_BLOCK_BYTES, (which, key, at) => {
    if (which === 'first') return store(SCHEDULE_AT, get(key), at)
    const parts =
      which === 'last' ? [linear(enteringBack, key)] : mixBack.map((factor, m) => rows(below(m), linear(leavingRoundBack(factor), key)))
    return store(SCHEDULE_AT, xor(all(enteringBack(CONSTANT)), ...parts), at)
  })

  const functions = [encrypt, decrypt, expandToEncrypt, expandToDecrypt]
  assert(tables.length <= SCHEDULE_AT, 'the tables end before the schedule')
  return { tables: Uint8Array.from(tables), functions }
}

/** GF(2^8) over its subfield GF(2^4): which nibble is which element, and the constants and tables of the inversion above. */
function towerField() {
  const bytes = Array.from({ length: 256 }, (_, x) => x)
  // 17 divides 255: the 17th powers are the subfield. Nibbles count in the basis 1, g, g^2, g^3 of an element g of order 15.
  const g = bytes.map((x) => power(x, 17)).find((x) => x > 1 && power(x, 3) !== 1 && power(x, 5) !== 1)!
  const elements = bytes.slice(0, 16).map((n) => [0, 1, 2, 3].reduce((sum, bit) => sum ^ (n & (1 << bit) ? power(g, bit) : 0), 0))
  const nibbleOf = (element: number): number => elements.indexOf(element)
  const s = bytes.find((x) => (x ^ power(x, 16)) === 1)!
  const t = power(s, 16)
  const v = multiply(s, t)
  const toNibbles = new Uint8Array(256)
  for (const x of bytes) toNibbles[elements[x >> 4]! ^ multiply(elements[x & 15]!, t)] = x
  return {
    elements,
    sUnit: t ^ v,
    tUnit: s ^ v,
    toNibbles,
    inverse: (n: number): number => (n === 0 ? INFINITY : nibbleOf(reciprocalOf(elements[n]!))),
    divided: (n: number): number => (n === 0 ? INFINITY : nibbleOf(reciprocalOf(multiply(v, elements[n]!)))),
  }
}

// Logarithms to the base 3 in GF(2^8), FIPS 197 §4 (for the tables only: never of a secret).
const powersOf3 = new Uint8Array(255)
const logs = new Uint8Array(256)
for (let n = 0, x = 1; n < 255; n++) {
  powersOf3[n] = x
  logs[x] = n
  x ^= (x << 1) ^ (x & 0x80 ? 0x11b : 0)
}

function multiply(x: number, y: number): number {
  return x === 0 || y === 0 ? 0 : powersOf3[(logs[x]! + logs[y]!) % 255]!
}

/** x^n, where 0^n is 0. */
function power(x: number, n: number): number {
  return x === 0 ? 0 : powersOf3[(logs[x]! * n) % 255]!
}

/** 1/x, and 0 for 0. */
function reciprocalOf(x: number): number {
  return power(x, 254)
}

/** The affine map of the S-box without its constant: x plus x turned by 1 to 4 bits. */
function affine(x: number): number {
  const turns = x * 0x101
  return (x ^ (turns >> 4) ^ (turns >> 5) ^ (turns >> 6) ^ (turns >> 7)) & 0xff
}

const affineBack = new Uint8Array(256)
for (let x = 0; x < 256; x++) affineBack[affine(x)] = x
