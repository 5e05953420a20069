import { createHash, type Hash, randomBytes } from 'node:crypto'
import type { Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { type NodeId, parseIp, SeededRandom, silentLogger } from '../../src/base/index.ts'
import { chooseSuite } from '../../src/crypto/index.ts'
import { createHost, defaultLinkLimits, type Host, type LinkLimits, parseTcpAddress } from '../../src/link/index.ts'
import { readMessage, writeMessage } from '../../src/nat/relay/handshake.ts'
import {
  formatRelayedAddress,
  HOP_PROTOCOL,
  type RelayCandidate,
  RelayServer,
  type RelayServerConfig,
  type RelayTransport,
  Reservations,
  type ReservationsConfig,
  relayServerConfig,
  relayTransport,
  reservationsConfig,
} from '../../src/nat/relay/index.ts'
import { decodeHop, decodeStop, encodeHop, encodeStop, type HopMessage, STATUS, STOP_PROTOCOL } from '../../src/nat/relay/messages.ts'

const { suite } = chooseSuite('auto')

export interface TestRelay {
  readonly host: Host
  readonly server: RelayServer
  readonly seed: Uint8Array
  /** May be changed: it is looked at as a node's settings are. */
  readonly config: { -readonly [K in keyof RelayServerConfig]: RelayServerConfig[K] }
  readonly candidate: RelayCandidate
  /** `/ip4/…/tcp/…/p2p/ID` */
  readonly address: string
  /** Nodes that are not in its view. */
  readonly strangers: Set<NodeId>
  readonly state: { isViewReady: boolean; wallOffsetMs: number }
}

export interface TestNode {
  readonly host: Host
  readonly transport: RelayTransport
}

const stops: (() => Promise<unknown>)[] = []
let networks = 10

/** Stops all nodes, the newest first. */
export async function stopRelayedNodes(): Promise<void> {
  for (const stop of stops.splice(0).reverse()) await stop()
}

/** A relay on an address of its own, that knows everybody but `strangers`. */
export async function startRelay(
  config: Partial<RelayServerConfig> = {},
  where: { seed?: Uint8Array; listen?: string } = {},
): Promise<TestRelay> {
  const seed = where.seed ?? randomBytes(32)
  const listen = where.listen ?? `/ip4/127.${networks++}.0.1/tcp/0`
  const host = await createHost({
    key: seed,
    mode: 'server',
    listen: [listen],
    limits: { ...defaultLinkLimits, inboundPerSecondPerAddress: 10_000, maxInboundPerAddress: 10_000 },
  })
  const strangers = new Set<NodeId>()
  const state = { isViewReady: true, wallOffsetMs: 0 }
  const addresses = host.addresses().filter((text) => !text.endsWith('/tls'))
  const values = relayServerConfig.parse(config)
  const server = new RelayServer(values, {
    host,
    suite,
    seed,
    addresses: () => addresses,
    isKnownRelay: (id) => !strangers.has(id),
    isViewReady: () => state.isViewReady,
    logger: silentLogger,
    now: () => performance.now(),
    wall: () => Date.now() + state.wallOffsetMs,
  })
  await server.start()
  let isStopped = false
  const relay: TestRelay = {
    host,
    server,
    seed,
    config: values,
    address: `${addresses[0]}/p2p/${host.id}`,
    candidate: { id: host.id, addresses, ips: [parseIp(parseTcpAddress(addresses[0]!)!.host)], family: [], weight: 1 },
    strangers,
    state,
  }
  stops.push(async () => {
    if (isStopped) return
    isStopped = true
    await server.stop()
    await host.stop()
  })
  return relay
}

/** A node that listens nowhere: it can dial, and be reached through relays. */
export async function startNode(options: { key?: Uint8Array; outboundAddress?: string; limits?: LinkLimits } = {}): Promise<TestNode> {
  const transport = relayTransport()
  const host = await createHost({
    mode: 'server',
    transports: [transport.factory],
    key: options.key ?? randomBytes(32),
    listen: [],
    limits: options.limits ?? defaultLinkLimits,
    ...(options.outboundAddress === undefined ? {} : { outboundAddress: options.outboundAddress }),
  })
  stops.push(() => host.stop())
  return { host, transport }
}

/** A node that keeps reservations with the relays. */
export async function startReserving(
  relays: () => readonly RelayCandidate[],
  config: Partial<ReservationsConfig> = {},
  seed = 1,
  options: Parameters<typeof startNode>[0] = {},
): Promise<TestNode & { reservations: Reservations }> {
  const node = await startNode(options)
  const reservations = new Reservations(reservationsConfig.parse(config), {
    ...node,
    candidates: relays,
    random: new SeededRandom(seed),
    logger: silentLogger,
    now: () => performance.now(),
    wall: () => Date.now(),
  })
  stops.push(() => reservations.stop())
  await reservations.start()
  return { ...node, reservations }
}

/** Through the relay to the node. */
export function relayedAddress(relay: TestRelay, target: NodeId): string {
  return formatRelayedAddress(relay.address, relay.host.id, target)
}

/** A bare HOP stream, before anything was asked. */
export async function hopStream(node: TestNode, relay: TestRelay): Promise<Stream> {
  const connection = await node.host.libp2p.dial(multiaddr(relay.address), { signal: AbortSignal.timeout(5000) })
  return connection.newStream(HOP_PROTOCOL, { signal: AbortSignal.timeout(5000), maxOutboundStreams: 10_000 })
}

/** Asks a relay something over a stream of its own. */
export async function ask(
  node: TestNode,
  relay: TestRelay,
  message: Parameters<typeof encodeHop>[0],
): Promise<{ stream: Stream; answer: HopMessage }> {
  const stream = await hopStream(node, relay)
  writeMessage(stream, encodeHop(message))
  return { stream, answer: decodeHop(await readMessage(stream, AbortSignal.timeout(5000))) }
}

/** Waits for something to be so. */
export async function until(what: string, isSo: () => boolean, ms = 10_000): Promise<void> {
  const end = performance.now() + ms
  while (!isSo()) {
    if (performance.now() > end) throw new Error(`waited ${ms} ms for: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** A node with a reservation that takes what it is brought as bare streams: what a relay does to bytes is seen on them. */
export async function startTarget(
  relay: TestRelay,
  options: { answer?: number; outboundAddress?: string } = {},
): Promise<TestNode & { taken: Stream[]; callers: NodeId[] }> {
  const node = await startNode(options.outboundAddress === undefined ? {} : { outboundAddress: options.outboundAddress })
  const taken: Stream[] = []
  const callers: NodeId[] = []
  await node.host.libp2p.handle(
    STOP_PROTOCOL,
    async (stream) => {
      const request = decodeStop(await readMessage(stream, AbortSignal.timeout(5000)))
      callers.push(request.peer!)
      writeMessage(stream, encodeStop({ type: 'status', status: options.answer ?? STATUS.ok }))
      taken.push(stream)
    },
    { maxInboundStreams: 10_000 },
  )
  const { answer } = await ask(node, relay, { type: 'reserve' })
  if (answer.status !== STATUS.ok) throw new Error(`not reserved: ${answer.status}`)
  return { ...node, taken, callers }
}

/** Two ends of a relayed connection as bare streams, paused. */
export async function connectRaw(
  dialler: TestNode,
  relay: TestRelay,
  target: Awaited<ReturnType<typeof startTarget>>,
): Promise<{ up: Stream; down: Stream }> {
  const before = target.taken.length
  const { stream, answer } = await ask(dialler, relay, { type: 'connect', peer: target.host.id })
  if (answer.status !== STATUS.ok) throw new Error(`not connected: ${answer.status}`)
  await until('the target to be called', () => target.taken.length > before)
  return { up: stream, down: target.taken[before]! }
}

/** Sends as fast as the stream takes it. Resolves when all has been handed over. */
export async function sendAll(stream: Stream, bytes: Uint8Array, piece = 65_536): Promise<void> {
  for (let at = 0; at < bytes.length; at += piece) {
    if (stream.writableNeedsDrain) await new Promise<void>((resolve) => stream.addEventListener('drain', () => resolve(), { once: true }))
    stream.send(bytes.subarray(at, at + piece))
  }
}

/** Collects what a stream brings, and how it ends. */
export function collect(stream: Stream): { bytes: number; hash: Hash; end: 'fin' | 'reset' | null } {
  const seen = { bytes: 0, hash: createHash('sha256'), end: null as 'fin' | 'reset' | null }
  stream.addEventListener('message', (event) => {
    seen.bytes += event.data.byteLength
    seen.hash.update(event.data instanceof Uint8Array ? event.data : event.data.subarray())
  })
  stream.addEventListener('end', () => {
    if (stream.status === 'open' || stream.status === 'closed') seen.end ??= 'fin'
  })
  stream.addEventListener('close', () => {
    if (stream.status !== 'closed') seen.end ??= 'reset'
  })
  if (stream.readableEnded) seen.end = 'fin'
  if (stream.readStatus === 'paused') stream.resume()
  return seen
}
