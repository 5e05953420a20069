import { fromHex, type NodeId, nodeKey, toHex } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'

/** Identities are spread over this many buckets by the first byte of their tags. */
export const BUCKETS = 256
/** Digests of descriptors and buckets are cut to this many bytes where they only compare views. */
export const VIEW_DIGEST_BYTES = 16
export const TAG_HEX_LENGTH = 16

/** The first 8 bytes of SHA-256(identity key), in hex: a relay's short name on the wire, and the source of its bucket. */
export function relayTag(suite: CryptoSuite, id: NodeId): string {
  return toHex(suite.sha256(nodeKey(id)).subarray(0, TAG_HEX_LENGTH / 2))
}

/** The bucket (0 to 255) of a tag in hex. */
export function bucketOf(tag: string): number {
  return Number.parseInt(tag.slice(0, 2), 16)
}

/** A descriptor's digest as views compare it: 16 bytes in hex. */
export function shortDigest(digest: Uint8Array): string {
  return toHex(digest.subarray(0, VIEW_DIGEST_BYTES))
}

/** What a bucket holds of a relay. */
export interface BucketEntry {
  readonly tag: string
  readonly sequence: number
  /** Short digest, hex. */
  readonly digest: string
}

/** Digests of the known tier by bucket: equal exactly when the descriptors in it are equal. */
export class Buckets {
  readonly #suite: CryptoSuite
  readonly #entries: Map<string, BucketEntry>[] = Array.from({ length: BUCKETS }, () => new Map())
  readonly #digests: (Uint8Array | null)[] = new Array(BUCKETS).fill(null)
  #root: Uint8Array | null = null

  constructor(suite: CryptoSuite) {
    this.#suite = suite
  }

  set(entry: BucketEntry): void {
    const bucket = bucketOf(entry.tag)
    this.#entries[bucket]!.set(entry.tag, entry)
    this.#touch(bucket)
  }

  delete(tag: string): void {
    const bucket = bucketOf(tag)
    if (this.#entries[bucket]!.delete(tag)) this.#touch(bucket)
  }

  get(tag: string): BucketEntry | undefined {
    return this.#entries[bucketOf(tag)]!.get(tag)
  }

  /** Entries of a bucket, by tag. */
  entries(bucket: number): BucketEntry[] {
    return [...this.#entries[bucket]!.values()].sort((a, b) => (a.tag < b.tag ? -1 : 1))
  }

  /** 16 bytes: SHA-256 over the descriptors' short digests in the order of the tags. */
  digest(bucket: number): Uint8Array {
    const kept = this.#digests[bucket]
    if (kept) return kept
    const all = fromHex(
      this.entries(bucket)
        .map((entry) => entry.digest)
        .join(''),
    )
    const digest = this.#suite.sha256(all).slice(0, VIEW_DIGEST_BYTES)
    this.#digests[bucket] = digest
    return digest
  }

  /** 16 bytes over all buckets. */
  root(): Uint8Array {
    if (!this.#root) {
      const parts: Uint8Array[] = []
      for (let bucket = 0; bucket < BUCKETS; bucket++) parts.push(this.digest(bucket))
      this.#root = this.#suite.sha256(...parts).slice(0, VIEW_DIGEST_BYTES)
    }
    return this.#root
  }

  #touch(bucket: number): void {
    this.#digests[bucket] = null
    this.#root = null
  }
}
