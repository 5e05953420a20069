import { ping } from '@libp2p/ping'
import { type Logger, type NodeId, SeededRandom, silentLogger } from '../../src/base/index.ts'
import { nativeSuite } from '../../src/crypto/index.ts'
import { type NetworkRules, type NetworkRulesInput, parseRules, testnetRules, View } from '../../src/directory/index.ts'
import {
  Discovery,
  type DiscoveryStore,
  dhtService,
  discoveryConfig,
  MemoryDiscoveryStore,
  type OwnFields,
} from '../../src/discovery/index.ts'
import { createHost, type Host } from '../../src/link/index.ts'

/** Real libp2p nodes with nothing but discovery, on 127.x.0.1, in this process. */
export interface DiscoveryNode {
  readonly id: NodeId
  readonly seed: Uint8Array
  readonly address: string
  readonly host: Host
  readonly view: View
  readonly discovery: Discovery
  readonly store: MemoryDiscoveryStore
  stop(): Promise<void>
}

export interface NodeOptions {
  readonly rules: NetworkRules
  /** The second byte of its address 127.x.0.1. */
  readonly net: number
  readonly mode?: 'client' | 'server'
  readonly seed?: Uint8Array
  readonly port?: number
  readonly store?: DiscoveryStore & MemoryDiscoveryStore
  readonly peers?: () => readonly NodeId[]
  readonly logger?: Logger
  readonly dht?: boolean
  /** What it says of itself, made from what a direct node would say; null: nothing. */
  /** Wall-clock ms. */
  readonly now?: () => number
  readonly says?: (direct: OwnFields) => OwnFields | null
}

export const meshSuite = nativeSuite()

export function meshRules(changes: NetworkRulesInput = {}): NetworkRules {
  return parseRules({ ...testnetRules, work: { bits: 4 }, ...changes })
}

export async function startNode(options: NodeOptions): Promise<DiscoveryNode> {
  const { rules, mode = 'server', logger = silentLogger, now = Date.now } = options
  const suite = meshSuite
  const seed = options.seed ?? suite.random(32)
  const view = new View({ suite, rules })
  const store = options.store ?? new MemoryDiscoveryStore()
  const isServer = mode === 'server'
  const withDht = isServer && options.dht !== false
  let received: (bytes: Uint8Array) => void = () => {}
  const host = (await createHost({
    key: seed,
    mode,
    listen: isServer ? [`/ip4/127.${options.net}.0.1/tcp/${options.port ?? 0}`] : [],
    services: (withDht
      ? { ping: ping(), dht: dhtService({ rules, view, now, records: 1_024, received: (bytes) => received(bytes) }) }
      : {}) as never,
  })) as Host
  const { says = (direct) => direct } = options
  const fields = (): OwnFields => ({
    onionKey: { x25519: seed },
    addresses: host.addresses(),
    reach: { kind: 'direct' },
    roles: ['guard', 'middle'],
    exitPolicy: null,
    bandwidth: 1_000_000,
    family: [],
    protocols: { circuit: [1], link: [1], packet: [] },
    leaving: false,
    software: 'shallot test',
  })
  const discovery = new Discovery(
    {
      rules,
      config: discoveryConfig.parse({ dialTimeoutMs: 2_000, workShare: 1 }),
      serving: isServer ? { seed, fields: () => says(fields()) } : null,
      ...(options.peers ? { peers: options.peers } : {}),
    },
    {
      host: host.libp2p,
      dht: withDht ? (host.libp2p.services as never as { dht: never }).dht : null,
      view,
      suite,
      random: new SeededRandom(options.net),
      store,
      logger,
      now,
    },
  )
  received = (bytes) => discovery.received(bytes)
  await discovery.start()
  return {
    id: host.id,
    seed,
    address: isServer ? host.addresses()[0]! : '',
    host,
    view,
    discovery,
    store,
    stop: async () => {
      await discovery.stop()
      await host.stop()
    },
  }
}

export function bootstrapAddress(node: DiscoveryNode): string {
  return `${node.address}/p2p/${node.id}`
}

/** Waits until `condition` holds; fails with `what` after `ms`. */
export async function until(what: string, condition: () => boolean, ms = 20_000): Promise<void> {
  const end = performance.now() + ms
  while (!condition()) {
    if (performance.now() > end) throw new Error(`did not happen in ${ms} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
