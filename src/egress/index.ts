export * from './backend.ts'
export { type ExitConfig, exitConfig } from './config.ts'
export {
  createDnsForwarder,
  type DnsCircuit,
  type DnsForwarder,
  type DnsForwarderCounts,
  type DnsForwarderModules,
} from './dns/forwarder.ts'
export { createExitService, type Exit, type ExitCounts, type ExitModules, servedFamilies } from './exit.ts'
export { KernelBackend, type KernelBackendOptions } from './kernel-backend.ts'
export { hasGlobalIpv6, ownAddressCheck } from './own-addresses.ts'
export * from './packet-backend.ts'
export { type LeaseAddress, LeaseAddresses, type LeaseNetworks } from './packets/lease-addresses.ts'
export { NetstackBackend, type NetstackBackendModules } from './packets/netstack-backend.ts'
export { ExitPolicy, embeddedIpv4, type PolicyFacts, type PolicyRule, type PolicyVerdict, parsePolicy } from './policy.ts'
export { createResolver, type NameSource, type Resolver } from './resolver.ts'
export type * from './tun-nat/index.ts'

/** The backend that few exits use, with what it needs of the system. */
export const loadTunNat = () => import('./tun-nat/index.ts')
