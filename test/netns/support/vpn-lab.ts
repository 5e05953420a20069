import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseNetwork } from '../../../src/base/index.ts'
import { configSchema } from '../../../src/node/index.ts'
import { temporaryFolder } from '../../support/processes.ts'
import { Lab, type Machine, missingPackages, reasonAgainstLab } from '../lab/index.ts'
import { LabMesh, type LabNodePlan } from './lab-mesh.ts'
import { UplinkCapture } from './vpn-capture.ts'
import { serverPackages, VpnServers } from './vpn-servers.ts'

/** The two exits, named for how raw packets leave them. */
export const packetExits = ['netstack', 'tun'] as const
export type PacketExit = (typeof packetExits)[number]
const guards = ['guard1', 'guard2', 'guard3'] as const
/** Between the internet and the web server: what a traceroute sees. */
const routersOfWeb = 3

/** Why nothing of this can run here, one sentence; null when it can. @param more commands and their Debian packages */
export async function reasonAgainstVpnLab(more: Readonly<Record<string, string>> = {}): Promise<string | null> {
  const reason = await reasonAgainstLab()
  if (reason !== null) return reason
  const missing = missingPackages({ ...serverPackages, python3: 'python3', ss: 'iproute2', ...more })
  return missing.length > 0 ? `the Debian packages ${missing.join(', ')} are missing (test/packages.txt)` : null
}

/**
 * A world in both families for a VPN: a mesh of a bootstrap node, three guards that are middles too and two exits; a web host behind routers in a
 * row and a DNS host, with real servers; a machine at home behind a NAT with nothing but its uplink, that runs the client.
 */
export class VpnLab {
  readonly lab: Lab
  readonly servers: VpnServers
  /** Whose traffic it is about. It has an /etc of its own. */
  readonly pc: Machine
  readonly router: Machine
  readonly folder: string
  readonly #removeFolder: () => void
  #mesh: LabMesh | null = null
  #captures: UplinkCapture[] = []

  /** Builds the world and starts its servers. */
  static async build(): Promise<VpnLab> {
    const folder = temporaryFolder('vpn')
    let lab: Lab | null = null
    try {
      const hosts = Object.fromEntries(['boot', 'dns', ...guards, ...packetExits.map((name) => `exit-${name}`)].map((name) => [name, {}]))
      lab = await Lab.build({
        hosts: { ...hosts, web: { routers: routersOfWeb } },
        homes: { home: { nat: 'port-restricted', ipv6: 'firewalled' } },
      })
      // As a provider's router gives it.
      await lab
        .home('home')
        .machine()
        .takeOwnEtc({ 'resolv.conf': `nameserver ${lab.host('dns').address}\n` })
      // As systems with systemd set it: programs may ping without privileges.
      for (const name of packetExits) await lab.host(`exit-${name}`).shell('echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range')
      // What exit/README.md asks of an operator.
      await lab.host('exit-tun').shell('echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding')
      const files = join(folder.path, 'servers')
      mkdirSync(files)
      const servers = await VpnServers.start(lab.host('web'), lab.host('dns'), files)
      return new VpnLab(lab, servers, folder)
    } catch (error) {
      await lab?.remove()
      folder.remove()
      throw error
    }
  }

  private constructor(lab: Lab, servers: VpnServers, folder: { path: string; remove(): void }) {
    this.lab = lab
    this.servers = servers
    this.pc = lab.home('home').machine()
    this.router = lab.home('home').router
    this.folder = folder.path
    this.#removeFolder = folder.remove
  }

  /** The mesh; `startMesh` first. */
  get mesh(): LabMesh {
    if (!this.#mesh) throw new Error('this lab has no mesh yet')
    return this.#mesh
  }

  /** Starts all nodes but the clients. @param clients names and settings of nodes for the machine at home, of which one runs at a time */
  async startMesh(clients: Readonly<Record<string, NonNullable<LabNodePlan['more']>>>): Promise<void> {
    const exitSettings = (packets: PacketExit) => ({
      exit: { resolvers: [this.servers.dns.address], packets },
    })
    this.#mesh = LabMesh.plan(this.lab, [
      { name: 'boot', on: this.lab.host('boot'), roles: ['bootstrap'] },
      ...guards.map((name) => ({ name, on: this.lab.host(name), roles: ['guard', 'middle'] as const })),
      ...packetExits.map((packets) => ({
        name: `exit-${packets}`,
        on: this.lab.host(`exit-${packets}`),
        roles: ['exit'] as const,
        more: exitSettings(packets),
      })),
      ...Object.entries(clients).map(([name, more]) => ({ name, on: this.pc, roles: ['client'] as const, more })),
    ])
    const serving = this.mesh.nodes.filter(({ id }) => id !== null)
    await this.mesh.startAll(serving.slice(0, 1))
    await this.mesh.startAll(serving.slice(1))
  }

  /** Who an address belongs to, for messages; null when it is nobody's. */
  ownerOf(address: string): string | null {
    return this.lab.ownerOf(address)
  }

  /** Begins to keep every frame that the machine at home sends on its uplink, at both ends of the wire. */
  async captureUplink(): Promise<UplinkCapture> {
    const capture = await UplinkCapture.start({
      machine: this.pc,
      device: 'lan',
      peer: this.router,
      peerDevice: 'port0',
      networks: [`${this.pc.address}/24`, `${this.pc.ipv6}/64`].map(parseNetwork),
    })
    this.#captures.push(capture)
    return capture
  }

  async remove(): Promise<void> {
    await Promise.all(this.#captures.splice(0).map((capture) => capture.stop().catch(() => {})))
    await this.#mesh?.stop()
    await this.servers.stop()
    await this.lab.remove()
    this.#removeFolder()
  }
}

/** Why the VPN cannot be tested with this clone; null when it can. */
export const reasonAgainstVpn =
  'packets' in shapeOf('exit') && 'up' in shapeOf('ingress', 'tun') ? null : 'this clone has no VPN in [ingress.tun] yet'

/** The keys of a section of the configuration. */
function shapeOf(...path: readonly string[]): Readonly<Record<string, unknown>> {
  let shape = bareShape(configSchema)
  for (const name of path) shape = bareShape(shape[name])
  return shape
}

function bareShape(schema: unknown): Readonly<Record<string, unknown>> {
  const inner = schema as { readonly shape?: Record<string, unknown>; unwrap?(): unknown } | undefined
  return inner?.shape ?? (inner?.unwrap ? bareShape(inner.unwrap()) : {})
}
