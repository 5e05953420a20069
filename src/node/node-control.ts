import type { NodeId } from '../base/index.ts'
import type { StreamEnd } from '../client/index.ts'
import type { Role, ServingRole } from '../directory/index.ts'
import type { NatFacts, ReachFacts, RelayServerStats, StunServerStats } from '../nat/index.ts'
import type { CloseReason } from '../onion/index.ts'
import type { VpnFacts } from '../vpn/index.ts'
import type { DrainFacts } from './drain.ts'
import type { NodeLogs } from './log-book.ts'
import type { NetworkSummary, RelayPage, RelayQuery, TrafficSample } from './network-types.ts'
import type { SettingsChange, SettingsChanged, SettingsFacts } from './settings.ts'

/**
 * What the control API and the command line need of a running node. `startNode` (compose.ts) gives one; everything it returns is
 * plain JSON: wall-clock times are milliseconds since 1970, durations end in `Ms`, sizes in `Bytes`, absent is null.
 */
export interface NodeControl {
  readonly id: NodeId

  status(): NodeStatus
  /** The circuits this node built as a client, oldest first. @param why fills `why` with the path choice's reasons */
  circuits(why: boolean): readonly CircuitFacts[]
  /** The relays of the view, in order of their id. @param role only those that claim this role */
  relays(role?: ServingRole): readonly RelayFacts[]
  /** One relay of the view; null when it holds no such relay. */
  relay(id: NodeId): RelayFacts | null
  /** Some relays in short, in order of their id. */
  relayPage(query: RelayQuery): RelayPage
  /** The view in counts, and how it grew. */
  networkSummary(): NetworkSummary
  /** The streams and datagram associations open now, as a client. @param recent the last few that ended too */
  streams(recent?: boolean): readonly StreamFacts[]
  /** The last minutes, second by second, oldest first. */
  traffic(): readonly TrafficSample[]

  /** Measures the round trip to each hop of an open circuit; null when there is none with this number. @throws ShallotError when it ends meanwhile */
  pingCircuit(id: number): Promise<CircuitFacts | null>
  /** Ends a circuit and its streams; what it was, or null when there is none with this number. */
  closeCircuit(id: number): CircuitFacts | null
  /** Resets a stream; what it was, or null when there is none with this number. */
  closeStream(id: number): StreamFacts | null

  /**
   * Streams opened from now on go over fresh circuits: the present ones take no more streams and end with their last one.
   * Resolves with the first fresh circuit that is open.
   * @throws ShallotError 'not-a-client', or 'no-circuit' when none could be built
   */
  newCircuit(): Promise<CircuitFacts>

  /** How others reach this node, and what it can therefore serve. Null for a pure client: it dials out only, nobody has to reach it. */
  nat(): NatFacts | null
  /**
   * Reaches for a node of the view as a circuit would, and says how that went; 'unreachable' is an answer, not an error.
   * @throws ShallotError 'not-serving' (a pure client reaches its guards only), 'unknown-relay', 'aborted'
   */
  reach(id: NodeId, signal: AbortSignal): Promise<ReachFacts>

  /** The whole machine through the mesh; null for a node that is not a client. */
  vpn(): VpnFacts | null
  /**
   * Everything through the mesh from now on, or nowhere. Resolves when it is carried, or when it is not yet after a while: the state says which.
   * @throws ShallotError 'not-a-client', 'vpn-not-on-this-platform', 'vpn-not-permitted', 'vpn-program-missing', 'vpn-in-use', …
   */
  vpnUp(): Promise<VpnFacts>
  /** The machine as it was before. @throws ShallotError 'not-a-client', 'vpn-not-undone' */
  vpnDown(): Promise<VpnFacts>
  /**
   * Carries the traffic of a TUN device that was made elsewhere, on circuits of its own, until the session is closed or the device is gone.
   * @throws ShallotError 'not-a-client', 'vpn-session-limit', 'descriptor-not-handed-over', 'tun-…', 'pcap-not-writable'
   */
  vpnSession(request: VpnSessionRequest): Promise<VpnSession>

  /** The log of this process: its last lines, and what is written to it. */
  readonly logs: NodeLogs
  /** The configuration, key by key. @throws ConfigError when the file is not as it should be any more; ShallotError 'config-unreadable' */
  settings(): Promise<SettingsFacts>
  /** Changes the configuration file, and puts in force what can be. @throws ConfigError by key; ShallotError of the file system */
  changeSettings(change: SettingsChange): Promise<SettingsChanged>
  /** Reads the configuration file again. @throws as `settings` */
  reload(): Promise<SettingsChanged>

  /**
   * Resolves when the node does what its roles say: it listens, and as a client has a circuit open.
   * @throws ShallotError 'aborted' when the signal or the node's end comes first
   */
  ready(signal?: AbortSignal): Promise<void>

  /** Calls the listener with every event from now on, until the returned function is called. A listener must not throw. */
  subscribe(listener: (event: NodeEvent) => void): () => void

  /**
   * Leaves: takes no new circuits, says so to the network, and stops when the last circuit has ended or at the limit, ten minutes where none is given.
   * Asked again, it only changes the limit.
   * @throws ShallotError 'not-serving'
   */
  drain(options?: { readonly limitMs?: number }): DrainFacts

  /** How long a node that is told to stop drains first, as it is configured now; 0: it serves nobody, or is to stop at once. */
  readonly drainOnStopMs: number

  /** Stops everything in reverse order of its start. The same promise every time; it never rejects. */
  stop(): Promise<void>
  /** Settles when the node has stopped, whoever asked for it: null in order, an error when it died of one. */
  readonly stopped: Promise<Error | null>
}

/** A device that was handed over: its file, as `vpn exec` makes it. */
export interface VpnSessionRequest {
  /** Path of the UNIX socket on which the descriptor waits. */
  readonly descriptor: string
  readonly mtu: number
  /** ADDRESS/BITS of the device, in its own namespace. */
  readonly addresses: readonly string[]
  /** File to record its packets in; none when left out. */
  readonly pcap?: string
}

export interface VpnSession {
  /** Settles when the device is gone, by whomever. */
  readonly ended: Promise<void>
  close(): void
}

export interface NodeStatus {
  readonly id: NodeId
  readonly roles: readonly Role[]
  /** Program version: "0.1.0". */
  readonly version: string
  readonly pid: number
  readonly startedAt: number
  readonly uptimeMs: number
  /** Whether it does what its roles say now: a client that can reach nothing does not. */
  readonly ready: boolean
  /** Why own traffic gets nowhere now; null when it does, and for a node that is no client. Among the warnings too. */
  readonly outage: OutageFacts | null
  readonly crypto: { readonly name: 'native' | 'portable'; readonly description: string }
  readonly network: NetworkFacts
  /** Multiaddrs as text; empty for a pure client, which listens on nothing. */
  readonly listening: readonly string[]
  /** "ADDRESS:PORT" of the proxies, null when one is off. */
  readonly socks: string | null
  readonly http: string | null
  /** "ADDRESS:PORT" of the DNS listener, UDP and TCP; null when it is off. */
  readonly dns: string | null
  /** "ADDRESS:PORT" or the path of the socket; null when the control API is off. Filled in by the control server. */
  readonly control: string | null
  /** "ADDRESS:PORT" of the dashboard; null when it is off. Filled in by the control server. */
  readonly dashboard: string | null
  readonly view: ViewFacts
  /** Null for a node that is not a client. */
  readonly guards: readonly GuardFacts[] | null
  /** Null for a node that is not a client. */
  readonly client: ClientFacts | null
  /** Null for a node that serves no circuits. */
  readonly relaying: RelayingFacts | null
  /** Null for a node that is no exit. */
  readonly exit: ExitFacts | null
  /** How others reach this node; null for a pure client, and with `nat.enabled = false`. */
  readonly reachability: NatFacts['state'] | null
  /** What it does as a relay for nodes behind NAT; null without the role `relay`. */
  readonly natRelay: RelayServerStats | null
  /** What its STUN server does; null without the role `bootstrap`. */
  readonly stun: StunServerStats | null
  /** The key by which others build circuits to this node; null where it serves none. */
  readonly onionKey: OnionKeyFacts | null
  /** Null unless it is leaving. */
  readonly draining: DrainFacts | null
  readonly memory: {
    readonly rssBytes: number
    readonly heapBytes: number
    readonly externalBytes: number
    /** What the system lets the process have; null where it sets no limit. */
    readonly limitBytes: number | null
  }
  /** Links to other nodes, of either kind. */
  readonly links: number
  /** What a person should know and can do something about; empty when all is well. */
  readonly warnings: readonly Warning[]
}

export interface OnionKeyFacts {
  /** Wall-clock ms: when it was made, and when it is replaced. */
  readonly since: number
  readonly rotatesAt: number
  /** Until when the one before it is accepted; null when there is none. */
  readonly previousUntil: number | null
}

export interface NetworkFacts {
  readonly name: string
  /** The rules that differ from the defaults, each as it stands in network.toml. A testnet's changes are seen here. */
  readonly changes: readonly RuleChange[]
  readonly bootstrap: readonly string[]
  /** Who signed network.toml, and when by their word (ISO 8601); null when nobody did. */
  readonly signature: { readonly publisher: string; readonly issued: string | null } | null
}

export interface RuleChange {
  /** The key's path in TOML spelling: "work.bits". */
  readonly key: string
  readonly value: unknown
  readonly default: unknown
  /** The key's help. */
  readonly help: string
}

export interface ViewFacts {
  readonly known: RoleCounts
  readonly eligible: RoleCounts
  /** When the view was last brought up to date from a peer; null before the first time. */
  readonly syncedAt: number | null
  /** Descriptors of the last ten minutes that were refused for their times alone: dated in the future, or over. */
  readonly refused: { readonly future: number; readonly expired: number }
}

/** How many relays claim each role (one relay may claim several), and how many relays there are in all. */
export type RoleCounts = { readonly total: number } & { readonly [role in ServingRole]: number }

export interface GuardFacts {
  readonly id: NodeId
  /** Position in the ordered sample, from 0. */
  readonly rank: number
  readonly state: 'primary' | 'sampled' | 'unlisted' | 'unreachable' | 'suspicious'
  /** Whether a circuit was ever built through it. */
  readonly confirmed: boolean
  readonly circuitsBuilt: number
  readonly circuitsFailed: number
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

export interface RelayingFacts {
  readonly circuitsOpen: number
  /** How many there may be. */
  readonly circuitsLimit: number
  readonly circuitsCreated: number
  readonly circuitsRefused: number
  /** Circuits closed because the byte budget was exhausted or they stalled. */
  readonly circuitsShed: number
  readonly cellsForwarded: number
  /** The same in bytes. */
  readonly bytesForwarded: number
  /** Circuits refused and ended, by reason. */
  readonly refused: Readonly<Record<string, number>>
  readonly closed: Readonly<Record<string, number>>
  /** Streams open at this exit, and refused by its policy or limits. */
  readonly exitStreamsOpen: number
  readonly exitStreamsRefused: number
  readonly budget: { readonly usedBytes: number; readonly limitBytes: number }
}

/** What an exit has done since its start, without a word of where to. */
export interface ExitFacts {
  readonly streamsOpen: number
  readonly associationsOpen: number
  readonly streamsOpened: number
  /** Streams refused, by reason. */
  readonly refused: Readonly<Record<string, number>>
  readonly bytesFromServers: number
  readonly bytesToServers: number
  /** Leases for raw packets; null where they are not served. */
  readonly packetLeasesOpen: number | null
  /** What went through them; null where raw packets are not served. */
  readonly packets: ExitPacketFacts | null
  /** Questions of clients to the exit's resolver. */
  readonly dns: { readonly questions: number; readonly remembered: number; readonly refused: number; readonly failed: number }
  /** How many there may be at once. */
  readonly limits: { readonly streams: number; readonly associations: number; readonly packetLeases: number }
}

/** Raw packets at an exit since its start. */
export interface ExitPacketFacts {
  readonly packetsFromClients: number
  readonly packetsToClients: number
  readonly bytesFromClients: number
  readonly bytesToClients: number
  /** Packets that went no further, by reason. */
  readonly dropped: Readonly<Record<string, number>>
  /** What the userspace stack holds and did; null where the kernel has the connections. */
  readonly stack: {
    readonly tcpConnections: number
    readonly udpPorts: number
    readonly echoes: number
    readonly bufferBytes: number
    readonly bufferLimitBytes: number
    readonly retransmissions: number
  } | null
}

/** Nothing can be reached: no circuit has been built since, though it was tried. */
export interface OutageFacts {
  readonly code: OutageCode
  /** What is so, and what to do; plain sentences. */
  readonly message: string
  readonly advice: string
  readonly since: number
}

/** Who is missing. */
export type OutageCode =
  | 'no-network'
  | 'guards-unreachable'
  | 'relays-unreachable'
  | 'exits-unreachable'
  | 'no-exit-known'
  | 'no-relay-known'
  | 'no-exit-for-port'
  | 'nothing-allowed'

export interface Warning {
  /** Stable and kebab-case: "guard-suspicious", "state-corrupt". */
  readonly code: string
  readonly message: string
  readonly since: number
}

export interface CircuitFacts {
  /** Local number of the circuit: means nothing to any other node. */
  readonly id: number
  readonly state: 'building' | 'open' | 'retired' | 'closed'
  readonly purpose: 'streams' | 'datagrams' | 'packets'
  /** Guard first. While building, the hops chosen. */
  readonly path: readonly HopFacts[]
  readonly createdAt: number
  /** From the choice of the path to the last hop's answer; null while building. */
  readonly buildMs: number | null
  readonly firstUsedAt: number | null
  readonly rttMs: number | null
  readonly streams: number
  /** Streams with another isolation key never share this circuit; null before its first use. Says nothing of what the key was made of. */
  readonly isolation: string | null
  readonly bytesSent: number
  readonly bytesReceived: number
  /** Why it ended, and at which hop (from 0) as far as is known. */
  readonly closed: { readonly reason: CloseReason; readonly hop: number | null } | null
  /** Why this path: one entry for each hop. Null unless asked for. */
  readonly why: readonly HopReason[] | null
}

export interface HopFacts {
  readonly id: NodeId
  readonly position: 'guard' | 'middle' | 'exit'
  /** One of the relay's addresses, "IP:PORT". */
  readonly address: string
  /** ISO 3166-1 code of two letters; null where it is not known. */
  readonly country: string | null
  readonly established: boolean
  /** The measured round trip to this hop; null before it was measured. */
  readonly rttMs: number | null
}

export interface HopReason {
  readonly position: 'guard' | 'middle' | 'exit'
  /** What was decided, one plain sentence each: "first primary guard", "3 candidates of 7: 2 share a /16 with the guard, …". */
  readonly reasons: readonly string[]
}

export interface RelayFacts {
  readonly id: NodeId
  readonly roles: readonly ServingRole[]
  /** Multiaddrs as text. */
  readonly addresses: readonly string[]
  /** `punchable`: behind NAT, but directly in the end. `relayed`: only through its NAT relay. */
  readonly reach: 'direct' | 'punchable' | 'relayed'
  /** ISO 3166-1 code of two letters; null where it is not known. */
  readonly country: string | null
  readonly eligible: boolean
  /** Why it is not eligible for one's own paths; empty when it is. */
  readonly notEligible: readonly string[]
  /** Claimed capacity and the weight it is chosen with, bytes a second. */
  readonly bandwidth: number
  readonly weight: number
  readonly firstSeenAt: number
  readonly publishedAt: number
  readonly expiresAt: number
  readonly software: string
  /** An exit's ports in short, "80, 443, 8000-8100"; null for the others. */
  readonly exitPorts: string | null
  readonly family: readonly NodeId[]
}

export interface StreamFacts {
  readonly id: number
  /** `dns`: a stream to the exit's own resolver; `packets`: a lease of addresses for raw packets. */
  readonly kind: 'stream' | 'datagrams' | 'dns' | 'packets'
  /** "HOST:PORT": shown to the person at this machine, never logged. Null for every other kind than `stream`. */
  readonly target: string | null
  /** The circuit that carries it; null while none does. */
  readonly circuit: number | null
  readonly isolation: string | null
  readonly state: 'waiting' | 'opening' | 'open' | 'closing' | 'closed'
  readonly openedAt: number
  /** Null while it is not closed. */
  readonly closedAt: number | null
  /** How it ended: `done` in order, `aborted` from this side. Null while it is not closed. */
  readonly end: StreamEnd | null
  readonly bytesSent: number
  readonly bytesReceived: number
}

/** What happens in a node, as the event stream tells it. Only the events of streams name a target, for the person at this machine. */
export type NodeEvent =
  | { readonly type: 'ready'; readonly at: number }
  | { readonly type: 'circuit-open' | 'circuit-retired' | 'circuit-closed'; readonly at: number; readonly circuit: CircuitFacts }
  | { readonly type: 'stream-open' | 'stream-closed'; readonly at: number; readonly stream: StreamFacts }
  /** Once a second in which streams changed: how many are open, and how many changes were not told one by one. */
  | { readonly type: 'streams'; readonly at: number; readonly open: number; readonly untold: number }
  | { readonly type: 'reachability'; readonly at: number; readonly nat: NatFacts }
  | { readonly type: 'vpn'; readonly at: number; readonly vpn: VpnFacts }
  | { readonly type: 'traffic'; readonly at: number; readonly traffic: TrafficSample }
  | { readonly type: 'settings'; readonly at: number; readonly settings: SettingsChanged }
  | { readonly type: 'guard'; readonly at: number; readonly guard: GuardFacts }
  | { readonly type: 'view'; readonly at: number; readonly known: number; readonly eligible: number }
  | { readonly type: 'warning'; readonly at: number; readonly warning: Warning }
  | { readonly type: 'warning-over'; readonly at: number; readonly code: string }
  | { readonly type: 'draining'; readonly at: number; readonly until: number }
  | { readonly type: 'stopping'; readonly at: number }
