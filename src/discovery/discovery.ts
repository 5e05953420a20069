import { setImmediate as nextTurn } from 'node:timers/promises'
import { messageOf, type NodeId, parseNodeId, shuffle } from '../base/index.ts'
import { encodeSnapshot, type PullOutcome, type RestoreReport, type SignedDescriptor, SnapshotRestore } from '../directory/index.ts'
import { Bans, PAUSE_MS } from './bans.ts'
import { BootstrapTurns } from './bootstrap-turns.ts'
import { DhtRecords } from './dht.ts'
import type { DiscoveryModules, DiscoveryOptions, DiscoveryState, DiscoveryStatus } from './discovery-types.ts'
import { Gossip } from './gossip.ts'
import { libp2pAddresses, type PeerSource, Peers } from './peers.ts'
import { Publisher } from './publisher.ts'
import { ViewSync } from './view-sync.ts'

/** The file the view is kept in. */
export const VIEW_STATE = 'view'
/** Rounds without news after which a node has joined for good and asks less often. */
const QUIET_ROUNDS = 2
/** How long after its start a fresh node takes others' word on ages. */
const HEARSAY_MS = 10 * 60_000
/** While nobody shows the way in, the pause between rounds is doubled up to this many times its length. */
const LONGEST_PAUSE = 8
/** Relays of an expired view that are looked up in the DHT, or asked, in one round. */
const STALE_SOURCES = 3
/** Entries of the stored view restored in one turn of the event loop: at 0.25 ms for a signature, 13 ms. */
const RESTORE_ENTRIES = 50

/** Finds the network, keeps the view fresh, and makes a serving node known. Built inert; `start` and `stop` once each. */
export class Discovery {
  readonly #options: DiscoveryOptions
  readonly #modules: DiscoveryModules
  readonly #self: NodeId
  readonly #bans: Bans
  readonly #turns: BootstrapTurns
  /** Whom the source whose turn it is gave for this round; null when it was not asked. */
  #turn: readonly PeerSource[] | null = null
  #isBetweenTurns = false
  readonly #peers: Peers
  readonly #sync: ViewSync
  readonly #gossip: Gossip | null
  readonly #publisher: Publisher | null
  readonly #records: DhtRecords | null
  readonly #closing = new AbortController()
  readonly #pulls: Record<PeerSource['from'], { complete: number; failed: number; news: number }>
  #state: DiscoveryState = 'stopped'
  #restored: RestoreReport | null = null
  #startedAt = 0
  #lastSyncAt: number | null = null
  #quietRounds = 0
  /** Client: rounds in a row in which no guard answered. */
  #guardlessRounds = 0
  #savedVersion = -1
  /** The view holds a part of what the disk has. */
  #restoring = false
  #announcing = false
  #dhtMode: Promise<void> = Promise.resolve()
  #loop: Promise<void> | null = null
  #wakeLoop: (() => void) | null = null
  #timers: NodeJS.Timeout[] = []
  readonly #joined = Promise.withResolvers<void>()

  constructor(options: DiscoveryOptions, modules: DiscoveryModules) {
    const { rules, config, serving } = options
    const { host, view, suite, random, logger, now } = modules
    this.#options = options
    this.#modules = modules
    this.#self = parseNodeId(host.peerId.toString())
    this.#bans = new Bans(Math.min(PAUSE_MS, rules.spread.syncMs))
    const bootstrap = options.bootstrap ?? [{ name: 'network.toml', addresses: rules.bootstrap }]
    this.#turns = new BootstrapTurns(bootstrap, this.#self, random)
    const peers = new Peers(host, config.dialTimeoutMs)
    this.#peers = peers
    this.#sync = new ViewSync({ host, peers, view, suite, random, logger, now })
    this.#publisher = serving
      ? new Publisher(
          { rules, seed: serving.seed, workShare: config.workShare, fields: serving.fields, publish: (signed) => this.#published(signed) },
          { suite, store: modules.store, logger, now },
        )
      : null
    this.#gossip = this.#publisher
      ? new Gossip(
          { links: rules.spread.gossipPeers, rotateMs: rules.spread.gossipRotateMs },
          { host, peers, view, self: this.#self, own: () => this.#publisher?.current ?? null, bans: this.#bans, random, logger, now },
        )
      : null
    this.#records = serving && modules.dht ? new DhtRecords(modules.dht, config.dhtTimeoutMs) : null
    const none = () => ({ complete: 0, failed: 0, news: 0 })
    this.#pulls = { bootstrap: none(), view: none(), stale: none(), guard: none(), connection: none() }
    this.#joined.promise.catch(() => {})
  }

  /** Reads the stored view, begins to serve (serving nodes) and to join. Resolves before the node has joined: see `whenJoined`. */
  async start(): Promise<void> {
    const { view, logger, now } = this.#modules
    this.#startedAt = now()
    this.#state = 'joining'
    this.#restored = await this.#restore()
    if (this.#closing.signal.aborted) return
    if (this.#restored)
      logger.info('view read from disk', { relays: view.size, expired: this.#restored.expired, damaged: this.#restored.damaged })
    this.#savedVersion = view.version
    if (this.#publisher) {
      await this.#setDhtMode()
      await this.#sync.serve()
      await this.#gossip?.start()
      await this.#publisher.start()
    }
    const { lifetimeMs } = this.#options.rules.descriptors
    this.#every(Math.min(30_000, Math.max(1_000, lifetimeMs / 20)), () => {
      view.expire(now())
      if (now() - this.#startedAt > HEARSAY_MS) view.ages.closeHearsay()
    })
    this.#every(this.#options.config.saveMs, () => void this.save())
    this.#loop = this.#run().catch((error) => logger.error('the search for the network broke off', { problem: messageOf(error) }))
  }

  /** Ends everything and writes the view. */
  async stop(): Promise<void> {
    if (this.#state === 'stopped') return
    this.#state = 'stopped'
    this.#closing.abort(new Error('shutting down'))
    this.#joined.reject(this.#closing.signal.reason)
    for (const timer of this.#timers) clearInterval(timer)
    this.#wakeLoop?.()
    await this.#loop
    await this.#dhtMode
    await this.#publisher?.stop()
    await this.#gossip?.stop()
    await this.#sync.stop()
    await this.save()
  }

  get state(): DiscoveryState {
    return this.#state
  }

  get status(): DiscoveryStatus {
    const { view, dht, now } = this.#modules
    return {
      mode: this.#publisher ? 'server' : 'client',
      state: this.#state,
      relays: view.size,
      reserve: view.reserveSize,
      lastSyncAt: this.#lastSyncAt,
      pulls: this.#pulls,
      gossipLinks: this.#gossip?.links.length ?? 0,
      banned: this.#bans.banned(now()).length,
      own: this.#publisher?.status ?? null,
      dhtPeers: dht ? (dht as unknown as { routingTable: { size: number } }).routingTable.size : null,
      restored: this.#restored,
    }
  }

  /** The own descriptor, or null (a client, or no proof of work yet). */
  get own(): SignedDescriptor | null {
    return this.#publisher?.current ?? null
  }

  /** Resolves when the view has been compared with another node's, or there is nobody to ask. @throws the signal's reason, or on `stop` */
  async whenJoined(signal?: AbortSignal): Promise<void> {
    if (!signal) return this.#joined.promise
    signal.throwIfAborted()
    const aborted = Promise.withResolvers<never>()
    const abort = (): void => aborted.reject(signal.reason)
    signal.addEventListener('abort', abort)
    try {
      await Promise.race([this.#joined.promise, aborted.promise])
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  /** Something in the own descriptor's fields has changed, how the node is reached among them. */
  changed(): void {
    if (this.#state === 'stopped') return
    this.#publisher?.changed()
    void this.#setDhtMode()
  }

  /** Whom nobody can dial has no place in others' routing tables: only a node that is reached directly serves the DHT, the others ask it. */
  #setDhtMode(): Promise<void> {
    const { dht, logger } = this.#modules
    const { serving } = this.#options
    if (!dht || !serving) return Promise.resolve()
    // One after the other: the service mixes up changes that overlap.
    this.#dhtMode = this.#dhtMode
      .then(() => (this.#state === 'stopped' ? undefined : dht.setMode(serving.fields()?.reach.kind === 'direct' ? 'server' : 'client')))
      .catch((error) => logger.warn('the mode of the DHT could not be changed', { problem: messageOf(error) }))
    return this.#dhtMode
  }

  /** Asks for news soon: paths can't be built from what is known. */
  refresh(): void {
    this.#quietRounds = 0
    this.#wakeLoop?.()
  }

  /** A descriptor that came as a DHT record: hand it to `dhtService({ received })`. */
  received(bytes: Uint8Array): void {
    if (this.#state === 'stopped') return
    const result = this.#modules.view.add(bytes, this.#modules.now())
    if (result.type === 'added' || result.type === 'replaced') this.#gossip?.spread(result.entry.id)
  }

  /** Writes the view to disk if it has changed. */
  async save(): Promise<void> {
    const { view, suite, store, logger, now } = this.#modules
    if (view.version === this.#savedVersion || this.#restoring) return
    const { version } = view
    try {
      await store.write(VIEW_STATE, encodeSnapshot(suite, view, now()))
      this.#savedVersion = version
    } catch (error) {
      logger.warn('the view could not be written', { problem: messageOf(error) })
    }
  }

  /** Reads the stored view, with turns of the event loop in between: other work goes on. Null when there is none, or on `stop`. */
  async #restore(): Promise<RestoreReport | null> {
    const { view, suite, store, now } = this.#modules
    const restore = await store.loadState(VIEW_STATE, (bytes) => new SnapshotRestore(suite, view, bytes, now()))
    if (restore === null) return null
    this.#restoring = true
    for (;;) {
      const report = restore.step(RESTORE_ENTRIES)
      if (report !== null) {
        this.#restoring = false
        return report
      }
      await nextTurn()
      if (this.#closing.signal.aborted) return null
    }
  }

  #every(ms: number, task: () => void): void {
    const timer = setInterval(task, ms)
    timer.unref()
    this.#timers.push(timer)
  }

  #published(signed: SignedDescriptor): void {
    const { view, logger, now } = this.#modules
    const result = view.add(signed.bytes, now())
    if (result.type === 'older') {
      // An older life of this node, with a clock ahead, is still about.
      this.#publisher?.noteSequence(view.get(signed.descriptor.id)?.descriptor.sequence ?? 0)
      return
    }
    if (result.type === 'refused')
      logger.warn('the own descriptor would be refused by everybody', { reason: result.reason, problem: result.detail })
    this.#gossip?.spread(signed.descriptor.id)
    this.#gossip?.check()
    void this.#announce()
  }

  /** Puts the own descriptor into the DHT, once somebody is there to hold it. */
  async #announce(): Promise<void> {
    const own = this.#publisher?.current
    if (!own || !this.#records || this.#announcing || this.status.dhtPeers === 0) return
    this.#announcing = true
    try {
      const taken = await this.#records.put(own.descriptor.id, own.bytes, this.#closing.signal)
      this.#modules.logger.debug('own descriptor put into the DHT', { peers: taken })
    } catch (error) {
      this.#modules.logger.debug('own descriptor not put into the DHT', { problem: messageOf(error) })
    } finally {
      this.#announcing = false
    }
  }

  async #run(): Promise<void> {
    const { spread } = this.#options.rules
    const { signal } = this.#closing
    let isAnnounced = false
    while (!signal.aborted) {
      await this.#round(signal)
      if (signal.aborted) return
      this.#gossip?.check()
      if (!isAnnounced && this.own && this.status.dhtPeers) {
        isAnnounced = true
        void this.#announce()
      }
      // The next source is asked at once.
      if (this.#isBetweenTurns) continue
      const isQuiet = this.#quietRounds >= QUIET_ROUNDS
      if (isQuiet && this.#savedVersion < 0) void this.save()
      const joinPause = Math.min(spread.syncMs, spread.joinSyncMs * Math.min(LONGEST_PAUSE, 2 ** this.#turns.rounds))
      // A fifth either way, so that nodes don't fall into step.
      await this.#pause((isQuiet ? spread.syncMs : joinPause) * (0.8 + 0.4 * this.#modules.random.unit()))
    }
  }

  /** Asks some peers for what they know. */
  async #round(signal: AbortSignal): Promise<void> {
    const { view, now } = this.#modules
    this.#turn = null
    const sources = this.#sources()
    const before = view.version
    const outcomes = await Promise.all(
      sources.map(async (source) => {
        const outcome = await this.#sync.pull(source, { ages: view.ages.wantsHearsay }, signal)
        if (!signal.aborted) this.#note(source, outcome)
        return outcome
      }),
    )
    if (signal.aborted) return
    const isComplete = outcomes.some(({ end }) => end === 'complete')
    this.#noteTurn(sources, outcomes, isComplete)
    if (!this.#publisher) this.#guardlessRounds = isComplete && sources[0]?.from === 'guard' ? 0 : this.#guardlessRounds + 1
    if (isComplete) this.#lastSyncAt = now()
    const isAlone = sources.length === 0 && this.#publisher !== null && this.#turns.isEmpty
    const hasNews = outcomes.some(({ added, replaced }) => added + replaced > 0) || (isAlone && view.version !== before)
    if (isAlone || (isComplete && view.size > 0)) {
      this.#quietRounds = hasNews ? 0 : this.#quietRounds + 1
      if (this.#state === 'joining') {
        this.#state = 'joined'
        this.#modules.logger.info('joined the network', { relays: view.size })
        this.#joined.resolve()
        void this.save()
      }
    } else {
      this.#quietRounds = 0
      if (view.size === 0 && this.#records) await this.#lookUpStale(signal)
    }
  }

  /** What became of the source whose turn it was, and whether people must know. */
  #noteTurn(sources: readonly PeerSource[], outcomes: readonly PullOutcome[], isComplete: boolean): void {
    const { logger, noWayIn } = this.#modules
    const { rounds } = this.#turns
    this.#isBetweenTurns = false
    if (this.#turn !== null && !this.#turns.isEmpty) {
      const own = outcomes.filter((_, i) => this.#turn!.includes(sources[i]!))
      const answered = own.some(({ end }) => end === 'complete')
      this.#turns.note(this.#turn, answered, own.filter(({ requests }) => requests === 0).length)
      this.#isBetweenTurns = !isComplete && !answered && this.#turns.rounds === rounds
    }
    if (isComplete) noWayIn?.(null)
    else if (this.#turns.rounds > rounds) {
      const why = this.#turns.explain()
      if (rounds === 0) logger.warn('there is no way into the network yet', { why })
      noWayIn?.(why)
    }
  }

  #note(source: PeerSource, outcome: PullOutcome): void {
    const { logger, now } = this.#modules
    const counts = this.#pulls[source.from]
    counts.news += outcome.added + outcome.replaced
    if (outcome.end === 'complete') {
      counts.complete++
      this.#bans.clear(source.id)
    } else {
      counts.failed++
      if (outcome.end === 'violation') this.#bans.ban(source.id, now())
      else if (source.from !== 'bootstrap' && source.from !== 'guard') this.#bans.pause(source.id, now())
      logger.debug('a pull of the view did not complete', { source: source.from, end: outcome.end })
    }
  }

  #sources(): PeerSource[] {
    return this.#publisher ? this.#serverSources() : this.#clientSources()
  }

  /** Who shows the way in while joining, and random relays of the view always. */
  #serverSources(): PeerSource[] {
    const { config } = this.#options
    const isJoining = this.#state === 'joining' || this.#quietRounds < QUIET_ROUNDS
    const most = isJoining ? config.joinPeers : config.syncPeers
    const known = this.#randomRelays(most)
    // Half and half while joining: bootstrap nodes may be gone, and may be all there is.
    const bootstrap = isJoining || known.length === 0 ? this.#bootstrap(Math.max(1, most - known.length, Math.ceil(most / 2))) : []
    return [...bootstrap, ...known.filter(({ id }) => !bootstrap.some((other) => other.id === id))].slice(0, most)
  }

  /** Guards; before there are any, or when the view is lost and no guard answers, whoever shows the way in. */
  #clientSources(): PeerSource[] {
    const { view, now, random } = this.#modules
    const { config, rules } = this.#options
    const guards: PeerSource[] = []
    for (const id of this.#options.peers?.() ?? []) {
      const descriptor = view.get(id)?.descriptor ?? view.stale().find((signed) => signed.descriptor.id === id)?.descriptor
      const addresses = descriptor ? libp2pAddresses(descriptor) : []
      if (addresses.length > 0 && !this.#bans.isBanned(id, now())) guards.push({ id, addresses, from: 'guard' })
    }
    if (guards.length > 0 && (view.size > 0 || this.#guardlessRounds < QUIET_ROUNDS))
      return shuffle(guards, random).slice(0, config.syncPeers)
    // Without guards, a view that was compared lately will do.
    const isFresh = this.#lastSyncAt !== null && now() - this.#lastSyncAt < rules.spread.syncMs
    if (view.size > 0 && isFresh && this.#quietRounds >= QUIET_ROUNDS) return []
    return this.#bootstrap(config.joinPeers)
  }

  /** The source whose turn it is: one of the named, in their order, then what the disk had. */
  #bootstrap(most: number): PeerSource[] {
    const { now } = this.#modules
    const fromDisk = (): PeerSource[] => [...this.#randomRelays(STALE_SOURCES), ...this.#stale()]
    this.#turn = this.#turns.current(most, (id) => !this.#bans.isBanned(id, now()), fromDisk)
    return [...this.#turn]
  }

  #randomRelays(most: number): PeerSource[] {
    const { view, random, now } = this.#modules
    const relays = view.relays()
    const sources = new Map<NodeId, PeerSource>()
    for (let tries = 0; tries < 4 * most && sources.size < most && relays.length > 0; tries++) {
      const { id, descriptor } = relays[random.int(relays.length)]!
      if (id === this.#self || this.#bans.has(id, now())) continue
      const addresses = libp2pAddresses(descriptor)
      if (addresses.length > 0) sources.set(id, { id, addresses, from: 'view' })
      else if (this.#publisher && this.#peers.isConnected(id)) sources.set(id, { id, addresses, from: 'connection' })
    }
    return [...sources.values()]
  }

  /** Relays whose descriptors have expired while this node was away. */
  #stale(): PeerSource[] {
    const { view, random, now } = this.#modules
    const usable = view.stale().filter(({ descriptor }) => descriptor.id !== this.#self && !this.#bans.has(descriptor.id, now()))
    return shuffle([...usable], random)
      .map(({ descriptor }): PeerSource => ({ id: descriptor.id, addresses: libp2pAddresses(descriptor), from: 'stale' }))
      .filter(({ addresses }) => addresses.length > 0)
      .slice(0, STALE_SOURCES)
  }

  /** Nobody gave us a view: perhaps the DHT has fresh descriptors of relays we once knew. */
  async #lookUpStale(signal: AbortSignal): Promise<void> {
    if (!this.status.dhtPeers) return
    for (const { id } of this.#stale()) {
      const bytes = await this.#records?.get(id, signal).catch(() => null)
      if (signal.aborted) return
      if (bytes) this.received(bytes)
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        this.#wakeLoop = null
        resolve()
      }
      const timer = setTimeout(done, ms)
      this.#wakeLoop = done
      if (this.#closing.signal.aborted) done()
    })
  }
}
