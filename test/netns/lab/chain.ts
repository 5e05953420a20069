import { Machine, type MachineAddresses } from './machine.ts'
import type { Namespaces } from './namespaces.ts'
import { publicNet } from './plan.ts'
import { joinScript, linkScript } from './scripts.ts'

const maxRouters = 8
/** Where the addresses of the links between the routers begin: the third byte, and IPv6's third group in hex. */
const firstLink = 128

/** Routers in a row between the internet and one host, each forwarding both families: `NAME-router1` is next to the internet. */
export class HostChain {
  readonly host: string
  readonly routers: readonly Machine[]
  /** Of the internet's router, to the host. */
  readonly routesOfInternet: readonly string[]
  readonly number: number
  readonly hostAddresses: MachineAddresses

  constructor(namespaces: Namespaces, host: string, count: number, number: number, hostAddresses: MachineAddresses) {
    if (count > maxRouters) throw new Error(`at most ${maxRouters} routers in a row`)
    this.host = host
    this.number = number
    this.hostAddresses = hostAddresses
    this.routers = Array.from({ length: count }, (_, i) => {
      const { ipv4, ipv6 } = linkAddresses(number, i).near
      const place = `${host}-router${i + 1}`
      namespaces.add(place)
      return new Machine(namespaces, place, { ipv4: [ipv4], ipv6 })
    })
    this.routesOfInternet = this.routesVia(0)
  }

  get first(): Machine {
    return this.routers[0]!
  }

  /** To the host, over a link: its near end is the next router. */
  routesVia(link: number): readonly string[] {
    const { near } = linkAddresses(this.number, link)
    const { ipv4, ipv6 } = this.hostAddresses
    return [...ipv4.map((address) => `${address}/32 via ${near.ipv4}`), ...(ipv6 === null ? [] : [`${ipv6}/128 via ${near.ipv6}`])]
  }
}

/** The addresses of link `i`, from the internet: the end towards the internet, and the near one, of the router behind it. */
function linkAddresses(number: number, i: number) {
  const net = publicNet(number)
  const third = firstLink + i
  const four = (last: number): string => `11.${number}.${third}.${last}`
  const six = (last: number): string => `2a0f:${number.toString(16)}:${third.toString(16)}::${last}`
  // The first link is the internet's own net of this place.
  return {
    far: i === 0 ? { ipv4: net.gateway, ipv6: net.gateway6 } : { ipv4: four(1), ipv6: six(1) },
    near: { ipv4: four(2), ipv6: six(2) },
  }
}

/** The end of the wire to the internet, once that is there. */
export function chainJoinScript(namespaces: Namespaces, chain: HostChain): string {
  const { far, near } = linkAddresses(chain.number, 0)
  const addresses = [`${near.ipv4}/16`, `${near.ipv6}/32`]
  return joinScript(namespaces.name(chain.first.place), { device: 'wan', addresses, gateways: [far.ipv4, far.ipv6] })
}

/** The routers, the links between them and the host's end: all but the wire to the internet. */
export function chainScript(namespaces: Namespaces, chain: HostChain): string {
  const names = chain.routers.map(({ place }) => namespaces.name(place))
  const host = namespaces.name(chain.host)
  const parts = names.map((name) => `${linkScript(name)}\nnsenter --net=/run/netns/${name} sh -e <<'END'\n${forwards}END`)
  names.forEach((name, i) => {
    const next = names[i + 1]
    const { far } = linkAddresses(chain.number, i + 1)
    parts.push(`ip link add lan netns ${name} type veth peer name wan netns ${next ?? host}`)
    const routes = next === undefined ? hostRoutes(chain) : chain.routesVia(i + 1)
    parts.push(joinScript(name, { device: 'lan', addresses: [`${far.ipv4}/24`, `${far.ipv6}/64`], gateways: [], routes }))
  })
  names.slice(1).forEach((name, i) => {
    const { far, near } = linkAddresses(chain.number, i + 1)
    const addresses = [`${near.ipv4}/24`, `${near.ipv6}/64`]
    parts.push(joinScript(name, { device: 'wan', addresses, gateways: [far.ipv4, far.ipv6] }))
  })
  const { far } = linkAddresses(chain.number, names.length)
  const { ipv4, ipv6 } = chain.hostAddresses
  const addresses = [...ipv4.map((address) => `${address}/32`), ...(ipv6 === null ? [] : [`${ipv6}/128`])]
  const gateways = [`${far.ipv4} dev wan onlink`, ...(ipv6 === null ? [] : [`${far.ipv6} dev wan onlink`])]
  parts.push(joinScript(host, { device: 'wan', addresses, gateways }))
  return parts.join('\n')
}

function hostRoutes({ hostAddresses: { ipv4, ipv6 } }: HostChain): readonly string[] {
  return [...ipv4.map((address) => `${address}/32 dev lan`), ...(ipv6 === null ? [] : [`${ipv6}/128 dev lan`])]
}

const forwards = `echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects
`
