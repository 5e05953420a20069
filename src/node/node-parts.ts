import type { Logger } from '../base/index.ts'
import type { CircuitPool, Client } from '../client/index.ts'
import type { View } from '../directory/index.ts'
import type { Exit } from '../egress/index.ts'
import type { DnsServer, HttpProxy, SocksServer } from '../ingress/index.ts'
import type { NatService } from '../nat/index.ts'
import type { OnionKeyring } from '../onion/index.ts'
import type { GuardSample } from '../path/index.ts'
import type { RelayEngine } from '../relaying/index.ts'
import type { Clocks } from './facts.ts'
import type { LiveConfig } from './live-config.ts'
import type { NodeLogs } from './log-book.ts'
import type { Presence } from './presence.ts'
import type { RelayCountries } from './relay-countries.ts'
import type { NodeVpn } from './vpn-parts.ts'
import type { Warnings } from './warnings.ts'

/** The parts of a node that carries its own traffic. */
export interface ClientParts {
  readonly pool: CircuitPool
  readonly client: Client
  readonly guards: GuardSample
  readonly socks: SocksServer | null
  readonly http: HttpProxy | null
  readonly dns: DnsServer | null
  /** What carries whole devices. */
  readonly vpn: NodeVpn | null
}

/** The parts of a node that serves circuits. */
export interface ServingParts {
  readonly engine: RelayEngine
  readonly exit: Exit | null
}

/** What a node has in the network beyond this hour. */
export interface Standing {
  readonly keyring: OnionKeyring
  /** Takes nothing new from now on, and says so in the descriptor. */
  readonly leave: () => void
}

export interface NodeParts {
  readonly live: LiveConfig
  readonly logs: NodeLogs
  /** How it appears in the network now: a client's changes. */
  readonly presence: () => Presence
  readonly crypto: { readonly name: 'native' | 'portable'; readonly description: string }
  readonly view: View
  /** Where the relays of the view are. */
  readonly countries: RelayCountries
  readonly client: ClientParts | null
  readonly serving: ServingParts | null
  /** How it is reached; null for a pure client, and where the configuration's word is taken. */
  readonly nat: NatService | null
  /** Null for a pure client. */
  readonly standing: Standing | null
  readonly warnings: Warnings
  readonly clocks: Clocks
  readonly logger: Logger
  /** Resolves when the node is part of the network. */
  readonly joined: Promise<void>
  /** What was started, last first: each is stopped before the ones after it in this list. */
  readonly stops: readonly (() => Promise<void> | void)[]
}
