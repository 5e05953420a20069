import { connect as connectSocket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type NodeId, nodeIdFromKey, ShallotError, silentLogger } from '../../src/base/index.ts'
import { type CircuitEnd, type CircuitHop, type LivenessOptions, OwnCircuit } from '../../src/client/index.ts'
import { type CryptoSuite, chooseSuite } from '../../src/crypto/index.ts'
import { parseRules, signDescriptor, testnetRules, View, WORK_NONCE_BYTES, workPeriod } from '../../src/directory/index.ts'
import { BatchPool, ByteMeter, type CellChannel, type ChannelDialer, memoryChannelPair } from '../../src/link/index.ts'
import { createClientCircuit, OnionKeyring, PACKET_VERSION } from '../../src/onion/index.ts'
import { ExitRefusal, type ExitService, RelayEngine, type RelayingConfig, relayingConfig } from '../../src/relaying/index.ts'

export const suite: CryptoSuite = chooseSuite('auto').suite

/** A relay engine joined to others by memory channels. */
export interface MemoryRelay {
  readonly id: NodeId
  readonly engine: RelayEngine
  readonly meter: ByteMeter
  readonly keyring: OnionKeyring
  readonly seed: Uint8Array
  readonly isExit: boolean
  readonly hop: CircuitHop
}

export interface MemoryMeshOptions {
  readonly relays?: number
  /** How many of the relays, from the last, are exits: one when not given. */
  readonly exits?: number
  readonly config?: Partial<RelayingConfig>
  /** The exit service of the last relay; the default connects to 127.0.0.1 whatever the name. */
  readonly exit?: ExitService
  /** Which relays are in everybody's view; all when not given. */
  readonly known?: (index: number) => boolean
  readonly servesClients?: boolean
  /** Monotonic ms; the real time when not given. `slowTime` where packets must not grow stale on a busy machine. */
  readonly now?: () => number
  /** Which exits (by index of the relay) say in their descriptors that they serve raw packets; none when not given. */
  readonly servesPackets?: (index: number) => boolean
}

/** A hundredth of the real time. */
export const slowTime = (): number => performance.now() / 100

/** Relays in one process without a network, for tests of the engine and of the client's driver. */
export class MemoryMesh {
  readonly relays: MemoryRelay[] = []
  readonly clientId = nodeIdFromKey(suite.ed25519.keyPair().publicKey)
  readonly clientMeter = new ByteMeter()
  /** Every channel that was opened, by the dialling side. */
  readonly channels: { from: NodeId; to: NodeId; near: CellChannel; far: CellChannel }[] = []
  readonly #options: MemoryMeshOptions
  readonly #now: () => number

  constructor(options: MemoryMeshOptions = {}) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
    const count = options.relays ?? 3
    for (let index = 0; index < count; index++) this.relays.push(this.#relay(index >= count - (options.exits ?? 1)))
  }

  dialer(from: NodeId, meter: ByteMeter): ChannelDialer {
    return {
      openChannel: async (id) => {
        const relay = this.relays.find((one) => one.id === id)
        if (!relay) throw new ShallotError('connect-failed', 'no such relay', { kind: 'link', retry: 'later' })
        const [near, far] = memoryChannelPair({ peers: [id, from], meters: [meter, relay.meter] })
        this.channels.push({ from, to: id, near, far })
        if (!relay.engine.accept(far)) far.abort()
        return near
      },
    }
  }

  /** A view that knows all the relays, each in a /16 of its own, with clients welcome at every relay that is no exit. */
  view(): View {
    const rules = parseRules({ ...testnetRules, work: { bits: 0 } })
    const view = new View({ suite, rules })
    for (const relay of this.relays) this.announce(view, relay, 1)
    return view
  }

  /** Adds an edition of the relay's descriptor to a view of `view()`. */
  announce(view: View, relay: MemoryRelay, sequence: number, leaving = false): void {
    const { seed, keyring, isExit } = relay
    const index = this.relays.indexOf(relay)
    const now = Date.now()
    const host = `127.${index + 10}.0.1`
    const signed = signDescriptor(suite, seed, {
      sequence,
      publishedAt: now,
      expiresAt: now + 600_000,
      onionKey: keyring.current,
      addresses: [`/ip4/${host}/tcp/4000`, `/ip4/${host}/tcp/4000/tls`],
      reach: { kind: 'direct' },
      roles: isExit ? ['exit'] : ['guard', 'middle'],
      exitPolicy: isExit ? { ipv4: [{ from: 1, to: 65_535 }], ipv6: [] } : null,
      bandwidth: 1_000_000,
      family: [],
      protocols: { circuit: [1], link: [1], packet: isExit && this.#options.servesPackets?.(index) ? [PACKET_VERSION] : [] },
      leaving,
      software: 'shallot test',
      work: { period: workPeriod(now, view.rules.work.periodMs), nonce: new Uint8Array(WORK_NONCE_BYTES) },
    })
    const result = view.add(signed.bytes, now)
    if (result.type !== 'added' && result.type !== 'replaced') throw new Error(`descriptor not added: ${JSON.stringify(result)}`)
  }

  /** A circuit through the relays (all of them, in order, when not given). */
  async circuit(
    path: readonly MemoryRelay[] = this.relays,
    closed: (end: CircuitEnd) => void = () => {},
    liveness: LivenessOptions = { probeAfterMs: 60_000, probeTimeoutMs: 60_000 },
  ): Promise<OwnCircuit> {
    const channel = await this.dialer(this.clientId, this.clientMeter).openChannel(path[0]!.id, [], new AbortController().signal)
    const memory = new BatchPool(true)
    const circuit = new OwnCircuit({
      machine: createClientCircuit({ suite, memory }),
      channel,
      memory,
      now: this.#now,
      logger: silentLogger,
      liveness,
      streamEnded: () => {},
      doubted: () => {},
      closed,
    })
    for (const relay of path) await circuit.extend(relay.hop)
    return circuit
  }

  stop(): void {
    for (const { engine } of this.relays) engine.stop()
  }

  #relay(isExit: boolean): MemoryRelay {
    const seed = suite.random(32)
    const key = suite.ed25519.keyPair(seed).publicKey
    const id = nodeIdFromKey(key)
    const meter = new ByteMeter()
    const keyring = OnionKeyring.create(suite, key, Date.now())
    const known = this.#options.known ?? (() => true)
    const engine = new RelayEngine({
      config: relayingConfig.parse(this.#options.config ?? {}),
      self: id,
      suite,
      keyring,
      directory: { addressesOf: (wanted) => (this.relays.some((relay, i) => relay.id === wanted && known(i)) ? [] : null) },
      dialer: this.dialer(id, meter),
      memory: new BatchPool(true),
      meter,
      exit: isExit ? (this.#options.exit ?? loopbackExit) : null,
      servesClients: this.#options.servesClients ?? true,
      now: this.#now,
      logger: silentLogger,
    })
    return { id, engine, meter, keyring, seed, isExit, hop: { id, onionKey: keyring.current, addresses: [] } }
  }
}

/** An exit without policy that only ever reaches this machine. */
export const loopbackExit: ExitService = {
  openCircuit: () => ({
    connect: ({ port }, signal) =>
      new Promise((resolve, reject) => {
        const socket = connectSocket({ host: '127.0.0.1', port, allowHalfOpen: true, signal })
        socket.once('connect', () => resolve({ socket: socket as Duplex, address: '127.0.0.1' }))
        socket.once('error', reject)
      }),
    resolve: async () => [{ type: 'address', value: '127.0.0.1', ttlSeconds: 60 }],
    openDatagrams: (receive) => ({
      send: (to, bytes) => receive(to, bytes.slice()),
      close: () => {},
    }),
    connectResolver: () => {
      throw new ExitRefusal('not-exit', 'this exit has no resolver')
    },
    openPackets: async () => {
      throw new ExitRefusal('not-exit', 'this exit serves no packets')
    },
    close: () => {},
  }),
}
