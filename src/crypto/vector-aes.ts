import { assert } from '../base/index.ts'
import { AES_BLOCK_BYTES, type AesKey, type AesUnit } from './aes.ts'
import { INPUT_AT, KEY_AT, OUTPUT_AT, SCHEDULE_AT, SCHEDULE_BYTES, vectorAesCode } from './vector-aes-code.ts'
import { wasmModule } from './wasm-module.ts'

const KEY_BYTES = 32

/** What is used of WebAssembly, which the types of Node leave to the browser's. */
declare const WebAssembly:
  | undefined
  | {
      validate(bytes: Uint8Array): boolean
      readonly Module: new (bytes: Uint8Array) => object
      readonly Instance: new (module: object) => { readonly exports: object }
    }

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer }
  /** The input's block under the schedule to the output. */
  encrypt(): void
  decrypt(): void
  /** The key to be expanded to the schedule of one direction. */
  expandToEncrypt(): void
  expandToDecrypt(): void
}

let unit: AesUnit | null | undefined

/** The process's one vector unit, or null where WebAssembly or its (relaxed) vector instructions are missing. */
export function vectorAes(): AesUnit | null {
  if (unit === undefined) unit = makeUnit()
  return unit
}

function makeUnit(): AesUnit | null {
  if (typeof WebAssembly === 'undefined') return null
  const { tables, functions } = vectorAesCode()
  const bytes = wasmModule(functions)
  if (!WebAssembly.validate(bytes)) return null
  let exports: Exports
  try {
    exports = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports as Exports
  } catch {
    return null // no address space for the memory
  }
  const { buffer } = exports.memory
  new Uint8Array(buffer).set(tables)
  const input = new Uint8Array(buffer, INPUT_AT, AES_BLOCK_BYTES)
  const output = new Uint8Array(buffer, OUTPUT_AT, AES_BLOCK_BYTES)
  const present = new Present(exports)
  return { input, output, key: (key) => new VectorKey(present, key) }
}

/** Whose schedule is in the module's memory: it is copied in when another was used last, so a batch of one layer copies it once. */
class Present {
  readonly exports: Exports
  readonly #schedule: Uint8Array
  readonly #key: Uint8Array
  #owner: Uint8Array | null = null

  constructor(exports: Exports) {
    this.exports = exports
    this.#schedule = new Uint8Array(exports.memory.buffer, SCHEDULE_AT, SCHEDULE_BYTES)
    this.#key = new Uint8Array(exports.memory.buffer, KEY_AT, KEY_BYTES)
  }

  use(schedule: Uint8Array): void {
    if (this.#owner === schedule) return
    this.#schedule.set(schedule)
    this.#owner = schedule
  }

  /** A fresh schedule, which is the present one then. */
  expand(key: Uint8Array, toEncrypt: boolean): Uint8Array {
    this.#key.set(key)
    if (toEncrypt) this.exports.expandToEncrypt()
    else this.exports.expandToDecrypt()
    this.#key.fill(0)
    const schedule = this.#schedule.slice()
    this.#owner = schedule
    return schedule
  }

  wipe(schedule: Uint8Array): void {
    if (this.#owner === schedule) {
      this.#schedule.fill(0)
      this.#owner = null
    }
    schedule.fill(0)
  }
}

/** A kept key. Each direction's schedule is made when first wanted: a layer uses one only. */
class VectorKey implements AesKey {
  readonly #present: Present
  readonly #key: Uint8Array
  #toEncrypt: Uint8Array | null = null
  #toDecrypt: Uint8Array | null = null

  constructor(present: Present, key: Uint8Array) {
    assert(key.length === KEY_BYTES, 'an AES-256 key has 32 bytes')
    this.#present = present
    this.#key = Uint8Array.from(key)
  }

  encrypt(): void {
    this.#toEncrypt ??= this.#present.expand(this.#key, true)
    this.#present.use(this.#toEncrypt)
    this.#present.exports.encrypt()
  }

  decrypt(): void {
    this.#toDecrypt ??= this.#present.expand(this.#key, false)
    this.#present.use(this.#toDecrypt)
    this.#present.exports.decrypt()
  }

  destroy(): void {
    this.#key.fill(0)
    if (this.#toEncrypt) this.#present.wipe(this.#toEncrypt)
    if (this.#toDecrypt) this.#present.wipe(this.#toDecrypt)
  }
}
