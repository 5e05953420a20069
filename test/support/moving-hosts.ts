import { randomBytes } from 'node:crypto'
import net from 'node:net'
import { SeededRandom, silentLogger } from '../../src/base/index.ts'
import { type CellChannel, createHost, defaultLinkLimits, formatTcpAddress, type Host, type LinkLimits } from '../../src/link/index.ts'
import { parseTcpAddress } from '../../src/link/multiaddrs.ts'
import { type RelayServerConfig, type RelayTransport, Reservations, relayTransport, reservationsConfig } from '../../src/nat/relay/index.ts'
import { relayedAddress, startRelay, stopRelayedNodes, type TestRelay, until } from './relayed-nodes.ts'

/** Two nodes, b behind a relay, that can get a direct link at any time, and lose it. */
export interface MovingHosts {
  readonly relay: TestRelay
  /** The opener of channels; public. */
  readonly a: Host
  /** Its Ed25519 seed. */
  readonly keyOfA: Uint8Array
  readonly b: Host
  /** b through its relay. */
  readonly relayed: readonly string[]
  /** b dials a directly; resolves when the link is up. */
  upgrade(): Promise<void>
  /** Ends all direct links without a word, as a router that forgets them does. */
  cutDirect(): void
  /** Ends all connections through the relay. */
  cutRelayed(): void
  stop(): Promise<void>
}

/** @param relayConfig e.g. a byte limit of relayed connections */
export async function startMovingHosts(
  limits: Partial<LinkLimits> = {},
  relayConfig: Partial<RelayServerConfig> = {},
): Promise<MovingHosts> {
  const all = { ...defaultLinkLimits, ...limits }
  // Not what is tested here: by default a relay holds each connection back to a few megabytes a second.
  const relay = await startRelay({ connectionBytesPerSecond: 1 << 30, bytesPerSecond: 1 << 30, ...relayConfig })
  const keyOfA = randomBytes(32)
  const start = (key: Uint8Array, transport: RelayTransport): Promise<Host> =>
    createHost({ key, mode: 'server', listen: ['/ip4/127.0.0.1/tcp/0'], transports: [transport.factory], limits: all })
  const a = await start(keyOfA, relayTransport())
  const transport = relayTransport()
  const b = await start(randomBytes(32), transport)
  const reservations = new Reservations(reservationsConfig.parse({ relays: 1 }), {
    host: b,
    transport,
    candidates: () => [relay.candidate],
    random: new SeededRandom(1),
    logger: silentLogger,
    now: () => performance.now(),
    wall: () => Date.now(),
  })
  await reservations.start()
  await until('the reservation', () => relay.server.stats().reservations.open > 0)
  // Direct links go through here, so that they can be cut.
  const sockets = new Set<net.Socket>()
  const { port: portOfA } = parseTcpAddress(a.addresses()[0]!)!
  const proxy = net.createServer((socket) => {
    const onward = net.connect(portOfA, '127.0.0.1')
    for (const one of [socket, onward]) {
      sockets.add(one)
      one.on('error', () => {})
      one.on('close', () => {
        sockets.delete(one)
        socket.destroy()
        onward.destroy()
      })
    }
    socket.pipe(onward).pipe(socket)
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  const { port } = proxy.address() as net.AddressInfo
  return {
    relay,
    a,
    keyOfA,
    b,
    relayed: [relayedAddress(relay, b.id)],
    upgrade: () => b.connectDirect(a.id, [formatTcpAddress('127.0.0.1', port, true)], AbortSignal.timeout(5000)),
    cutDirect() {
      for (const socket of sockets) socket.resetAndDestroy()
    },
    cutRelayed() {
      for (const connection of a.libp2p.getConnections()) if (connection.limits != null) connection.abort(new Error('cut'))
    },
    async stop() {
      await a.stop()
      await reservations.stop()
      await b.stop()
      await stopRelayedNodes()
      proxy.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** Waits until both sides of a channel run over a direct link. */
export async function moved(...channels: CellChannel[]): Promise<void> {
  await until('the channel to move', () => channels.every((channel) => channel.kind === 'tls'))
}
