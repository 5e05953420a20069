import { join } from 'node:path'
import type { AllowedPeer, VpnFacts } from '../../../src/vpn/index.ts'
import { type Finished, projectRoot, until } from '../../support/processes.ts'
import type { Machine } from '../lab/index.ts'
import type { LabNode } from './lab-mesh.ts'
import type { UplinkCheck } from './vpn-uplink-check.ts'

/** `up` waits for the mesh; a machine of two cores with a whole mesh on it is slow. */
const commandMs = 90_000
/** Changes of the allow-list come a few in an hour. */
const watchEveryMs = 200

/** The VPN of a node, by its command as a person uses it, and by its control API. */
export class VpnClient {
  readonly node: LabNode

  constructor(node: LabNode) {
    this.node = node
  }

  up(...more: readonly string[]): Promise<Finished> {
    return this.command('up', ...more)
  }

  down(...more: readonly string[]): Promise<Finished> {
    return this.command('down', ...more)
  }

  /** `shallot vpn …` for this node, on its machine. */
  command(verb: string, ...args: readonly string[]): Promise<Finished> {
    return this.node.machine.run('sh', [join(projectRoot, 'bin', 'shallot'), 'vpn', verb, '--dir', this.node.dir, ...args], {
      timeoutMs: commandMs,
    })
  }

  /** As the control API has it. */
  facts(): Promise<VpnFacts> {
    return this.node.control.ask('GET', '/v1/vpn')
  }

  /** As `shallot vpn status --json` prints it. */
  async status(): Promise<VpnFacts> {
    const { stdout, log } = await this.command('status', '--json')
    // Its exit code tells the state.
    if (!stdout.startsWith('{')) throw new Error(`shallot vpn status: ${log}`)
    return JSON.parse(stdout) as VpnFacts
  }

  async isIn(state: VpnFacts['state'], withinMs = 60_000): Promise<VpnFacts> {
    let last: VpnFacts | null = null
    const isThere = async () => {
      last = await this.facts()
      return last.state === state && last
    }
    return until(`the VPN is ${state}`, withinMs, isThere).catch((error) => {
      throw new Error(`the VPN is not ${state}: ${JSON.stringify(last)}\n${this.node.tail()}`, { cause: error })
    })
  }
}

/** Tells a check, again and again, whom the VPN lets be reached. While nobody answers, the last list holds, as it does in the kernel. */
export class AllowWatch {
  readonly #vpn: VpnClient
  readonly #check: UplinkCheck
  readonly #seen: AllowedPeer[] = []
  #timer: NodeJS.Timeout | null = null
  #asking: Promise<void> | null = null

  constructor(vpn: VpnClient, check: UplinkCheck) {
    this.#vpn = vpn
    this.#check = check
    this.#next()
  }

  /** Everybody who was ever on the list. */
  get seen(): readonly AllowedPeer[] {
    return this.#seen
  }

  /** Asks now, at the end: what was sent last is of this list or of the one before. */
  async look(): Promise<void> {
    try {
      const facts = await this.#vpn.facts()
      // There is no list yet, or none any more.
      if (facts.state === 'down' || (facts.state === 'starting' && facts.allowed.length === 0)) return
      this.#check.allow(Date.now(), facts)
      for (const peer of facts.allowed) if (!this.#seen.some((one) => JSON.stringify(one) === JSON.stringify(peer))) this.#seen.push(peer)
    } catch {
      // The node is not there.
    }
  }

  async stop(): Promise<void> {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    await this.#asking
  }

  #next(): void {
    this.#timer = setTimeout(() => {
      this.#asking = this.look().then(() => {
        if (this.#timer) this.#next()
      })
    }, watchEveryMs)
  }
}

/**
 * Everything of a machine's network that a VPN could change, as text: rules, routes, filters, devices, resolver, switches of the kernel.
 * Two of them are equal when the machine is as it was.
 */
export function networkState(machine: Machine): Promise<string> {
  // Counters and ages change by themselves; so does what the kernel learns of neighbours and paths.
  return machine.shell(`
for family in -4 -6; do
  echo "rules $family"; ip $family rule
  echo "routes $family"; ip $family route show table all | grep -v '^multicast ' | sed -E 's/ (expires|cache|age|error) [0-9-]+(sec)?//g' | sort
done
echo filters; nft --stateless list ruleset
echo devices; ip -o link | sed -E 's/^[0-9]+: //; s/ .*//' | sort
echo addresses; ip -o address | sed -E 's/^[0-9]+: //; s/ (valid_lft|preferred_lft) .*//'
echo resolver; stat -c '%F %a %u %g %N' /etc/resolv.conf; cat /etc/resolv.conf
echo switches
for name in rp_filter src_valid_mark accept_local arp_ignore arp_announce; do grep -H . /proc/sys/net/ipv4/conf/*/$name; done
for name in disable_ipv6 accept_ra use_tempaddr; do grep -H . /proc/sys/net/ipv6/conf/*/$name; done
grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding /proc/sys/net/ipv4/ping_group_range
`)
}
