import { formatIp, ipFromBytes } from '../../base/index.ts'
import type { IpHeader } from '../../packet/index.ts'
import type { DeviceAddresses } from './device-addresses.ts'
import { type LeaseCounts, type LeaseUserModules, PacketLeaseUser } from './packet-lease-user.ts'

export interface PacketLeasesModules extends Omit<LeaseUserModules, 'open'> {
  readonly addresses: DeviceAddresses
  /** @param origin an address in text, or null for the machine itself */
  readonly open: (origin: string | null, signal: AbortSignal) => ReturnType<LeaseUserModules['open']>
  readonly most: number
  readonly idleTimeoutMs: number
}

/** The machine itself, whose two addresses share a lease. */
const MACHINE = ''

/** The leases of a device: one for the machine, one for each address that it forwards for. */
export class PacketLeases {
  readonly #m: PacketLeasesModules
  readonly #users = new Map<string, PacketLeaseUser>()
  #own: PacketLeaseUser | null = null

  constructor(modules: PacketLeasesModules) {
    this.#m = modules
  }

  get counts(): Readonly<LeaseCounts> {
    return this.#m.counts
  }

  /** Leases that stand now. */
  get open(): number {
    let open = 0
    for (const user of this.#users.values()) if (user.isOpen) open++
    return open
  }

  /** Whether packets from this source go through a lease now. */
  isOpenFor(ip: IpHeader, bytes: Uint8Array): boolean {
    return this.#users.get(this.#originOf(ip, bytes))?.isOpen ?? false
  }

  /** A packet of the machine (borrowed), whose header is `ip`; it leaves with `flush`, or is answered. */
  take(ip: IpHeader, view: DataView, bytes: Uint8Array): void {
    if (this.#own !== null && this.#isOwn(ip, bytes)) {
      this.#own.take(ip, view, bytes)
      return
    }
    const origin = this.#originOf(ip, bytes)
    const user = this.#users.get(origin) ?? this.#begin(origin)
    if (user !== null) {
      user.take(ip, view, bytes)
      return
    }
    this.#m.counts.refused++
    this.#m.refusals.answer('prohibited', ip, view, bytes, this.#m.now())
  }

  flush(): void {
    for (const user of this.#users.values()) user.flush()
  }

  /** Gives back what has been idle for too long. */
  sweep(now: number): void {
    for (const [origin, user] of this.#users) if (now - user.usedAt >= this.#m.idleTimeoutMs) this.#end(origin, user)
  }

  stop(): void {
    for (const [origin, user] of this.#users) this.#end(origin, user)
  }

  #begin(origin: string): PacketLeaseUser | null {
    if (this.#users.size >= this.#m.most) return null
    const user = new PacketLeaseUser({ ...this.#m, open: (signal) => this.#m.open(origin === MACHINE ? null : origin, signal) })
    this.#users.set(origin, user)
    if (origin === MACHINE) this.#own = user
    return user
  }

  #end(origin: string, user: PacketLeaseUser): void {
    this.#users.delete(origin)
    if (origin === MACHINE) this.#own = null
    user.close()
  }

  #originOf(ip: IpHeader, bytes: Uint8Array): string {
    return this.#isOwn(ip, bytes) ? MACHINE : formatIp(ipFromBytes(bytes.slice(ip.sourceAt, ip.sourceAt + ip.addressBytes)))
  }

  #isOwn(ip: IpHeader, bytes: Uint8Array): boolean {
    return this.#m.addresses.isOwn(bytes, ip.sourceAt, ip.addressBytes)
  }
}
