import type { IpAddress, Logger } from '../base/index.ts'
import type { PolicySummary } from '../directory/index.ts'
import type { EndReason } from '../onion/index.ts'
import type { ExitCircuit, ExitRefusal, ExitService } from '../relaying/index.ts'
import type { ExitBackend } from './backend.ts'
import type { ExitConfig } from './config.ts'
import { createDnsForwarder, type DnsForwarder, type DnsForwarderCounts } from './dns/forwarder.ts'
import { Circuit } from './exit-circuit.ts'
import type { DatagramCounts } from './exit-datagrams.ts'
import { hasGlobalIpv6 } from './own-addresses.ts'
import type { PacketBackend, PacketCounts } from './packet-backend.ts'
import { ExitPolicy } from './policy.ts'
import type { Resolver } from './resolver.ts'
import { ByteRate } from './throttle.ts'

export interface ExitModules {
  readonly config: ExitConfig
  readonly backend: ExitBackend
  /** Where raw IP packets leave; its owner starts it before circuits come, and stops it after `close`. Null or missing: they are not served. */
  readonly packets?: PacketBackend | null
  readonly resolver: Resolver
  /** Networks that may be reached although they are private, by the network's rules. */
  readonly privateDestinations: readonly string[]
  readonly isRelayAddress: (ip: IpAddress) => boolean
  readonly isOwnAddress: (ip: IpAddress) => boolean
  /** Monotonic milliseconds. */
  readonly now: () => number
  readonly logger: Logger
}

/** What an exit has done, without a word of where to. */
export interface ExitCounts {
  readonly circuits: number
  readonly streams: number
  readonly associations: number
  /** Streams opened since the start. */
  readonly opened: number
  /** Streams, resolutions and associations not served, by reason. */
  readonly refused: Readonly<Partial<Record<EndReason, number>>>
  readonly bytesFromServers: number
  readonly bytesToServers: number
  readonly datagrams: Readonly<DatagramCounts>
  /** Null: nobody has asked the resolver for a stream yet. */
  readonly dns: DnsForwarderCounts | null
  /** Null: raw packets are not served. */
  readonly packets: PacketCounts | null
  /** How many there may be at once, as of now. */
  readonly limits: { readonly streams: number; readonly associations: number; readonly packetLeases: number }
}

export interface Exit extends ExitService {
  /** For the descriptor. */
  summary(): PolicySummary
  /** For the descriptor: whether `openPackets` leads anywhere. */
  readonly servesPackets: boolean
  readonly counts: ExitCounts
  /** The configuration has other values now: its policy and rates count for what is opened from now on. @throws MalformedError for an unsound policy */
  reconfigure(): void
  /** Resets every stream and closes every association. */
  close(): void
}

/** An exit: policy, names, policy again, then the backend; with limits per circuit and in all. @throws MalformedError for an unsound policy */
export function createExitService(modules: ExitModules): Exit {
  return new ExitEngine(modules)
}

/** What the circuits of an exit share. */
export class ExitEngine implements Exit {
  readonly m: ExitModules
  policy: ExitPolicy
  rate: ByteRate
  readonly datagrams: DatagramCounts = { sent: 0, received: 0, dropped: 0 }
  readonly circuits = new Set<Circuit>()
  streams = 0
  associations = 0
  packetLeases = 0
  opened = 0
  readonly refused: Partial<Record<EndReason, number>> = {}
  bytesFromServers = 0
  bytesToServers = 0
  #sweeper: NodeJS.Timeout | undefined
  #forwarder: DnsForwarder | null = null

  constructor(modules: ExitModules) {
    this.m = modules
    this.policy = newPolicy(modules)
    this.rate = newRate(modules)
  }

  reconfigure(): void {
    this.policy = newPolicy(this.m)
    this.rate = newRate(this.m)
    for (const circuit of this.circuits) circuit.reconfigure()
  }

  openCircuit(): ExitCircuit {
    const circuit = new Circuit(this)
    this.circuits.add(circuit)
    this.#sweeper ??= this.#startSweeper()
    return circuit
  }

  forget(circuit: Circuit): void {
    this.circuits.delete(circuit)
    if (this.circuits.size > 0) return
    clearInterval(this.#sweeper)
    this.#sweeper = undefined
  }

  summary(): PolicySummary {
    return this.policy.summary()
  }

  get servesPackets(): boolean {
    return (this.m.packets?.families.length ?? 0) > 0
  }

  get counts(): ExitCounts {
    const { maxStreams, maxAssociations, maxPacketLeases } = this.m.config
    let { bytesFromServers, bytesToServers } = this
    for (const circuit of this.circuits) {
      for (const socket of circuit.sockets.keys()) {
        bytesFromServers += socket.bytesRead
        bytesToServers += socket.bytesWritten
      }
    }
    return {
      circuits: this.circuits.size,
      streams: this.streams,
      associations: this.associations,
      opened: this.opened,
      refused: { ...this.refused },
      bytesFromServers,
      bytesToServers,
      datagrams: { ...this.datagrams },
      dns: this.#forwarder?.counts ?? null,
      packets: this.m.packets?.counts ?? null,
      limits: { streams: maxStreams, associations: maxAssociations, packetLeases: maxPacketLeases },
    }
  }

  /** Made when the first client asks for it. */
  get forwarder(): DnsForwarder {
    const { config, resolver, now, logger } = this.m
    this.#forwarder ??= createDnsForwarder({
      config,
      resolver,
      allowAddress: (address) => this.policy.checkAddress(address).allowed,
      now,
      logger,
    })
    return this.#forwarder
  }

  close(): void {
    for (const circuit of this.circuits) circuit.close()
    this.#forwarder?.close()
    this.#forwarder = null
  }

  /** Counts a refusal and gives it back, to be thrown. */
  count(refusal: ExitRefusal): ExitRefusal {
    this.refused[refusal.reason] = (this.refused[refusal.reason] ?? 0) + 1
    return refusal
  }

  #startSweeper(): NodeJS.Timeout {
    const { streamIdleTimeoutMs, udpIdleTimeoutMs } = this.m.config
    const every = Math.min(60_000, Math.max(10, Math.min(streamIdleTimeoutMs, udpIdleTimeoutMs) / 4))
    const timer = setInterval(() => {
      const now = this.m.now()
      for (const circuit of this.circuits) circuit.sweep(now)
    }, every)
    return timer.unref()
  }
}

function newPolicy({ config, privateDestinations, isOwnAddress, isRelayAddress }: ExitModules): ExitPolicy {
  const families = servedFamilies(config, privateDestinations)
  return new ExitPolicy({ lines: config.policy, privateDestinations, families, isOwnAddress, isRelayAddress })
}

function newRate({ config, now }: ExitModules): ByteRate {
  return new ByteRate(config.rateBytesPerSecond, now)
}

/** The families that an exit serves by its configuration, and by what this machine has. */
export function servedFamilies(config: ExitConfig, privateDestinations: readonly string[]): readonly (4 | 6)[] {
  switch (config.families) {
    case 'ipv4':
      return [4]
    case 'ipv6':
      return [6]
    case 'both':
      return [4, 6]
    case 'auto':
      return hasGlobalIpv6() || privateDestinations.some((network) => network.includes(':')) ? [4, 6] : [4]
  }
}
