import { networkInterfaces } from 'node:os'
import {
  formatIp,
  formatNetwork,
  type IpNetwork,
  isIpText,
  type Logger,
  messageOf,
  networkContains,
  parseIp,
  parseNetwork,
  ShallotError,
  sensitive,
} from '../../base/index.ts'
import { IpHeader, PacketBatch, type PacketPort } from '../../packet/index.ts'
import { type ExitPacketLease, ExitRefusal } from '../../relaying/index.ts'
import { openTun, type TunOptions } from '../../tun/index.ts'
import type { ExitConfig } from '../config.ts'
import type { PacketBackend, PacketCounts, PacketUse } from '../packet-backend.ts'
import { LeaseAddresses } from '../packets/lease-addresses.ts'
import { tableName } from './config.ts'
import { type FlowTable, KernelFlowTable } from './conntrack.ts'
import { Demultiplexer } from './demultiplexer.ts'
import { tunNatError } from './errors.ts'
import { ensureForwarding, type Sysctls, systemSysctls } from './forwarding.ts'
import { type DropReason, LeaseFilter } from './lease-filter.ts'
import { type LeaseHub, LeasePort } from './lease-port.ts'
import { applyRuleset, readCounters } from './nft.ts'
import { type RulesetFacts, removalText, rulesetText } from './ruleset.ts'
import { watchTable } from './table-watch.ts'

/** What the backend needs of the machine; others for tests. */
export interface TunNatSystem {
  readonly platform: string
  openTun(options: TunOptions): Promise<PacketPort>
  /** One transaction. @throws ShallotError */
  applyRuleset(text: string): Promise<void>
  /** Packets by the named counters of a table. @throws ShallotError */
  readCounters(table: string): Promise<Readonly<Record<string, number>>>
  openFlowTable(): Promise<FlowTable>
  /** Tells when another program has taken a table of this name away; gives what ends it. @throws ShallotError */
  watchTable(name: string, gone: () => void): Promise<() => void>
  readonly sysctls: Sysctls
  /** `ADDRESS/BITS` of this machine's interfaces but for the device of this name. */
  interfaceNetworks(except: string): readonly string[]
}

/** The machine that this is. */
export const linuxTunNatSystem: TunNatSystem = {
  platform: process.platform,
  openTun,
  applyRuleset,
  readCounters,
  openFlowTable: () => KernelFlowTable.open(),
  watchTable,
  sysctls: systemSysctls,
  interfaceNetworks: (except) =>
    Object.entries(networkInterfaces())
      .filter(([name]) => name !== except)
      .flatMap(([, addresses]) => addresses ?? [])
      .flatMap(({ cidr }) => (cidr === null || cidr.includes('%') ? [] : [cidr])),
}

export interface TunNatOptions {
  readonly config: ExitConfig
  /** Families that the exit serves (`servedFamilies`). */
  readonly families: readonly (4 | 6)[]
  /** As the exit has it. */
  readonly privateDestinations: readonly string[]
  /** Addresses in text that others know this machine by, beside those of its interfaces: asked at the start, for the kernel's rules. */
  readonly ownAddresses: () => readonly string[]
  /** Monotonic milliseconds. */
  readonly now: () => number
  readonly logger: Logger
  readonly system?: TunNatSystem
}

/** What the kernel's rules have dropped is asked for at most so often. */
const COUNTERS_MS = 30_000
/** Packets of one write where some had to be left out. */
const OUTBOUND_PACKETS = 256
/**
 * What servers send in fragments has the size of their links, and no router may cut it for IPv6: so the device takes what the internet's links carry,
 * and what is larger than a lease's MTU is cut or refused here (Demultiplexer).
 */
const INTERNET_MTU = 1500
/** Leases are looked at for idleness so often at least. */
const MOST_SWEEP_MS = 60_000

/**
 * Raw packets of circuits through a TUN device, the kernel's routing and its NAT. Two walls: each packet is judged here before it is written
 * (`LeaseFilter`), and again by an nftables table of the exit's own (`rulesetText`), which also translates. The device goes with the process; the
 * table outlives a SIGKILL, harms nobody without its device, and is replaced at the next start.
 */
export class TunNatBackend implements PacketBackend, LeaseHub {
  readonly name = 'tun'
  readonly families: readonly (4 | 6)[]
  readonly header = new IpHeader()
  readonly outbound: PacketBatch
  readonly #m: TunNatOptions
  readonly #system: TunNatSystem
  readonly #addresses: LeaseAddresses
  readonly #networks: readonly IpNetwork[]
  readonly #leases = new Set<LeasePort>()
  readonly #demultiplexer: Demultiplexer
  readonly #dropped: Partial<Record<DropReason | 'no-lease', number>> = {}
  readonly #moved = { packetsIn: 0, packetsOut: 0, bytesIn: 0, bytesOut: 0 }
  /** What the kernel's rules dropped: of the table there is, as of the last look, and of those before it. */
  #inKernel: Readonly<Record<string, number>> = {}
  #inKernelBefore: Readonly<Record<string, number>> = {}
  #countedAt = 0
  /** Flows of leases that were given back, being forgotten. */
  readonly #forgetting = new Set<Promise<void>>()
  #tun: PacketPort | null = null
  #opening: Promise<void> | null = null
  #flows: FlowTable | null = null
  #sweeper: NodeJS.Timeout | undefined
  #started = false
  #hasRules = false
  /** While another program has taken the rules away, nothing is written. */
  #isOpen = true
  #endWatch: (() => void) | null = null

  constructor(options: TunNatOptions) {
    this.#m = options
    this.#system = options.system ?? linuxTunNatSystem
    this.families = options.families
    this.#addresses = new LeaseAddresses(options.config, options.families)
    this.#networks = options.families.map((family) => parseNetwork(networkText(options.config, family)))
    const { mtu } = options.config.tun
    this.outbound = new PacketBatch(OUTBOUND_PACKETS, OUTBOUND_PACKETS * (mtu + 3))
    this.#demultiplexer = new Demultiplexer(this.#networks, deviceMtu(mtu), options.now(), {
      arrived: (packets, bytes) => {
        this.#moved.packetsOut += packets
        this.#moved.bytesOut += bytes
      },
      dropped: (reason) => this.dropped(reason),
      answer: (batch) => void this.#tun?.send(batch),
    })
  }

  now(): number {
    return this.#m.now()
  }

  /** @throws ShallotError of `TunNatErrorCode` */
  async start(): Promise<void> {
    const { config, logger } = this.#m
    const system = this.#system
    if (system.platform !== 'linux')
      throw tunNatError('exit-tun-not-on-this-platform', `exit.packets = "tun" needs Linux, not ${system.platform}: use "netstack"`)
    this.#checkNetworks()
    const switched = ensureForwarding(this.families, config.tun.setSysctls, system.sysctls)
    if (switched.length > 0) logger.info('forwarding was switched on', { sysctls: switched })
    try {
      // First, as a lock: its name is in use when another exit has these rules. Nothing is written to it before there is a lease.
      await this.#openDevice()
      await this.#applyRules()
      this.#endWatch = await system.watchTable(tableName(config.tun.name), () => void this.#restoreRules())
      this.#flows = await system.openFlowTable()
      // Those of a process before this one.
      await this.#flows.forget(this.#networks)
    } catch (error) {
      await this.#tearDown()
      throw error
    }
    this.#started = true
    this.#countedAt = this.now()
    const every = Math.min(MOST_SWEEP_MS, Math.max(10, config.packetIdleTimeoutMs / 4))
    this.#sweeper = setInterval(() => void this.#sweep(), every)
    this.#sweeper.unref()
  }

  async stop(): Promise<void> {
    this.#started = false
    clearInterval(this.#sweeper)
    for (const lease of [...this.#leases]) lease.end(null)
    await this.#opening?.catch(() => {})
    await Promise.all(this.#forgetting)
    await this.#tearDown()
  }

  async open(use: PacketUse, mtu: number, signal: AbortSignal): Promise<ExitPacketLease> {
    const { config } = this.#m
    signal.throwIfAborted()
    if (!this.#started) throw new ExitRefusal('not-exit', 'raw packets are not served')
    if (mtu < 1280) throw new ExitRefusal('policy', 'IPv6 needs 1280 bytes of every link')
    if (this.#tun === null) await this.#reopenDevice()
    signal.throwIfAborted()
    const address = this.#addresses.take()
    if (address === null) throw new ExitRefusal('resource-limit', 'no lease address is free')
    const { tun } = config
    const now = this.now()
    const filter = new LeaseFilter({
      lease: address,
      allows: use.allows,
      takeRate: use.takeRate,
      isLeaseAddress: (one) => this.#addresses.contains(one),
      protocols: tun.protocols,
      icmpPerSecond: tun.icmpPerSecond,
      fragmentsPerSecond: tun.fragmentsPerSecond,
      now,
    })
    const port = new LeasePort({
      name: tun.name,
      mtu: Math.min(mtu, tun.mtu),
      address,
      gateway4: this.#addresses.gateway4.bytes,
      gateway6: this.#addresses.gateway6.bytes,
      filter,
      takeRate: use.takeRate,
      hub: this,
    })
    this.#leases.add(port)
    this.#demultiplexer.add(port)
    return { ...address, port }
  }

  get counts(): PacketCounts {
    return {
      leases: this.#leases.size,
      ...this.#moved,
      dropped: summed(summed(this.#dropped, this.#inKernelBefore), this.#inKernel),
      stack: null,
    }
  }

  write(batch: PacketBatch, from: number): void {
    const count = batch.count - from
    const taken = this.#isOpen ? (this.#tun?.send(batch, from) ?? 0) : 0
    for (let i = taken; i < count; i++) this.dropped('limit')
    this.#moved.packetsIn += taken
    for (let i = from; i < from + taken; i++) this.#moved.bytesIn += batch.end(i) - batch.start(i)
  }

  dropped(reason: DropReason | 'no-lease'): void {
    this.#dropped[reason] = (this.#dropped[reason] ?? 0) + 1
  }

  /** The address is used again when nothing of the kernel's leads to it any more: or the next one would get what is not meant for it. */
  released(lease: LeasePort): void {
    this.#leases.delete(lease)
    this.#demultiplexer.remove(lease)
    const { address4, address6 } = lease.address
    const forgetting = (this.#flows?.forget([address4, address6].filter((address) => address !== null)) ?? Promise.resolve()).then(
      () => this.#addresses.give(lease.address),
      (error: unknown) =>
        this.#m.logger.warn('connections of a lease were not forgotten; its address is not used again', { error: messageOf(error) }),
    )
    this.#forgetting.add(forgetting)
    void forgetting.finally(() => this.#forgetting.delete(forgetting))
  }

  /** A network of this machine that overlaps would lose its own way. */
  #checkNetworks(): void {
    for (const text of this.#system.interfaceNetworks(this.#m.config.tun.name)) {
      const one = parseNetwork(text)
      const met = this.#networks.find((own) => networkContains(own, one.address) || networkContains(one, own.address))
      if (met)
        throw tunNatError(
          'exit-tun-network-in-use',
          `this machine has ${formatNetwork(one)}, which overlaps the lease network ${formatNetwork(met)}: choose another exit.packet_network_ipv${met.address.family}`,
        )
    }
  }

  async #applyRules(): Promise<void> {
    const { config } = this.#m
    this.#hasRules = true
    // A new table counts from nothing.
    this.#inKernelBefore = summed(this.#inKernelBefore, this.#inKernel)
    this.#inKernel = {}
    const timeouts = { connectMs: config.connectTimeoutMs, streamMs: config.streamIdleTimeoutMs, datagramMs: config.udpIdleTimeoutMs }
    try {
      await this.#system.applyRuleset(rulesetText(this.#rulesetFacts(timeouts)))
    } catch (error) {
      if (!(error instanceof ShallotError) || error.code !== 'exit-tun-unavailable') throw error
      // Some kernels are built without time-outs of one's own. If that was not it, the same error comes again.
      await this.#system.applyRuleset(rulesetText(this.#rulesetFacts(null)))
      this.#m.logger.warn(
        "this kernel has no connection time-outs per rule: the system's hold for the exit (net.netfilter.nf_conntrack_*_timeout*)",
      )
    }
  }

  /** Somebody flushed the host's rules. */
  async #restoreRules(): Promise<void> {
    if (!this.#started || !this.#isOpen) return
    this.#isOpen = false
    try {
      await this.#applyRules()
      this.#isOpen = true
      this.#m.logger.warn("another program had removed the exit's nftables rules; they were made anew")
    } catch (error) {
      this.#m.logger.error("another program removed the exit's nftables rules, and they can't be made anew: raw packets are not served", {
        error: messageOf(error),
      })
      this.#started = false
      for (const lease of [...this.#leases]) lease.end(error instanceof ShallotError ? error : null)
    }
  }

  #rulesetFacts(timeouts: RulesetFacts['timeouts']): RulesetFacts {
    const { config, privateDestinations, ownAddresses } = this.#m
    const { tun } = config
    const interfaces = this.#system.interfaceNetworks(tun.name).map((network) => network.split('/')[0]!)
    const own = new Set([...interfaces, ...ownAddresses()].filter(isIpText).map((text) => formatIp(parseIp(text))))
    const network = (family: 4 | 6) => this.#networks.find(({ address }) => address.family === family) ?? null
    return {
      device: tun.name,
      mtu: tun.mtu,
      network4: network(4),
      network6: network(6),
      outboundInterface: tun.outboundInterface || null,
      outbound4: config.outboundIpv4 || null,
      outbound6: config.outboundIpv6 || null,
      protocols: tun.protocols,
      maxFlows: tun.maxFlows,
      newFlowsPerSecond: tun.newFlowsPerSecond,
      newFlowBurst: tun.newFlowBurst,
      timeouts,
      lines: config.policy,
      privateDestinations,
      ownAddresses: [...own].map(parseIp),
    }
  }

  async #openDevice(): Promise<void> {
    const { tun } = this.#m.config
    const addresses = this.#networks.map(({ address, bits }) => `${formatIp(this.#addresses.gateway(address.family))}/${bits}`)
    let port: PacketPort
    try {
      port = await this.#system.openTun({ name: tun.name, mtu: deviceMtu(tun.mtu), addresses, queuePackets: tun.queuePackets })
    } catch (error) {
      throw deviceError(error)
    }
    port.attach({
      packets: (batch) => this.#demultiplexer.packets(batch, this.now()),
      drained: () => {},
      ended: (error) => this.#lost(port, error),
    })
    this.#tun = port
  }

  /** The device was removed from outside. What ran over it is over; the next one who asks has it made anew. */
  #lost(port: PacketPort, error: ShallotError | null): void {
    if (this.#tun !== port) return
    this.#tun = null
    this.#m.logger.warn('the TUN device was lost', { error: messageOf(error) })
    for (const lease of [...this.#leases]) lease.end(error)
  }

  async #reopenDevice(): Promise<void> {
    this.#opening ??= this.#openDevice().finally(() => {
      this.#opening = null
    })
    try {
      await this.#opening
    } catch (error) {
      this.#m.logger.warn('the TUN device could not be made anew', { error: messageOf(error) })
      throw new ExitRefusal('internal', `there is no TUN device: ${messageOf(error)}`, error)
    }
  }

  /** Ends leases that are silent, unless the kernel still has flows of theirs: those end by their own time-outs. */
  async #sweep(): Promise<void> {
    await this.#readKernelCounters()
    const before = this.now() - this.#m.config.packetIdleTimeoutMs
    for (const lease of [...this.#leases].filter(({ movedAt }) => movedAt <= before)) {
      const { address4, address6 } = lease.address
      try {
        for (const address of [address4, address6]) {
          if (address === null || !this.#leases.has(lease) || lease.movedAt > before) continue
          if ((await this.#flows?.count(address, 1)) === 0) continue
          lease.movedAt = this.now()
        }
      } catch (error) {
        this.#m.logger.debug('the connections of a lease could not be counted', { error: sensitive(messageOf(error)) })
      }
      if (lease.movedAt <= before && this.#leases.has(lease))
        lease.end(new ShallotError('lease-idle', 'nothing moved for too long', { kind: 'exit', retry: 'now' }))
    }
  }

  async #readKernelCounters(): Promise<void> {
    if (!this.#hasRules || this.now() - this.#countedAt < COUNTERS_MS) return
    this.#countedAt = this.now()
    const rules = this.#inKernelBefore
    try {
      const counted = await this.#system.readCounters(tableName(this.#m.config.tun.name))
      // Otherwise the table was made anew meanwhile.
      if (rules === this.#inKernelBefore)
        this.#inKernel = Object.fromEntries(Object.entries(counted).map(([name, packets]) => [name.replaceAll('_', '-'), packets]))
    } catch (error) {
      this.#m.logger.debug('what the rules dropped could not be read', { error: messageOf(error) })
    }
  }

  /** The device last: while it is ours, so are the rules. */
  async #tearDown(): Promise<void> {
    this.#endWatch?.()
    this.#endWatch = null
    const flows = this.#flows
    this.#flows = null
    try {
      await flows?.forget(this.#networks)
      flows?.close()
      if (this.#hasRules) await this.#system.applyRuleset(removalText(this.#m.config.tun.name))
    } catch (error) {
      this.#m.logger.warn('what the exit made in the kernel was not all removed', { error: messageOf(error) })
    }
    this.#hasRules = false
    const tun = this.#tun
    this.#tun = null
    tun?.close()
  }
}

function summed(one: Readonly<Record<string, number>>, other: Readonly<Record<string, number>>): Record<string, number> {
  const sums = { ...one }
  for (const [name, count] of Object.entries(other)) if (count > 0) sums[name] = (sums[name] ?? 0) + count
  return sums
}

function deviceMtu(mtu: number): number {
  return Math.max(INTERNET_MTU, mtu)
}

function networkText(config: ExitConfig, family: 4 | 6): string {
  return family === 4 ? config.packetNetworkIpv4 : config.packetNetworkIpv6
}

function deviceError(error: unknown): unknown {
  if (!(error instanceof ShallotError)) return error
  switch (error.code) {
    case 'tun-not-on-this-platform':
      return tunNatError('exit-tun-not-on-this-platform', error.message, 'never', error)
    case 'tun-not-permitted':
      return tunNatError('exit-tun-not-permitted', `${error.message}. Under systemd: exit/shallot-exit-tun.conf`, 'never', error)
    default:
      return tunNatError('exit-tun-unavailable', error.message, error.retry === 'later' ? 'later' : 'never', error)
  }
}
