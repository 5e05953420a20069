import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { NodeId } from '../../src/base/index.ts'
import { loadConfig } from '../../src/node/config.ts'
import type {
  CircuitFacts,
  NodeStatus,
  RelayFacts,
  RelayPage,
  RelayQuery,
  RoleCounts,
  SettingsChange,
  StreamFacts,
  TrafficSample,
} from '../../src/node/index.ts'
import { LiveConfig } from '../../src/node/live-config.ts'
import { Settings } from '../../src/node/settings.ts'
import { FakeNode, fakeStatus, fakeVpn } from './fake-node.ts'
import { livelyNat, livelyRelays, numbers, servedFacts, summaryOf } from './lively-data.ts'

export interface Liveliness {
  readonly relays: number
  readonly streams: number
  /** Whether it serves others too. */
  readonly serving: boolean
  /** Its folder, for shallot.toml. */
  readonly dir: string
}

const HOSTS = [
  'example.com:443',
  'news.example.org:443',
  'mirror.example.net:80',
  'git.example.com:22',
  'chat.example.org:443',
  'api.example.net:443',
]
const SUBSYSTEMS = ['link', 'path', 'client', 'discovery', 'ingress.socks', 'vpn']
const MESSAGES = ['circuit built', 'the view is in step', 'a link was opened', 'stream ended', 'a relay was found', 'nothing came in time']
const ROLES = ['guard', 'middle', 'exit', 'relay', 'bootstrap'] as const

/** A node with made-up data that moves: as many relays and streams as a page must bear, the real settings over a file of its own. */
export class LivelyNode extends FakeNode {
  readonly #how: Liveliness
  readonly #random = numbers(7)
  readonly #relays: RelayFacts[]
  readonly #settings: Settings
  readonly #live: LiveConfig
  #circuits: CircuitFacts[] = []
  #streams: StreamFacts[] = []
  #ended: StreamFacts[] = []
  #samples: TrafficSample[] = []
  #nextCircuit = 1
  #nextStream = 1
  #seconds = 0
  readonly #startedAt = Date.now() - 7_500_000
  #draining: NodeStatus['draining'] = null
  #timer: NodeJS.Timeout | null = null

  static async start(how: Liveliness): Promise<LivelyNode> {
    const file = join(how.dir, 'shallot.toml')
    const roles = how.serving ? '["client", "guard", "middle", "exit"]' : '["client"]'
    writeFileSync(file, `[node]\nroles = ${roles}\n${how.serving ? '\n[link]\nlisten = ["/ip4/127.0.0.1/tcp/4460"]\n' : ''}`)
    const bootstrap = '/ip4/198.51.100.1/tcp/4460/p2p/12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw'
    writeFileSync(join(how.dir, 'network.toml'), `name = "example"\nbootstrap = ["${bootstrap}"]\n`)
    return new LivelyNode(how, new LiveConfig(await loadConfig(file)))
  }

  private constructor(how: Liveliness, live: LiveConfig) {
    super()
    this.#how = how
    this.#live = live
    this.#settings = new Settings(live)
    this.#relays = livelyRelays(how.relays, this.#random)
    this.natFacts = how.serving ? livelyNat(this.#relays) : null
    this.vpnFacts = { ...fakeVpn, state: 'down', device: null, allowed: [], dns: null, counts: null }
    for (let i = 0; i < 5; i++) this.#build()
    for (let i = 0; i < how.streams; i++) this.#open(Date.now() - 600_000 + Math.floor((i * 590_000) / how.streams))
    const now = Date.now()
    for (let i = 600; i > 0; i--) this.#samples.push(this.#sample(now - i * 1000))
    for (let i = 60; i > 0; i--) this.#log(now - i * 7000)
  }

  /** Moves on once a second until it is stopped. */
  begin(): void {
    this.#timer = setInterval(() => this.tick(), 1000)
  }

  end(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
  }

  /** A second passes. */
  tick(): void {
    const at = Date.now()
    this.#seconds += 1
    this.#streams = this.#streams.map((stream) => ({
      ...stream,
      bytesReceived: stream.bytesReceived + Math.floor(this.#random() * 20_000),
      bytesSent: stream.bytesSent + Math.floor(this.#random() * 900),
    }))
    const churn = Math.ceil(this.#how.streams / 50)
    for (let i = 0; i < churn; i++) {
      // Some of the oldest end, and some that have just begun.
      const [ended] = this.#streams.splice(i % 2 === 0 ? 0 : Math.max(0, this.#streams.length - 4), 1)
      const failed = i % 4 === 3 && this.#seconds % 2 === 0
      if (ended !== undefined && i < 20) this.#tellEnded(failed ? { ...ended, end: 'timeout', bytesReceived: 0 } : ended)
      const opened = this.#open(at)
      if (i < 20) this.emit({ type: 'stream-open', at, stream: opened })
    }
    if (churn > 20) this.emit({ type: 'streams', at, open: this.#streams.length, untold: (churn - 20) * 2 })
    this.#circuits = this.#circuits.map((circuit) => ({
      ...circuit,
      bytesReceived: circuit.bytesReceived + 30_000,
      bytesSent: circuit.bytesSent + 2_000,
    }))
    const sample = this.#sample(at)
    this.#samples = [...this.#samples.slice(-599), sample]
    this.emit({ type: 'traffic', at, traffic: sample })
    const i = this.#seconds % this.#relays.length
    this.#relays[i] = { ...this.#relays[i]!, weight: this.#relays[i]!.weight * 1.01 }
    this.emit({ type: 'view', at, known: this.#relays.length, eligible: this.#relays.filter(({ eligible }) => eligible).length })
    this.#log(at)
  }

  override status(): NodeStatus {
    const count = (of: readonly RelayFacts[]): RoleCounts => ({
      total: of.length,
      ...(Object.fromEntries(ROLES.map((role) => [role, of.filter(({ roles }) => roles.includes(role)).length])) as Omit<
        RoleCounts,
        'total'
      >),
    })
    return {
      ...fakeStatus,
      ...(this.#how.serving ? servedFacts(this.#seconds) : {}),
      draining: this.#draining,
      startedAt: this.#startedAt,
      uptimeMs: Date.now() - this.#startedAt,
      network: { name: 'example', changes: [], bootstrap: [], signature: { publisher: 'c9'.repeat(32), issued: '2026-11-02T09:00:00Z' } },
      view: {
        known: count(this.#relays),
        eligible: count(this.#relays.filter(({ eligible }) => eligible)),
        syncedAt: Date.now() - 4000,
        refused: { future: 0, expired: 0 },
      },
      client: {
        circuitsOpen: this.#circuits.length,
        circuitsBuilding: 0,
        circuitsBuilt: 212 + this.#seconds,
        circuitsFailed: 3,
        streamsOpen: this.#streams.length,
        streamsOpened: 4180 + this.#nextStream,
        streamsFailed: 12,
        bytesSent: 41_000_000,
        bytesReceived: 1_910_000_000,
      },
      warnings: this.#how.serving
        ? [
            {
              code: 'clock-skew',
              message: 'The clock of this machine is 41 s behind that of its peers; set it by NTP.',
              since: Date.now() - 900_000,
            },
          ]
        : [],
    }
  }
  override circuits(why: boolean): readonly CircuitFacts[] {
    return this.#circuits.map((circuit) => ({ ...circuit, why: why ? circuit.why : null }))
  }
  override streams(recent = false): readonly StreamFacts[] {
    return recent ? [...this.#ended, ...this.#streams] : this.#streams
  }
  override traffic(): readonly TrafficSample[] {
    return this.#samples
  }
  override relay(id: NodeId): RelayFacts | null {
    return this.#relays.find((relay) => relay.id === id) ?? null
  }
  override relayPage({ role, country, after, limit = 1000 }: RelayQuery): RelayPage {
    const fitting = this.#relays.filter(
      (relay) =>
        (role === undefined || relay.roles.includes(role)) &&
        (country === undefined || (relay.country ?? '??') === country) &&
        (after === undefined || relay.id > after),
    )
    const relays = fitting.slice(0, limit).map(({ id, roles, country: at, eligible, weight, software, firstSeenAt }) => ({
      id,
      roles,
      country: at,
      eligible,
      weight,
      software,
      firstSeenAt,
    }))
    return { total: fitting.length, relays, next: fitting.length > limit ? relays.at(-1)!.id : null }
  }
  override networkSummary() {
    return summaryOf(this.#relays)
  }
  override closeCircuit(id: number): CircuitFacts | null {
    const found = this.#circuits.find((circuit) => circuit.id === id) ?? null
    this.#circuits = this.#circuits.filter((circuit) => circuit !== found)
    if (found)
      this.emit({
        type: 'circuit-closed',
        at: Date.now(),
        circuit: { ...found, state: 'closed', closed: { reason: 'requested', hop: null } },
      })
    return found
  }
  override async pingCircuit(id: number): Promise<CircuitFacts | null> {
    this.asked.push(`ping ${id}`)
    const found = this.#circuits.find((circuit) => circuit.id === id)
    if (!found) return null
    const path = found.path.map((hop, i) => ({ ...hop, rttMs: Math.round(i * 34 + 18 + this.#random() * 22) }))
    const measured = { ...found, path, rttMs: path.at(-1)!.rttMs }
    this.#circuits = this.#circuits.map((circuit) => (circuit === found ? measured : circuit))
    return measured
  }
  override closeStream(id: number): StreamFacts | null {
    const found = this.#streams.find((stream) => stream.id === id) ?? null
    this.#streams = this.#streams.filter((stream) => stream !== found)
    return found
  }
  override async newCircuit(): Promise<CircuitFacts> {
    if (this.failure) throw this.failure
    this.asked.push('newCircuit')
    this.#circuits = this.#circuits.filter(({ streams }) => streams > 0).map((one) => ({ ...one, state: 'retired' }))
    for (const one of this.#circuits) this.emit({ type: 'circuit-retired', at: Date.now(), circuit: one })
    const circuit = { ...this.#build(), streams: 0, isolation: null }
    this.#circuits[this.#circuits.length - 1] = circuit
    this.emit({ type: 'circuit-open', at: Date.now(), circuit })
    return circuit
  }
  /** A stream begins; it is told, unless there were too many at once. */
  openStream(facts: Partial<StreamFacts>, told = true): StreamFacts {
    const stream = { ...this.#open(Date.now()), ...facts }
    this.#streams[this.#streams.length - 1] = stream
    if (told) this.emit({ type: 'stream-open', at: Date.now(), stream })
    return stream
  }
  /** What no event tells. @param facts null: it has ended */
  changeStream(id: number, facts: Partial<StreamFacts> | null): void {
    this.#streams = this.#streams.flatMap((stream) => (stream.id !== id ? [stream] : facts === null ? [] : [{ ...stream, ...facts }]))
  }
  /** A stream ends, and that is told. */
  endStream(id: number, facts: Partial<StreamFacts> = {}): void {
    const stream = this.closeStream(id)
    if (stream !== null) this.#tellEnded({ ...stream, ...facts })
  }
  override drain() {
    this.asked.push('drain')
    this.#draining = { since: Date.now(), until: Date.now() + 600_000, circuitsLeft: 431 }
    this.emit({ type: 'draining', at: Date.now(), until: this.#draining.until })
    return this.#draining
  }
  override settings() {
    return this.#settings.facts()
  }
  override async reload() {
    const changed = await this.#settings.reload()
    this.emit({ type: 'settings', at: Date.now(), settings: changed })
    return changed
  }
  override async changeSettings(change: SettingsChange) {
    const changed = await this.#settings.change(change)
    this.asked.push(`changeSettings ${JSON.stringify(change.set)}`)
    this.emit({ type: 'settings', at: Date.now(), settings: changed })
    return changed
  }
  #build(): CircuitFacts {
    const { exitCountries } = this.#live.current.path
    const of = (role: 'guard' | 'middle' | 'exit', fits: (relay: RelayFacts) => boolean = () => true): RelayFacts => {
      const all = this.#relays.filter((relay) => relay.eligible && relay.country !== null && relay.roles.includes(role) && fits(relay))
      return all[Math.floor(this.#random() * all.length)]!
    }
    const hops = [
      of('guard'),
      of('middle'),
      of('exit', ({ country }) => exitCountries.length === 0 || exitCountries.includes(country as never)),
    ]
    const circuit: CircuitFacts = {
      id: this.#nextCircuit++,
      state: 'open',
      purpose: 'streams',
      path: hops.map(({ id, country, addresses }, i) => ({
        id,
        position: (['guard', 'middle', 'exit'] as const)[i]!,
        address: `${addresses[0]!.split('/')[2]}:4460`,
        country,
        established: true,
        rttMs: Math.round(i * 34 + 18 + this.#random() * 22),
      })),
      createdAt: Date.now() - Math.floor(this.#random() * 240_000),
      buildMs: 180 + Math.round(this.#random() * 90),
      firstUsedAt: Date.now(),
      rttMs: null,
      streams: 1 + Math.floor(this.#random() * 5),
      isolation: Math.floor(this.#random() * 0xffffffff)
        .toString(16)
        .padStart(8, '0'),
      bytesSent: 300_000,
      bytesReceived: 9_400_000,
      closed: null,
      why: (['guard', 'middle', 'exit'] as const).map((position) => ({
        position,
        reasons:
          position === 'guard' ? ['first primary guard'] : ['drawn by weight', '12 candidates fewer: they share a /16 with the guard'],
      })),
    }
    const measured = { ...circuit, rttMs: circuit.path.at(-1)!.rttMs }
    this.#circuits.push(measured)
    return measured
  }

  #open(openedAt: number): StreamFacts {
    const id = this.#nextStream++
    const open = this.#circuits.filter(({ state }) => state === 'open')
    const circuit = open[id % open.length] ?? this.#build()
    const stream: StreamFacts = {
      id,
      kind: 'stream',
      target: HOSTS[Math.floor(this.#random() * HOSTS.length)]!,
      circuit: circuit.id,
      isolation: circuit.isolation,
      state: 'open',
      openedAt,
      closedAt: null,
      end: null,
      bytesSent: 800 + Math.floor(this.#random() * 4000),
      bytesReceived: Math.floor(this.#random() * 400_000),
    }
    this.#streams.push(stream)
    return stream
  }

  #tellEnded(stream: StreamFacts): void {
    const ended: StreamFacts = { ...stream, state: 'closed', closedAt: Date.now(), end: stream.end ?? 'done' }
    this.#ended = [...this.#ended.slice(-49), ended]
    this.emit({ type: 'stream-closed', at: Date.now(), stream: ended })
  }

  #sample(at: number): TrafficSample {
    const wave = 0.5 + 0.5 * Math.sin(at / 9000) * Math.sin(at / 23_000)
    const noise = 0.75 + this.#random() * 0.5
    const served = this.#how.serving ? 1 : 0
    return {
      at,
      sent: Math.floor(60_000 * wave * noise),
      received: Math.floor(1_400_000 * wave * noise),
      rttMs: this.#circuits.find(({ id }) => id === this.#streams.at(-1)?.circuit)?.rttMs ?? this.#circuits.at(-1)?.rttMs ?? null,
      circuitsBuilt: this.#random() < 0.12 ? 1 + Math.floor(this.#random() * 2) : 0,
      circuitsFailed: this.#random() < 0.012 ? 1 : 0,
      streamsOpen: this.#streams.length,
      cells: served * Math.floor(5200 * (0.6 + wave * 0.4) * noise),
      circuitsServed: served * (410 + Math.floor(40 * wave)),
      exitBytesIn: served * Math.floor(2_100_000 * wave * noise),
      exitBytesOut: served * Math.floor(180_000 * wave * noise),
      queuedBytes: served * Math.floor(7_000_000 * wave),
      rssBytes: 118_000_000 + Math.floor(9_000_000 * wave),
    }
  }

  #log(at: number): void {
    const n = Math.floor(this.#random() * MESSAGES.length)
    const level = (['debug', 'info', 'info', 'info', 'warn'] as const)[Math.floor(this.#random() * 5)]!
    const line = { at, level, sub: SUBSYSTEMS[n]!, message: MESSAGES[n]!, fields: { ms: Math.floor(this.#random() * 900) } }
    this.book.add(line, 80)
  }
}
