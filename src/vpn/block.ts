import { messageOf } from '../base/index.ts'
import { type AllowedEntry, AllowList, allowListChange } from './allow-list.ts'
import { vpnError } from './errors.ts'
import type { AllowedPeer, ServingPort } from './facts.ts'
import type { KillSwitch } from './kill-switch.ts'
import { vpnLimits } from './limits.ts'
import { strictDevices } from './machine-facts.ts'
import type { VpnModules } from './modules.ts'
import { familiesHere, type Routing } from './routing.ts'
import type { RoutingPlan } from './routing-plan.ts'
import type { VpnStateFile } from './state.ts'
import type { Turns } from './turns.ts'

export interface BlockModules {
  readonly vpn: VpnModules
  readonly state: VpnStateFile
  readonly killSwitch: KillSwitch
  readonly routing: Routing
  /** One act on the kernel at a time. */
  readonly kernel: Turns
}

/** What stands in the kernel while the VPN is to be up: the kill switch, the routing, and the allow-list in both, kept as the node needs it. */
export class Block {
  readonly #m: BlockModules
  readonly #list = new AllowList()
  #stands = false
  /** Addresses of the device that the routes lead into; none while there is no device, null while there are no routes of ours. */
  #routedTo: readonly string[] | null = null
  #applied: ReadonlyMap<string, AllowedEntry> = new Map()
  #serving: readonly ServingPort[] = []
  #dropped = 0
  #droppedBefore = 0
  #foreign: readonly number[] = []
  #strict: readonly string[] = []
  #intruded: string | null = null
  #waiting: Promise<void> | null = null
  #forgetNeeds: () => void = () => {}

  constructor(modules: BlockModules) {
    this.#m = modules
  }

  get stands(): boolean {
    return this.#stands
  }
  get allowed(): readonly AllowedPeer[] {
    return [...this.#applied.values()].map(({ peer }) => peer)
  }
  get serving(): readonly ServingPort[] {
    return this.#serving
  }
  /** Packets dropped since it was set. */
  get dropped(): number {
    return this.#droppedBefore + this.#dropped
  }

  /**
   * Sets the kill switch, in place of our own that stands, and says that the VPN is to be up. Routes left by an earlier process are taken over:
   * the allowed places can be reached, all else is unreachable.
   * @throws ShallotError 'vpn-in-use' and those of the programs
   */
  async set(): Promise<void> {
    const { state, killSwitch, kernel, vpn } = this.#m
    await kernel.take(async () => {
      const owner = await killSwitch.owner()
      if (owner !== null && owner !== state.current.id)
        throw vpnError(
          'vpn-in-use',
          'the VPN of another Shallot node is up on this machine, or a node that is gone left its block: take it down there (`shallot vpn down`), or `shallot vpn repair --force`',
          { retry: 'later' },
        )
      await state.save({ wanted: true, killSwitch: true })
      await this.#installKillSwitch()
      if (state.current.routing !== null) await this.#route(this.#routedTo ?? [])
    })
    this.#forgetNeeds()
    this.#forgetNeeds = vpn.onNeedsChange(() => {
      this.sync().catch((error) => vpn.logger.warn("the VPN's allow-list was not changed", { error: messageOf(error) }))
    })
  }

  /** Leads everything into the device, or nowhere where there is none. @param addresses of the device that is there. @throws ShallotError */
  async route(addresses: readonly string[]): Promise<void> {
    const { state, kernel, vpn } = this.#m
    await kernel.take(async () => {
      await state.save({ routing: { table: vpn.config.routingTable } })
      await this.#route(addresses)
    })
  }

  /** The device is gone, and the routes to it with it: the unreachable ones stand. */
  deviceGone(): void {
    if (this.#routedTo !== null) this.#routedTo = []
  }

  /** To be called before it is undone: nothing is set any more. */
  leave(): void {
    this.#forgetNeeds()
    this.#forgetNeeds = () => {}
    this.#stands = false
  }

  /** After it was undone, as far as that went: what is left stands in the state file. */
  undone(): void {
    this.#routedTo = null
    this.#applied = new Map()
    this.#serving = []
    this.#dropped = 0
    this.#droppedBefore = 0
    this.#foreign = []
    this.#strict = []
    this.#intruded = null
  }

  /** Asks for places for a while. @throws MalformedError, ShallotError 'vpn-allow-list-full' */
  lease(peers: readonly AllowedPeer[]): void {
    this.#list.lease(peers, this.#m.vpn.now() + vpnLimits.allowedForMs)
  }

  /** Brings the kernel's allow-list to what is wanted now. @throws ShallotError when the kernel has not got it */
  sync(): Promise<void> {
    // One that waits for its turn will see what is wanted then.
    this.#waiting ??= this.#m.kernel.take(() => {
      this.#waiting = null
      return this.#sync()
    })
    return this.#waiting
  }

  /** Whether everything still stands: others flush packet filters and rules too. What is missing is set again. @throws ShallotError */
  async look(): Promise<void> {
    const { killSwitch, routing, kernel, vpn } = this.#m
    await kernel.take(async () => {
      if (!this.#stands) return
      const dropped = await killSwitch.dropped()
      const routed = this.#routedTo === null ? null : await routing.look(this.#routingPlan(this.#routedTo))
      this.#foreign = routed?.foreign ?? []
      this.#strict = strictDevices(vpn.device.name)
      if (dropped !== null) this.#dropped = dropped
      if (dropped !== null && routed?.whole !== false) return this.#sync()
      const what = dropped === null ? 'kill switch' : 'routing rules'
      vpn.logger.warn("another program removed a part of the VPN's set-up; it is set again", { what })
      await this.#reinstall()
      this.#intruded = `another program removed the VPN's ${what} at ${new Date(vpn.wall()).toISOString()}; they stand again. Find out which (a firewall, a network manager), and keep it from doing so`
    })
  }

  /** What a person should know. */
  problems(): readonly string[] {
    if (!this.#stands) return []
    const { overflow } = this.#list
    return [
      ...(this.#intruded === null ? [] : [this.#intruded]),
      ...(overflow === 0 ? [] : [`${overflow} places that the node needs have no room in the allow-list of ${vpnLimits.allowedPeers}`]),
      ...(this.#foreign.length === 0
        ? []
        : [
            `routing rules of other programs come before the VPN's (priority ${this.#foreign.join(', ')}): what they send elsewhere is dropped. Is another VPN up? Take it down, or set ingress.tun.rule_priority below it`,
          ]),
      ...(this.#strict.length === 0
        ? []
        : [
            `the reverse-path filter of ${this.#strict.join(', ')} is strict: links to guards may stall where a path has a smaller MTU. Loose is enough: sysctl net.ipv4.conf.DEVICE.rp_filter=2`,
          ]),
    ]
  }

  async #sync(): Promise<void> {
    if (!this.#stands) return
    const { killSwitch, routing, vpn } = this.#m
    const wanted = this.#wanted()
    if (JSON.stringify(this.#servingNow()) !== JSON.stringify(this.#serving)) return this.#reinstall()
    const change = allowListChange(this.#applied, wanted)
    if (change.added.length + change.removed.length === 0) return
    try {
      await killSwitch.change(change)
      if (this.#routedTo !== null) await routing.change({ priority: vpn.config.rulePriority }, change)
      this.#applied = wanted
    } catch (error) {
      vpn.logger.warn('a change of the allow-list was refused: everything is set anew', { error: messageOf(error) })
      await this.#reinstall()
    }
  }

  async #reinstall(): Promise<void> {
    await this.#installKillSwitch()
    if (this.#routedTo !== null) await this.#route(this.#routedTo)
  }

  async #installKillSwitch(): Promise<void> {
    const { vpn, killSwitch, state } = this.#m
    const { config, device } = vpn
    const allowed = this.#wanted()
    const serving = this.#servingNow()
    await killSwitch.install({
      id: state.current.id,
      device: device.name,
      addresses: device.addresses.map((address) => address.split('/')[0]!),
      uid: vpn.uid === undefined ? (process.geteuid?.() ?? null) : vpn.uid,
      allowed: [...allowed.values()],
      serving,
      bypass: config.bypass,
      localNetwork: config.localNetwork,
    })
    this.#stands = true
    this.#droppedBefore += this.#dropped
    this.#dropped = 0
    this.#applied = allowed
    this.#serving = serving
  }

  async #route(addresses: readonly string[]): Promise<void> {
    this.#routedTo = addresses
    await this.#m.routing.install(this.#routingPlan(addresses))
  }

  #routingPlan(addresses: readonly string[]): RoutingPlan {
    const { config, device } = this.#m.vpn
    return {
      device: device.name,
      deviceFamilies: familiesHere().filter((family) => addresses.some((address) => address.includes(':') === (family === 6))),
      table: config.routingTable,
      priority: config.rulePriority,
      allowed: [...this.#applied.values()],
      serving: this.#serving,
      bypass: config.bypass,
      localNetwork: config.localNetwork,
    }
  }

  #wanted(): ReadonlyMap<string, AllowedEntry> {
    const { vpn } = this.#m
    this.#list.expire(vpn.now())
    this.#list.name(vpn.allowed())
    return this.#list.wanted()
  }

  #servingNow(): readonly ServingPort[] {
    return this.#m.vpn.serving().slice(0, vpnLimits.servingPorts)
  }
}
