import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import type { Libp2p, PeerId, ServiceMap } from '@libp2p/interface'
import { noise } from '@libp2p/noise'
import { yamux } from '@libp2p/yamux'
import type { Multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { type NodeId, nodeIdFromKey, ShallotError, silentLogger } from '../base/index.ts'
import { BatchPool } from './batch-pool.ts'
import { ByteMeter } from './byte-meter.ts'
import { ed25519PublicKey, makeCertificate } from './certificate.ts'
import type { ChannelAcceptor } from './channel.ts'
import { defaultLinkLimits } from './config.ts'
import { ConnectionProbes } from './connection-probes.ts'
import type { Host, HostOptions } from './host-types.ts'
import { libp2pTls } from './libp2p-tls.ts'
import { isLinkLocalHost, Listeners } from './listeners.ts'
import { outboundAddressFor, type TcpAddress, tryTcpAddress } from './multiaddrs.ts'
import { ObservedEndpoints } from './observed-endpoints.ts'
import { Punching } from './punching.ts'
import { RunningHost } from './running-host.ts'
import { StreamChannels } from './stream-channels.ts'
import { tcpTransport } from './tcp-transport.ts'
import { TlsLinks } from './tls-links.ts'

/** All nodes say the same of themselves: nothing for a peer to tell versions or people apart by. */
const AGENT = 'shallot/1'
const YAMUX = {
  maxInboundStreams: 16_384,
  maxOutboundStreams: 16_384,
  // A read buffer above the window, or pausing a fast stream aborts it.
  streamOptions: { maxStreamWindowSize: 1 << 20, maxReadBufferLength: 2 << 20 },
}

/**
 * Starts the node's libp2p host with direct links beside it, on the same ports.
 * @throws ShallotError 'address-in-use', 'address-unavailable', 'address-not-allowed', 'bad-address' (kind 'host' or 'config')
 */
export async function createHost<Services extends ServiceMap = ServiceMap>(options: HostOptions<Services>): Promise<Host<Services>> {
  const { mode, logger = silentLogger, limits = defaultLinkLimits, meter = new ByteMeter(), memory = new BatchPool() } = options
  const listen = mode === 'client' ? [] : (options.listen ?? [])
  for (const address of listen) checkListenAddress(address)
  const id = nodeIdFromKey(ed25519PublicKey(options.key))
  const localFor = (host: string): string | undefined => outboundAddressFor(host, options.outboundAddress ?? 'auto', listen)
  const state: { acceptor: ChannelAcceptor | null } = { acceptor: null }
  const listeners = new Listeners()
  const observed = new ObservedEndpoints()
  const late: { streams: StreamChannels | null; probes: ConnectionProbes | null } = { streams: null, probes: null }
  const certificate = makeCertificate(options.key, Date.now())
  const links: TlsLinks = new TlsLinks({
    id,
    certificate,
    limits,
    meter,
    pool: memory,
    logger,
    outboundAddressFor: localFor,
    expects: (peer, remoteAddress) => punching.expects(peer, remoteAddress),
    doubted: (peer) => late.probes?.suspect(peer),
    acceptMove: (channel, token) => late.streams?.moving.acceptMove(channel, token) ?? null,
    acceptor: () => (mode === 'client' ? null : state.acceptor),
  })
  const punching = new Punching({ listeners, links, limits, logger, outboundAddressFor: localFor })
  let listenFailure: ShallotError | null = null
  /** Whom `dialer` is dialling by libp2p just now. */
  const dialling = new Map<string, number>()
  const denied = (peer: NodeId | null, address: string | null): boolean => {
    if (peer !== null && dialling.has(peer)) return false
    return options.mayDial !== undefined && !options.mayDial(peer, address)
  }
  const tcp = tcpTransport({
    outboundAddressFor: localFor,
    dialFromPort: (host, port, signal) => punching.dial(host, port, null, signal),
    dialledFromPort: (connection, localPort) => observed.dialled(connection, localPort),
    listeners,
    takeTls: (socket) => links.take(socket),
    firstByteTimeoutMs: limits.handshakeTimeoutMs,
    maxSilent: limits.maxHandshakes,
    listenFailed: (address, error) => {
      listenFailure ??= listenError(address, error)
    },
  })
  let libp2p: Libp2p<Services>
  try {
    libp2p = (await createLibp2p({
      privateKey: await generateKeyPairFromSeed('Ed25519', options.key),
      nodeInfo: { name: 'shallot', version: '1', userAgent: AGENT },
      addresses: { listen: [...listen], ...(mode === 'client' ? { announceFilter: () => [] } : {}) },
      transports: [tcp, ...((options.transports ?? []) as [])],
      connectionEncrypters: [libp2pTls(certificate), noise()],
      streamMuxers: [yamux(YAMUX)],
      connectionManager: {
        maxConnections: limits.maxLibp2pConnections,
        inboundConnectionThreshold: limits.inboundPerSecondPerAddress,
        maxIncomingPendingConnections: limits.maxHandshakes,
        inboundUpgradeTimeout: limits.handshakeTimeoutMs,
        dialTimeout: limits.connectTimeoutMs,
      },
      connectionMonitor: { pingInterval: limits.pingAfterMs, protocolPrefix: 'shallot' },
      connectionGater: {
        denyDialPeer: (peer: PeerId) => denied(peer.toString() as NodeId, null),
        denyDialMultiaddr: (address: Multiaddr) => denied(null, address.toString()),
      },
      services: { identify: identify({ protocolPrefix: 'shallot', maxInboundStreams: 8 }), ...options.services },
    } as never)) as unknown as Libp2p<Services>
  } catch (error) {
    await links.stop()
    throw listenFailure ?? error
  }
  observed.start(libp2p)
  const probes = new ConnectionProbes(libp2p, limits.suspectTimeoutMs, logger, (peer) => links.suspect(peer))
  probes.start()
  late.probes = probes
  const streams = new StreamChannels({ libp2p, links, probes, limits, meter, logger, dialling, acceptor: () => state.acceptor })
  late.streams = streams
  if (mode === 'server') await streams.serve()
  return new RunningHost({
    id,
    libp2p,
    links,
    streams,
    listeners,
    punching,
    observed,
    probes,
    meter,
    memory,
    state,
  })
}

function checkListenAddress(text: string): void {
  const tcp = tryTcpAddress(text)
  if (tcp !== null && !tcp.isDirect && tcp.id === null) {
    if (!isLinkLocalHost(tcp.host)) return
    const problem = `listen: ${text} is a link-local address, which no other network can reach; take a global address, or /ip6/::/tcp/PORT`
    throw new ShallotError('bad-address', problem, { kind: 'config', retry: 'never' })
  }
  throw new ShallotError(
    'bad-address',
    `listen: ${JSON.stringify(text)} is not of the form /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT`,
    {
      kind: 'config',
      retry: 'never',
    },
  )
}

function listenError(address: TcpAddress, error: NodeJS.ErrnoException): ShallotError {
  const where = `${address.host} port ${address.port}`
  const facts = { kind: 'host', retry: 'later', cause: error } as const
  switch (error.code) {
    case 'EADDRINUSE':
      return new ShallotError('address-in-use', `cannot listen on ${where}: another program listens there`, facts)
    case 'EADDRNOTAVAIL':
      return new ShallotError('address-unavailable', `cannot listen on ${where}: this machine does not have that address`, facts)
    case 'EACCES':
      return new ShallotError('address-not-allowed', `cannot listen on ${where}: not permitted (ports below 1024 want privileges)`, facts)
    default:
      return new ShallotError('address-unavailable', `cannot listen on ${where}: ${error.message}`, facts)
  }
}
