import { formatIp, type IpAddress } from '../base/index.ts'
import { SMALLEST_PATH_MTU } from './tcp/connection.ts'

/** RFC 1191 §6.3: at least five minutes, ten are advised; then the larger size is tried again. */
const LIFETIME_MS = 600_000

/** Path MTUs that were learnt, per destination, bounded. */
export class PathMtus {
  readonly linkMtu: number
  readonly #most: number
  /** In order of age. */
  readonly #known = new Map<string, { readonly mtu: number; readonly until: number }>()

  constructor(linkMtu: number, most: number) {
    this.linkMtu = linkMtu
    this.#most = most
  }

  get(destination: IpAddress, now: number): number {
    if (this.#known.size === 0) return this.linkMtu
    const key = formatIp(destination)
    const found = this.#known.get(key)
    if (found === undefined) return this.linkMtu
    if (found.until > now) return found.mtu
    this.#known.delete(key)
    return this.linkMtu
  }

  set(destination: IpAddress, mtu: number, now: number): void {
    const believed = Math.max(mtu, SMALLEST_PATH_MTU[destination.family])
    if (believed >= this.get(destination, now)) return
    const key = formatIp(destination)
    this.#known.delete(key)
    if (this.#known.size >= this.#most) this.#known.delete(this.#known.keys().next().value!)
    this.#known.set(key, { mtu: believed, until: now + LIFETIME_MS })
  }
}
