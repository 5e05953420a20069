import { TokenBucket } from '../base/index.ts'
import type { RelayingConfig } from './config.ts'

/** Why a channel is not served; null when it is. */
export type AdmissionRefusal = 'circuits' | 'circuits-of-peer' | 'circuits-of-address' | 'creates' | 'creates-of-peer'

interface PeerUse {
  circuits: number
  readonly creates: TokenBucket
  /** Monotonic ms of the last change, for forgetting idle peers. */
  usedAt: number
}

/** Entries kept for peers without circuits: their buckets must outlive a reconnection, but not grow without end. */
const MAX_IDLE_PEERS = 4_096
/** Seconds' worth of handshakes that may come at once: in all, and of one peer. */
const BURST_SECONDS = 2
const PEER_BURST_SECONDS = 5

/**
 * Who may open how many circuits, and how fast. A relay is counted by its identity; a client also by its network address,
 * because its identity is fresh whenever it likes. A node behind NAT that comes through its NAT relay is seen at that relay's address: as the known
 * relay it is, it shares no room with the others there; whoever is not known does.
 */
export class PeerQuota {
  readonly #config: RelayingConfig
  readonly #peers = new Map<string, PeerUse>()
  readonly #addresses = new Map<string, number>()
  readonly #creates: TokenBucket
  #circuits = 0

  constructor(config: RelayingConfig, now: number) {
    this.#config = config
    this.#creates = new TokenBucket(config.createsPerSecond, config.createsPerSecond * BURST_SECONDS, now)
  }

  /** The configuration has other rates now. */
  reconfigure(now: number): void {
    const { createsPerSecond, createsPerSecondPerPeer } = this.#config
    this.#creates.configure(createsPerSecond, createsPerSecond * BURST_SECONDS, now)
    for (const { creates } of this.#peers.values())
      creates.configure(createsPerSecondPerPeer, createsPerSecondPerPeer * PEER_BURST_SECONDS, now)
  }

  get circuits(): number {
    return this.#circuits
  }

  /** Counts one more circuit of the peer, or says which limit forbids it. */
  admit(peer: string, isRelay: boolean, address: string | null, now: number): AdmissionRefusal | null {
    const config = this.#config
    if (this.#circuits >= config.maxCircuits) return 'circuits'
    const use = this.#use(peer, now)
    if (use.circuits >= (isRelay ? config.maxCircuitsPerRelay : config.maxCircuitsPerClient)) return 'circuits-of-peer'
    const counted = isRelay ? null : address
    if (counted !== null && (this.#addresses.get(counted) ?? 0) >= config.maxCircuitsPerAddress) return 'circuits-of-address'
    if (!use.creates.take(1, now)) return 'creates-of-peer'
    if (!this.#creates.take(1, now)) return 'creates'
    use.circuits++
    use.usedAt = now
    this.#circuits++
    if (counted !== null) this.#addresses.set(counted, (this.#addresses.get(counted) ?? 0) + 1)
    return null
  }

  /** Takes back one `admit` of the same arguments. */
  release(peer: string, isRelay: boolean, address: string | null, now: number): void {
    this.#circuits--
    const use = this.#peers.get(peer)
    if (use) {
      use.circuits--
      use.usedAt = now
    }
    if (!isRelay && address !== null) {
      const left = (this.#addresses.get(address) ?? 1) - 1
      if (left > 0) this.#addresses.set(address, left)
      else this.#addresses.delete(address)
    }
  }

  #use(peer: string, now: number): PeerUse {
    let use = this.#peers.get(peer)
    if (!use) {
      if (this.#peers.size >= MAX_IDLE_PEERS) this.#forgetIdle()
      const rate = this.#config.createsPerSecondPerPeer
      use = { circuits: 0, creates: new TokenBucket(rate, rate * PEER_BURST_SECONDS, now), usedAt: now }
      this.#peers.set(peer, use)
    }
    return use
  }

  /** Drops the older half of the peers that have no circuit. */
  #forgetIdle(): void {
    const idle = [...this.#peers].filter(([, use]) => use.circuits === 0).sort(([, a], [, b]) => a.usedAt - b.usedAt)
    for (const [peer] of idle.slice(0, Math.ceil(idle.length / 2))) this.#peers.delete(peer)
  }
}
