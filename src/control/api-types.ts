/**
 * The types of the control API, made from docs/openapi.json: `sh bin/tool node test/support/generated-files.ts` writes them.
 * What they mean is in docs/control-api.md. Longer than 500 lines because nobody writes it.
 */

export type Position = 'guard' | 'middle' | 'exit'
export type CloseReason =
  | 'requested'
  | 'finished'
  | 'protocol'
  | 'internal'
  | 'resource-limit'
  | 'overloaded'
  | 'timeout'
  | 'shutting-down'
  | 'unknown-relay'
  | 'not-allowed'
  | 'connect-failed'
  | 'identity-mismatch'
  | 'handshake-failed'
  | 'channel-lost'
export type Event =
  | {
      readonly type: 'ready'
      /** Milliseconds since 1970. */
      readonly at: number
    }
  | {
      readonly type: 'circuit-open'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly circuit: Circuit
    }
  | {
      readonly type: 'circuit-retired'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly circuit: Circuit
    }
  | {
      readonly type: 'circuit-closed'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly circuit: Circuit
    }
  | {
      readonly type: 'stream-open'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly stream: Stream
    }
  | {
      readonly type: 'stream-closed'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly stream: Stream
    }
  | {
      readonly type: 'streams'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly open: number
      readonly untold: number
    }
  | {
      readonly type: 'guard'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly guard: Guard
    }
  | {
      readonly type: 'view'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly known: number
      readonly eligible: number
    }
  | {
      readonly type: 'relays'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly changed: readonly RelayBrief[]
      readonly gone: readonly string[]
      readonly more: boolean
    }
  | {
      readonly type: 'reachability'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly nat: NatFacts
    }
  | {
      readonly type: 'vpn'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly vpn: VpnFacts
    }
  | {
      readonly type: 'traffic'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly traffic: TrafficSample
    }
  | {
      readonly type: 'log'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly line: LogLine
    }
  | {
      readonly type: 'settings'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly settings: SettingsChanged
    }
  | {
      readonly type: 'draining'
      /** Milliseconds since 1970. */
      readonly at: number
      /** Milliseconds since 1970. */
      readonly until: number
    }
  | {
      readonly type: 'warning'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly warning: Warning
    }
  | {
      readonly type: 'warning-over'
      /** Milliseconds since 1970. */
      readonly at: number
      readonly code: string
    }
  | {
      readonly type: 'stopping'
      /** Milliseconds since 1970. */
      readonly at: number
    }
export type StreamEnd =
  | 'done'
  | 'reset'
  | 'refused'
  | 'unreachable'
  | 'timeout'
  | 'resolve-failed'
  | 'policy'
  | 'resource-limit'
  | 'not-exit'
  | 'internal'
  | 'circuit-lost'
  | 'aborted'
export type ServingRole = 'guard' | 'middle' | 'exit' | 'relay' | 'bootstrap'
export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace'
export type Role = 'client' | 'guard' | 'middle' | 'exit' | 'relay' | 'bootstrap'
export type SettingValue =
  | string
  | number
  | boolean
  | readonly SettingValue[]
  | {
      readonly [k: string]: SettingValue
    }

export interface ApiTypes {
  readonly schemas: ApiSchemas
  readonly answers: ApiAnswers
  readonly bodies: ApiBodies
}
export interface ApiSchemas {
  readonly Circuit: Circuit
  readonly ClientFacts: ClientFacts
  readonly CloseReason: CloseReason
  readonly DashboardLink: DashboardLink
  readonly DashboardLinkRequest: DashboardLinkRequest
  readonly Document: Document
  readonly DrainFacts: DrainFacts
  readonly DrainRequest: DrainRequest
  readonly Ended: Ended
  readonly Event: Event
  readonly ExitFacts: ExitFacts
  readonly ExitPacketFacts: ExitPacketFacts
  readonly FamilyFacts: FamilyFacts
  readonly Guard: Guard
  readonly Hop: Hop
  readonly HopReason: HopReason
  readonly LogLevel: LogLevel
  readonly LogLevels: LogLevels
  readonly LogLine: LogLine
  readonly LogPage: LogPage
  readonly NatFacts: NatFacts
  readonly NatRelayStats: NatRelayStats
  readonly NetworkSummary: NetworkSummary
  readonly NodeStatus: NodeStatus
  readonly OnionKeyFacts: OnionKeyFacts
  readonly Outage: Outage
  readonly Position: Position
  readonly Problem: Problem
  readonly ReachFacts: ReachFacts
  readonly ReachRequest: ReachRequest
  readonly Relay: Relay
  readonly RelayBrief: RelayBrief
  readonly RelayPage: RelayPage
  readonly RelayingFacts: RelayingFacts
  readonly Role: Role
  readonly RoleCounts: RoleCounts
  readonly RuleChange: RuleChange
  readonly ServingRole: ServingRole
  readonly Session: Session
  readonly SessionRequest: SessionRequest
  readonly Setting: Setting
  readonly SettingProblem: SettingProblem
  readonly SettingValue: SettingValue
  readonly Settings: Settings
  readonly SettingsChange: SettingsChange
  readonly SettingsChanged: SettingsChanged
  readonly Stopping: Stopping
  readonly Stream: Stream
  readonly StreamEnd: StreamEnd
  readonly StunStats: StunStats
  readonly TrafficSample: TrafficSample
  readonly ViewCount: ViewCount
  readonly VpnFacts: VpnFacts
  readonly VpnSessionEvent: VpnSessionEvent
  readonly VpnSessionRequest: VpnSessionRequest
  readonly Warning: Warning
}
export interface Circuit {
  /** Local: means nothing to any other node. */
  readonly id: number
  readonly state: 'building' | 'open' | 'retired' | 'closed'
  readonly purpose: 'streams' | 'datagrams' | 'packets'
  /** Guard first. While building, the hops chosen. */
  readonly path: readonly Hop[]
  /** Milliseconds since 1970. */
  readonly createdAt: number
  readonly buildMs: number | null
  readonly firstUsedAt: number | null
  readonly rttMs: number | null
  readonly streams: number
  /** Streams with another isolation key never share this circuit. Null before its first use. Says nothing of what the key was made of. */
  readonly isolation: string | null
  readonly bytesSent: number
  readonly bytesReceived: number
  /** Why it ended, and at which hop (from 0). */
  readonly closed: {
    readonly reason: CloseReason
    readonly hop: number | null
  } | null
  /** Null unless asked for. */
  readonly why: readonly HopReason[] | null
}
export interface Hop {
  /** A node id: 12D3KooW… */
  readonly id: string
  readonly position: Position
  /** One of the relay's addresses, IP:PORT. */
  readonly address: string
  /** ISO 3166-1 code of two letters; null where it is not known. */
  readonly country: string | null
  readonly established: boolean
  /** The measured round trip to this hop; null before it was measured. */
  readonly rttMs: number | null
}
export interface HopReason {
  readonly position: Position
  readonly reasons: readonly string[]
}
export interface ClientFacts {
  readonly circuitsOpen: number
  readonly circuitsBuilding: number
  readonly circuitsBuilt: number
  readonly circuitsFailed: number
  readonly streamsOpen: number
  readonly streamsOpened: number
  readonly streamsFailed: number
  readonly bytesSent: number
  readonly bytesReceived: number
}
export interface DashboardLink {
  /** With a code in its fragment, which a browser tells no server. */
  readonly url: string
  /** Milliseconds since 1970. */
  readonly expiresAt: number
}
export interface DashboardLinkRequest {
  /** Two minutes when left out. */
  readonly forMs?: number
  /** Once when left out. */
  readonly uses?: number
}
export interface Document {
  readonly [k: string]: unknown
}
export interface DrainFacts {
  /** Milliseconds since 1970. */
  readonly since: number
  /** When it ends at the latest. */
  readonly until: number
  readonly circuitsLeft: number
}
export interface DrainRequest {
  /** Ten minutes when left out. */
  readonly limitMs?: number
}
export interface Ended {
  readonly ended: true
}
export interface Stream {
  readonly id: number
  readonly kind: 'stream' | 'datagrams' | 'dns' | 'packets'
  /** HOST:PORT; for the person at this machine only. Null for every other kind than stream. */
  readonly target: string | null
  readonly circuit: number | null
  readonly isolation: string | null
  readonly state: 'waiting' | 'opening' | 'open' | 'closing' | 'closed'
  /** Milliseconds since 1970. */
  readonly openedAt: number
  readonly closedAt: number | null
  /** How it ended; null while it is not closed. */
  readonly end: StreamEnd | null
  readonly bytesSent: number
  readonly bytesReceived: number
}
export interface Guard {
  /** A node id: 12D3KooW… */
  readonly id: string
  /** Position in the ordered sample, from 0. */
  readonly rank: number
  readonly state: 'primary' | 'sampled' | 'unlisted' | 'unreachable' | 'suspicious'
  /** Whether a circuit was ever built through it. */
  readonly confirmed: boolean
  readonly circuitsBuilt: number
  readonly circuitsFailed: number
}
export interface RelayBrief {
  /** A node id: 12D3KooW… */
  readonly id: string
  readonly roles: readonly ServingRole[]
  /** ISO 3166-1 code of two letters; null where it is not known. */
  readonly country: string | null
  readonly eligible: boolean
  readonly weight: number
  readonly software: string
  /** Milliseconds since 1970. */
  readonly firstSeenAt: number
}
export interface NatFacts {
  readonly state: 'unknown' | 'public' | 'mapped' | 'punchable' | 'relayed'
  /** Why, one plain sentence each, the deciding one first. */
  readonly reasons: readonly string[]
  /** Milliseconds since 1970. */
  readonly since: number
  readonly ipv4: FamilyFacts | null
  readonly ipv6: FamilyFacts | null
  readonly listening: readonly string[]
  readonly announced: readonly string[]
  readonly mapping: {
    readonly protocol: 'upnp' | 'nat-pmp' | 'pcp'
    readonly external: string
    /** Milliseconds since 1970. */
    readonly expiresAt: number
  } | null
  readonly relays: readonly {
    /** A node id: 12D3KooW… */
    readonly relay: string
    /** Milliseconds since 1970. */
    readonly since: number
    /** Milliseconds since 1970. */
    readonly expiresAt: number
  }[]
  readonly stun: readonly {
    readonly server: string
    readonly verdict: 'believed' | 'silent' | 'lying' | 'alone'
    readonly said: string | null
  }[]
  readonly serves: readonly {
    readonly role: 'guard' | 'middle' | 'exit' | 'relay'
    readonly possible: boolean
    readonly why: string
  }[]
  /** What a person could do to be reached better. */
  readonly advice: readonly string[]
  /** What is missing on this machine and what that costs. */
  readonly lost: readonly string[]
}
export interface FamilyFacts {
  readonly local: readonly string[]
  /** ADDRESS:PORT as STUN servers see it. */
  readonly public: string | null
  /** The NAT in plain words. */
  readonly kind: string
  readonly mapping: ('none' | 'endpoint-independent' | 'address-dependent' | 'address-and-port-dependent') | null
  readonly filtering: ('endpoint-independent' | 'address-dependent' | 'address-and-port-dependent') | null
  readonly portPreserved: boolean | null
  readonly hairpin: boolean | null
  readonly bindingLifetimeMs: number | null
  /** Whether dial-backs from outside came in; null when none was tried. */
  readonly dialBack: boolean | null
}
export interface VpnFacts {
  readonly state: 'down' | 'starting' | 'up' | 'blocked' | 'stopping'
  /** Milliseconds since 1970. */
  readonly since: number
  readonly device: {
    readonly name: string
    readonly mtu: number
    readonly addresses: readonly string[]
  } | null
  /** What may leave by another way than the tunnel. */
  readonly allowed: readonly {
    readonly ip: string
    readonly protocol: 'tcp' | 'udp'
    readonly port: number | null
    readonly why: 'guard' | 'bootstrap' | 'peer' | 'stun' | 'router'
  }[]
  readonly serving: readonly {
    readonly protocol: 'tcp' | 'udp'
    readonly port: number
  }[]
  readonly bypass: readonly string[]
  readonly localNetwork: boolean
  readonly dns: {
    readonly how: 'resolv.conf' | 'resolved' | 'none'
    readonly servers: readonly string[]
  } | null
  readonly counts: {
    readonly packetsIn: number
    readonly packetsOut: number
    readonly bytesIn: number
    readonly bytesOut: number
    readonly tcpFlows: number
    readonly udpFlows: number
    /** Packets that the kill switch dropped. */
    readonly blocked: number
  } | null
  readonly problems: readonly string[]
}
export interface TrafficSample {
  /** Milliseconds since 1970. */
  readonly at: number
  /** Bytes of this machine’s applications, in this second. */
  readonly sent: number
  readonly received: number
  /** The round trip of the circuit that the last stream took; null without one. */
  readonly rttMs: number | null
  readonly circuitsBuilt: number
  readonly circuitsFailed: number
  readonly streamsOpen: number
  /** Cells carried for others. */
  readonly cells: number
  /** Others' circuits open here. */
  readonly circuitsServed: number
  /** As an exit, from servers. */
  readonly exitBytesIn: number
  readonly exitBytesOut: number
  readonly queuedBytes: number
  readonly rssBytes: number
}
export interface LogLine {
  /** Rises by one with each line of this process. */
  readonly seq: number
  /** Milliseconds since 1970. */
  readonly at: number
  readonly level: LogLevel
  /** The subsystem; empty for the node itself. */
  readonly sub: string
  readonly message: string
  readonly fields: {
    readonly [k: string]: unknown
  }
}
export interface SettingsChanged {
  /** Keys whose value in the file is another now. */
  readonly changed: readonly string[]
  /** Keys in force at once. */
  readonly applied: readonly string[]
  /** Keys that count from the next start, those of earlier changes included. */
  readonly restart: readonly string[]
}
export interface Warning {
  /** Stable and kebab-case. */
  readonly code: string
  readonly message: string
  /** Milliseconds since 1970. */
  readonly since: number
}
export interface ExitFacts {
  readonly streamsOpen: number
  /** UDP associations. */
  readonly associationsOpen: number
  readonly streamsOpened: number
  /** Streams refused, by reason: policy, resource-limit, … */
  readonly refused: {
    readonly [k: string]: number
  }
  readonly bytesFromServers: number
  readonly bytesToServers: number
  /** Leases for raw packets; null where they are not served. */
  readonly packetLeasesOpen: number | null
  /** What went through them; null where raw packets are not served. */
  readonly packets: ExitPacketFacts | null
  /** Questions of clients to the exit's resolver; of these: answered from memory, refused by rule, failed. */
  readonly dns: {
    readonly questions: number
    readonly remembered: number
    readonly refused: number
    readonly failed: number
  }
  /** How many there may be at once: exit.max_streams, max_associations, max_packet_leases. */
  readonly limits: {
    readonly streams: number
    readonly associations: number
    readonly packetLeases: number
  }
}
export interface ExitPacketFacts {
  readonly packetsFromClients: number
  readonly packetsToClients: number
  readonly bytesFromClients: number
  readonly bytesToClients: number
  /** Packets that went no further, by reason: policy, rate, malformed, … */
  readonly dropped: {
    readonly [k: string]: number
  }
  /** What the userspace stack holds and did; null where the kernel has the connections. */
  readonly stack: {
    readonly tcpConnections: number
    readonly udpPorts: number
    /** Echo requests without an answer yet. */
    readonly echoes: number
    readonly bufferBytes: number
    /** exit.packet_buffer_bytes. */
    readonly bufferLimitBytes: number
    /** Segments to clients that were sent again. */
    readonly retransmissions: number
  } | null
}
export interface LogLevels {
  readonly level: LogLevel
  readonly subsystems: {
    readonly [k: string]: LogLevel
  }
}
export interface LogPage {
  readonly lines: readonly LogLine[]
  /** Ask for `since` this to get what follows. */
  readonly next: number
  /** Whether lines after `since` are forgotten already. */
  readonly missed: boolean
  /** Those that have written something. */
  readonly subsystems: readonly string[]
}
export interface NatRelayStats {
  readonly reservations: {
    readonly open: number
    readonly strangers: number
    readonly granted: number
    readonly renewed: number
    readonly refused: {
      readonly [k: string]: number
    }
    readonly ended: {
      readonly [k: string]: number
    }
  }
  readonly connections: {
    readonly open: number
    readonly total: number
    readonly refused: {
      readonly [k: string]: number
    }
    readonly closed: {
      readonly [k: string]: number
    }
  }
  readonly bytes: {
    readonly fromReserved: number
    readonly toReserved: number
    readonly held: number
  }
  readonly requests: {
    readonly open: number
    readonly dropped: {
      readonly [k: string]: number
    }
  }
}
export interface NetworkSummary {
  readonly roles: readonly {
    readonly key: string
    readonly known: number
    readonly eligible: number
  }[]
  /** The key is "??" where the country is not known. */
  readonly countries: readonly {
    readonly key: string
    readonly known: number
    readonly eligible: number
    /** Eligible exits there. */
    readonly exits: number
  }[]
  readonly versions: readonly {
    readonly key: string
    readonly known: number
    readonly eligible: number
  }[]
  /** One for each minute, oldest first, at most a day. */
  readonly history: readonly ViewCount[]
}
export interface ViewCount {
  /** Milliseconds since 1970. */
  readonly at: number
  readonly known: number
  readonly eligible: number
}
export interface NodeStatus {
  /** A node id: 12D3KooW… */
  readonly id: string
  readonly roles: readonly Role[]
  readonly version: string
  readonly pid: number
  /** Milliseconds since 1970. */
  readonly startedAt: number
  readonly uptimeMs: number
  /** Whether it does what its roles say now: a client that can reach nothing does not. */
  readonly ready: boolean
  /** Why own traffic gets nowhere now; null when it does. One of the warnings tells the same. */
  readonly outage: Outage | null
  readonly crypto: {
    readonly name: 'native' | 'portable'
    readonly description: string
  }
  readonly network: {
    readonly name: string
    readonly changes: readonly RuleChange[]
    readonly bootstrap: readonly string[]
    /** Who signed network.toml; null when nobody did. */
    readonly signature: {
      /** The publisher's public key, in hex. */
      readonly publisher: string
      /** ISO 8601. */
      readonly issued: string | null
    } | null
  }
  /** Multiaddrs; empty for a pure client. */
  readonly listening: readonly string[]
  /** ADDRESS:PORT of the SOCKS5 proxy. */
  readonly socks: string | null
  /** ADDRESS:PORT of the HTTP proxy. */
  readonly http: string | null
  /** ADDRESS:PORT of the DNS listener, UDP and TCP. */
  readonly dns: string | null
  /** ADDRESS:PORT or the path of the socket. */
  readonly control: string | null
  /** ADDRESS:PORT of the dashboard. */
  readonly dashboard: string | null
  readonly view: {
    readonly known: RoleCounts
    readonly eligible: RoleCounts
    readonly syncedAt: number | null
    /** Descriptors of the last ten minutes that were refused for their times alone: dated in the future, or over. */
    readonly refused: {
      readonly future: number
      readonly expired: number
    }
  }
  /** Null for a node that is no client. */
  readonly guards: readonly Guard[] | null
  readonly client: ClientFacts | null
  /** Null for a node that serves no circuits. */
  readonly relaying: RelayingFacts | null
  readonly exit: ExitFacts | null
  /** How others reach the node; null for a pure client, and with nat.enabled = false. */
  readonly reachability: ('unknown' | 'public' | 'mapped' | 'punchable' | 'relayed') | null
  readonly natRelay: NatRelayStats | null
  readonly stun: StunStats | null
  /** Null for a node that serves no circuits. */
  readonly onionKey: OnionKeyFacts | null
  readonly draining: DrainFacts | null
  readonly memory: {
    readonly rssBytes: number
    readonly heapBytes: number
    readonly externalBytes: number
    /** What the system lets the process have; null where it sets no limit. */
    readonly limitBytes: number | null
  }
  readonly links: number
  readonly warnings: readonly Warning[]
}
export interface Outage {
  readonly code:
    | 'no-network'
    | 'guards-unreachable'
    | 'relays-unreachable'
    | 'exits-unreachable'
    | 'no-exit-known'
    | 'no-relay-known'
    | 'no-exit-for-port'
    | 'nothing-allowed'
  /** What is so. */
  readonly message: string
  /** What to do. */
  readonly advice: string
  /** Milliseconds since 1970. */
  readonly since: number
}
export interface RuleChange {
  /** As network.toml spells it: work.bits. */
  readonly key: string
  readonly value: unknown
  readonly default: unknown
  readonly help: string
}
export interface RoleCounts {
  readonly total: number
  readonly guard: number
  readonly middle: number
  readonly exit: number
  readonly relay: number
  readonly bootstrap: number
}
export interface RelayingFacts {
  readonly circuitsOpen: number
  /** relaying.max_circuits. */
  readonly circuitsLimit: number
  readonly circuitsCreated: number
  readonly circuitsRefused: number
  /** Closed because the byte budget was exhausted or they stalled. */
  readonly circuitsShed: number
  readonly cellsForwarded: number
  /** The cells, in bytes. */
  readonly bytesForwarded: number
  /** Circuits refused, by reason. */
  readonly refused: {
    readonly [k: string]: number
  }
  /** Circuits ended, by reason. */
  readonly closed: {
    readonly [k: string]: number
  }
  readonly exitStreamsOpen: number
  readonly exitStreamsRefused: number
  /** Cells that wait in queues, and how many bytes of them may. */
  readonly budget: {
    readonly usedBytes: number
    readonly limitBytes: number
  }
}
export interface StunStats {
  readonly requests: number
  readonly answers: number
  readonly refusals: number
  readonly bytesReceived: number
  readonly bytesSent: number
  readonly droppedMalformed: number
  readonly droppedOverRate: number
  readonly droppedOverBytes: number
  readonly droppedUnable: number
  readonly sources: number
}
export interface OnionKeyFacts {
  /** Milliseconds since 1970. */
  readonly since: number
  /** Milliseconds since 1970. */
  readonly rotatesAt: number
  /** Until when the one before it is taken. */
  readonly previousUntil: number | null
}
export interface Problem {
  readonly error: {
    /** Stable and kebab-case. */
    readonly code: string
    readonly message: string
    /** With code 'config-invalid': one for each key. */
    readonly problems?: readonly SettingProblem[]
  }
}
export interface SettingProblem {
  /** Empty when it is the whole file. */
  readonly key: string
  readonly message: string
}
export interface ReachFacts {
  /** A node id: 12D3KooW… */
  readonly peer: string
  readonly how: 'direct' | 'reversed' | 'punched-tcp' | 'punched-udp' | 'relayed' | 'unreachable'
  readonly reachedMs: number | null
  readonly upgradedMs: number | null
  readonly steps: readonly string[]
}
export interface ReachRequest {
  /** A node id: 12D3KooW… */
  readonly id: string
}
export interface Relay {
  /** A node id: 12D3KooW… */
  readonly id: string
  readonly roles: readonly ServingRole[]
  readonly addresses: readonly string[]
  /** ISO 3166-1 code of two letters; null where it is not known. */
  readonly country: string | null
  /** How it is reached. */
  readonly reach: 'direct' | 'punchable' | 'relayed'
  readonly eligible: boolean
  /** Why it is not for one's own paths; empty when it is. */
  readonly notEligible: readonly string[]
  /** Claimed capacity, bytes a second. */
  readonly bandwidth: number
  /** What it is drawn by, bytes a second. */
  readonly weight: number
  /** Milliseconds since 1970. */
  readonly firstSeenAt: number
  /** Milliseconds since 1970. */
  readonly publishedAt: number
  /** Milliseconds since 1970. */
  readonly expiresAt: number
  readonly software: string
  readonly exitPorts: string | null
  readonly family: readonly string[]
}
export interface RelayPage {
  readonly total: number
  readonly relays: readonly RelayBrief[]
  /** Ask for what is after this; null at the end. */
  readonly next: string | null
}
export interface Session {
  readonly token: string
  /** It is put off by use. */
  readonly expiresAt: number
}
export interface SessionRequest {
  readonly code: string
}
export interface Setting {
  /** As the file spells it: path.guards_in_use. */
  readonly key: string
  readonly help: string
  /** What it may be, in words. */
  readonly type: string
  /** The same as a JSON schema. */
  readonly schema: {
    readonly [k: string]: unknown
  }
  /** Absent where there is none. */
  readonly default?: SettingValue
  /** What is in force. Absent where it is not shown, or there is none. */
  readonly value?: SettingValue
  /** Whether the file says something about it. */
  readonly set: boolean
  /** Whether a change is in force at once. Every other key needs a restart. */
  readonly live: boolean
  /** Its value is not shown. */
  readonly secret: boolean
  /** Who may change it. token: whoever has the node's own token, and no session of a browser, because it decides over files, trust or who may use the node. */
  readonly change: 'session' | 'token'
  /** Whether the file says something else than what is in force: it counts from the next start. */
  readonly pending: boolean
}
export interface Settings {
  readonly file: string
  /** Whether the node may write it. Where it may not, it is changed by hand, and read again with POST /v1/reload. */
  readonly writable: boolean
  readonly sections: readonly {
    readonly name: string
    readonly help: string
    readonly keys: readonly Setting[]
  }[]
}
export interface SettingsChange {
  /** By key as the file spells it. null: the key leaves the file, and its default counts. */
  readonly set: {
    readonly [k: string]: SettingValue | null
  }
  /** Only say what is wrong; nothing is changed. */
  readonly check?: boolean
}
export interface Stopping {
  readonly stopping: true
}
export interface VpnSessionEvent {
  readonly type: 'open'
}
export interface VpnSessionRequest {
  /** Path of the unix socket on which its descriptor waits. */
  readonly descriptor: string
  readonly mtu: number
  /**
   * ADDRESS/BITS, in its own namespace.
   *
   * @minItems 1
   * @maxItems 8
   */
  readonly addresses: readonly string[]
  /** A file to record its packets in. */
  readonly pcap?: string
}
/** What each route answers. */
export interface ApiAnswers {
  readonly 'GET /v1/status': NodeStatus
  readonly 'GET /v1/circuits': readonly Circuit[]
  readonly 'DELETE /v1/circuits/{id}': Circuit
  readonly 'POST /v1/circuits/{id}/ping': Circuit
  readonly 'POST /v1/new-circuit': Circuit
  readonly 'GET /v1/streams': readonly Stream[]
  readonly 'DELETE /v1/streams/{id}': Stream
  readonly 'GET /v1/relays': readonly Relay[]
  readonly 'GET /v1/relays/brief': RelayPage
  readonly 'GET /v1/relays/{id}': Relay
  readonly 'GET /v1/network': NetworkSummary
  readonly 'GET /v1/nat': NatFacts | null
  readonly 'POST /v1/reach': ReachFacts
  readonly 'GET /v1/vpn': VpnFacts | null
  readonly 'POST /v1/vpn/up': VpnFacts
  readonly 'POST /v1/vpn/down': VpnFacts
  readonly 'POST /v1/vpn/session': VpnSessionEvent
  readonly 'GET /v1/traffic': readonly TrafficSample[]
  readonly 'GET /v1/log': LogPage
  readonly 'GET /v1/log-levels': LogLevels
  readonly 'PUT /v1/log-levels': LogLevels
  readonly 'GET /v1/settings': Settings
  readonly 'PATCH /v1/settings': SettingsChanged
  readonly 'POST /v1/reload': SettingsChanged
  readonly 'POST /v1/drain': DrainFacts
  readonly 'POST /v1/shutdown': Stopping
  readonly 'GET /v1/events': Event
  readonly 'POST /v1/dashboard-link': DashboardLink
  readonly 'POST /v1/session': Session
  readonly 'DELETE /v1/session': Ended
  readonly 'GET /v1/openapi.json': Document
}
/** What each route takes. */
export interface ApiBodies {
  readonly 'POST /v1/reach': ReachRequest
  readonly 'POST /v1/vpn/session': VpnSessionRequest
  readonly 'PUT /v1/log-levels': LogLevels
  readonly 'PATCH /v1/settings': SettingsChange
  readonly 'POST /v1/drain': DrainRequest
  readonly 'POST /v1/dashboard-link': DashboardLinkRequest
  readonly 'POST /v1/session': SessionRequest
}
