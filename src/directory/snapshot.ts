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
 * Reads a snapshot into a view that is still empty. Damaged entries are left out and counted.
 * @throws MalformedError when it is no snapshot, its header is damaged, or it is another network's
 */
export function restoreSnapshot(suite: CryptoSuite, view: View, bytes: Uint8Array, now: number): RestoreReport {
  const reader = new Reader('view snapshot', bytes)
  if (!equalBytes(reader.bytes(magic.length), magic)) throw new MalformedError('view snapshot', 'does not begin like one')
  const network = reader.bytes(8)
  const writtenAt = reader.u53()
  const count = reader.u32()
  if (!equalBytes(reader.bytes(CHECKSUM_BYTES), checksum(suite, bytes.subarray(0, HEADER_BYTES))))
    throw new MalformedError('view snapshot', 'header is damaged')
  if (!equalBytes(network, view.networkId)) throw new MalformedError('view snapshot', 'is of another network')
  let good = 0
  let expired = 0
  for (let i = 0; i < count; i++) {
    const entry = readEntry(suite, reader, bytes)
    // Beyond a cut, or a length that points outside, nothing can be found any more.
    if (entry === 'cut') break
    if (entry === null) continue
    try {
      if (entry.kind === AGE) restoreAge(suite, view, entry.bytes)
      else if (restoreDescriptor(suite, view, entry.bytes, now) === 'expired') expired++
      good++
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
    }
  }
  // Only a node at its very first start believes what others say of ages.
  view.ages.closeHearsay()
  return { writtenAt, damaged: count - good, expired }
}

function readEntry(suite: CryptoSuite, reader: Reader, all: Uint8Array): { kind: number; bytes: Uint8Array } | 'cut' | null {
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
