import { createConnection } from 'node:net'
import type { Api } from '../../control/index.ts'
import { type NodeConfig, parseNodeAddress, VERSION } from '../../node/index.ts'
import { durationText } from '../output.ts'
import { type Finding, fail, note, ok, warn } from './finding.ts'

/** What a node has of the network, and what keeps it from it. The judgements are pure; only `bootstrapFacts` asks. */

/** How long a bootstrap node may take to answer. */
const CONNECT_MS = 5_000
/** Bootstrap nodes that are tried. */
const MAX_TRIED = 4
/** Relays by which the version is judged. */
const FEW = 3
/** How long a node usually takes to be ready. */
const STARTING_MS = 120_000

/**
 * This program against what the network speaks and what others run.
 * @param protocols what network.toml asks for; null without one
 * @param running the version of the node that runs; null where none does
 * @param software what relays say that they run ("shallot 1.2.3"); null while the node does not run
 */
export function versionFinding(
  protocols: NodeConfig['network']['protocols'] | null,
  software: readonly string[] | null,
  running: string | null,
  version: string = VERSION,
): Finding {
  if (protocols !== null && (!protocols.circuit.includes(1) || !protocols.link.includes(1)))
    return fail('version', `version ${version} does not speak what network.toml asks for (protocols)`, 'upgrade: docs/operating.md')
  if (running !== null && compareVersions(running, version) < 0)
    return warn(
      'version',
      `the node still runs version ${running}, and this program is ${version}`,
      'start the node anew: systemctl restart shallot, or `shallot drain` and `shallot run`',
    )
  const others = (software ?? []).flatMap((text) => /^shallot (\d+\.\d+\.\d+)/.exec(text)?.[1] ?? [])
  const newer = others.filter((other) => compareVersions(other, version) > 0)
  const newest = newer.reduce((most, other) => (compareVersions(other, most) > 0 ? other : most), version)
  if (others.length >= FEW && newer.length > others.length / 2)
    return warn(
      'version',
      `${newer.length} of ${others.length} relays run something newer than this ${version}, up to ${newest}`,
      'upgrade (docs/operating.md): what is fixed there may be a hole here',
    )
  if (software === null) return note('version', `this is version ${version}; what others run is known only while the node runs`)
  if (others.length < FEW) return note('version', `this is version ${version}; too few relays are known to compare it with`)
  return ok('version', `version ${version} is not older than what most of ${others.length} relays run`)
}

function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((text) => text.split('.').map(Number))
  for (let i = 0; i < 3; i++) if (left![i] !== right![i]) return left![i]! - right![i]!
  return 0
}

/** What of a node's status is judged. */
export type StatusToJudge = Pick<Api.NodeStatus, 'warnings' | 'reachability' | 'view' | 'ready' | 'draining' | 'uptimeMs' | 'roles'> & {
  /** A node of an older version does not tell. */
  readonly outage?: Api.NodeStatus['outage']
  readonly guards: readonly { readonly state: NonNullable<Api.NodeStatus['guards']>[number]['state'] }[] | null
} & { readonly [part in 'client' | 'relaying' | 'stun' | 'natRelay']: object | null }

/** How a node that runs is reached, and what it has of the network. @param hasNetwork whether the machine has an address to go out from */
export function statusFindings(status: StatusToJudge, hasNetwork: boolean): Finding[] {
  const found: Finding[] = status.warnings
    .filter(({ code }) => code !== status.outage?.code)
    .map(({ code, message }) => warn(code, message, 'see the log: shallot logs --level warn'))
  const serves = status.relaying !== null || status.stun !== null || status.natRelay !== null
  if (serves && (status.reachability === 'relayed' || status.reachability === 'punchable'))
    found.push(
      warn(
        'reachability',
        `others reach this node only ${status.reachability === 'relayed' ? 'through a relay' : 'by hole punching'}`,
        'open its port in the firewall or the router; `shallot netcheck` says more',
      ),
    )
  found.push(networkFinding(status, hasNetwork))
  if (status.draining !== null) found.push(note('draining', `the node is leaving: ${status.draining.circuitsLeft} circuits are left`))
  return found
}

function networkFinding({ view, ready, outage, client, guards, uptimeMs, roles }: StatusToJudge, hasNetwork: boolean): Finding {
  const isBootstrap = roles.includes('bootstrap')
  const isStarting = uptimeMs < STARTING_MS
  if (outage != null) return fail('network', outage.message, outage.advice)
  if (!hasNetwork && !ready) return fail('network', 'this machine has no network', 'connect it: ip address; ip route')
  if (view.known.total === 0) {
    if (isBootstrap && ready)
      return note('network', 'nobody has come yet: right for the first node of a network', 'hand out its network.toml')
    return isStarting
      ? note('network', 'the node has just been started and knows no relay yet', 'ask again in a minute')
      : fail('network', 'the node knows no relay at all', 'see "bootstrap" and "clock" here, and the log')
  }
  if (ready) return ok('network', `the node is ready and knows ${view.known.total} relays`)
  if (isStarting) return note('network', 'the node has just been started and is not ready yet', 'ask again in a minute')
  const tried = (guards ?? []).filter(({ state }) => state !== 'sampled' && state !== 'unlisted')
  if (client !== null && tried.length > 0 && tried.every(({ state }) => state === 'unreachable'))
    return fail(
      'network',
      `none of the ${tried.length} guards that were tried can be reached: a firewall, or this network blocks them`,
      'let outgoing TCP pass, to any port: relays choose their own; or try from another network',
    )
  return warn(
    'network',
    `the node has run for ${durationText(uptimeMs)}, knows ${view.known.total} relays, and is not ready`,
    client !== null ? 'see `shallot circuits` and `shallot logs --level warn`' : 'see `shallot netcheck` and `shallot logs --level warn`',
  )
}

/** What became of connecting to bootstrap nodes: null where it worked, else the system's code. */
export interface BootstrapFacts {
  readonly isBootstrap: boolean
  readonly hasNetwork: boolean
  /** Whether a node that runs has tried them all and got nowhere. */
  readonly triedInVain: boolean
  readonly problems: readonly (string | null)[]
}

/**
 * Tries to connect. To be asked only where nobody lets the node in: a node that has a view goes to others than these, and whoever watches would see a
 * newcomer.
 */
export async function bootstrapFacts(
  config: NodeConfig,
  { hasNetwork, triedInVain }: Pick<BootstrapFacts, 'hasNetwork' | 'triedInVain'>,
): Promise<BootstrapFacts> {
  // As the node itself asks: its own sources after those of the network file.
  const named = new Set(config.bootstrap.flatMap(({ addresses }) => addresses))
  const addresses = [...named].flatMap((text) => parseNodeAddress(text) ?? []).slice(0, MAX_TRIED)
  return {
    isBootstrap: config.node.roles.includes('bootstrap'),
    hasNetwork,
    triedInVain,
    problems: await Promise.all(addresses.map(({ host, port }) => connectProblem(host, port))),
  }
}

/** Whether the network can be entered from here. Pure. */
export function bootstrapFinding({ isBootstrap, hasNetwork, triedInVain, problems }: BootstrapFacts): Finding {
  if (isBootstrap) return ok('bootstrap', 'this node is itself where the network begins')
  if (problems.length === 0)
    return fail('bootstrap', 'nothing names a bootstrap node', 'ask whoever runs the network for its newest network.toml')
  const open = problems.filter((problem) => problem === null).length
  if (open > 0 && triedInVain)
    return fail(
      'bootstrap',
      `${open} of ${problems.length} bootstrap nodes can be connected to, and the node came to terms with none: the clock is off by hours, they are others than network.toml says, or this network lets no TLS pass`,
      'compare `date -u` with another clock; ask for the newest network.toml; try from another network',
    )
  if (open > 0) return ok('bootstrap', `${open} of ${problems.length} bootstrap nodes can be connected to`)
  if (!hasNetwork) return fail('bootstrap', 'this machine has no network', 'connect it: ip address; ip route')
  if (problems.every((problem) => problem === 'ECONNREFUSED'))
    return fail(
      'bootstrap',
      problems.length === 1
        ? 'the bootstrap node refuses connections: it is down, or this network refuses in its stead'
        : `all ${problems.length} bootstrap nodes refuse connections: they are down, or this network refuses in their stead`,
      'ask for the newest network.toml; try from another network',
    )
  return fail(
    'bootstrap',
    `no bootstrap node answers (${[...new Set(problems)].join(', ')}): a firewall, or this network blocks them`,
    'let outgoing TCP to their ports pass; try from another network, or ask for a network.toml with others',
  )
}

function connectProblem(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = createConnection({ host, port })
    const settle = (problem: string | null): void => {
      socket.destroy()
      resolve(problem)
    }
    socket.setTimeout(CONNECT_MS, () => settle('ETIMEDOUT'))
    socket.once('connect', () => settle(null))
    socket.once('error', (error: NodeJS.ErrnoException) => settle(error.code ?? 'error'))
  })
}
