import type { NodeId } from '../../src/base/index.ts'
import type { ServingRole } from '../../src/directory/index.ts'
import type { NatFacts, ReachFacts } from '../../src/nat/index.ts'
import {
  type CircuitFacts,
  type DrainFacts,
  LogBook,
  type NetworkSummary,
  type NodeControl,
  type NodeEvent,
  type NodeLogs,
  type NodeStatus,
  noLogs,
  type RelayFacts,
  type RelayPage,
  type RelayQuery,
  type RoleCounts,
  type SettingsChange,
  type SettingsChanged,
  type SettingsFacts,
  type StreamFacts,
  type TrafficSample,
  type VpnSession,
  type VpnSessionRequest,
} from '../../src/node/index.ts'
import type { VpnFacts } from '../../src/vpn/index.ts'

export const fakeIds = [
  '12D3KooWGuardGuardGuardGuardGuardGuardGuardGuardGuard1',
  '12D3KooWMiddleMiddleMiddleMiddleMiddleMiddleMiddle22',
  '12D3KooWExitExitExitExitExitExitExitExitExitExitEx33',
] as NodeId[]

const counts: RoleCounts = { total: 6, guard: 4, middle: 6, exit: 2, relay: 0, bootstrap: 1 }

export const fakeStatus: NodeStatus = {
  id: '12D3KooWClientClientClientClientClientClientClientCl4' as NodeId,
  roles: ['client'],
  version: '0.1.0',
  pid: process.pid,
  startedAt: 1_700_000_000_000,
  uptimeMs: 200_000,
  ready: true,
  outage: null,
  crypto: { name: 'native', description: 'sodium-native 5.1.0, OpenSSL 3.5.8' },
  network: {
    name: 'testnet',
    changes: [{ key: 'work.bits', value: 10, default: 24, help: 'Leading zero bits' }],
    bootstrap: [],
    signature: null,
  },
  listening: [],
  socks: '127.0.0.1:9250',
  dns: '127.0.0.1:9253',
  http: '127.0.0.1:9280',
  control: null,
  dashboard: null,
  view: { known: counts, eligible: counts, syncedAt: null, refused: { future: 0, expired: 0 } },
  guards: [{ id: fakeIds[0]!, rank: 0, state: 'primary', confirmed: true, circuitsBuilt: 5, circuitsFailed: 0 }],
  client: {
    circuitsOpen: 3,
    circuitsBuilding: 0,
    circuitsBuilt: 5,
    circuitsFailed: 0,
    streamsOpen: 1,
    streamsOpened: 9,
    streamsFailed: 0,
    bytesSent: 1234,
    bytesReceived: 5_678_901,
  },
  relaying: null,
  exit: null,
  reachability: null,
  natRelay: null,
  stun: null,
  onionKey: null,
  draining: null,
  memory: { rssBytes: 90_000_000, heapBytes: 20_000_000, externalBytes: 5_000_000, limitBytes: null },
  links: 1,
  warnings: [{ code: 'guard-suspicious', message: 'the guard fails often', since: 0 }],
}

export const fakeVpn: VpnFacts = {
  state: 'up',
  since: 1_700_000_000_000,
  device: { name: 'shallot0', mtu: 1420, addresses: ['10.83.104.2/30', 'fd73:6861:6c6c:6f74::2/64'] },
  allowed: [
    { ip: '11.0.0.1', protocol: 'tcp', port: 4460, why: 'guard' },
    { ip: '2001:db8::1', protocol: 'tcp', port: 4460, why: 'bootstrap' },
  ],
  serving: [],
  bypass: ['192.0.2.0/24'],
  localNetwork: false,
  dns: { how: 'resolv.conf', servers: ['10.83.104.1'] },
  counts: { packetsIn: 20, packetsOut: 10, bytesIn: 20_000, bytesOut: 1_000, tcpFlows: 3, udpFlows: 2, blocked: 7 },
  problems: [],
}

export const fakeCircuit: CircuitFacts = {
  id: 7,
  state: 'open',
  purpose: 'streams',
  path: (['guard', 'middle', 'exit'] as const).map((position, i) => ({
    id: fakeIds[i]!,
    position,
    address: `127.${i + 1}.0.1:4460`,
    country: ['DE', null, 'NL'][i]!,
    established: true,
    rttMs: 1.5,
  })),
  createdAt: Date.now() - 65_000,
  buildMs: 12.5,
  firstUsedAt: null,
  rttMs: 3.4,
  streams: 1,
  isolation: '0123abcd',
  bytesSent: 100,
  bytesReceived: 20_000,
  closed: null,
  why: [{ position: 'guard', reasons: ['first primary guard'] }],
}

export const fakeStream: StreamFacts = {
  id: 3,
  kind: 'stream',
  target: 'example.com:443',
  circuit: 7,
  isolation: '0123abcd',
  state: 'open',
  openedAt: Date.now() - 1000,
  closedAt: null,
  end: null,
  bytesSent: 100,
  bytesReceived: 20_000,
}

export const fakeRelay: RelayFacts = {
  id: fakeIds[2]!,
  roles: ['middle', 'exit'],
  addresses: ['/ip4/127.3.0.1/tcp/4460'],
  country: 'NL',
  reach: 'direct',
  eligible: false,
  notEligible: ['known for too short a time'],
  bandwidth: 1_000_000,
  weight: 500_000,
  firstSeenAt: Date.now() - 90_000,
  publishedAt: 0,
  expiresAt: 0,
  software: 'shallot 0.1.0',
  exitPorts: '1-65535',
  family: [],
}

export const fakeTraffic: TrafficSample = {
  at: 1_700_000_000_000,
  sent: 10,
  received: 2_000,
  rttMs: 3.4,
  circuitsBuilt: 1,
  circuitsFailed: 0,
  streamsOpen: 1,
  cells: 0,
  circuitsServed: 0,
  exitBytesIn: 0,
  exitBytesOut: 0,
  queuedBytes: 0,
  rssBytes: 90_000_000,
}

/** A node that only remembers what it was asked. */
export class FakeNode implements NodeControl {
  readonly id = fakeStatus.id
  readonly asked: string[] = []
  readonly #listeners = new Set<(event: NodeEvent) => void>()
  readonly #stopped = Promise.withResolvers<Error | null>()
  readonly stopped = this.#stopped.promise
  /** Thrown by newCircuit and reach when set. */
  failure: Error | null = null
  /** What `nat` says: nothing, as of a pure client. */
  natFacts: NatFacts | null = null
  /** What `vpn` says. */
  vpnFacts: VpnFacts | null = null
  /** The signal of the last `reach`. */
  reaching: AbortSignal | null = null

  get listeners(): number {
    return this.#listeners.size
  }

  status(): NodeStatus {
    return fakeStatus
  }
  circuits(why: boolean): readonly CircuitFacts[] {
    this.asked.push(`circuits ${why}`)
    return [{ ...fakeCircuit, why: why ? fakeCircuit.why : null }]
  }
  relays(role?: ServingRole): readonly RelayFacts[] {
    this.asked.push(`relays ${role}`)
    return [fakeRelay]
  }
  relay(id: NodeId): RelayFacts | null {
    return id === fakeRelay.id ? fakeRelay : null
  }
  relayPage(query: RelayQuery): RelayPage {
    this.asked.push(`relayPage ${JSON.stringify(query)}`)
    const { id, roles, country, eligible, weight, software, firstSeenAt } = fakeRelay
    return { total: 1, relays: [{ id, roles, country, eligible, weight, software, firstSeenAt }], next: null }
  }
  networkSummary(): NetworkSummary {
    return { roles: [], countries: [], versions: [], history: [] }
  }
  streams(recent = false): readonly StreamFacts[] {
    return recent ? [fakeStream, { ...fakeStream, id: 2, state: 'closed', closedAt: Date.now(), end: 'done' }] : [fakeStream]
  }
  traffic(): readonly TrafficSample[] {
    return [fakeTraffic]
  }
  async pingCircuit(id: number): Promise<CircuitFacts | null> {
    this.asked.push(`pingCircuit ${id}`)
    return id === fakeCircuit.id ? fakeCircuit : null
  }
  closeCircuit(id: number): CircuitFacts | null {
    this.asked.push(`closeCircuit ${id}`)
    return id === fakeCircuit.id ? fakeCircuit : null
  }
  closeStream(id: number): StreamFacts | null {
    this.asked.push(`closeStream ${id}`)
    return id === fakeStream.id ? fakeStream : null
  }
  readonly book = new LogBook()
  readonly logs: NodeLogs = { ...noLogs(), page: (query) => this.book.page(query), follow: (listener) => this.book.follow(listener) }
  /** What `settings` and the acts on it say. */
  settingsFacts: SettingsFacts = { file: '/x/shallot.toml', writable: true, sections: [] }
  async settings(): Promise<SettingsFacts> {
    return this.settingsFacts
  }
  async changeSettings(change: SettingsChange): Promise<SettingsChanged> {
    if (this.failure) throw this.failure
    this.asked.push(`changeSettings ${JSON.stringify(change)}`)
    return { changed: Object.keys(change.set), applied: [], restart: Object.keys(change.set) }
  }
  async reload(): Promise<SettingsChanged> {
    this.asked.push('reload')
    return { changed: [], applied: [], restart: [] }
  }
  nat(): NatFacts | null {
    return this.natFacts
  }
  async reach(peer: NodeId, signal: AbortSignal): Promise<ReachFacts> {
    if (this.failure) throw this.failure
    this.asked.push(`reach ${peer}`)
    this.reaching = signal
    return { peer, how: 'punched-tcp', reachedMs: 120, upgradedMs: 480, steps: ['reached through a relay', 'punched by TCP'] }
  }
  async newCircuit(): Promise<CircuitFacts> {
    if (this.failure) throw this.failure
    this.asked.push('newCircuit')
    return fakeCircuit
  }
  /** Ends the sessions that were asked for. */
  endSessions: () => void = () => {}
  async vpnSession(request: VpnSessionRequest): Promise<VpnSession> {
    this.asked.push(`vpnSession ${request.descriptor}`)
    const ended = Promise.withResolvers<void>()
    this.endSessions = ended.resolve
    return {
      ended: ended.promise,
      close: () => {
        this.asked.push('vpnSession closed')
        ended.resolve()
      },
    }
  }
  vpn(): VpnFacts | null {
    return this.vpnFacts
  }
  async vpnUp(): Promise<VpnFacts> {
    if (this.failure) throw this.failure
    this.asked.push('vpnUp')
    this.vpnFacts = fakeVpn
    return fakeVpn
  }
  async vpnDown(): Promise<VpnFacts> {
    if (this.failure) throw this.failure
    this.asked.push('vpnDown')
    this.vpnFacts = { ...fakeVpn, state: 'down', device: null, allowed: [], dns: null, counts: null }
    return this.vpnFacts
  }
  async ready(): Promise<void> {}
  subscribe(listener: (event: NodeEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
  emit(event: NodeEvent): void {
    for (const listener of this.#listeners) listener(event)
  }
  drainOnStopMs = 0
  drain({ limitMs = 600_000 }: { readonly limitMs?: number } = {}): DrainFacts {
    return { since: 1_700_000_000_000, until: 1_700_000_000_000 + limitMs, circuitsLeft: 3 }
  }

  async stop(): Promise<void> {
    this.asked.push('stop')
    this.#stopped.resolve(null)
  }
}
