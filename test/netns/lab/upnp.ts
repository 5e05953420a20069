import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Program, temporaryFolder } from '../../support/processes.ts'
import type { Home } from './home.ts'
import { debianCommand } from './requirements.ts'

export interface UpnpOptions {
  /** UPnP IGD. Default true. */
  readonly upnp?: boolean
  /** NAT-PMP and PCP. Default true. */
  readonly pcp?: boolean
}

/** miniupnpd on a home's router, with a table of nft of its own. Needs the Debian packages miniupnpd and miniupnpd-nftables. */
export class UpnpDaemon {
  readonly #home: Home
  readonly #program: Program
  readonly #removeFolder: () => void

  static async start(home: Home, { upnp = true, pcp = true }: UpnpOptions = {}): Promise<UpnpDaemon> {
    const folder = temporaryFolder('upnp')
    const file = join(folder.path, 'miniupnpd.conf')
    const yes = (on: boolean): string => (on ? 'yes' : 'no')
    const lines = [
      'ext_ifname=wan',
      `ext_ip=${home.publicAddress}`,
      'listening_ip=lan',
      'http_port=5000',
      `enable_upnp=${yes(upnp)}`,
      `enable_natpmp=${yes(pcp)}`,
      'min_lifetime=1',
      'secure_mode=yes',
      'uuid=331bf3c3-540c-4992-b8b8-8d2335206f6d',
      `lease_file=${join(folder.path, 'leases')}`,
      'upnp_table_name=upnp',
      'upnp_nat_table_name=upnp',
      'allow 1024-65535 0.0.0.0/0 1024-65535',
      'deny 0-65535 0.0.0.0/0 0-65535',
    ]
    writeFileSync(file, `${lines.join('\n')}\n`)
    await home.router.shell(`nft list table inet upnp >/dev/null 2>&1 || nft -f - <<'RULES'\n${chains}\nRULES`)
    // It wants a route for the multicast address of SSDP.
    await home.router.shell('ip route replace 239.0.0.0/8 dev lan')
    const program = home.router.start('sh', [
      '-c',
      'exec "$@" 2>&1',
      'sh',
      debianCommand('miniupnpd'),
      '-d',
      '-f',
      file,
      '-P',
      join(folder.path, 'pid'),
    ])
    await program.waitFor(/HTTP listening on port|listening for NAT-PMP|port 5351|Listening for NAT-PMP/i, 10_000).catch((error) => {
      folder.remove()
      throw error
    })
    return new UpnpDaemon(home, program, folder.remove)
  }

  private constructor(home: Home, program: Program, removeFolder: () => void) {
    this.#home = home
    this.#program = program
    this.#removeFolder = removeFolder
  }

  /** What it forwards: "tcp PUBLIC_PORT to ADDRESS:PORT". */
  async mappings(): Promise<readonly string[]> {
    const rules = await this.#home.router.runOk('nft', ['-n', 'list', 'chain', 'inet', 'upnp', 'prerouting_miniupnpd'])
    return rules.split('\n').flatMap((rule) => {
      // nft shows the protocol of miniupnpd's rules as the bits of the IP header that they look at.
      const found = /@nh,72,8 0x(6|11) th dport (\d+) dnat ip to ([\d.]+:\d+)/.exec(rule)
      return found ? [`${found[1] === '6' ? 'tcp' : 'udp'} ${found[2]} to ${found[3]}`] : []
    })
  }

  /** What it wrote, for a failure's message. */
  tail(): string {
    return this.#program.tail()
  }

  async stop(): Promise<void> {
    if (this.#program.exit === null) await this.#program.stop('SIGTERM')
    this.#removeFolder()
  }
}

const chains = `
table inet upnp {
  chain prerouting {
    type nat hook prerouting priority dstnat - 5; policy accept;
    jump prerouting_miniupnpd
  }
  chain postrouting {
    type nat hook postrouting priority srcnat - 5; policy accept;
    jump postrouting_miniupnpd
  }
  chain miniupnpd { }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
}`
