/**
 * The key of a TCP flow, and its place in the table. `words` are the addresses as they stand in a packet that comes in: the remote's, then ours;
 * two words for IPv4, eight for IPv6.
 */
export abstract class Flow {
  readonly words: Int32Array
  readonly remotePort: number
  readonly localPort: number
  abstract readonly kind: 'connection' | 'time-wait'
  hash = 0
  nextInBucket: Flow | null = null

  constructor(words: Int32Array, remotePort: number, localPort: number) {
    this.words = words
    this.remotePort = remotePort
    this.localPort = localPort
  }

  matches(view: DataView, addressesAt: number, words: number, remotePort: number, localPort: number): boolean {
    if (this.remotePort !== remotePort || this.localPort !== localPort || this.words.length !== words) return false
    for (let i = 0; i < words; i++) if (view.getInt32(addressesAt + 4 * i) !== this.words[i]) return false
    return true
  }
}

/** Finds flows by the addresses and ports of a packet, without making anything. The hash is keyed, so that nobody can fill one bucket. */
export class FlowTable {
  readonly #secret: number
  readonly #buckets = new Map<number, Flow>()
  #size = 0
  /** The flow of the packet before: bulk comes in runs. */
  #last: Flow | null = null

  constructor(secret: number) {
    this.#secret = secret | 0
  }

  get size(): number {
    return this.#size
  }

  /** The flow of a packet that comes in, whose source address stands at `addressesAt` and the destination behind it. */
  find(view: DataView, addressesAt: number, addressBytes: number, remotePort: number, localPort: number): Flow | null {
    const words = addressBytes >> 1
    if (this.#last?.matches(view, addressesAt, words, remotePort, localPort)) return this.#last
    let hash = this.#secret
    for (let i = 0; i < words; i++) hash = mix(hash, view.getInt32(addressesAt + 4 * i))
    hash = mix(hash, (remotePort << 16) | localPort)
    for (let flow = this.#buckets.get(hash) ?? null; flow !== null; flow = flow.nextInBucket) {
      if (!flow.matches(view, addressesAt, words, remotePort, localPort)) continue
      this.#last = flow
      return flow
    }
    return null
  }

  /** The flow with this key; for what is not on the path of every packet. */
  findKey(words: Int32Array, remotePort: number, localPort: number): Flow | null {
    const view = new DataView(new ArrayBuffer(4 * words.length))
    for (const [i, word] of words.entries()) view.setInt32(4 * i, word)
    return this.find(view, 0, 2 * words.length, remotePort, localPort)
  }

  add(flow: Flow): void {
    let hash = this.#secret
    for (const word of flow.words) hash = mix(hash, word)
    flow.hash = mix(hash, (flow.remotePort << 16) | flow.localPort)
    flow.nextInBucket = this.#buckets.get(flow.hash) ?? null
    this.#buckets.set(flow.hash, flow)
    this.#size++
  }

  remove(flow: Flow): void {
    if (this.#last === flow) this.#last = null
    let before: Flow | null = null
    for (let at = this.#buckets.get(flow.hash) ?? null; at !== null; at = at.nextInBucket) {
      if (at === flow) {
        if (before !== null) before.nextInBucket = flow.nextInBucket
        else if (flow.nextInBucket !== null) this.#buckets.set(flow.hash, flow.nextInBucket)
        else this.#buckets.delete(flow.hash)
        flow.nextInBucket = null
        this.#size--
        return
      }
      before = at
    }
  }

  *[Symbol.iterator](): Generator<Flow> {
    for (const first of this.#buckets.values()) for (let flow: Flow | null = first; flow !== null; flow = flow.nextInBucket) yield flow
  }
}

function mix(hash: number, word: number): number {
  let mixed = Math.imul(hash ^ word, 0x9e37_79b1)
  mixed ^= mixed >>> 15
  mixed = Math.imul(mixed, 0x85eb_ca6b)
  return mixed ^ (mixed >>> 13)
}
