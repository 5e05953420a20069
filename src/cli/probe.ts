import { networkInterfaces } from 'node:os'
import { ShallotError } from '../base/index.ts'
import { systemRandom } from '../crypto/index.ts'
import { formatTcpAddress, parseTcpAddress } from '../link/index.ts'
import { type NatFacts, probeNat, Reachability, resolveStunServer, stunServersOf } from '../nat/index.ts'
import { isWildcard, loadConfig, type NodeConfig } from '../node/index.ts'
import { systemSuite } from './system-suite.ts'

/** The port that this machine would listen on as a relay, when its configuration names none. */
const USUAL_PORT = 4460

/**
 * Asks the STUN servers of the network in a configuration how this machine is seen, without any node. Only on a person's wish: a client never does it by itself.
 * @param begins told how many servers of which network are asked, before they are
 * @throws ShallotError 'config-unreadable', 'config-invalid', 'no-stun-servers'
 */
export async function probeThisMachine(
  configFile: string,
  begins: (servers: number, network: string) => void,
): Promise<{ readonly nat: NatFacts; readonly why: string }> {
  const config = await configOf(configFile)
  const { stun, mapping } = config.nat
  const own = await Promise.all(stun.servers.map((text) => resolveStunServer(text)))
  const servers = [...(stun.bootstrap ? stunServersOf(config.network.bootstrap) : []), ...own.flat()]
  if (servers.length === 0) {
    throw new ShallotError(
      'no-stun-servers',
      'no STUN server is known: the network names no bootstrap node, and nat.stun.servers is empty',
      {
        kind: 'config',
        retry: 'never',
      },
    )
  }
  begins(servers.length, config.network.name)
  const report = await probeNat({ servers, random: systemRandom(systemSuite()), timing: stun.timing })
  const now = Date.now()
  const reach = new Reachability({
    privateAddresses: config.network.admission.privateAddresses,
    mapping: mapping.enabled,
    reservations: 0,
    advertise: config.node.advertise,
    now,
  })
  reach.handle({ type: 'listening', addresses: addressesOf(config) }, now)
  reach.handle({ type: 'punching', tcp: true, udp: true }, now)
  for (const family of [report.ipv4, report.ipv6]) {
    if (family === null) continue
    const { behaviour } = family
    reach.handle({ type: 'stun', family: behaviour.family, behaviour: behaviour.publicEndpoint === null ? null : behaviour }, now)
  }
  const facts = reach.facts({ stun: report.servers, lost: [] })
  return {
    // Without a node nothing is listened on, announced or served.
    nat: {
      ...facts,
      listening: [],
      announced: [],
      serves: [],
    },
    why: 'this is what a node on this machine would find: no node took part, so no port was mapped, no relay reserved and nobody asked to connect; `shallot run` and then `shallot netcheck` shows those',
  }
}

async function configOf(file: string): Promise<NodeConfig> {
  try {
    return await loadConfig(file)
  } catch (error) {
    if (!(error instanceof ShallotError) || error.code !== 'config-unreadable') throw error
    throw new ShallotError(
      'node-not-running',
      `no node is running, and without one the STUN servers to ask are those of a configuration, which is not there: ${error.message}. Make one with \`shallot init\``,
      { kind: 'process', retry: 'later', cause: error },
    )
  }
}

/** Where a node of this configuration listens, or would. */
function addressesOf(config: NodeConfig): string[] {
  const wanted =
    config.link.listen.length > 0
      ? config.link.listen
      : [formatTcpAddress('0.0.0.0', USUAL_PORT, false), formatTcpAddress('::', USUAL_PORT, false)]
  const own = Object.values(networkInterfaces()).flatMap((addresses = []) =>
    addresses.flatMap(({ address, internal }) => (internal || address.includes('%') ? [] : [address])),
  )
  return wanted.flatMap((text) => {
    const address = parseTcpAddress(text)
    if (address === null) return []
    const { host, port } = address
    if (!isWildcard(host)) return [text]
    return own.filter((one) => one.includes(':') === host.includes(':')).map((one) => formatTcpAddress(one, port, false))
  })
}
