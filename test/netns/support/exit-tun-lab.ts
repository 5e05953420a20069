import { parseIp, silentLogger } from '../../../src/base/index.ts'
import { type ExitConfig, ExitPolicy, exitConfig, type PacketUse, type TunNatOptions } from '../../../src/egress/index.ts'
import { TunNatBackend } from '../../../src/egress/tun-nat/index.ts'
import type { ExitPacketLease } from '../../../src/relaying/index.ts'
import { openTun } from '../../../src/tun/index.ts'
import { shellOk } from '../../support/own-network.ts'
import { type Finished, Program, run } from '../../support/processes.ts'

/**
 * An exit's surroundings, for a test file that is in a network namespace of its own, which is the exit's machine:
 *
 *     client (kernel TCP over a TUN)  --lease--  exit  --wan--  router  --  server
 *
 * The server also has addresses that no exit may reach, and the router leads there: what is refused would be answered.
 */
export const addresses = {
  exit: { 4: '11.0.0.1', 6: '2a11::1' },
  router: { 4: '11.0.0.254', 6: '2a11::254' },
  server: { 4: '11.0.2.2', 6: '2a11:0:0:2::2' },
  private: { 4: '10.5.5.5', 6: 'fd00:ec2::254' },
  metadata: { 4: '169.254.169.254', 6: 'fd00:ec2::254' },
} as const

const web = new URL('web.ts', import.meta.url).pathname
/** Programs that the server runs on all its addresses: a TCP and a UDP echo on these ports. */
const echoPorts = [25, 80, 8080]

/** A machine of the lab. */
export class Place {
  readonly #holder: Program

  private constructor(holder: Program) {
    this.#holder = holder
  }

  static async create(): Promise<Place> {
    const holder = Program.start('unshare', ['--net', 'sh', '-c', 'ip link set lo up && echo up && exec sleep infinity'])
    await holder.waitFor(/^up$/m, 10_000)
    return new Place(holder)
  }

  get pid(): number {
    return this.#holder.pid
  }

  get inside(): readonly string[] {
    return ['nsenter', `--net=/proc/${this.pid}/ns/net`, '--']
  }

  shell(script: string): string {
    return shellOk(`${this.inside.join(' ')} sh -ec '${script}'`)
  }

  run(command: string, args: readonly string[], timeoutMs = 30_000): Promise<Finished> {
    return run(command, args, { wrapper: this.inside, timeoutMs })
  }

  async remove(): Promise<void> {
    await this.#holder.stop('SIGKILL')
  }
}

/** One client behind a lease. */
export interface LabClient {
  readonly place: Place
  readonly lease: ExitPacketLease
  remove(): Promise<void>
}

export class ExitTunLab {
  readonly router: Place
  readonly server: Place
  readonly #programs: Program[] = []
  #clients = 0

  private constructor(router: Place, server: Place) {
    this.router = router
    this.server = server
  }

  static async start(): Promise<ExitTunLab> {
    const lab = new ExitTunLab(await Place.create(), await Place.create())
    const { router, server } = lab
    shellOk(`
      sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
      ip link add wan type veth peer name in netns ${router.pid}
      ip address add 11.0.0.1/24 dev wan; ip address add 2a11::1/64 dev wan nodad; ip link set wan up`)
    router.shell(`
      sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
      ip link add out type veth peer name eth0 netns ${server.pid}
      ip address add 11.0.0.254/24 dev in; ip address add 2a11::254/64 dev in nodad; ip link set in up
      ip address add 11.0.2.254/24 dev out; ip address add 2a11:0:0:2::254/64 dev out nodad; ip link set out up`)
    server.shell(`
      ip address add 11.0.2.2/24 dev eth0; ip address add 2a11:0:0:2::2/64 dev eth0 nodad; ip link set eth0 up
      ip address add 10.5.5.5/32 dev lo; ip address add 169.254.169.254/32 dev lo; ip address add 192.0.2.7/32 dev lo
      ip -6 address add fd00:ec2::254/128 dev lo nodad
      ip route add default via 11.0.2.254; ip -6 route add default via 2a11:0:0:2::254`)
    router.shell(`
      for to in 10.5.5.5 169.254.169.254 192.0.2.7; do ip route add $to via 11.0.2.2; done
      ip -6 route add fd00:ec2::254 via 2a11:0:0:2::2; ip route add 100.89.0.0/16 via 11.0.0.1; ip -6 route add fd73:6861:6c6c:6578::/64 via 2a11::1`)
    shellOk('ip route add default via 11.0.0.254; ip -6 route add default via 2a11::254')
    for (const port of echoPorts) await lab.serve(server, '::', port)
    return lab
  }

  /** The tests' web server in a place; null: on the exit's own machine. */
  async serve(place: Place | null, host: string, port: number): Promise<void> {
    const program = Program.node(web, [host, String(port)], { wrapper: place?.inside ?? [] })
    this.#programs.push(program)
    await program.waitFor(/ready/, 15_000)
  }

  keep(program: Program): Program {
    this.#programs.push(program)
    return program
  }

  /** A machine whose every packet goes into the lease. */
  async client(backend: TunNatBackend, use: PacketUse, mtu = 1420): Promise<LabClient> {
    const lease = await backend.open(use, mtu, new AbortController().signal)
    return this.join(lease)
  }

  async join(lease: ExitPacketLease): Promise<LabClient> {
    const place = await Place.create()
    const device = `lab${this.#clients++}`
    const tun = await openTun({ name: device, mtu: lease.port.mtu })
    shellOk(`ip link set ${device} netns ${place.pid}`)
    const { address4, address6 } = lease
    const lines = [
      `ip link set ${device} addrgenmode none up`,
      ...(address4 ? [`ip address add ${address4.bytes.join('.')}/32 dev ${device}; ip route add default dev ${device}`] : []),
      ...(address6 ? [`ip -6 address add ${text(address6)}/128 dev ${device} nodad; ip -6 route add default dev ${device}`] : []),
    ]
    place.shell(lines.join('\n'))
    tun.attach({ packets: (batch) => void lease.port.send(batch), drained: () => {}, ended: () => {} })
    lease.port.attach({ packets: (batch) => void tun.send(batch), drained: () => {}, ended: () => {} })
    return {
      place,
      lease,
      async remove() {
        lease.port.close()
        tun.close()
        await place.remove()
      },
    }
  }

  async stop(): Promise<void> {
    for (const program of this.#programs.splice(0)) await program.stop('SIGKILL')
    await this.server.remove()
    await this.router.remove()
  }
}

function text({ bytes }: { readonly bytes: Uint8Array }): string {
  return Array.from({ length: 8 }, (_, i) => ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16)).join(':')
}

/** `[exit]` with these keys, `[exit.tun]` among them. */
export function labConfig(keys: Record<string, unknown> = {}): ExitConfig {
  return exitConfig.parse({ packets: 'tun', ...keys })
}

/** A backend on this machine. */
export function labBackend(config: ExitConfig = labConfig(), more: Partial<TunNatOptions> = {}): TunNatBackend {
  return new TunNatBackend({
    config,
    families: [4, 6],
    privateDestinations: [],
    ownAddresses: () => [],
    now: () => performance.now(),
    logger: silentLogger,
    ...more,
  })
}

/** What a circuit's packets come under: the policy as the exit has it. */
export function policyUse(config: ExitConfig, takeRate: (bytes: number) => boolean = () => true): PacketUse {
  const own = new Set([addresses.exit[4], addresses.exit[6]].map((one) => parseIp(one).bytes.join()))
  const policy = new ExitPolicy({
    lines: config.policy,
    privateDestinations: [],
    families: [4, 6],
    isOwnAddress: (ip) => own.has(ip.bytes.join()),
    isRelayAddress: () => false,
  })
  return {
    ...openUse(),
    allows: (address, port) => (port === null ? policy.checkAnyPort(address) : policy.check(address, port)).allowed,
    takeRate,
  }
}

/** Everything goes: what is refused then, the kernel's rules refuse. */
export function openUse(): PacketUse {
  const never = () => {
    throw new Error('a TUN makes no sockets')
  }
  return { allows: () => true, takeRate: () => true, connect: never, openDatagrams: never }
}
