import type { Logger } from '../../base/index.ts'
import { type CryptoSuite, systemRandom } from '../../crypto/index.ts'
import { ReadBuffers } from '../../drive/index.ts'
import { MOST_PACKET_BYTES } from '../../onion/index.ts'
import type { PacketBatch } from '../../packet/index.ts'
import { type ExitPacketLease, ExitRefusal } from '../../relaying/index.ts'
import type { ExitConfig } from '../config.ts'
import type { PacketBackend, PacketCounts, PacketUse, StackCounts } from '../packet-backend.ts'
import { LeaseAddresses } from './lease-addresses.ts'
import { netstackLimits } from './limits.ts'
import type { LeaseTally, NetstackLease } from './netstack-lease.ts'
import type { OpenPingSocket } from './ping-system.ts'
import type { Pings } from './pings.ts'

export interface NetstackBackendModules {
  readonly config: Pick<
    ExitConfig,
    | 'packetNetworkIpv4'
    | 'packetNetworkIpv6'
    | 'packetIdleTimeoutMs'
    | 'packetBufferBytes'
    | 'udpIdleTimeoutMs'
    | 'outboundIpv4'
    | 'outboundIpv6'
  >
  /** Those that the exit serves: `servedFamilies`. */
  readonly families: readonly (4 | 6)[]
  readonly suite: CryptoSuite
  /** Monotonic ms. */
  readonly now: () => number
  readonly logger: Logger
  /** For tests. */
  readonly loadPingSockets?: () => Promise<OpenPingSocket>
}

/** What is loaded with the first lease. */
interface Parts {
  readonly Lease: typeof NetstackLease
  readonly batch: PacketBatch
  readonly pings: Pings
}

/**
 * Raw packets ended in userspace: each lease's TCP and UDP become the exit's own sockets, its echo requests the exit's own pings. Needs no privileges,
 * and nothing of it but this file is loaded before a client asks for it.
 */
export class NetstackBackend implements PacketBackend {
  readonly name = 'netstack'
  readonly families: readonly (4 | 6)[]
  readonly #m: NetstackBackendModules
  readonly #addresses: LeaseAddresses
  readonly #leases = new Set<NetstackLease>()
  readonly #tally: LeaseTally = { packetsIn: 0, packetsOut: 0, bytesIn: 0, bytesOut: 0, retransmissions: 0, dropped: {} }
  readonly #buffers = new ReadBuffers()
  readonly #key: Uint8Array
  #memory = 0
  #parts: Promise<Parts> | null = null
  #pings: Pings | null = null
  #sweeper: NodeJS.Timeout | undefined
  #stopped = false

  /** @throws MalformedError for what is no network */
  constructor(modules: NetstackBackendModules) {
    this.#m = modules
    this.families = modules.families
    this.#addresses = new LeaseAddresses(modules.config, modules.families)
    this.#key = modules.suite.random(32)
  }

  async start(): Promise<void> {
    this.#stopped = false
  }

  async stop(): Promise<void> {
    this.#stopped = true
    for (const lease of this.#leases) lease.close()
    this.#pings?.close()
    this.#pings = null
    this.#parts = null
  }

  async open(use: PacketUse, mtu: number, signal: AbortSignal): Promise<ExitPacketLease> {
    signal.throwIfAborted()
    this.#parts ??= this.#load()
    const { Lease, pings, batch } = await this.#parts
    signal.throwIfAborted()
    if (this.#stopped) throw new ExitRefusal('internal', 'the packet backend has stopped')
    const address = this.#addresses.take()
    if (address === null) throw new ExitRefusal('resource-limit', 'all lease addresses are taken')
    const { config, suite, now } = this.#m
    const lease: NetstackLease = new Lease({
      address,
      gateway: (family) => this.#addresses.gateway(family),
      isLease: (ip) => this.#addresses.contains(ip),
      mtu: Math.min(mtu, MOST_PACKET_BYTES),
      use,
      pings,
      buffers: this.#buffers,
      batch,
      udpIdleTimeoutMs: config.udpIdleTimeoutMs,
      random: systemRandom(suite),
      hash: (bytes) => {
        const [a, b, c, d] = suite.sha256(this.#key, bytes)
        return ((a! << 24) | (b! << 16) | (c! << 8) | d!) >>> 0
      },
      tally: this.#tally,
      now,
      soon: setImmediate,
      memoryChanged: (changed, before, after) => this.#memoryChanged(changed, after - before),
      closed: () => {
        this.#leases.delete(lease)
        this.#addresses.give(address)
        if (this.#leases.size === 0) this.#stopSweeper()
      },
    })
    this.#leases.add(lease)
    this.#sweeper ??= setInterval(() => this.#sweep(), netstackLimits.sweepMs).unref()
    return { ...address, port: lease }
  }

  get counts(): PacketCounts {
    const { packetsIn, packetsOut, bytesIn, bytesOut } = this.#tally
    const tally: LeaseTally = { ...this.#tally, dropped: { ...this.#tally.dropped } }
    for (const lease of this.#leases) lease.addStackTo(tally)
    return { leases: this.#leases.size, packetsIn, packetsOut, bytesIn, bytesOut, dropped: tally.dropped, stack: this.#stackCounts(tally) }
  }

  #stackCounts({ retransmissions }: LeaseTally): StackCounts {
    let tcpConnections = 0
    let udpPorts = 0
    for (const lease of this.#leases) {
      tcpConnections += lease.tcpConnections
      udpPorts += lease.udpPorts
    }
    const echoes = this.#pings?.pending ?? 0
    return {
      tcpConnections,
      udpPorts,
      echoes,
      bufferBytes: this.#memory,
      bufferLimitBytes: this.#m.config.packetBufferBytes,
      retransmissions,
    }
  }

  async #load(): Promise<Parts> {
    const [{ NetstackLease }, { Pings }, { loadPingSockets }, { PacketBatch }] = await Promise.all([
      import('./netstack-lease.ts'),
      import('./pings.ts'),
      import('./ping-system.ts'),
      import('../../packet/index.ts'),
    ])
    const { config, suite, now, logger } = this.#m
    this.#pings = new Pings({
      load: this.#m.loadPingSockets ?? loadPingSockets,
      outboundIpv4: config.outboundIpv4,
      outboundIpv6: config.outboundIpv6,
      firstNumber: systemRandom(suite).int(65_536),
      now,
      logger,
    })
    const batch = new PacketBatch(netstackLimits.batchPackets, netstackLimits.batchPackets * (MOST_PACKET_BYTES + 3))
    return { Lease: NetstackLease, batch, pings: this.#pings }
  }

  /** Beyond the bound whoever holds most loses its connections: one client can't take the memory of all. */
  #memoryChanged(lease: NetstackLease, change: number): void {
    this.#memory += change
    if (change <= 0 || this.#memory <= this.#m.config.packetBufferBytes) return
    let most = lease
    for (const one of this.#leases) if (one.memory > most.memory) most = one
    setImmediate(() => most.shed())
  }

  #sweep(): void {
    const { config, now } = this.#m
    const at = now()
    this.#pings?.sweep(at)
    for (const lease of this.#leases) {
      lease.sweep(at)
      if (at - lease.lastActive >= config.packetIdleTimeoutMs && !lease.isInUse) lease.close()
    }
  }

  #stopSweeper(): void {
    clearInterval(this.#sweeper)
    this.#sweeper = undefined
  }
}
