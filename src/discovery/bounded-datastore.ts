import { NotFoundError } from '@libp2p/interface'
import type { KadDHTComponents } from '@libp2p/kad-dht'

type Datastore = KadDHTComponents['datastore']
type Key = Parameters<Datastore['get']>[0]

/** A datastore in memory that forgets what was written longest ago: whatever peers send, the DHT's records take no more than this. */
export class BoundedDatastore implements Datastore {
  readonly #most: number
  readonly #values = new Map<string, { readonly key: Key; readonly value: Uint8Array }>()

  constructor(most: number) {
    this.#most = most
  }

  get size(): number {
    return this.#values.size
  }

  put(key: Key, value: Uint8Array): Key {
    const name = key.toString()
    this.#values.delete(name)
    this.#values.set(name, { key, value })
    const oldest = this.#values.size > this.#most ? this.#values.keys().next().value : undefined
    if (oldest !== undefined) this.#values.delete(oldest)
    return key
  }

  get(key: Key): Uint8Array {
    const entry = this.#values.get(key.toString())
    if (!entry) throw new NotFoundError('no such record')
    return entry.value
  }

  has(key: Key): boolean {
    return this.#values.has(key.toString())
  }

  delete(key: Key): void {
    this.#values.delete(key.toString())
  }

  async *putMany(source: AsyncIterable<{ key: Key; value: Uint8Array }> | Iterable<{ key: Key; value: Uint8Array }>): AsyncGenerator<Key> {
    for await (const { key, value } of source) yield this.put(key, value)
  }

  async *getMany(source: AsyncIterable<Key> | Iterable<Key>): AsyncGenerator<{ key: Key; value: Uint8Array }> {
    for await (const key of source) yield { key, value: this.get(key) }
  }

  async *deleteMany(source: AsyncIterable<Key> | Iterable<Key>): AsyncGenerator<Key> {
    for await (const key of source) {
      this.delete(key)
      yield key
    }
  }

  batch(): ReturnType<Datastore['batch']> {
    const steps: (() => void)[] = []
    return {
      put: (key, value) => void steps.push(() => this.put(key, value)),
      delete: (key) => void steps.push(() => this.delete(key)),
      commit: () => {
        for (const step of steps.splice(0)) step()
      },
    }
  }

  *query(query: Parameters<Datastore['query']>[0]): Generator<{ key: Key; value: Uint8Array }> {
    let skip = query.offset ?? 0
    let left = query.limit ?? Number.POSITIVE_INFINITY
    for (const pair of [...this.#values.values()]) {
      if (query.prefix !== undefined && !pair.key.toString().startsWith(query.prefix)) continue
      if (query.filters?.some((filter) => !filter(pair))) continue
      if (skip-- > 0) continue
      if (left-- <= 0) return
      yield pair
    }
  }

  *queryKeys(query: Parameters<Datastore['queryKeys']>[0]): Generator<Key> {
    const { filters, orders: _orders, ...rest } = query
    for (const { key } of this.query(rest)) if (!filters?.some((filter) => !filter(key))) yield key
  }
}
