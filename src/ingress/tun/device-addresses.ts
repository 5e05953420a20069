import { equalBytes, type IpAddress, type IpNetwork, networkContains, parseIp, parseNetwork } from '../../base/index.ts'

/** RFC 7600 §7: a source for ICMP of routers that have no address of the family. */
const DUMMY_ROUTER = parseIp('192.0.0.8')

/**
 * What no exit will ever reach: private, shared and local networks, and those that are of no use (RFC 6890). Asking an exit for them would
 * tell it how the local network looks.
 */
const internalNetworks = [
  '10.0.0.0/8',
  '100.64.0.0/10',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  'fc00::/7',
  'fec0::/10',
].map(parseNetwork)

/** ADDRESS/BITS with the whole address, which `parseNetwork` cuts to the network's. @throws MalformedError */
export function deviceNetwork(text: string): IpNetwork {
  return { address: parseIp(text.split('/')[0]!), bits: parseNetwork(text).bits }
}

/** What the addresses of a device mean: which are the machine's own, who the next hop is, which are broadcasts. */
export class DeviceAddresses {
  /** The machine's own. */
  readonly own: readonly IpAddress[]
  /** In whose name packets are refused or have used up their hops: the device's other end. It answers pings. */
  readonly hop4: IpAddress
  readonly hop6: IpAddress
  readonly #broadcasts: readonly Uint8Array[]
  readonly #allowed: readonly IpNetwork[]

  /** @param addresses with their whole address, not cut to the network's, @param allowed internal networks that exits of this network do serve */
  constructor(addresses: readonly IpNetwork[], allowed: readonly IpNetwork[] = []) {
    this.own = addresses.map(({ address }) => address)
    this.hop4 = hopOf(addresses.find(({ address }) => address.family === 4)) ?? DUMMY_ROUTER
    const six = addresses.find(({ address }) => address.family === 6)
    this.hop6 = hopOf(six) ?? neighbour(six?.address ?? parseIp('fe80::2'))
    this.#broadcasts = addresses.filter(({ address, bits }) => address.family === 4 && bits < 31).map(broadcastOf)
    this.#allowed = allowed
  }

  isOwn(bytes: Uint8Array, at: number, length: number): boolean {
    for (const address of this.own) if (holds(bytes, at, length, address.bytes)) return true
    return false
  }

  isHop(bytes: Uint8Array, at: number, length: number): boolean {
    return holds(bytes, at, length, length === 4 ? this.hop4.bytes : this.hop6.bytes)
  }

  /** To all of the device's network. */
  isBroadcast(bytes: Uint8Array, at: number): boolean {
    for (const address of this.#broadcasts) if (holds(bytes, at, 4, address)) return true
    return false
  }

  /** Whether no exit of this network reaches it. */
  isInternal(bytes: Uint8Array, at: number, length: number): boolean {
    // Most packets go to none of these first bytes.
    const first = bytes[at]!
    const suspect = length === 4 ? suspects4[first] === 1 : first >= 0xfc
    if (!suspect) return false
    const address: IpAddress = { family: length === 4 ? 4 : 6, bytes: bytes.subarray(at, at + length) }
    if (!internalNetworks.some((network) => networkContains(network, address))) return false
    return !this.#allowed.some((network) => networkContains(network, address))
  }
}

const suspects4 = new Uint8Array(256)
for (const { address } of internalNetworks) if (address.family === 4) suspects4[address.bytes[0]!] = 1

/** The first address of the network that is not the machine's own; null for a network of one. */
function hopOf(network: IpNetwork | undefined): IpAddress | null {
  if (network === undefined || network.bits > network.address.bytes.length * 8 - 2) return null
  const bytes = network.address.bytes.slice()
  for (let bit = network.bits; bit < bytes.length * 8; bit++) bytes[bit >> 3]! &= ~(0x80 >> (bit & 7))
  bytes[bytes.length - 1]! |= 1
  if (equalBytes(bytes, network.address.bytes)) bytes[bytes.length - 1]! ^= 3
  return { family: network.address.family, bytes }
}

function neighbour(address: IpAddress): IpAddress {
  const bytes = address.bytes.slice()
  bytes[bytes.length - 1]! ^= 1
  return { family: address.family, bytes }
}

function broadcastOf({ address, bits }: IpNetwork): Uint8Array {
  const bytes = address.bytes.slice()
  for (let bit = bits; bit < 32; bit++) bytes[bit >> 3]! |= 0x80 >> (bit & 7)
  return bytes
}

function holds(bytes: Uint8Array, at: number, length: number, address: Uint8Array): boolean {
  if (address.length !== length) return false
  for (let i = 0; i < length; i++) if (bytes[at + i] !== address[i]) return false
  return true
}

/**
 * Whether packets may come from there: a unicast address that is not everybody's (RFC 6890): not "this network", loopback, link-local, multicast,
 * broadcast, unspecified, or IPv4 in IPv6's clothes.
 */
export function isHonestSource(bytes: Uint8Array, at: number, length: number): boolean {
  const first = bytes[at]!
  if (length === 4) return first !== 0 && first !== 127 && first < 224 && !(first === 169 && bytes[at + 1] === 254)
  // ::/8 holds the unspecified and the loopback address, the mapped ones, and nothing that is given to anybody.
  return first !== 0 && first !== 0xff && !(first === 0xfe && (bytes[at + 1]! & 0xc0) === 0x80)
}

/** No host is there: "this network", loopback, reserved, and link-local, since the device is a link to nobody (RFC 6890). */
export function isNowhere(bytes: Uint8Array, at: number, length: number): boolean {
  const first = bytes[at]!
  if (length === 16) return first === 0 || (first === 0xfe && (bytes[at + 1]! & 0xc0) === 0x80)
  return first === 0 || first === 127 || first >= 240 || (first === 169 && bytes[at + 1] === 254)
}

/** To many: multicast, broadcast. Of no use beyond the device, and never answered (RFC 1122 §3.2.2). */
export function isToMany(bytes: Uint8Array, at: number, length: number): boolean {
  const first = bytes[at]!
  if (length === 16) return first === 0xff
  if (first >= 224 && first < 240) return true
  return first === 255 && bytes[at + 1] === 255 && bytes[at + 2] === 255 && bytes[at + 3] === 255
}
