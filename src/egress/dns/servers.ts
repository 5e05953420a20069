import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { isIpText, parseHostPort } from '../../base/index.ts'

/** A DNS server: an address, with a zone where it is of a link. */
export interface NameServer {
  readonly host: string
  readonly port: number
}

/** Servers of resolv.conf(5) that are asked; the C library takes three. */
const MAX_SYSTEM_SERVERS = 8
const REFRESH_MS = 30_000
const RESOLV_CONF = '/etc/resolv.conf'

/** The configured servers, or the system's, which are read when first asked for and anew from time to time. The one that answers stays the first. */
export class NameServers {
  readonly #configured: readonly NameServer[]
  readonly #file: string
  readonly #now: () => number
  #system: readonly NameServer[] = []
  #readAt = Number.NEGATIVE_INFINITY
  #first = 0

  /** @param configured "ADDRESS" or "ADDRESS:PORT", @param file the system's list */
  constructor(configured: readonly string[], now: () => number, file: string = RESOLV_CONF) {
    this.#configured = configured.map(parseServer)
    this.#now = now
    this.#file = file
  }

  /** In the order in which they are to be asked; empty when there is none. */
  async list(): Promise<readonly NameServer[]> {
    const all = this.#configured.length > 0 ? this.#configured : await this.#fromSystem()
    const first = all.length === 0 ? 0 : this.#first % all.length
    return [...all.slice(first), ...all.slice(0, first)]
  }

  /** The server has failed or been silent: if it is the first it is not any more. */
  failed(server: NameServer): void {
    const all = this.#configured.length > 0 ? this.#configured : this.#system
    if (all.length > 0 && all[this.#first % all.length] === server) this.#first = (this.#first + 1) % all.length
  }

  async #fromSystem(): Promise<readonly NameServer[]> {
    if (this.#now() - this.#readAt < REFRESH_MS) return this.#system
    this.#readAt = this.#now()
    const text = await readFile(this.#file, 'latin1').catch(() => '')
    const found = parseResolvConf(text)
    const same = found.length === this.#system.length && found.every(({ host }, i) => host === this.#system[i]!.host)
    if (!same) {
      this.#system = found
      this.#first = 0
    }
    return this.#system
  }
}

/** The servers of a resolv.conf(5), without what is no address. */
export function parseResolvConf(text: string): readonly NameServer[] {
  const servers: NameServer[] = []
  for (const line of text.split('\n')) {
    const host = /^\s*nameserver\s+(\S+)/.exec(line)?.[1]
    if (host !== undefined && isIP(host) !== 0) servers.push({ host, port: 53 })
  }
  return servers.slice(0, MAX_SYSTEM_SERVERS)
}

function parseServer(text: string): NameServer {
  if (isIpText(text)) return { host: text, port: 53 }
  const { host, port } = parseHostPort(text, 53)
  return { host: host.text, port }
}
