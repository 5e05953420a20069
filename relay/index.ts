import type { RoleProfile } from '../src/node/index.ts'

/** The port that the examples use. */
const PORT = 4460
const listening: RoleProfile['defaults'] = { link: { listen: [`/ip4/0.0.0.0/tcp/${PORT}`] } }

/** A guard: the first hop of circuits. It sees the clients' addresses, never where they go. */
export const guardProfile: RoleProfile = {
  role: 'guard',
  summary: 'is the first hop of circuits: it sees who its clients are, never where they go',
  listens: true,
  serves: true,
  modules: ['listening', 'directory-server', 'descriptor', 'relaying'],
  defaults: listening,
}

/** A middle: it sees a guard and an exit, and neither end. */
export const middleProfile: RoleProfile = {
  role: 'middle',
  summary: 'is the second hop of circuits: it sees a guard and an exit, and neither end',
  listens: true,
  serves: true,
  modules: ['listening', 'directory-server', 'descriptor', 'relaying'],
  defaults: listening,
}

/** A NAT relay: nodes that nobody can connect to are reached through it. */
export const relayProfile: RoleProfile = {
  role: 'relay',
  summary: 'lets nodes behind NAT be reached, and meet each other',
  listens: true,
  serves: false,
  modules: ['listening', 'directory-server', 'descriptor', 'nat-relay'],
  defaults: listening,
}
