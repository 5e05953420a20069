import type { RoleProfile } from '../src/node/index.ts'

/** The port that the examples use. */
const PORT = 4460

/** A bootstrap node: the first address of newcomers. It answers questions about the view and carries no circuits. */
export const bootstrapProfile: RoleProfile = {
  role: 'bootstrap',
  summary: 'is the first address of newcomers: it tells them of the other nodes and carries no traffic',
  listens: true,
  serves: false,
  modules: ['listening', 'directory-server', 'stun'],
  defaults: { link: { listen: [`/ip4/0.0.0.0/tcp/${PORT}`] } },
}
