import { bootstrapProfile } from '../../bootstrap/index.ts'
import { exitProfile } from '../../exit/index.ts'
import { guardProfile, middleProfile, relayProfile } from '../../relay/index.ts'
import type { Role } from '../directory/index.ts'
import type { ConfigSections } from './config.ts'

/** What can be switched on in a node. `compose.ts` builds what the roles' profiles name, and nothing else. */
export type Module =
  | 'listening' // accepts links at link.listen, has a lasting identity
  | 'directory-server' // DHT server, gossip, answers pulls of the view
  | 'descriptor' // publishes a descriptor, with proof of work
  | 'relaying' // the relay engine: circuits of others
  | 'nat-relay' // nodes behind NAT are reached through it
  | 'stun' // others ask it how they are seen
  | 'exit' // streams leave here: policy, resolver, kernel sockets
  | 'client' // guards, circuit pool, streams of one's own
  | 'ingress' // SOCKS5 and HTTP proxies

/** What one role is: what it needs running, and what its configuration says other than the defaults. */
export interface RoleProfile {
  readonly role: Role
  /** For people: what a node with this role does for whom. */
  readonly summary: string
  /** Whether others connect to it: it then needs link.listen and keeps its identity. */
  readonly listens: boolean
  /** Whether it is a position in the circuits of others. */
  readonly serves: boolean
  readonly modules: readonly Module[]
  /** What `shallot init --role` and the example configuration set besides `node.roles`. */
  readonly defaults: RoleDefaults
}

/** Part of a configuration, in the schema's spelling. */
export type RoleDefaults = { readonly [S in keyof ConfigSections]?: Partial<ConfigSections[S]> }

const clientProfile: RoleProfile = {
  role: 'client',
  summary: 'carries your own traffic: programs reach it through its SOCKS5 and HTTP proxies',
  listens: false,
  serves: false,
  modules: ['client', 'ingress'],
  defaults: {},
}

/** The profile of every role. */
export const roleProfiles: { readonly [R in Role]: RoleProfile } = {
  client: clientProfile,
  guard: guardProfile,
  middle: middleProfile,
  exit: exitProfile,
  relay: relayProfile,
  bootstrap: bootstrapProfile,
}

/** Which modules a section of the configuration is for; a section that is not here is every node's. */
const sectionModules: { readonly [S in keyof ConfigSections]?: readonly Module[] } = {
  client: ['client'],
  path: ['client'],
  ingress: ['ingress'],
  nat: ['listening'],
  relay: ['nat-relay'],
  relaying: ['relaying'],
  exit: ['exit'],
}

/** The roles that a section of the configuration matters to; null when it is every node's. */
export function rolesOfSection(section: keyof ConfigSections): readonly Role[] | null {
  const modules = sectionModules[section]
  if (modules === undefined) return null
  return Object.values(roleProfiles)
    .filter((profile) => profile.modules.some((module) => modules.includes(module)))
    .map((profile) => profile.role)
}

/** The modules that any of the roles needs. */
export function modulesOf(roles: readonly Role[]): ReadonlySet<Module> {
  return new Set(roles.flatMap((role) => roleProfiles[role].modules))
}

/** The overrides of several roles together; of lists and values the last role's count. */
export function defaultsOf(roles: readonly Role[]): RoleDefaults {
  const merged: Record<string, Record<string, unknown>> = { node: { roles: [...roles] } }
  for (const role of roles) {
    for (const [section, values] of Object.entries(roleProfiles[role].defaults)) merged[section] = { ...merged[section], ...values }
  }
  return merged as RoleDefaults
}
