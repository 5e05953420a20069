import { messageOf, type NodeId, parseHostPort, parseNetwork, ShallotError } from '../base/index.ts'
import type { CircuitPool, Client } from '../client/index.ts'
import { systemRandom } from '../crypto/index.ts'
import type { Descriptor } from '../directory/index.ts'
import { type DnsService, openPcap, TunIngress } from '../ingress/index.ts'
import { defaultGateway } from '../nat/index.ts'
import type { PacketPort } from '../packet/index.ts'
import type { GuardSample } from '../path/index.ts'
import { adoptTun, takeDescriptor } from '../tun/index.ts'
import { type AllowedPeer, type DataPath, type ServingPort, Vpn, type VpnFacts } from '../vpn/index.ts'
import { allowedPeers, peersAt } from './allowed-peers.ts'
import type { Ground } from './ground.ts'
import { isLoopback, parseNodeAddress } from './multiaddr.ts'
import type { VpnSession, VpnSessionRequest } from './node-control.ts'
import { privateDestinations } from './private-networks.ts'

/** Programs with a device of their own at once (`shallot vpn exec`). */
const MAX_SESSIONS = 64
/** How often it is looked at whether the default gateway is another, and the view has other relays: what a serving node talks to. */
const LOOK_MS = 5_000
/** How often it is looked at whether a circuit is open, by who waits for one. */
const READY_POLL_MS = 50

/** What the VPN needs of a client once that runs. */
export interface VpnClient {
  readonly client: Client
  readonly pool: CircuitPool
  readonly guards: GuardSample
  readonly dns: DnsService
}

/** How a node carries whole machines' traffic: the VPN of this machine, and devices of single programs. */
export class NodeVpn {
  readonly #ground: Ground
  readonly #vpn: Vpn
  readonly #serves: boolean
  readonly #sessions = new Set<VpnSession>()
  readonly #listeners = new Set<() => void>()
  #listening: () => readonly string[] = () => []
  #parts: VpnClient | null = null
  #gateway: string | null = null
  #viewVersion = -1
  #sessionNumber = 0
  #timer: NodeJS.Timeout | null = null

  constructor(ground: Ground) {
    this.#ground = ground
    this.#serves = ground.modules.has('listening')
    const { config, clocks, logger, suite } = ground
    const { tun } = config.ingress
    this.#vpn = new Vpn({
      config: tun,
      device: { name: tun.name, mtu: tun.mtu, addresses: tun.addresses },
      dir: config.dir,
      logger: logger.child('vpn'),
      now: clocks.now,
      wall: clocks.wall,
      random: (length) => suite.random(length),
      allowed: () => this.#allowed(),
      serving: () => this.#serving(),
      onNeedsChange: (listener) => {
        this.#listeners.add(listener)
        return () => this.#listeners.delete(listener)
      },
      attach: (port, addresses) => this.#attach(port, addresses, 'tun', tun.pcap),
      answersNames: tun.interceptDns,
      canCarry: () => this.#canCarry(),
      whenReady: (signal) => this.#whenReady(signal),
    })
  }

  /** Before anything is dialled. @throws ShallotError when the block is to stand and can't be set */
  protect(): Promise<void> {
    return this.#vpn.protect()
  }

  /** Where a serving node listens, multiaddrs. */
  listensAt(addresses: () => readonly string[]): void {
    this.#listening = addresses
    this.needsChanged()
  }

  /** The client runs. What is to be up goes up, in its own time. */
  async start(parts: VpnClient): Promise<void> {
    this.#parts = parts
    await this.#look()
    this.#timer = setInterval(() => void this.#look(), LOOK_MS)
    this.#timer.unref()
    void this.#vpn.start()
  }

  /** Whom the node talks to may be others now. */
  needsChanged(): void {
    for (const listener of this.#listeners) listener()
  }

  /** Lets these multiaddrs be dialled. @throws ShallotError of the VPN */
  ensureAllowed(addresses: readonly string[]): Promise<void> {
    return this.#vpn.ensureAllowed(peersAt(addresses, this.#serves ? 'peer' : 'guard'))
  }

  networkChanged(): void {
    this.#vpn.networkChanged()
  }

  facts(): VpnFacts {
    return this.#vpn.facts()
  }
  up(): Promise<VpnFacts> {
    return this.#vpn.up()
  }
  down(): Promise<VpnFacts> {
    return this.#vpn.down()
  }

  /**
   * Carries the traffic of a device that was made elsewhere, on circuits of its own, until the session is closed or the device is gone.
   * @throws ShallotError 'vpn-session-limit', 'descriptor-not-handed-over', 'tun-…', 'pcap-not-writable'
   */
  async openSession(request: VpnSessionRequest): Promise<VpnSession> {
    if (this.#sessions.size >= MAX_SESSIONS)
      throw new ShallotError('vpn-session-limit', `${MAX_SESSIONS} programs have a device of this node already`, {
        kind: 'process',
        retry: 'later',
      })
    const port = await adoptTun({ fd: await takeDescriptor(request.descriptor), mtu: request.mtu })
    const ended = Promise.withResolvers<void>()
    let path: SessionPath
    try {
      path = this.#attach(port, request.addresses, `exec-${++this.#sessionNumber}`, request.pcap ?? '', () => ended.resolve())
    } catch (error) {
      port.close()
      throw error
    }
    const session: VpnSession = { ended: ended.promise, close: () => void path.stop() }
    this.#sessions.add(session)
    void ended.promise.then(() => this.#sessions.delete(session))
    return session
  }

  async stop(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer)
    for (const session of this.#sessions) session.close()
    await this.#vpn.stop()
  }

  #attach(port: PacketPort, addresses: readonly string[], origin: string, pcap: string, ended: () => void = () => {}): SessionPath {
    const { config, clocks, logger, suite } = this.#ground
    const parts = this.#parts
    if (parts === null) throw new ShallotError('not-a-client', 'the client has not started yet', { kind: 'process', retry: 'later' })
    const capture = pcap === '' ? null : openPcap(port, pcap, clocks.wall)
    const ingress = new TunIngress(config.ingress.tun, {
      client: parts.client,
      dns: parts.dns,
      logger: logger.child('tun'),
      random: systemRandom(suite),
      now: clocks.now,
      origin,
      internalNetworks: privateDestinations(this.#ground).map(parseNetwork),
    })
    ingress.attach(capture?.port ?? port, addresses, (error) => {
      if (error !== null) logger.info('a device is gone', { error: messageOf(error) })
      void capture?.close()
      ended()
    })
    return { counts: () => ingress.counts, stop: () => ingress.stop() }
  }

  #allowed(): readonly AllowedPeer[] {
    const { config, view } = this.#ground
    const known = (id: NodeId): Descriptor[] => {
      const relay = view.get(id)
      return relay === undefined ? [] : [relay.descriptor]
    }
    return allowedPeers({
      bootstrap: config.bootstrap.flatMap(({ addresses }) => addresses),
      guards: (this.#parts?.guards.toState().guards ?? []).flatMap(({ id }) => known(id)),
      relays: this.#serves ? view.relays().map(({ descriptor }) => descriptor) : null,
      stun: this.#serves && config.nat.enabled ? config.nat.stun.servers.flatMap(stunServer) : [],
      router: this.#serves && config.nat.enabled && config.nat.mapping.enabled ? this.#gateway : null,
    })
  }

  #serving(): readonly ServingPort[] {
    if (!this.#serves) return []
    const stun = this.#ground.modules.has('stun')
    const ports = this.#listening().flatMap((text) => {
      const address = parseNodeAddress(text.replace(/\/tls$/, ''))
      return address === null || isLoopback(address.host) ? [] : [address.port]
    })
    return [...new Set(ports)].flatMap((port): ServingPort[] => [
      { protocol: 'tcp', port },
      ...(stun ? [{ protocol: 'udp', port } as const, { protocol: 'udp', port: port + 1 } as const] : []),
    ])
  }

  async #look(): Promise<void> {
    if (!this.#serves) return
    const { view } = this.#ground
    const gateway = await defaultGateway().catch(() => null)
    if (gateway === this.#gateway && view.version === this.#viewVersion) return
    this.#gateway = gateway
    this.#viewVersion = view.version
    this.needsChanged()
  }

  #canCarry(): boolean {
    return this.#parts?.pool.circuits().some(({ state }) => state === 'ready') ?? false
  }

  async #whenReady(signal: AbortSignal): Promise<void> {
    while (!this.#canCarry()) {
      signal.throwIfAborted()
      await new Promise((resolve) => setTimeout(resolve, READY_POLL_MS))
    }
  }
}

interface SessionPath extends DataPath {
  stop(): void
}

/** Names are not looked up for this: a server that is a name is asked only while the VPN is down. */
function stunServer(text: string): { ip: string; port: number }[] {
  const { host, port } = parseHostPort(text, 3478)
  return host.type === 'ip' ? [{ ip: host.text, port }] : []
}
