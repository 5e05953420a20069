import { createHmac, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { IpNetwork, Logger, Random, ShallotError } from '../../base/index.ts'
import { assert } from '../../base/index.ts'
import type { ClientService } from '../../client/index.ts'
import { Deadline } from '../../drive/index.ts'
import { Stack, type StackEvent, type StackLimits, StackOnPort, type TcpSettings } from '../../netstack/index.ts'
import type { PacketPort } from '../../packet/index.ts'
import type { TunConfig } from './config.ts'
import { DeviceAddresses, deviceNetwork } from './device-addresses.ts'
import { Intake, type IntakeCounts } from './intake.ts'
import { Junction } from './junction.ts'
import { Origins } from './origins.ts'
import type { LeaseCounts } from './packet-lease-user.ts'
import { PacketLeases } from './packet-leases.ts'
import { Refusals } from './refusals.ts'
import { TcpFlows } from './tcp-flows.ts'
import { type UdpCounts, UdpFlows } from './udp-flows.ts'

/** Who answers questions; `DnsService` does. */
export interface DnsAsker {
  /** The whole answer, of any size, to a whole question (borrowed). @throws ShallotError when there is none to be had */
  ask(message: Uint8Array, isolation: string, signal: AbortSignal): Promise<Uint8Array>
}

export interface TunModules {
  readonly client: ClientService
  /** Null: port 53 is carried like any other, whatever the configuration says. */
  readonly dns: DnsAsker | null
  readonly logger: Logger
  readonly random: Random
  /** Monotonic ms; default the process's. */
  readonly now?: () => number
  /** A keyed hash of 32 bits for sequence numbers; default one with a key of its own. */
  readonly hash?: (bytes: Uint8Array) => number
  /** Whose traffic it is, for isolation: default 'tun'. A program with a device of its own has its own name. */
  readonly origin?: string
  /** Internal networks that exits of this network do serve (the network file's private destinations). */
  readonly internalNetworks?: readonly IpNetwork[]
}

/** What a device carries now, and what it did since it was attached. Without a word of where to. */
export interface TunCounts {
  /** From the machine, and to it. */
  readonly packetsIn: number
  readonly packetsOut: number
  readonly bytesIn: number
  readonly bytesOut: number
  /** Open now, those being opened included. */
  readonly tcpFlows: number
  readonly udpFlows: number
  readonly packetLeases: number
  readonly tcpOpened: number
  readonly tcpRefused: number
  readonly udp: Readonly<UdpCounts>
  readonly packets: Readonly<LeaseCounts>
  /** Packets of the machine that went no further, by reason. */
  readonly dropped: Readonly<IntakeCounts>
  /** ICMP errors that were held back because there were too many. */
  readonly suppressed: number
  /** Datagrams, raw packets and ICMP for which there was no room on the way to the machine. */
  readonly overflow: number
  /** Memory of the connections' buffers now, bytes. */
  readonly bufferBytes: number
}

/** How our end of the machine's connections behaves: the other end is the kernel of the same machine, a system call away. */
const tcpSettings: Partial<TcpSettings> = {
  // The path has no queue to spare: the machine takes what it is given.
  initialWindowSegments: 32,
  // No segment of an old connection is ever late on a device.
  timeWaitMs: 2000,
  // Programs that idle without a word are asked whether they are still there: it costs nothing on this machine.
  keepAliveMs: 120_000,
}

/** Everything of a device that could grow, as far as no setting says. */
const stackLimits: Partial<StackLimits> = {
  halfOpen: 1024,
  timeWaits: 4096,
  bufferBytes: 128 << 20,
}

/** How often what is idle is looked for: a quarter of the shortest patience, at most this. */
const SWEEP_MS = 5000

/** How long the machine may take to read why its connections ended. */
const LAST_WORDS_MS = 200

/**
 * The traffic of a machine, or of one program, that comes as IP packets: TCP is ended here and carried as streams, UDP as datagram associations,
 * questions by the DNS service, ping, traceroute and other protocols as raw packets by a lease at an exit. What cannot be carried is answered with
 * ICMP and never leaves another way. Inert until attached; each device has one of its own.
 */
export class TunIngress {
  readonly #config: TunConfig
  readonly #m: TunModules
  readonly #now: () => number
  #parts: Parts | null = null
  #sweep: NodeJS.Timeout | null = null
  #stopping: Promise<void> | null = null

  constructor(config: TunConfig, modules: TunModules) {
    this.#config = config
    this.#m = modules
    this.#now = modules.now ?? (() => performance.now())
  }

  /**
   * Takes over a port (medium IP), which from now on is ours to close.
   * @param addresses of the machine on the device, ADDRESS/BITS with the whole address, @param ended the port is gone, by `stop` or by itself; everything has been given up
   * @throws MalformedError for an address that is none
   */
  attach(port: PacketPort, addresses: readonly string[], ended: (error: ShallotError | null) => void = () => {}): void {
    assert(this.#parts === null, 'a TunIngress has one device')
    this.#parts = this.#make(port, addresses.map(deviceNetwork), ended)
    this.#parts.driver.start()
    const { udpIdleTimeoutMs, packetsIdleTimeoutMs } = this.#config
    const every = Math.min(SWEEP_MS, Math.min(udpIdleTimeoutMs, packetsIdleTimeoutMs) / 4)
    this.#sweep = setInterval(() => {
      this.#parts?.udp.sweep(this.#now())
      this.#parts?.leases.sweep(this.#now())
    }, every)
    this.#sweep.unref()
  }

  /** Resets the machine's connections, gives up what was carried and closes the port, once the resets are out or the machine does not take them. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  async #stop(): Promise<void> {
    const parts = this.#parts
    if (parts === null || parts.over) return
    parts.giveUp()
    parts.stack.stop(this.#now())
    parts.driver.expired()
    const deadline = this.#now() + LAST_WORDS_MS
    while (parts.stack.hasOutput && !parts.over && this.#now() < deadline) await sleep(LAST_WORDS_MS / 20)
    parts.junction.close()
    await parts.ended.promise
  }

  /** All zero before it is attached. */
  get counts(): TunCounts {
    const parts = this.#parts
    if (parts === null) return nothing
    const { junction, tcp, udp, leases, intake, refusals, stack } = parts
    const { stats } = junction
    return {
      packetsIn: stats.receivedPackets,
      packetsOut: stats.sentPackets,
      bytesIn: stats.receivedBytes,
      bytesOut: stats.sentBytes,
      tcpFlows: tcp.size,
      udpFlows: udp.size,
      packetLeases: leases.open,
      tcpOpened: tcp.opened,
      tcpRefused: tcp.refused,
      udp: { ...udp.counts },
      packets: { ...leases.counts },
      dropped: { ...intake.counts },
      suppressed: refusals.suppressed,
      overflow: junction.dropped + stack.facts.droppedPackets,
      bufferBytes: stack.facts.bufferBytes,
    }
  }

  #make(port: PacketPort, networks: readonly IpNetwork[], ended: (error: ShallotError | null) => void): Parts {
    const config = this.#config
    const { client, random, logger } = this.#m
    const dns = config.interceptDns ? this.#m.dns : null
    const now = this.#now
    const addresses = new DeviceAddresses(networks, this.#m.internalNetworks)
    const origins = new Origins(this.#m.origin ?? 'tun', config.isolateBy, addresses)
    const isHop = ({ address }: { readonly address: { readonly bytes: Uint8Array } }): boolean =>
      addresses.isHop(address.bytes, 0, address.bytes.length)
    const stack = new Stack({
      addresses: [addresses.hop4, addresses.hop6],
      mtu: port.mtu,
      promiscuous: true,
      random,
      hash: this.#m.hash ?? keyedHash(),
      tcp: { ...tcpSettings, connectTimeoutMs: config.connectTimeoutMs + 1000 },
      limits: { ...stackLimits, connections: config.maxTcpFlows, halfOpen: Math.min(stackLimits.halfOpen!, config.maxTcpFlows) },
    })
    stack.listen({ address: null, port: null })
    const junction: Junction = new Junction(port, (batch) => intake.sort(batch))
    const refusals = new Refusals(junction, addresses, random, now())
    const leases = new PacketLeases({
      addresses,
      junction,
      refusals,
      random,
      now,
      counts: { unasked: 0, overflow: 0, refused: 0, opened: 0 },
      failed: (reason) => logger.debug('raw packets refused', { reason }),
      most: config.maxPacketLeases,
      idleTimeoutMs: config.packetsIdleTimeoutMs,
      open: (origin, signal) => client.openPackets({ isolation: origins.packets(origin), signal }),
    })
    const intake = new Intake({ config: { ...config, interceptDns: dns !== null }, addresses, leases, refusals, now, mtu: port.mtu })
    const touch = (): void => driver.touch()
    const shared = { client, dns, isolation: origins.flow, dnsIsolation: origins.questions, isHop, logger }
    const tcp = new TcpFlows({ ...shared, connectTimeoutMs: config.connectTimeoutMs, touch })
    const udp = new UdpFlows({
      ...shared,
      maxFlows: config.maxUdpFlows,
      idleTimeoutMs: config.udpIdleTimeoutMs,
      now,
      send: (datagram) => {
        touch()
        return stack.sendDatagram(datagram, now())
      },
      refuse: (datagram, kind) => {
        touch()
        stack.refuseDatagram(datagram, kind, now(), datagram.to.address.family === 4 ? addresses.hop4 : addresses.hop6)
      },
    })
    const event = (one: StackEvent): void => {
      if ('connection' in one) tcp.handle(one)
      else if (one.type === 'datagram') udp.take(one)
      else if (one.type === 'undelivered' && one.kind === 'port-unreachable') udp.unwanted(one.to)
    }
    const driver: StackOnPort = new StackOnPort({
      stack,
      port: junction,
      now,
      soon: queueMicrotask,
      event,
      timeoutChanged: () => deadline.update(),
      ended: (error) => {
        parts.over = true
        if (this.#sweep !== null) clearInterval(this.#sweep)
        deadline.stop()
        parts.giveUp()
        parts.ended.resolve()
        ended(error)
      },
    })
    const deadline = new Deadline(driver, now, () => driver.expired())
    const giveUp = (): void => {
      tcp.stop()
      udp.stop()
      leases.stop()
    }
    const parts: Parts = {
      stack,
      junction,
      refusals,
      intake,
      leases,
      tcp,
      udp,
      driver,
      giveUp,
      over: false,
      ended: Promise.withResolvers(),
    }
    return parts
  }
}

interface Parts {
  readonly stack: Stack
  readonly junction: Junction
  readonly refusals: Refusals
  readonly intake: Intake
  readonly leases: PacketLeases
  readonly tcp: TcpFlows
  readonly udp: UdpFlows
  readonly driver: StackOnPort
  readonly giveUp: () => void
  over: boolean
  readonly ended: PromiseWithResolvers<void>
}

const nothing: TunCounts = {
  packetsIn: 0,
  packetsOut: 0,
  bytesIn: 0,
  bytesOut: 0,
  tcpFlows: 0,
  udpFlows: 0,
  packetLeases: 0,
  tcpOpened: 0,
  tcpRefused: 0,
  udp: { opened: 0, refused: 0, overflow: 0, unasked: 0, questions: 0 },
  packets: { unasked: 0, overflow: 0, refused: 0, opened: 0 },
  dropped: { malformed: 0, martian: 0, local: 0, internal: 0, expired: 0, unserved: 0 },
  suppressed: 0,
  overflow: 0,
  bufferBytes: 0,
}

/** RFC 6528: nobody else can say what sequence number a connection begins with. */
function keyedHash(): (bytes: Uint8Array) => number {
  const key = randomBytes(32)
  return (bytes) => createHmac('sha256', key).update(bytes).digest().readUInt32BE(0)
}
