import type { RoleProfile } from '../src/node/index.ts'

/** The port that the examples use. */
const PORT = 4460

/** An exit: the last hop of circuits. Its address is what servers see; its policy says what it lets through. */
export const exitProfile: RoleProfile = {
  role: 'exit',
  summary: 'is the last hop of circuits: it connects to servers, by its policy, and sees where traffic goes, never whose it is',
  listens: true,
  serves: true,
  modules: ['listening', 'directory-server', 'descriptor', 'relaying', 'exit'],
  defaults: { link: { listen: [`/ip4/0.0.0.0/tcp/${PORT}`] } },
}
