import { chainJoinScript, chainScript, HostChain } from './chain.ts'
import { Home, homeScript } from './home.ts'
import { Machine } from './machine.ts'
import { Namespaces, shell } from './namespaces.ts'
import { Observer } from './observer.ts'
import { type HomePlan, type HostPlan, type LabPlan, publicNet } from './plan.ts'
import { joinScript, linkScript } from './scripts.ts'
import { Wires } from './wire.ts'

/** The most places on the public net: the second byte of their addresses. */
const maxPlaces = 200
/** Where addresses for routers that change theirs begin. */
const firstSpareNet = 201
const lastSpareNet = 254

/**
 * A small internet in network namespaces: hosts with public addresses and homes behind routers, all joined by one router that is "the
 * internet". It has no way out of this machine. Whatever happens, it is gone when the process ends; a killed process's is removed by the next lab.
 */
export class Lab {
  /** The router in the middle: every packet between two places passes here. */
  readonly internet: Machine
  readonly wires: Wires
  readonly #namespaces: Namespaces
  readonly #hosts = new Map<string, Machine>()
  readonly #homes = new Map<string, Home>()
  readonly #chains = new Map<string, HostChain>()
  readonly #atExit = (): void => this.#namespaces.remove()
  #observers: Observer[] = []
  #nextSpareNet = firstSpareNet

  static async build(plan: LabPlan): Promise<Lab> {
    const lab = new Lab()
    try {
      await lab.#build(plan)
      return lab
    } catch (error) {
      await lab.remove()
      throw error
    }
  }

  private constructor() {
    this.#namespaces = new Namespaces()
    process.on('exit', this.#atExit)
    this.internet = new Machine(this.#namespaces, 'internet', { ipv4: [], ipv6: null })
    this.wires = new Wires(this.#namespaces)
  }

  host(name: string): Machine {
    const host = this.#hosts.get(name)
    if (!host) throw new Error(`the lab has no host ${name}`)
    return host
  }

  home(name: string): Home {
    const home = this.#homes.get(name)
    if (!home) throw new Error(`the lab has no home ${name}`)
    return home
  }

  /** The routers between the internet and a host, the one next to the internet first. */
  routersOf(host: string): readonly Machine[] {
    return this.#chains.get(host)?.routers ?? []
  }

  get homes(): readonly Home[] {
    return [...this.#homes.values()]
  }

  /** Begins to watch what crosses the internet. */
  async observe(): Promise<Observer> {
    const observer = await Observer.start(this.internet)
    this.#observers.push(observer)
    return observer
  }

  /** Whose public address this is: the name of a host or a home; null when nobody's. */
  ownerOf(address: string): string | null {
    for (const [name, host] of this.#hosts) if (host.addresses.includes(address) || host.ipv6 === address) return name
    for (const [name, home] of this.#homes) if (home.owns(address)) return name
    return null
  }

  /** The addresses under which the internet sees a host or a home. */
  publicAddressesOf(name: string): readonly string[] {
    const host = this.#hosts.get(name)
    if (host) return [...host.addresses, ...(host.ipv6 === null ? [] : [host.ipv6])]
    const home = this.home(name)
    return [home.publicAddress, ...home.machines.flatMap(({ ipv6 }) => ipv6 ?? [])]
  }

  /** Ends everything inside and removes it. */
  async remove(): Promise<void> {
    for (const observer of this.#observers.splice(0)) await observer.stop()
    await this.wires.stop()
    this.#namespaces.remove()
    process.off('exit', this.#atExit)
  }

  async #build(plan: LabPlan): Promise<void> {
    const hosts = Object.entries(plan.hosts ?? {})
    const homes = Object.entries(plan.homes ?? {})
    if (hosts.length + homes.length > maxPlaces) throw new Error(`a lab has at most ${maxPlaces} places`)
    for (const [name] of [...hosts, ...homes]) if (!/^[a-z0-9-]{1,40}$/.test(name)) throw new Error(`not a name of the lab: ${name}`)
    const wired = [...hosts, ...homes].some(([, place]) => place.wire !== undefined)
    await shell(linkScript(this.#namespaces.add('internet')))
    await this.internet.shell(internetSettings)
    if (wired) await this.wires.start()
    let n = 0
    const building: Promise<void>[] = []
    for (const [name, host] of hosts) building.push(this.#addHost(name, host, ++n))
    for (const [name, home] of homes) building.push(this.#addHome(name, home, ++n))
    await Promise.all(building)
  }

  async #addHost(name: string, plan: HostPlan, n: number): Promise<void> {
    const net = publicNet(n)
    const addresses = Array.from({ length: plan.addresses ?? 1 }, (_, i) => net.address(i))
    const ipv6 = (plan.ipv6 ?? true) ? net.address6 : null
    const namespace = this.#namespaces.add(name)
    this.#hosts.set(name, new Machine(this.#namespaces, name, { ipv4: addresses, ipv6 }))
    await shell(linkScript(namespace))
    if (plan.routers) {
      const chain = new HostChain(this.#namespaces, name, plan.routers, n, { ipv4: addresses, ipv6 })
      this.#chains.set(name, chain)
      await shell(chainScript(this.#namespaces, chain))
      await this.#join(n, chain.first.place, plan, 'wan', chain.routesOfInternet)
      await shell(chainJoinScript(this.#namespaces, chain))
      return
    }
    await this.#join(n, name, plan, 'wan')
    await shell(
      joinScript(namespace, {
        device: 'wan',
        addresses: [...addresses.map((address) => `${address}/16`), ...(ipv6 === null ? [] : [`${ipv6}/32`])],
        gateways: [net.gateway, ...(ipv6 === null ? [] : [net.gateway6])],
      }),
    )
  }

  async #addHome(name: string, plan: HomePlan, n: number): Promise<void> {
    const home = new Home(this.#namespaces, name, plan, n, { internet: this.internet, spareNet: () => this.#takeSpareNet() })
    this.#homes.set(name, home)
    await shell(homeScript(this.#namespaces, home, plan))
    await this.#join(n, home.outermost, plan, 'wan')
    await home.connect()
  }

  /** Connects a place to the internet's interface `p<n>`, by a plain wire or an emulated one. */
  async #join(n: number, place: string, plan: HostPlan | HomePlan, device: string, more: readonly string[] = []): Promise<void> {
    const [inside, internet] = [this.#namespaces.name(place), this.#namespaces.name('internet')]
    if (plan.wire) await this.wires.add(place, { namespace: inside, device }, { namespace: internet, device: `p${n}` }, plan.wire)
    else await shell(`ip link add ${device} netns ${inside} type veth peer name p${n} netns ${internet}`)
    const net = publicNet(n)
    const routes = 'nat' in plan && (plan.ipv6 ?? 'none') !== 'none' ? [`${net.home6}/48 via ${net.address6}`] : []
    const addresses = [`${net.gateway}/16`, `${net.gateway6}/32`]
    await shell(joinScript(internet, { device: `p${n}`, addresses, gateways: [], routes: [...routes, ...more] }))
  }

  #takeSpareNet(): number {
    if (this.#nextSpareNet > lastSpareNet) throw new Error('no spare public addresses left in this lab')
    return this.#nextSpareNet++
  }
}

/** A router that forwards both families, and says nothing of its own: no redirects. */
const internetSettings = `
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects
`
