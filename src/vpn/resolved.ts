import { vpnError } from './errors.ts'
import type { RunProgram } from './programs.ts'

/** systemd-resolved, by its own program. What it is told of a link goes with the link. */
export class Resolved {
  readonly #run: RunProgram

  constructor(run: RunProgram) {
    this.#run = run
  }

  /** Whether it runs and answers. */
  async isThere(): Promise<boolean> {
    try {
      return (await this.#run('resolvectl', ['status', '--no-pager'])).code === 0
    } catch {
      return false
    }
  }

  /** All names go to the servers, by this device; names that it kept from before are forgotten. @throws ShallotError 'vpn-dns-not-taken' */
  async take(device: string, servers: readonly string[]): Promise<void> {
    const commands = [
      ['dns', device, ...servers],
      // The root as a routing-only domain (resolvectl(1)): this link is the best match for every name.
      ['domain', device, '~.'],
      ['default-route', device, 'yes'],
      ['dnsovertls', device, 'no'],
      ['llmnr', device, 'no'],
      ['mdns', device, 'no'],
      ['flush-caches'],
    ]
    for (const args of commands) {
      const { code, stderr } = await this.#run('resolvectl', args)
      if (code !== 0)
        throw vpnError('vpn-dns-not-taken', `systemd-resolved does not take the tunnel's resolver: ${stderr.trim().split('\n')[0] ?? code}`)
    }
  }

  /** As far as the link is still there. */
  async release(device: string): Promise<void> {
    await this.#run('resolvectl', ['revert', device]).catch(() => {})
    await this.#run('resolvectl', ['flush-caches']).catch(() => {})
  }
}
