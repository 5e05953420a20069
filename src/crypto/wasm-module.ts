/**
 * Builds a WebAssembly module's bytes: as much of the binary format as vector code over one page of memory needs.
 * Source: WebAssembly Core Specification 3.0, §5 (binary format). `Code` is a piece of a function's body in stack order;
 * an expression leaves one value on the stack, a statement none.
 */
export type Code = readonly number[]

/** A function without parameters and result. Its locals start at 0, i32 numbers before v128 vectors. */
export interface WasmFunction {
  readonly name: string
  readonly numbers: number
  readonly vectors: number
  readonly body: Code
}

const I32 = 0x7f
const V128 = 0x7b

/** A module that exports `functions` and its own memory of exactly one 64-KiB page, named "memory". */
export function wasmModule(functions: readonly WasmFunction[]): Uint8Array<ArrayBuffer> {
  const code = ({ numbers, vectors, body }: WasmFunction): Code =>
    sized([
      ...list([
        [...u32(numbers), I32],
        [...u32(vectors), V128],
      ]),
      ...body,
      0x0b,
    ])
  const exported = ({ name }: WasmFunction, i: number): Code => [...text(name), 0x00, ...u32(i)]
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [[0x60, 0, 0]]),
    ...section(
      3,
      functions.map(() => [0]),
    ),
    ...section(5, [[0x01, 1, 1]]),
    ...section(7, [...functions.map(exported), [...text('memory'), 0x02, 0]]),
    ...section(10, functions.map(code)),
  ])
}

export const get = (local: number): Code => [0x20, ...u32(local)]
export const set = (local: number, value: Code): Code => [...value, 0x21, ...u32(local)]

export const i32 = (value: number): Code => [0x41, ...s32(value)]
export const i32Add = (a: Code, b: Code): Code => [...a, ...b, 0x6a]
export const i32Differ = (a: Code, b: Code): Code => [...a, ...b, 0x47]
/** Runs `body` once, and again as long as `condition` holds after it. */
export const repeat = (body: Code, condition: Code): Code => [0x03, 0x40, ...body, ...condition, 0x0d, 0, 0x0b]

/** The 16 bytes at `address`, a constant, plus `index`. */
export const load = (address: number, index: Code = i32(0)): Code => [...index, 0xfd, 0x00, 0x04, ...u32(address)]
export const store = (address: number, value: Code, index: Code = i32(0)): Code => [...index, ...value, 0xfd, 0x0b, 0x04, ...u32(address)]
export const xor = (first: Code, ...others: Code[]): Code => [...first, ...others.flatMap((other) => [...other, 0xfd, 0x51])]
export const and = (a: Code, b: Code): Code => [...a, ...b, 0xfd, 0x4e]
/** i8x16.add */
export const bytesAdd = (a: Code, b: Code): Code => [...a, ...b, 0xfd, 0x6e]
/** i64x2.shr_u: bits move from a byte into its neighbour. */
export const shiftRight = (a: Code, bits: number): Code => [...a, ...i32(bits), 0xfd, ...u32(0xcd)]
/**
 * i8x16.relaxed_swizzle: byte n of the result is byte `index[n]` of `bytes`, and 0 where the index is 0x80 or more. Indexes of 16 to 127
 * differ between machines. It is one instruction (pshufb, tbl), which takes the same time for all values.
 */
export const swizzle = (bytes: Code, index: Code): Code => [...bytes, ...index, 0xfd, ...u32(0x100)]

function section(id: number, items: readonly Code[]): Code {
  return [id, ...sized(list(items))]
}

function list(items: readonly Code[]): Code {
  return [...u32(items.length), ...items.flat()]
}

function sized(bytes: Code): Code {
  return [...u32(bytes.length), ...bytes]
}

function text(ascii: string): Code {
  return sized([...Buffer.from(ascii, 'latin1')])
}

/** LEB128, unsigned. */
function u32(value: number): Code {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...u32(value >>> 7)]
}

/** LEB128, signed. */
function s32(value: number): Code {
  return value >= -0x40 && value < 0x40 ? [value & 0x7f] : [(value & 0x7f) | 0x80, ...s32(value >> 7)]
}
