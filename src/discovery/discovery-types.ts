import type { KadDHT } from '@libp2p/kad-dht'
import type { Logger, NodeId, Random } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import type { NetworkRules, RestoreReport, View } from '../directory/index.ts'
import type { BootstrapSource } from './bootstrap-turns.ts'
import type { DiscoveryConfig } from './config.ts'
import type { DiscoveryHost, PeerSource } from './peers.ts'
import type { OwnFields, PublisherStatus } from './publisher.ts'
import type { DiscoveryStore } from './store.ts'

/** What the search for the network is given, and what it tells. */

export type DiscoveryState = 'stopped' | 'joining' | 'joined'

export interface DiscoveryOptions {
  readonly rules: NetworkRules
  readonly config: DiscoveryConfig
  /** What makes it a serving node: then it announces itself, answers and gossips. Null for a client: then it only asks. */
  readonly serving: {
    /** The identity's Ed25519 seed, the same as the host's. */
    readonly seed: Uint8Array
    /** Null while there is nothing true to say: then nothing is published, and the node only asks. `changed` tells when that is over. */
    readonly fields: () => OwnFields | null
  } | null
  /** Where to ask for the way in, in this order; the network's own list when not given. */
  readonly bootstrap?: readonly BootstrapSource[]
  /** A client: its guards, the only ones it asks once it has any. Called before each round. */
  readonly peers?: () => readonly NodeId[]
}

export interface DiscoveryModules {
  readonly host: DiscoveryHost
  /** The host's DHT service (serving nodes), or null. */
  readonly dht: KadDHT | null
  readonly view: View
  readonly suite: CryptoSuite
  readonly random: Random
  readonly store: DiscoveryStore
  readonly logger: Logger
  /** Wall-clock ms. */
  readonly now: () => number
  /** Told in words why there is no way into the network, and null when there is one again. */
  readonly noWayIn?: (why: string | null) => void
}

export interface DiscoveryStatus {
  readonly mode: 'client' | 'server'
  readonly state: DiscoveryState
  readonly relays: number
  readonly reserve: number
  /** Wall ms of the last pull that was complete, or null. */
  readonly lastSyncAt: number | null
  /** Relays that came in the pulls since the start, by the kind of source. */
  readonly pulls: Readonly<Record<PeerSource['from'], { readonly complete: number; readonly failed: number; readonly news: number }>>
  readonly gossipLinks: number
  readonly banned: number
  /** Serving nodes: the own descriptor. */
  readonly own: PublisherStatus | null
  readonly dhtPeers: number | null
  /** What was found on disk at the start. */
  readonly restored: RestoreReport | null
}
