import { equalBytes, MalformedError, nodeIdFromKey, nodeKey, Reader, Writer } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import { relayTag } from './buckets.ts'
import { openDescriptor } from './descriptor-codec.ts'
import type { View } from './view.ts'

/**
 * A view on disk (docs/spec/directory.md §6):
 *
 *   "shallot view 1\n" 15 | network id 8 | written u64 (wall ms) | entries u32 | checksum 8 of all before
 *   entries, each: kind u8 (1 descriptor, 2 age) | length u16 | bytes | checksum 8 of kind, length and bytes
 *     age: identity 32 | first seen u64 | last seen u64 | heard u64 (0: nothing)
 *
 * A checksum is the start of SHA-256. It finds damage, not malice: descriptors are verified again when they are read.
 */
const magic = new TextEncoder().encode('shallot view 1\n')
const CHECKSUM_BYTES = 8
const HEADER_BYTES = magic.length + 8 + 8 + 4
const DESCRIPTOR = 1
const AGE = 2

/** The view as a file: every descriptor, the expired ones it keeps, and all ages. @param now wall-clock ms */
export function encodeSnapshot(suite: CryptoSuite, view: View, now: number): Uint8Array {
  const entries: [kind: number, bytes: Uint8Array][] = []
  for (const record of view.ages.records()) {
    const bytes = new Writer(56)
      .bytes(nodeKey(record.id))
      .u64(record.first)
      .u64(record.last)
      .u64(record.heard ?? 0)
      .finish()
    entries.push([AGE, bytes])
  }
  for (const signed of view.stale()) entries.push([DESCRIPTOR, signed.bytes])
  for (const { signed } of view.entries()) entries.push([DESCRIPTOR, signed.bytes])
  const writer = new Writer(HEADER_BYTES + entries.length * 512)
  const header = new Writer(HEADER_BYTES).bytes(magic).bytes(view.networkId).u64(now).u32(entries.length).finish()
  writer.bytes(header).bytes(checksum(suite, header))
  for (const [kind, bytes] of entries) {
    const head = Uint8Array.of(kind, bytes.length >> 8, bytes.length & 0xff)
    writer
      .bytes(head)
      .bytes(bytes)
      .bytes(checksum(suite, head, bytes))
  }
  return writer.finish()
}

export interface RestoreReport {
  /** Wall ms at which it was written. */
  readonly writtenAt: number
  /** Entries that were damaged or are not valid any more for another reason than time. */
  readonly damaged: number
  /** Descriptors that have expired since: kept as places where the network may be found. */
  readonly expired: number
}

/**
 * Reads a snapshot into a view that is still empty, in steps: ten thousand signatures to check take more than a second.
 * Damaged entries are left out and counted.
 */
export class SnapshotRestore {
  readonly #suite: CryptoSuite
  readonly #view: View
  readonly #bytes: Uint8Array
  readonly #now: number
  readonly #reader: Reader
  readonly #writtenAt: number
  readonly #count: number
  #at = 0
  #good = 0
  #expired = 0

  /**
   * @param bytes borrowed until the last step
   * @param now wall-clock ms
   * @throws MalformedError when it is no snapshot, its header is damaged, or it is another network's
   */
  constructor(suite: CryptoSuite, view: View, bytes: Uint8Array, now: number) {
    this.#suite = suite
    this.#view = view
    this.#bytes = bytes
    this.#now = now
    this.#reader = new Reader('view snapshot', bytes)
    if (!equalBytes(this.#reader.bytes(magic.length), magic)) throw new MalformedError('view snapshot', 'does not begin like one')
    const network = this.#reader.bytes(8)
    this.#writtenAt = this.#reader.u53()
    this.#count = this.#reader.u32()
    if (!equalBytes(this.#reader.bytes(CHECKSUM_BYTES), checksum(suite, bytes.subarray(0, HEADER_BYTES))))
      throw new MalformedError('view snapshot', 'header is damaged')
    if (!equalBytes(network, view.networkId)) throw new MalformedError('view snapshot', 'is of another network')
  }

  /** Restores up to `entries` more entries. The report when all are done, else null: call again. */
  step(entries: number): RestoreReport | null {
    const to = Math.min(this.#count, this.#at + entries)
    while (this.#at < to) {
      this.#at++
      const entry = readEntry(this.#suite, this.#reader, this.#bytes)
      // Beyond a cut, or a length that points outside, nothing can be found any more.
      if (entry === 'cut') this.#at = this.#count
      else if (entry !== null) this.#restore(entry)
    }
    if (this.#at < this.#count) return null
    // Only a node at its very first start believes what others say of ages.
    this.#view.ages.closeHearsay()
    return { writtenAt: this.#writtenAt, damaged: this.#count - this.#good, expired: this.#expired }
  }

  #restore(entry: Entry): void {
    try {
      if (entry.kind === AGE) restoreAge(this.#suite, this.#view, entry.bytes)
      else if (restoreDescriptor(this.#suite, this.#view, entry.bytes, this.#now) === 'expired') this.#expired++
      this.#good++
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
    }
  }
}

/** The whole of a SnapshotRestore at once: for views of hundreds of relays. @throws MalformedError as its constructor does */
export function restoreSnapshot(suite: CryptoSuite, view: View, bytes: Uint8Array, now: number): RestoreReport {
  return new SnapshotRestore(suite, view, bytes, now).step(Number.POSITIVE_INFINITY)!
}

interface Entry {
  readonly kind: number
  readonly bytes: Uint8Array
}

function readEntry(suite: CryptoSuite, reader: Reader, all: Uint8Array): Entry | 'cut' | null {
  if (reader.left < 3) return 'cut'
  const at = reader.at
  const kind = reader.u8()
  const length = reader.u16()
  if (reader.left < length + CHECKSUM_BYTES) return 'cut'
  const bytes = reader.bytes(length)
  const sum = reader.bytes(CHECKSUM_BYTES)
  return equalBytes(sum, checksum(suite, all.subarray(at, at + 3 + length))) ? { kind, bytes } : null
}

function restoreAge(suite: CryptoSuite, view: View, bytes: Uint8Array): void {
  const reader = new Reader('age', bytes)
  const id = nodeIdFromKey(reader.bytes(32))
  const first = reader.u53()
  const last = reader.u53()
  const heard = reader.u53()
  reader.end()
  view.ages.restore({ id, tag: relayTag(suite, id), first, last, heard: heard === 0 ? null : heard })
}

function restoreDescriptor(suite: CryptoSuite, view: View, bytes: Uint8Array, now: number): 'current' | 'expired' {
  const result = view.add(bytes, now)
  if (result.type !== 'refused') return 'current'
  if (result.reason === 'expired') {
    view.noteStale(openDescriptor(suite, bytes))
    return 'expired'
  }
  if (result.reason === 'future' || result.reason === 'crowded') return 'current'
  throw new MalformedError('view snapshot', `holds a descriptor that is not valid: ${result.reason}`)
}

function checksum(suite: CryptoSuite, ...parts: Uint8Array[]): Uint8Array {
  return suite.sha256(...parts).slice(0, CHECKSUM_BYTES)
}
