import { readFile } from 'node:fs/promises'
import { platform } from 'node:os'
import type { MappingFacts } from '../facts.ts'
import { localAddressTowards, type Place, SSDP_ADDRESS, SSDP_PORT } from './exchange.ts'
import { GATEWAY_PORT } from './pcp.ts'

/** What a router granted. */
export interface Grant {
  /** An IP address in text: what the router believes to be its public one. */
  readonly externalIp: string
  readonly externalPort: number
  /** How long it holds, ms; null: until it is removed. */
  readonly lifetimeMs: number | null
}

/** A router that forwards ports, spoken to by one protocol. */
export interface Gateway {
  readonly protocol: MappingFacts['protocol']
  /**
   * Asks for TCP `port` of this machine to be forwarded, if possible from `externalPort`; asked again, it renews. From the moment of the call until
   * `unmap` something may be there to be removed.
   * @throws ShallotError 'no-answer', 'refused' with the router's reason in words; the signal's reason
   */
  map(port: number, externalPort: number, leaseMs: number, signal: AbortSignal): Promise<Grant>
  /** Whether the router still has it, and with which address; null when it has lost it. @throws as `map` */
  look(port: number, grant: Grant, leaseMs: number, signal: AbortSignal): Promise<Grant | null>
  /** Removes what was asked for; without `map` before nothing. @throws as `map` */
  unmap(port: number, signal: AbortSignal): Promise<void>
}

/** Where gateways are looked for. */
export interface MappingNetwork {
  /** The default gateway's IPv4 address; null when there is none, or this system does not say. */
  gateway(): Promise<string | null>
  /** This machine's address in the gateway's network. */
  localAddress(gateway: string | null): Promise<string>
  /** PCP and NAT-PMP. */
  readonly controlPort: number
  readonly search: Place
  /** How long UPnP devices have to answer a search, ms. */
  readonly searchMs: number
}

/** The network this machine is in. */
export const thisNetwork: MappingNetwork = {
  gateway: defaultGateway,
  // An address of documentation: no packet is sent, the system only says from which address it would be.
  localAddress: (gateway) => localAddressTowards(gateway ?? '192.0.2.1'),
  controlPort: GATEWAY_PORT,
  search: { host: SSDP_ADDRESS, port: SSDP_PORT },
  searchMs: 3_000,
}

/** Linux tells it in /proc/net/route; elsewhere only UPnP, which needs no gateway's address, is tried. */
export async function defaultGateway(): Promise<string | null> {
  if (platform() !== 'linux') return null
  return gatewayIn(await readFile('/proc/net/route', 'utf8').catch(() => ''))
}

const ROUTE_GATEWAY_FLAG = 0x2

/** The gateway of the default route with the lowest metric in the text of /proc/net/route (proc(5)): hexadecimal, in the machine's byte order. */
export function gatewayIn(routes: string): string | null {
  let best: { address: string; metric: number } | null = null
  for (const line of routes.split('\n').slice(1)) {
    const [, destination, gateway = '', flags = '0', , , metric = '0', mask] = line.trim().split(/\s+/)
    if (destination !== '00000000' || mask !== '00000000' || !/^[0-9A-F]{8}$/.test(gateway)) continue
    if ((Number.parseInt(flags, 16) & ROUTE_GATEWAY_FLAG) === 0) continue
    if (best !== null && Number(metric) >= best.metric) continue
    best = { address: [...Buffer.from(gateway, 'hex')].reverse().join('.'), metric: Number(metric) }
  }
  return best?.address ?? null
}
