import type { PeerInfo } from '@libp2p/interface'
import { type KadDHT, type KadDHTComponents, kadDHT } from '@libp2p/kad-dht'
import { type NodeId, networkKey, parseNodeId, ShallotError, utf8Bytes } from '../base/index.ts'
import { addressScope, type NetworkRules, parseRelayAddress, type View } from '../directory/index.ts'
import { BoundedDatastore } from './bounded-datastore.ts'

export const DHT_PROTOCOL = '/shallot/kad/1'
/** First part of a record's key: `/shallot-relay/ID`. Validators are found by it. */
export const DHT_RECORD_KIND = 'shallot-relay'
/** Peers remembered for the diversity rule of the routing table. */
const DIVERSITY_PEERS_MAX = 4_096

export interface DhtServiceOptions {
  readonly rules: NetworkRules
  readonly view: View
  /** Wall-clock ms. */
  readonly now: () => number
  /** Records stored for others. */
  readonly records: number
  /** Told of a valid descriptor that came as a record, before it is stored. */
  readonly received?: (bytes: Uint8Array) => void
}

/**
 * The DHT as a libp2p service, for serving nodes only (the host needs `identify` and `ping` too). A client has none: even in client mode
 * it would dial peers nobody asked it to. Records are relays' own descriptors, valid by the rules of the view.
 */
export function dhtService(options: DhtServiceOptions): (components: KadDHTComponents) => KadDHT {
  const { view, now } = options
  const check = (key: Uint8Array, value: Uint8Array): void => {
    const id = recordId(key)
    const refusal = view.inspect(value, now(), id)
    if (refusal) throw new ShallotError('record-invalid', `a DHT record is not valid: ${refusal}`, { kind: 'peer', retry: 'never' })
    options.received?.(value)
  }
  const service = kadDHT({
    protocol: DHT_PROTOCOL,
    // Explicit: unset, the service decides by itself. It serves once `Discovery` knows that the node is reached directly.
    clientMode: true,
    logPrefix: 'shallot:kad',
    datastorePrefix: '/shallot-kad',
    metricsPrefix: 'shallot_kad',
    validators: { [DHT_RECORD_KIND]: check },
    selectors: { [DHT_RECORD_KIND]: (key, records) => newest(view, recordId(key), records, now()) },
    peerInfoMapper: diversityFilter(options.rules, view),
  })
  const datastore = new BoundedDatastore(options.records)
  return (components) => service(withDatastore(components, datastore))
}

/** The DHT key of a relay's record: the text `/shallot-relay/ID`. */
export function recordKey(id: NodeId): Uint8Array {
  return utf8Bytes(`/${DHT_RECORD_KIND}/${id}`)
}

/** @throws MalformedError */
function recordId(key: Uint8Array): NodeId {
  const [, , id = ''] = new TextDecoder().decode(key).split('/')
  return parseNodeId(id)
}

/** Index of the record whose descriptor a view would keep. */
function newest(view: View, id: NodeId, records: readonly Uint8Array[], now: number): number {
  let best = 0
  let bestSequence = -1
  records.forEach((bytes, i) => {
    if (view.inspect(bytes, now, id) !== null) return
    const sequence = view.sequenceOf(bytes)
    if (sequence > bestSequence) {
      best = i
      bestSequence = sequence
    }
  })
  return best
}

/** The same components with a store of our own: the DHT's records must not grow the host's. */
function withDatastore(components: KadDHTComponents, datastore: BoundedDatastore): KadDHTComponents {
  return new Proxy(components, {
    get: (target, name) => (name === 'datastore' ? datastore : Reflect.get(target, name)),
  })
}

/**
 * Which peers the routing table takes: only at addresses that a relay may have, and no more of one network than the view's caps allow
 * (known relays have passed those already). None behind NAT, whatever it offers: nobody could dial it.
 */
export function diversityFilter(rules: NetworkRules, view: View): (peer: PeerInfo) => PeerInfo {
  const networks = new Map<string, string>()
  const counts = new Map<string, number>()
  const forget = (peer: string): void => {
    const network = networks.get(peer)
    if (network === undefined) return
    networks.delete(peer)
    const left = (counts.get(network) ?? 1) - 1
    if (left > 0) counts.set(network, left)
    else counts.delete(network)
  }
  return (peer) => {
    const usable = peer.multiaddrs.filter((address) => networkOf(address.toString(), rules) !== null)
    const id = peer.id.toString()
    const first = usable[0]
    if (view.get(id as NodeId)?.descriptor.reach.kind === 'relayed') return { ...peer, multiaddrs: [] }
    if (first === undefined || view.isKnown(id as NodeId)) return { ...peer, multiaddrs: usable }
    const network = networkOf(first.toString(), rules)!
    if (networks.get(id) !== network) {
      const cap = network.includes(':') ? rules.admission.perNet48 : rules.admission.perNet24
      if ((counts.get(network) ?? 0) >= cap) return { ...peer, multiaddrs: [] }
      forget(id)
      networks.set(id, network)
      counts.set(network, (counts.get(network) ?? 0) + 1)
      const oldest = networks.size > DIVERSITY_PEERS_MAX ? networks.keys().next().value : undefined
      if (oldest !== undefined) forget(oldest)
    }
    return { ...peer, multiaddrs: usable }
  }
}

/** The /24 or /48 of a peer's address, or null when no relay may be there. */
function networkOf(text: string, rules: NetworkRules): string | null {
  try {
    const { ip } = parseRelayAddress(text.replace(/\/p2p\/[^/]+$/, ''))
    const scope = addressScope(ip)
    if (scope === 'unusable' || (scope === 'private' && !rules.admission.privateAddresses)) return null
    return networkKey(ip, ip.family === 4 ? 24 : 48)
  } catch {
    return null
  }
}

/** Own record in, others' records out, with an end to the waiting: the DHT's own calls may hang. */
export class DhtRecords {
  readonly #dht: KadDHT
  readonly #timeoutMs: number

  constructor(dht: KadDHT, timeoutMs: number) {
    this.#dht = dht
    this.#timeoutMs = timeoutMs
  }

  /** Stores the own descriptor at the peers closest to its key. Returns how many took it. @throws the signal's reason */
  async put(id: NodeId, descriptor: Uint8Array, signal: AbortSignal): Promise<number> {
    let taken = 0
    const limited = AbortSignal.any([signal, AbortSignal.timeout(this.#timeoutMs)])
    for await (const event of abortable(this.#dht.put(recordKey(id), descriptor, { signal: limited }), limited)) {
      if (event.name === 'PEER_RESPONSE' && event.messageName === 'PUT_VALUE') taken++
    }
    return taken
  }

  /** The descriptor of a relay, or null when nobody has it (in time). Not verified for the caller: add it to the view. */
  async get(id: NodeId, signal: AbortSignal): Promise<Uint8Array | null> {
    const limited = AbortSignal.any([signal, AbortSignal.timeout(this.#timeoutMs)])
    try {
      for await (const event of abortable(this.#dht.get(recordKey(id), { signal: limited }), limited)) {
        if (event.name === 'VALUE') return event.value
      }
    } catch (error) {
      if (signal.aborted) throw error
    }
    return null
  }
}

/** An iterable that ends with the signal's reason even if its source never answers again. */
async function* abortable<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]()
  const aborted = new Promise<never>((_, reject) => {
    if (signal.aborted) reject(signal.reason)
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
  aborted.catch(() => {})
  try {
    for (;;) {
      const step = await Promise.race([iterator.next(), aborted])
      if (step.done === true) return
      yield step.value
    }
  } finally {
    // Not awaited: a source that hangs would hang its end too.
    Promise.resolve(iterator.return?.()).catch(() => {})
  }
}
