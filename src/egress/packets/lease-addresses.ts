import { assert, type IpAddress, type IpNetwork, networkContains, parseNetwork } from '../../base/index.ts'

/** Addresses of one lease; null where the family is not served. */
export interface LeaseAddress {
  readonly address4: IpAddress | null
  readonly address6: IpAddress | null
}

export interface LeaseNetworks {
  /** `ADDRESS/BITS`, as in `[exit]`. */
  readonly packetNetworkIpv4: string
  readonly packetNetworkIpv6: string
}

/** No table grows beyond this, however large the networks are. */
const MOST_LEASES = 65_000
/** The network's own address and the gateway come first. */
const FIRST_HOST = 2

/** The addresses that an exit's packet leases have: of private networks of its own, given out in turn, so that one is used again as late as can be. */
export class LeaseAddresses {
  /** What a traceroute shows of the exit; the first address of each network. */
  readonly gateway4: IpAddress
  readonly gateway6: IpAddress
  readonly #networks: Readonly<Record<4 | 6, IpNetwork>>
  readonly #families: readonly (4 | 6)[]
  readonly #taken = new Set<number>()
  readonly #size: number
  #next = 0

  /** @throws MalformedError for what is no network */
  constructor(networks: LeaseNetworks, families: readonly (4 | 6)[]) {
    this.#networks = { 4: parseNetwork(networks.packetNetworkIpv4), 6: parseNetwork(networks.packetNetworkIpv6) }
    this.#families = families
    this.gateway4 = hostOf(this.#networks[4], 1)
    this.gateway6 = hostOf(this.#networks[6], 1)
    // Without the last one: IPv4's broadcast address.
    this.#size = Math.min(MOST_LEASES, ...families.map((family) => hostsOf(this.#networks[family]) - FIRST_HOST - 1))
  }

  gateway(family: 4 | 6): IpAddress {
    return family === 4 ? this.gateway4 : this.gateway6
  }

  /** Whether an address is of the lease networks: nothing that a client may reach through another's lease. */
  contains(address: IpAddress): boolean {
    return networkContains(this.#networks[address.family], address)
  }

  /** Null: all are taken. */
  take(): LeaseAddress | null {
    if (this.#taken.size >= this.#size) return null
    while (this.#taken.has(this.#next)) this.#next = (this.#next + 1) % this.#size
    const index = this.#next
    this.#next = (this.#next + 1) % this.#size
    this.#taken.add(index)
    const of = (family: 4 | 6) => (this.#families.includes(family) ? hostOf(this.#networks[family], FIRST_HOST + index) : null)
    return { address4: of(4), address6: of(6) }
  }

  give({ address4, address6 }: LeaseAddress): void {
    const address = address4 ?? address6
    assert(address !== null, 'a lease has an address')
    this.#taken.delete(numberOf(this.#networks[address.family], address) - FIRST_HOST)
  }

  get taken(): number {
    return this.#taken.size
  }
}

function hostsOf(network: IpNetwork): number {
  return 2 ** Math.min(30, network.address.bytes.length * 8 - network.bits)
}

/** The host with this number within a network; less than 2^30. */
function hostOf(network: IpNetwork, number: number): IpAddress {
  const bytes = network.address.bytes.slice()
  let carry = number
  for (let i = bytes.length - 1; carry > 0; i--) {
    bytes[i]! |= carry & 0xff
    carry >>>= 8
  }
  return { family: network.address.family, bytes }
}

function numberOf(network: IpNetwork, address: IpAddress): number {
  let number = 0
  for (let i = address.bytes.length - 4; i < address.bytes.length; i++)
    number = number * 256 + (address.bytes[i]! & ~network.address.bytes[i]!)
  return number
}
