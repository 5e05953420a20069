import { formatIp, type IpAddress, SeededRandom } from '../../src/base/index.ts'
import type { Endpoint, FilteringBehaviour, MappingBehaviour } from '../../src/nat/behaviour.ts'
import { formatEndpoint, sameEndpoint, sameIp } from '../../src/nat/stun/index.ts'

export interface NatModelOptions {
  readonly mapping: MappingBehaviour
  readonly filtering: FilteringBehaviour
  readonly publicIp: IpAddress
  /** Whether a public port is the inner one where that is free. */
  readonly preservesPort?: boolean
  readonly hairpin?: boolean
  /** Silence from inside after which a mapping is forgotten. */
  readonly lifetimeMs?: number
  readonly seed?: number
}

interface Mapping {
  readonly inner: Endpoint
  readonly outer: Endpoint
  /** Where was sent to, as the filter counts it. */
  readonly known: Set<string>
  lastSentAt: number
}

/** A router's NAT or firewall for UDP as RFC 4787 describes them, in virtual time. */
export class NatModel {
  readonly #options: Required<NatModelOptions>
  readonly #mappings = new Map<string, Mapping>()
  readonly #random: SeededRandom

  constructor(options: NatModelOptions) {
    this.#options = { preservesPort: false, hairpin: false, lifetimeMs: Number.POSITIVE_INFINITY, seed: 1, ...options }
    this.#random = new SeededRandom(this.#options.seed)
  }

  get hairpin(): boolean {
    return this.#options.hairpin
  }

  isPublic(endpoint: Endpoint): boolean {
    return sameIp(endpoint.ip, this.#options.publicIp)
  }

  /** A packet goes out: where it seems to come from. */
  outbound(inner: Endpoint, to: Endpoint, now: number): Endpoint {
    const { mapping, filtering } = this.#options
    const by = {
      none: '',
      'endpoint-independent': '',
      'address-dependent': formatIp(to.ip),
      'address-and-port-dependent': formatEndpoint(to),
    }
    const key = `${formatEndpoint(inner)} ${by[mapping]}`
    this.#forget(now)
    let found = this.#mappings.get(key)
    if (found === undefined) {
      found = { inner, outer: this.#newOuter(inner), known: new Set(), lastSentAt: now }
      this.#mappings.set(key, found)
    }
    found.lastSentAt = now
    found.known.add(knownAs(to, filtering))
    return found.outer
  }

  /** A packet comes in for a public endpoint: whom it reaches, or null. */
  inbound(from: Endpoint, outer: Endpoint, now: number): Endpoint | null {
    this.#forget(now)
    for (const mapping of this.#mappings.values()) {
      if (sameEndpoint(mapping.outer, outer) && mapping.known.has(knownAs(from, this.#options.filtering))) return mapping.inner
      if (sameEndpoint(mapping.outer, outer) && this.#options.filtering === 'endpoint-independent') return mapping.inner
    }
    return null
  }

  #newOuter(inner: Endpoint): Endpoint {
    const { mapping, preservesPort, publicIp } = this.#options
    if (mapping === 'none') return inner
    const taken = new Set([...this.#mappings.values()].map(({ outer }) => outer.port))
    let port = preservesPort ? inner.port : 0
    while (port === 0 || taken.has(port)) port = 20_000 + this.#random.int(40_000)
    return { ip: publicIp, port }
  }

  #forget(now: number): void {
    for (const [key, { lastSentAt }] of this.#mappings) if (now - lastSentAt > this.#options.lifetimeMs) this.#mappings.delete(key)
  }
}

function knownAs({ ip, port }: Endpoint, filtering: FilteringBehaviour): string {
  return filtering === 'address-and-port-dependent' ? formatEndpoint({ ip, port }) : formatIp(ip)
}
