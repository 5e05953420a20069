import { readFile } from 'node:fs/promises'
import { formatIp, type IpAddress, messageOf, networkContains, parseIp, parseNetwork } from '../base/index.ts'
import type { VpnConfig } from './config.ts'
import { vpnError } from './errors.ts'
import type { VpnFacts } from './facts.ts'
import { vpnLimits } from './limits.ts'
import { isOurs, type ResolvConf } from './resolv-conf.ts'
import type { Resolved } from './resolved.ts'
import type { VpnStateFile } from './state.ts'

/**
 * Where a device's networks have their resolver: the first address of each that is not the device's own. Questions to it go into the device,
 * which answers port 53 of any address. @param addresses ADDRESS/BITS
 */
export function resolverAddresses(addresses: readonly string[]): readonly string[] {
  return addresses.map((text) => {
    const own = parseIp(text.split('/')[0]!)
    const network = parseNetwork(text)
    const hostBits = own.bytes.length * 8 - network.bits
    const candidates =
      hostBits < 2 ? [beside(own, (last) => last ^ 1)] : [1, 2].map((step) => beside(network.address, (last) => last + step))
    const free = candidates.find((one) => formatIp(one) !== formatIp(own))!
    // A network of one address has no other: its neighbour is as good, since everything goes into the device.
    return hostBits === 0 || networkContains(network, free) ? formatIp(free) : formatIp(own)
  })
}

function beside(address: IpAddress, change: (last: number) => number): IpAddress {
  const bytes = Uint8Array.from(address.bytes)
  bytes[bytes.length - 1] = change(bytes.at(-1)!)
  return { family: address.family, bytes }
}

export interface NamesModules {
  readonly how: VpnConfig['dns']
  readonly state: VpnStateFile
  readonly resolvConf: ResolvConf
  readonly resolved: Resolved
  /** nsswitch.conf(5), which says whether programs ask systemd-resolved past resolv.conf. */
  readonly nsswitch: string
}

/** Which of the two ways programs of this machine find their resolver by. */
interface Ways {
  readonly resolved: boolean
  readonly file: boolean
}

/** The machine's resolver settings: taken over and given back. The state is written before every act. */
export class Names {
  readonly #m: NamesModules
  #taken: { readonly servers: readonly string[]; readonly ways: Ways } | null = null
  #retakes = 0
  #problem: string | null = null

  constructor(modules: NamesModules) {
    this.#m = modules
  }

  get facts(): VpnFacts['dns'] {
    if (this.#taken === null) return null
    const { servers, ways } = this.#taken
    return { how: ways.file ? 'resolv.conf' : ways.resolved ? 'resolved' : 'none', servers }
  }

  /** What a person should know; null when all is well. */
  get problem(): string | null {
    return this.#problem
  }

  /** @throws ShallotError 'vpn-dns-not-taken' when a certain way was asked for and does not go */
  async take(device: string, servers: readonly string[]): Promise<void> {
    this.#problem = null
    this.#retakes = 0
    const ways = await this.#chooseWays()
    let { resolved, file } = ways
    if (ways.resolved) {
      await this.#m.state.save({ resolved: { device } })
      const failed = await this.#trying(() => this.#m.resolved.take(device, servers))
      if (failed !== null) {
        resolved = false
        if (this.#m.how === 'auto') file = true
      }
    }
    if (file && (await this.#trying(() => this.#takeFile(servers))) !== null) file = false
    this.#taken = { servers, ways: { resolved, file } }
  }

  /** Looks whether resolv.conf is still ours; what another program wrote meanwhile is what it will be given back as. */
  async look(): Promise<void> {
    if (this.#taken?.ways.file !== true || isOurs(await this.#m.resolvConf.text(), this.#m.state.current.id)) return
    if (++this.#retakes > vpnLimits.resolvConfRetakes) {
      this.#problem = `another program keeps writing ${this.#m.resolvConf.path}: it is left alone now; questions go through the mesh all the same, unless they are for a server on this machine`
      return
    }
    await this.#trying(() => this.#takeFile(this.#taken!.servers))
  }

  /** Gives back what the state file says was taken. @returns whether there was anything. @throws ShallotError 'vpn-not-undone' */
  async release(): Promise<boolean> {
    const { state, resolvConf, resolved } = this.#m
    const { resolvConf: original, resolved: told, id } = state.current
    if (original !== null) {
      await resolvConf.restore(original, id)
      await state.save({ resolvConf: null })
    }
    if (told !== null) {
      await resolved.release(told.device)
      await state.save({ resolved: null })
    }
    this.#taken = null
    this.#problem = null
    return original !== null || told !== null
  }

  async #takeFile(servers: readonly string[]): Promise<void> {
    const { resolvConf, state } = this.#m
    const { id, resolvConf: known } = state.current
    const text = await resolvConf.text()
    // A leftover that the state knows is taken over with the original it was; of any other leftover the original is lost.
    if (!isOurs(text)) await state.save({ resolvConf: await resolvConf.original() })
    else if (known === null) await state.save({ resolvConf: { path: resolvConf.path, kind: 'absent' } })
    try {
      await resolvConf.take(servers, id)
    } catch (error) {
      if (!isOurs(text)) await state.save({ resolvConf: null })
      throw error
    }
  }

  async #chooseWays(): Promise<Ways> {
    const { how, resolved, resolvConf, nsswitch } = this.#m
    if (how === 'none') return { resolved: false, file: false }
    if (how === 'resolv.conf') return { resolved: false, file: true }
    const runs = await resolved.isThere()
    if (how === 'resolved') {
      if (!runs)
        throw vpnError('vpn-dns-not-taken', 'systemd-resolved does not answer resolvectl: set ingress.tun.dns to "auto"', {
          kind: 'config',
        })
      return { resolved: true, file: false }
    }
    const stub = /^nameserver\s+127\.0\.0\.5[34]\b/m.test(await resolvConf.text())
    const past = /^hosts:.*\bresolve\b/m.test(await readFile(nsswitch, 'utf8').catch(() => ''))
    return { resolved: runs && (stub || past), file: !(runs && stub) }
  }

  /** @returns the message of what failed; with `auto` that is a problem to be shown, else an error. */
  async #trying(act: () => Promise<void>): Promise<string | null> {
    try {
      await act()
      return null
    } catch (error) {
      if (this.#m.how !== 'auto') throw error
      const what = messageOf(error)
      this.#problem = `${what}. Questions go through the mesh all the same, unless they are for a server on this machine`
      return what
    }
  }
}
