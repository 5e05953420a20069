import { Machine } from './machine.ts'
import { type Namespaces, shell } from './namespaces.ts'
import { routerRules } from './nat-kinds.ts'
import { type HomePlan, publicNet } from './plan.ts'
import { joinScript, linkScript } from './scripts.ts'

/** What a home needs of the lab around it. */
export interface HomeModules {
  readonly internet: Machine
  /** A number of a public net that nobody has. */
  spareNet(): number
}

const defaultMappingTimeoutS = 60
/** Between a carrier and its customers (RFC 6598). */
const carrierNet = { carrier: '100.64.0.1', customer: '100.64.0.2' } as const

/** A router with one or more machines behind it: `NAME-router`, `NAME-MACHINE`, and, if there is one, `NAME-carrier`. */
export class Home {
  readonly name: string
  readonly router: Machine
  readonly carrier: Machine | null
  readonly machines: readonly Machine[]
  readonly #plan: HomePlan
  readonly #namespaces: Namespaces
  readonly #modules: HomeModules
  /** The number of its place on the internet: the interface there. */
  readonly #place: number
  /** The number of the public net it has its addresses of. */
  #net: number

  constructor(namespaces: Namespaces, name: string, plan: HomePlan, place: number, modules: HomeModules) {
    this.name = name
    this.#plan = plan
    this.#namespaces = namespaces
    this.#modules = modules
    this.#place = place
    this.#net = place
    const four = (address: string): readonly string[] => (plan.nat === null ? [] : [address])
    const machine = (place: string, ipv4: readonly string[], ipv6: string | null): Machine => {
      namespaces.add(place)
      return new Machine(namespaces, place, { ipv4, ipv6: this.hasIpv6 ? ipv6 : null })
    }
    const lan6 = publicNet(place).home6
    this.router = machine(`${name}-router`, four(`192.168.${place}.1`), `${lan6}1`)
    this.carrier = plan.carrier === undefined ? null : machine(`${name}-carrier`, [carrierNet.carrier], null)
    this.machines = (plan.machines ?? ['pc']).map((each, i) =>
      machine(`${name}-${each}`, four(`192.168.${place}.${10 + i}`), `${lan6}${(10 + i).toString(16)}`),
    )
  }

  get hasIpv6(): boolean {
    return (this.#plan.ipv6 ?? 'none') !== 'none'
  }

  /** The place that holds the public address: the router, or the carrier in front of it. */
  get outermost(): string {
    return (this.carrier ?? this.router).place
  }

  /** Where the internet sees the home's IPv4 come from. */
  get publicAddress(): string {
    return publicNet(this.#net).address(0)
  }

  machine(name?: string): Machine {
    const found = name === undefined ? this.machines[0] : this.machines.find(({ place }) => place === `${this.name}-${name}`)
    if (!found) throw new Error(`the home ${this.name} has no machine ${name}`)
    return found
  }

  /** Whether a public address is this home's. */
  owns(address: string): boolean {
    if (address === this.publicAddress) return this.#plan.nat !== null
    return this.machines.some(({ ipv6 }) => ipv6 === address)
  }

  /** Loses everything the router (and the carrier) remembers, as when its power was off for a moment; what was set up stays. */
  async rebootRouter(): Promise<void> {
    for (const router of this.#routers()) await router.shell(forget)
  }

  /** Only what the routers know of this home and these addresses outside: the pair can meet as if for the first time. */
  async forgetMappings(addresses: readonly string[]): Promise<void> {
    for (const router of this.#routers()) {
      const lines = addresses.flatMap((address) =>
        ['-d', '-s'].map((side) => `conntrack -D -f ${address.includes(':') ? 'ipv6' : 'ipv4'} ${side} ${address} >/dev/null 2>&1 || true`),
      )
      await router.shell(lines.join('\n'))
      await forgetAsked(router, addresses)
    }
  }

  /** The provider gives the home another IPv4 address, of another /16. Mappings are lost. Gives the new address. */
  async changePublicAddress(): Promise<string> {
    if (this.#plan.nat === null) throw new Error(`the home ${this.name} has no IPv4`)
    const before = publicNet(this.#net)
    this.#net = this.#modules.spareNet()
    const after = publicNet(this.#net)
    await this.#modules.internet.shell(
      `ip address delete ${before.gateway}/16 dev p${this.#place}\nip address add ${after.gateway}/16 dev p${this.#place}`,
    )
    const outermost = this.carrier ?? this.router
    await outermost.shell(
      `ip address delete ${before.address(0)}/16 dev wan\nip address add ${after.address(0)}/16 dev wan\nip route replace default via ${after.gateway}`,
    )
    await this.rebootRouter()
    return after.address(0)
  }

  /** Pulls or plugs the cable between the home and the internet. Routes come back with it. */
  async setLink(state: 'up' | 'down'): Promise<void> {
    const net = publicNet(this.#net)
    const outermost = this.carrier ?? this.router
    if (state === 'down') return void (await outermost.shell('ip link set wan down'))
    await shell(this.#joinOutermost(net))
    await outermost.shell('ip link set wan up')
  }

  /** After the wire to the internet is there. */
  async connect(): Promise<void> {
    await shell(this.#joinOutermost(publicNet(this.#net)))
  }

  #routers(): readonly Machine[] {
    return this.carrier ? [this.router, this.carrier] : [this.router]
  }

  #joinOutermost(net: ReturnType<typeof publicNet>): string {
    const four = this.#plan.nat !== null || this.carrier !== null
    return joinScript(this.#namespaces.name(this.outermost), {
      device: 'wan',
      addresses: [...(four ? [`${net.address(0)}/16`] : []), ...(this.hasIpv6 ? [`${net.address6}/32`] : [])],
      gateways: [...(four ? [net.gateway] : []), ...(this.hasIpv6 ? [net.gateway6] : [])],
    })
  }
}

/** Everything of a home but the wire to the internet: the namespaces, the switch, the addresses, the rules. */
export function homeScript(namespaces: Namespaces, home: Home, plan: HomePlan): string {
  const router = namespaces.name(home.router.place)
  const mappingTimeoutS = plan.mappingTimeoutS ?? defaultMappingTimeoutS
  const addressesOf = (machine: Machine): readonly string[] => [
    ...machine.addresses.map((address) => `${address}/24`),
    ...(machine.ipv6 === null ? [] : [`${machine.ipv6}/64`]),
  ]
  const parts = [
    linkScript(router),
    routerScript(router, routerRules({ nat: plan.nat, ipv6: plan.ipv6 ?? 'none', mappingTimeoutS }), mappingTimeoutS),
    `ip -n ${router} link add lan type bridge`,
    joinScript(router, { device: 'lan', addresses: addressesOf(home.router), gateways: [] }),
    ...home.machines.flatMap((machine, i) => {
      const namespace = namespaces.name(machine.place)
      return [
        linkScript(namespace),
        `ip link add lan netns ${namespace} type veth peer name port${i} netns ${router}`,
        `ip -n ${router} link set port${i} master lan up`,
        joinScript(namespace, {
          device: 'lan',
          addresses: addressesOf(machine),
          gateways: [...home.router.addresses, ...(home.router.ipv6 === null ? [] : [home.router.ipv6])],
        }),
      ]
    }),
  ]
  if (home.carrier && plan.carrier) {
    const carrier = namespaces.name(home.carrier.place)
    parts.push(
      linkScript(carrier),
      routerScript(carrier, routerRules({ nat: plan.carrier, ipv6: 'none', mappingTimeoutS }), mappingTimeoutS),
      `ip link add lan netns ${carrier} type veth peer name wan netns ${router}`,
      joinScript(carrier, { device: 'lan', addresses: [`${carrierNet.carrier}/10`], gateways: [] }),
      joinScript(router, { device: 'wan', addresses: [`${carrierNet.customer}/10`], gateways: [carrierNet.carrier] }),
    )
  }
  return parts.join('\n')
}

/** A connection that the router does not know is not picked up in the middle: after a reboot all are lost. */
function routerScript(namespace: string, rules: string, mappingTimeoutS: number): string {
  return `nsenter --net=/run/netns/${namespace} sh -e <<'END'
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects
nft -f - <<'RULES'
${rules}
RULES
echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose
echo ${mappingTimeoutS} > /proc/sys/net/netfilter/nf_conntrack_udp_timeout
echo ${mappingTimeoutS} > /proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream
END`
}

const forget = `conntrack -F >/dev/null 2>&1
nft list map ip nat mappings >/dev/null 2>&1 && nft flush map ip nat mappings
nft list set ip nat asked >/dev/null 2>&1 && nft flush set ip nat asked
true`

/** Takes addresses out of what an address-restricted router lets in. */
async function forgetAsked(router: Machine, addresses: readonly string[]): Promise<void> {
  const listed = await router.run('nft', ['-j', 'list', 'set', 'ip', 'nat', 'asked'])
  if (listed.code !== 0) return
  const { nftables } = JSON.parse(listed.stdout) as {
    nftables: { set?: { elem?: { elem: { val: { concat: (string | number)[] } } }[] } }[]
  }
  const keys = nftables.flatMap(({ set }) => set?.elem ?? []).map(({ elem }) => elem.val.concat)
  const gone = keys.filter((key) => addresses.includes(String(key[2])))
  if (gone.length > 0) await router.shell(`nft delete element ip nat asked '{ ${gone.map((key) => key.join(' . ')).join(', ')} }' || true`)
}
