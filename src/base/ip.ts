import { isIP } from 'node:net'
import { MalformedError } from './errors.ts'

/** An IP address: 4 bytes (IPv4) or 16 bytes (IPv6). IPv4-mapped IPv6 addresses are always held as IPv4. */
export interface IpAddress {
  readonly family: 4 | 6
  readonly bytes: Uint8Array
}

/** A network: the first `bits` bits of `address`. */
export interface IpNetwork {
  readonly address: IpAddress
  readonly bits: number
}

/** An address from its 4 or 16 bytes (borrowed). @throws MalformedError */
export function ipFromBytes(bytes: Uint8Array): IpAddress {
  if (bytes.length === 4) return { family: 4, bytes }
  if (bytes.length !== 16) throw new MalformedError('IP address', `has ${bytes.length} bytes, not 4 or 16`)
  // RFC 4291 §2.5.5.2
  if (bytes[10] === 0xff && bytes[11] === 0xff && bytes.subarray(0, 10).every((byte) => byte === 0))
    return { family: 4, bytes: bytes.subarray(12) }
  return { family: 6, bytes }
}

/** Whether the text is an IPv4 or IPv6 address (without brackets or zone). */
export function isIpText(text: string): boolean {
  return isIP(text) !== 0 && !text.includes('%')
}

/** @throws MalformedError */
export function parseIp(text: string): IpAddress {
  if (!isIpText(text)) throw new MalformedError('IP address', 'not an IPv4 or IPv6 address')
  return text.includes(':') ? ipFromBytes(parseIp6(text)) : { family: 4, bytes: parseIp4(text) }
}

/** Canonical text: dotted quad, or RFC 5952. */
export function formatIp(address: IpAddress): string {
  if (address.family === 4) return address.bytes.join('.')
  const words: number[] = []
  for (let i = 0; i < 16; i += 2) words.push((address.bytes[i]! << 8) | address.bytes[i + 1]!)
  let best = -1
  let bestLength = 1
  for (let i = 0; i < 8; i++) {
    let length = 0
    while (i + length < 8 && words[i + length] === 0) length++
    if (length > bestLength) {
      best = i
      bestLength = length
    }
  }
  const hex = words.map((word) => word.toString(16))
  if (best < 0) return hex.join(':')
  return `${hex.slice(0, best).join(':')}::${hex.slice(best + bestLength).join(':')}`
}

/** `a.b.c.d/n`, `x::/n`, or a single address. @throws MalformedError */
export function parseNetwork(text: string): IpNetwork {
  const [host, bitsText, more] = text.split('/')
  if (host === undefined || more !== undefined) throw new MalformedError('network', 'not of the form ADDRESS/BITS')
  const address = parseIp(host)
  const most = address.bytes.length * 8
  if (bitsText === undefined) return { address, bits: most }
  const bits = Number(bitsText)
  if (!/^\d{1,3}$/.test(bitsText) || bits > most) throw new MalformedError('network', `prefix length is not 0 to ${most}`)
  return { address: maskAddress(address, bits), bits }
}

/** `ADDRESS/BITS`. */
export function formatNetwork(network: IpNetwork): string {
  return `${formatIp(network.address)}/${network.bits}`
}

/** The address with all but its first `bits` bits cleared. */
export function maskAddress(address: IpAddress, bits: number): IpAddress {
  const bytes = new Uint8Array(address.bytes.length)
  for (let i = 0; i < bytes.length; i++) {
    const keep = Math.min(8, Math.max(0, bits - i * 8))
    bytes[i] = address.bytes[i]! & (0xff00 >> keep)
  }
  return { family: address.family, bytes }
}

/** Whether the address is of the network's family and lies in it. */
export function networkContains(network: IpNetwork, address: IpAddress): boolean {
  if (network.address.family !== address.family) return false
  const whole = network.bits >> 3
  for (let i = 0; i < whole; i++) if (network.address.bytes[i] !== address.bytes[i]) return false
  const rest = network.bits & 7
  return rest === 0 || ((network.address.bytes[whole]! ^ address.bytes[whole]!) & (0xff00 >> rest) & 0xff) === 0
}

/** The text of the network of `bits` bits that an address lies in: a key for diversity rules. */
export function networkKey(address: IpAddress, bits: number): string {
  return formatNetwork({ address: maskAddress(address, bits), bits })
}

function parseIp4(text: string): Uint8Array {
  return Uint8Array.from(text.split('.'), Number)
}

function parseIp6(text: string): Uint8Array {
  let head = text
  const tail: number[] = []
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  if (dotted) {
    const [a, b, c, d] = parseIp4(dotted[2]!)
    head = `${dotted[1]}${((a! << 8) | b!).toString(16)}:${((c! << 8) | d!).toString(16)}`
  }
  const [left = '', right] = head.split('::')
  const words = left === '' ? [] : left.split(':').map((word) => Number.parseInt(word, 16))
  if (right !== undefined) {
    if (right !== '') tail.push(...right.split(':').map((word) => Number.parseInt(word, 16)))
    while (words.length + tail.length < 8) words.push(0)
  }
  words.push(...tail)
  const bytes = new Uint8Array(16)
  words.forEach((word, i) => {
    bytes[i * 2] = word >> 8
    bytes[i * 2 + 1] = word & 0xff
  })
  return bytes
}
