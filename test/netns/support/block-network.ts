import { lstatSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { shellOk } from '../../support/own-network.ts'
import { Program, temporaryFolder, until } from '../../support/processes.ts'

/**
 * A machine with one uplink, which is the network namespace of this process, and everything else behind the uplink: a router that has every
 * address there is, with guards and servers, a resolver of the local network, and another machine that this one forwards for.
 */
export const places = {
  device: 'uplink0',
  machine4: '11.0.0.2',
  machine6: '2001:db9::2',
  router4: '11.0.0.1',
  router6: '2001:db9::1',
  /** On the link, with a private address. */
  lan4: '192.168.7.1',
  lan6: 'fd77::1',
  guard4: '12.0.0.1',
  guard6: '2001:dba::1',
  guardPort: 4460,
  /** Anything on it that is not allowed. */
  otherPort: 4461,
  server4: '13.0.0.5',
  server6: '2001:dbb::5',
  bypass4: '14.0.0.0/8',
  inBypass4: '14.0.0.7',
  /** Behind this machine, which forwards for it. */
  behind4: '172.30.0.2',
  behind6: '2001:dbe::2',
} as const

export class BlockNetwork {
  readonly resolvConf: string
  readonly dir: string
  readonly #router: Program
  readonly #behind: Program
  readonly #remove: () => void
  readonly #programs: Program[] = []

  private constructor(router: Program, behind: Program, folder: { path: string; remove(): void }) {
    this.#router = router
    this.#behind = behind
    this.#remove = folder.remove
    this.dir = join(folder.path, 'node')
    this.resolvConf = join(folder.path, 'etc', 'resolv.conf')
    mkdirSync(this.dir)
    mkdirSync(join(folder.path, 'etc'))
    writeFileSync(this.resolvConf, `nameserver ${places.lan4}\nsearch home.example\n`)
  }

  /** In a process that has entered a network of its own. */
  static async create(): Promise<BlockNetwork> {
    const holder = () =>
      Program.start('unshare', [
        '--net',
        'sh',
        '-c',
        'sysctl -qw net.ipv6.conf.default.accept_dad=0; ip link set lo up; echo up; exec sleep infinity',
      ])
    const [router, behind] = [holder(), holder()]
    await Promise.all([router.waitFor(/^up$/m, 10_000), behind.waitFor(/^up$/m, 10_000)])
    const network = new BlockNetwork(router, behind, temporaryFolder('block'))
    const p = places
    shellOk(`
      sysctl -qw net.ipv6.conf.default.accept_dad=0
      ip link add ${p.device} type veth peer name link0 netns ${router.pid}
      ip link add behind0 type veth peer name eth0 netns ${behind.pid}
      ip address add ${p.machine4}/24 dev ${p.device}
      ip address add 192.168.7.2/24 dev ${p.device}
      ip address add ${p.machine6}/64 dev ${p.device} nodad
      ip address add fd77::2/64 dev ${p.device} nodad
      ip address add 172.30.0.1/24 dev behind0
      ip address add 2001:dbe::1/64 dev behind0 nodad
      ip link set ${p.device} up
      ip link set behind0 up
      ip route add default via ${p.router4}
      ip -6 route add default via ${p.router6}
      sysctl -qw net.ipv4.ip_forward=1
      sysctl -qw net.ipv6.conf.all.forwarding=1`)
    network.onRouter(`
      ip address add ${p.router4}/24 dev link0
      ip address add ${p.lan4}/24 dev link0
      ip address add ${p.router6}/64 dev link0 nodad
      ip address add ${p.lan6}/64 dev link0 nodad
      ip link set link0 up
      ip route add 172.30.0.0/24 via ${p.machine4}
      ip -6 route add 2001:dbe::/64 via ${p.machine6}
      for net in 12.0.0.0/8 13.0.0.0/8 14.0.0.0/8; do ip route add local $net dev lo; done
      for net in 2001:dba::/32 2001:dbb::/32; do ip -6 route add local $net dev lo; done`)
    shellOk(`nsenter --net=/proc/${behind.pid}/ns/net sh -ec '
      ip address add ${p.behind4}/24 dev eth0; ip address add ${p.behind6}/64 dev eth0 nodad; ip link set eth0 up
      ip route add default via 172.30.0.1; ip -6 route add default via 2001:dbe::1'`)
    // The devices give themselves addresses of the link in their own time.
    await until('addresses of the link', 10_000, () => shellOk('ip -6 -brief address show up').match(/fe80:/g)?.length === 2)
    await until('no tentative ones', 10_000, () => shellOk('ip -6 address show tentative') === '')
    return network
  }

  /** Runs a script on the router. */
  onRouter(script: string): string {
    return shellOk(`nsenter --net=/proc/${this.#router.pid}/ns/net sh -ec '${script}'`)
  }

  get routerWrapper(): readonly string[] {
    return ['nsenter', `--net=/proc/${this.#router.pid}/ns/net`, '--']
  }
  get behindWrapper(): readonly string[] {
    return ['nsenter', `--net=/proc/${this.#behind.pid}/ns/net`, '--']
  }

  start(command: string, args: readonly string[], wrapper: readonly string[] = []): Program {
    const program = Program.start(command, args, { wrapper })
    this.#programs.push(program)
    return program
  }

  /** Everything that a VPN might leave behind, as text. */
  snapshot(): string {
    const commands = [
      'ip -4 rule',
      'ip -6 rule',
      'ip -4 route show table all',
      'ip -6 route show table all',
      'nft list ruleset',
      'ip -brief link',
    ]
    const kernel = commands.map((command) => `# ${command}\n${shellOk(command)}`).join('\n')
    return `${kernel}\n# ${this.resolvConfFacts()}`
  }

  resolvConfFacts(): string {
    const facts = lstatSync(this.resolvConf, { throwIfNoEntry: false })
    if (facts === undefined) return 'no resolv.conf'
    const what = facts.isSymbolicLink() ? `-> ${readlinkSync(this.resolvConf)}` : readFileSync(this.resolvConf, 'utf8')
    return `${facts.mode.toString(8)} ${facts.uid}:${facts.gid} ${facts.isSymbolicLink() ? '' : Math.round(facts.mtimeMs)} ${what}`
  }

  async remove(): Promise<void> {
    for (const program of this.#programs) await program.stop('SIGKILL')
    await this.#router.stop('SIGKILL')
    await this.#behind.stop('SIGKILL')
    this.#remove()
  }
}

let captures = 0

/** What was seen on the wire by the router: what this machine sent over its uplink, one line a packet, with the time before it. */
export class UplinkCapture {
  readonly #program: Program
  readonly #file: string

  private constructor(program: Program, file: string) {
    this.#program = program
    this.#file = file
  }

  static async start(network: BlockNetwork): Promise<UplinkCapture> {
    const file = join(network.dir, '..', `uplink-${++captures}`)
    const script = `exec tcpdump --immediate-mode -l -n -tt -B 16384 -Q in -i link0 not arp > ${file}`
    const program = network.start('sh', ['-c', script], network.routerWrapper)
    await until('tcpdump listens', 10_000, () => program.log.includes('listening on'))
    return new UplinkCapture(program, file)
  }

  /** What left in this time (wall-clock ms) and is neither link control nor for the guards. @param also more that may leave */
  strays(from = 0, to = Number.POSITIVE_INFINITY, also: RegExp | null = null): readonly string[] {
    return this.lines(from, to).filter((line) => !LINK_CONTROL.test(line) && !FOR_GUARDS.test(line) && !(also?.test(line) ?? false))
  }

  lines(from = 0, to = Number.POSITIVE_INFINITY): readonly string[] {
    return readFileSync(this.#file, 'utf8')
      .split('\n')
      .filter((line) => {
        const at = Number(/^\d+\.\d+/.exec(line)?.[0] ?? 0) * 1000
        return at !== 0 && at >= from && at <= to
      })
  }

  async stop(): Promise<void> {
    await this.#program.stop('SIGTERM')
  }
}

/** Neighbour discovery, router solicitations, MLD reports. */
const LINK_CONTROL = /ICMP6, (neighbor (solicitation|advertisement)|router solicitation|multicast listener report)/
const FOR_GUARDS = new RegExp(`IP6? [^ ]+ > (${places.guard4.replaceAll('.', '\\.')}|${places.guard6})\\.${places.guardPort}: Flags`)
