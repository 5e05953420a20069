import { networkInterfaces } from 'node:os'
import { formatIp, type IpAddress, isIpText, networkContains, parseIp, parseNetwork } from '../base/index.ts'

/** How long the list of this machine's interfaces is trusted. */
const REFRESH_MS = 30_000

/**
 * Whether an address is this machine's: those of its interfaces (loopback left out: it is refused as such), and those given, which others know it by.
 * @param now monotonic milliseconds, @param known asked anew with each refresh
 */
export function ownAddressCheck(now: () => number, known: () => readonly string[] = () => []): (ip: IpAddress) => boolean {
  let own = new Set<string>()
  let readAt = Number.NEGATIVE_INFINITY
  return (ip) => {
    if (now() - readAt >= REFRESH_MS) {
      own = new Set([...interfaceAddresses(), ...known().filter(isIpText).map(parseIp)].map(formatIp))
      readAt = now()
    }
    return own.has(formatIp(ip))
  }
}

const globalUnicast = parseNetwork('2000::/3')

/** Whether this machine has an address of the public IPv6 internet. */
export function hasGlobalIpv6(): boolean {
  return interfaceAddresses().some((address) => networkContains(globalUnicast, address))
}

function interfaceAddresses(): IpAddress[] {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter((address) => !address.internal && isIpText(address.address))
    .map((address) => parseIp(address.address))
}
