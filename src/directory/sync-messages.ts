import { equalBytes, fromHex, MalformedError, Reader, toHex, Writer } from '../base/index.ts'
import { BUCKETS, type BucketEntry, bucketOf, TAG_HEX_LENGTH, VIEW_DIGEST_BYTES } from './buckets.ts'
import { DESCRIPTOR_BYTES_MAX } from './descriptor-codec.ts'

/**
 * The frames of `/shallot/view/1`, docs/spec/directory.md §5. A session is requests of one side, each answered by the other.
 *
 *   request  SUMMARY 01 | network id 8                    answer  81 | relays u32 | root 16 | 256 x bucket digest 16
 *            LIST    02 | buckets: bit set 32                     82 | answered: bit set 32 | per bucket: count u16, (tag 8, sequence u64, digest 16)
 *            FETCH   03 | count u8 | digest 16 each               83 | count u8 | per descriptor: length u16, bytes
 *            AGES    04 | first bucket u8                         84 | next bucket u16 (256: that was all) | count u16 | (tag 8, age in seconds u32)
 *                                                         any     ff | reason u8
 *
 * In a bit set, bucket i is bit (7 - i mod 8) of byte i div 8. Entries are in ascending order of their tags.
 */
export type SyncRequest =
  | { readonly type: 'summary'; readonly networkId: Uint8Array }
  | { readonly type: 'list'; readonly buckets: readonly number[] }
  | { readonly type: 'fetch'; readonly digests: readonly string[] }
  | { readonly type: 'ages'; readonly from: number }

export type SyncAnswer =
  | { readonly type: 'summary'; readonly relays: number; readonly root: Uint8Array; readonly digests: readonly Uint8Array[] }
  | { readonly type: 'list'; readonly buckets: ReadonlyMap<number, readonly BucketEntry[]> }
  | { readonly type: 'fetch'; readonly descriptors: readonly Uint8Array[] }
  | { readonly type: 'ages'; readonly next: number; readonly ages: readonly AgeEntry[] }
  | { readonly type: 'refused'; readonly reason: SyncRefusal }

export interface AgeEntry {
  readonly tag: string
  readonly ageSeconds: number
}

export type SyncRefusal = 'network' | 'busy' | 'malformed'

/** Most entries of one answer. */
export const LIST_ENTRIES_MAX = 2_048
export const FETCH_MAX = 64
export const AGE_ENTRIES_MAX = 8_192
/** The longest frame of either side. */
export const SYNC_FRAME_MAX = 2 + FETCH_MAX * (2 + DESCRIPTOR_BYTES_MAX)
/** The longest request. */
export const SYNC_REQUEST_MAX = 2 + FETCH_MAX * VIEW_DIGEST_BYTES

const SUMMARY = 0x01
const LIST = 0x02
const FETCH = 0x03
const AGES = 0x04
const ANSWER = 0x80
const REFUSED = 0xff
const TAG_BYTES = TAG_HEX_LENGTH / 2
const SET_BYTES = BUCKETS / 8
const refusals: readonly SyncRefusal[] = ['network', 'busy', 'malformed']

/** One frame, without the length before it. */
export function encodeSyncRequest(request: SyncRequest): Uint8Array {
  const writer = new Writer(64)
  switch (request.type) {
    case 'summary':
      return writer.u8(SUMMARY).bytes(request.networkId).finish()
    case 'list':
      return writer.u8(LIST).bytes(bucketSet(request.buckets)).finish()
    case 'fetch':
      writer.u8(FETCH).u8(request.digests.length)
      for (const digest of request.digests) writer.bytes(fromHex(digest))
      return writer.finish()
    case 'ages':
      return writer.u8(AGES).u8(request.from).finish()
  }
}

/** @throws MalformedError */
export function decodeSyncRequest(bytes: Uint8Array): SyncRequest {
  const reader = new Reader('view request', bytes)
  const request = readRequest(reader)
  reader.end()
  return request
}

function readRequest(reader: Reader): SyncRequest {
  const type = reader.u8()
  switch (type) {
    case SUMMARY:
      return { type: 'summary', networkId: reader.bytes(8).slice() }
    case LIST: {
      const buckets = readBucketSet(reader)
      if (buckets.length === 0) throw new MalformedError('view request', 'asks for no bucket')
      return { type: 'list', buckets }
    }
    case FETCH: {
      const count = reader.u8()
      if (count < 1 || count > FETCH_MAX) throw new MalformedError('view request', `asks for ${count} descriptors, not 1 to ${FETCH_MAX}`)
      const digests = new Set<string>()
      for (let i = 0; i < count; i++) digests.add(toHex(reader.bytes(VIEW_DIGEST_BYTES)))
      if (digests.size !== count) throw new MalformedError('view request', 'asks for a descriptor twice')
      return { type: 'fetch', digests: [...digests] }
    }
    case AGES:
      return { type: 'ages', from: reader.u8() }
    default:
      throw new MalformedError('view request', `has unknown type ${type}`)
  }
}

/** One frame, without the length before it. */
export function encodeSyncAnswer(answer: SyncAnswer): Uint8Array {
  const writer = new Writer(4_096)
  switch (answer.type) {
    case 'summary':
      writer
        .u8(SUMMARY | ANSWER)
        .u32(answer.relays)
        .bytes(answer.root)
      for (const digest of answer.digests) writer.bytes(digest)
      return writer.finish()
    case 'list': {
      const buckets = [...answer.buckets.keys()].sort((a, b) => a - b)
      writer.u8(LIST | ANSWER).bytes(bucketSet(buckets))
      for (const bucket of buckets) {
        const entries = answer.buckets.get(bucket)!
        writer.u16(entries.length)
        for (const { tag, sequence, digest } of entries) writer.bytes(fromHex(tag)).u64(sequence).bytes(fromHex(digest))
      }
      return writer.finish()
    }
    case 'fetch':
      writer.u8(FETCH | ANSWER).u8(answer.descriptors.length)
      for (const bytes of answer.descriptors) writer.u16(bytes.length).bytes(bytes)
      return writer.finish()
    case 'ages':
      writer
        .u8(AGES | ANSWER)
        .u16(answer.next)
        .u16(answer.ages.length)
      for (const { tag, ageSeconds } of answer.ages) writer.bytes(fromHex(tag)).u32(ageSeconds)
      return writer.finish()
    case 'refused':
      return writer
        .u8(REFUSED)
        .u8(refusals.indexOf(answer.reason) + 1)
        .finish()
  }
}

/** @throws MalformedError */
export function decodeSyncAnswer(bytes: Uint8Array): SyncAnswer {
  const reader = new Reader('view answer', bytes)
  const answer = readAnswer(reader)
  reader.end()
  return answer
}

function readAnswer(reader: Reader): SyncAnswer {
  const type = reader.u8()
  switch (type) {
    case SUMMARY | ANSWER: {
      const relays = reader.u32()
      const root = reader.bytes(VIEW_DIGEST_BYTES).slice()
      const digests: Uint8Array[] = []
      for (let i = 0; i < BUCKETS; i++) digests.push(reader.bytes(VIEW_DIGEST_BYTES).slice())
      return { type: 'summary', relays, root, digests }
    }
    case LIST | ANSWER:
      return { type: 'list', buckets: readLists(reader) }
    case FETCH | ANSWER: {
      const count = reader.u8()
      if (count > FETCH_MAX) throw new MalformedError('view answer', `has ${count} descriptors, more than ${FETCH_MAX}`)
      const descriptors: Uint8Array[] = []
      for (let i = 0; i < count; i++) {
        const length = reader.u16()
        if (length > DESCRIPTOR_BYTES_MAX) throw new MalformedError('view answer', 'has a descriptor that is too long')
        descriptors.push(reader.bytes(length))
      }
      return { type: 'fetch', descriptors }
    }
    case AGES | ANSWER:
      return readAges(reader)
    case REFUSED: {
      const reason = refusals[reader.u8() - 1]
      if (!reason) throw new MalformedError('view answer', 'refuses for an unknown reason')
      return { type: 'refused', reason }
    }
    default:
      throw new MalformedError('view answer', `has unknown type ${type}`)
  }
}

function readLists(reader: Reader): Map<number, BucketEntry[]> {
  const lists = new Map<number, BucketEntry[]>()
  let total = 0
  for (const bucket of readBucketSet(reader)) {
    const count = reader.u16()
    total += count
    if (total > LIST_ENTRIES_MAX) throw new MalformedError('view answer', `lists more than ${LIST_ENTRIES_MAX} relays`)
    const entries: BucketEntry[] = []
    let last = ''
    for (let i = 0; i < count; i++) {
      const tag = readTag(reader, last)
      last = tag
      if (bucketOf(tag) !== bucket) throw new MalformedError('view answer', 'lists a relay in the wrong bucket')
      entries.push({ tag, sequence: reader.u53(), digest: toHex(reader.bytes(VIEW_DIGEST_BYTES)) })
    }
    lists.set(bucket, entries)
  }
  return lists
}

function readAges(reader: Reader): SyncAnswer {
  const next = reader.u16()
  if (next > BUCKETS) throw new MalformedError('view answer', `goes on at bucket ${next}`)
  const count = reader.u16()
  if (count > AGE_ENTRIES_MAX) throw new MalformedError('view answer', `has ${count} ages, more than ${AGE_ENTRIES_MAX}`)
  const ages: AgeEntry[] = []
  let last = ''
  for (let i = 0; i < count; i++) {
    const tag = readTag(reader, last)
    last = tag
    ages.push({ tag, ageSeconds: reader.u32() })
  }
  return { type: 'ages', next, ages }
}

function readTag(reader: Reader, last: string): string {
  const tag = toHex(reader.bytes(TAG_BYTES))
  if (tag <= last) throw new MalformedError('view answer', 'tags are not in ascending order')
  return tag
}

function bucketSet(buckets: readonly number[]): Uint8Array {
  const set = new Uint8Array(SET_BYTES)
  for (const bucket of buckets) set[bucket >> 3]! |= 0x80 >> (bucket & 7)
  return set
}

function readBucketSet(reader: Reader): number[] {
  const set = reader.bytes(SET_BYTES)
  const buckets: number[] = []
  for (let bucket = 0; bucket < BUCKETS; bucket++) if ((set[bucket >> 3]! & (0x80 >> (bucket & 7))) !== 0) buckets.push(bucket)
  return buckets
}

/** The buckets in which two summaries differ. */
export function differingBuckets(mine: (bucket: number) => Uint8Array, theirs: readonly Uint8Array[]): number[] {
  const buckets: number[] = []
  for (let bucket = 0; bucket < BUCKETS; bucket++) if (!equalBytes(mine(bucket), theirs[bucket]!)) buckets.push(bucket)
  return buckets
}
