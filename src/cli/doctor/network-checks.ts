import { createConnection, createServer } from 'node:net'
import { type NodeConfig, type NodeStatus, parseNodeAddress, type RelayFacts, VERSION } from '../../node/index.ts'
import { durationText } from '../output.ts'
import { type Finding, fail, note, ok, warn } from './finding.ts'

/** How long a bootstrap node may take to answer. */
const CONNECT_MS = 5_000
/** Bootstrap nodes that are tried. */
const MAX_TRIED = 4
/** A clock that is this far off is told of. */
const SKEW_MS = 60_000
/** Relays by which the clock and the version are judged. */
const FEW = 3

/**
 * The clock against what relays say: each signs the time at which it published. Nobody is asked for the time: whom a client asks would learn that it is
 * there. A clock that is behind sees descriptors of the future; one that is ahead sees none that are fresh.
 */
export function clockFinding(
  relays: readonly Pick<RelayFacts, 'publishedAt'>[],
  republishMs: number,
  syncedAt: number | null,
  now: number,
): Finding {
  if (relays.length < FEW || syncedAt === null) return note('clock', 'too few relays are known to compare the clock with')
  const newest = Math.max(...relays.map(({ publishedAt }) => publishedAt))
  const advice = 'set the clock: timedatectl set-ntp true, or chronyc makestep'
  if (newest - now > SKEW_MS) return fail('clock', `the clock is at least ${durationText(newest - now)} behind that of others`, advice)
  const staleMs = now - newest
  // Among several relays one has published within one interval; a minute for it to arrive.
  const allowed = republishMs + SKEW_MS + Math.max(0, now - syncedAt)
  if (staleMs > allowed)
    return warn(
      'clock',
      `nobody has published anything in the last ${durationText(staleMs)}: the clock may be ahead by as much, or the view old`,
      advice,
    )
  return ok('clock', 'the clock agrees with what relays say')
}

/** This program against what the network speaks and what others run. */
export function versionFinding(config: NodeConfig | null, relays: readonly Pick<RelayFacts, 'software'>[]): Finding {
  const asked = config?.network.protocols
  if (asked && (!asked.circuit.includes(1) || !asked.link.includes(1)))
    return fail('version', `version ${VERSION} does not speak what network.toml asks for (protocols)`, 'upgrade this program')
  const others = relays.flatMap(({ software }) => /^shallot (\d+\.\d+\.\d+)/.exec(software)?.[1] ?? [])
  const newer = others.filter((version) => compareVersions(version, VERSION) > 0)
  if (others.length >= FEW && newer.length > others.length / 2)
    return warn('version', `most relays run something newer than ${VERSION}`, 'upgrade: what is fixed there may be a hole here')
  return ok('version', `version ${VERSION} speaks what the network does`)
}

function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((text) => text.split('.').map(Number))
  for (let i = 0; i < 3; i++) if (left![i] !== right![i]) return left![i]! - right![i]!
  return 0
}

/** Whether the ports that a node which does not run would take are free. */
export async function portFindings(config: NodeConfig): Promise<Finding[]> {
  const wanted = [
    ...config.link.listen.map((text) => ({ key: 'link.listen', text, ...parseNodeAddress(text)! })),
    ...(config.node.roles.includes('client')
      ? config.ingress.socks.listen.flatMap((text) => {
          const match = /^\[?([^\]]*)\]?:(\d+)$/.exec(text)
          return match ? [{ key: 'ingress.socks.listen', text, host: match[1]!, port: Number(match[2]) }] : []
        })
      : []),
  ]
  const found: Finding[] = []
  for (const { key, text, host, port } of wanted) {
    if (port === 0) continue
    const problem = await bindProblem(host, port)
    if (problem === 'EADDRINUSE')
      found.push(
        fail('ports', `${key}: ${text} is taken by another program`, `see which: ss -lntp 'sport = :${port}'; or choose another port`),
      )
    else if (problem === 'EADDRNOTAVAIL')
      found.push(
        fail(
          'ports',
          `${key}: ${text} is no address of this machine`,
          'see which there are: ip address; behind a port mapping listen on 0.0.0.0 and set node.advertise',
        ),
      )
    else if (problem === 'EACCES')
      found.push(fail('ports', `${key}: ${text} may not be taken by this user`, 'a port above 1023, or CAP_NET_BIND_SERVICE'))
    else if (problem !== null)
      found.push(fail('ports', `${key}: ${text} can't be listened on: ${problem}`, 'see link.listen in docs/configuration.md'))
  }
  return found.length > 0 ? found : [ok('ports', 'the ports of the configuration are free')]
}

type StatusToJudge = Pick<NodeStatus, 'warnings' | 'reachability' | 'view' | 'ready' | 'draining'> & {
  readonly [part in 'client' | 'relaying' | 'stun' | 'natRelay']: object | null
}

/** How a node that runs is reached, and what it has of the network. */
export function statusFindings(status: StatusToJudge): Finding[] {
  const found: Finding[] = status.warnings.map(({ code, message }) => warn(code, message, 'see the log, and docs/configuration.md'))
  const serves = status.relaying !== null || status.stun !== null || status.natRelay !== null
  if (serves && (status.reachability === 'relayed' || status.reachability === 'punchable'))
    found.push(
      warn(
        'reachability',
        `others reach this node only ${status.reachability === 'relayed' ? 'through a relay' : 'by hole punching'}`,
        'open its port in the firewall or the router; `shallot netcheck` says more',
      ),
    )
  if (status.view.known.total === 0) found.push(fail('network', 'the node knows no relay at all', 'see "bootstrap" below, and the log'))
  else if (!status.ready)
    found.push(
      warn(
        'network',
        'the node runs and is not ready',
        status.client ? 'wait a minute; then see `shallot circuits` and the log' : 'wait a minute; then see the log',
      ),
    )
  else found.push(ok('network', `the node is ready and knows ${status.view.known.total} relays`))
  if (status.draining !== null) found.push(note('draining', `the node is leaving: ${status.draining.circuitsLeft} circuits are left`))
  return found
}

/**
 * Whether the network can be entered from here. Asked only where nobody lets the node in: a node that has a view goes to others than these, and
 * whoever watches would see a newcomer.
 */
export async function bootstrapFinding(config: NodeConfig, hasNetwork: boolean): Promise<Finding> {
  const addresses = config.network.bootstrap.slice(0, MAX_TRIED).flatMap((text) => parseNodeAddress(text) ?? [])
  if (addresses.length === 0)
    return config.node.roles.includes('bootstrap')
      ? ok('bootstrap', 'this node is itself where the network begins')
      : fail('bootstrap', 'network.toml names no bootstrap node', 'ask whoever runs the network for its newest network.toml')
  const results = await Promise.all(addresses.map(({ host, port }) => connectProblem(host, port)))
  const open = results.filter((result) => result === null).length
  if (open > 0) return ok('bootstrap', `${open} of ${results.length} bootstrap nodes can be connected to`)
  if (!hasNetwork) return fail('bootstrap', 'this machine has no network', 'connect it: ip address; ip route')
  const isRefused = results.every((result) => result === 'ECONNREFUSED')
  return isRefused
    ? fail(
        'bootstrap',
        'all bootstrap nodes refuse connections: they are down, or this network refuses in their stead',
        'ask for the newest network.toml; try from another network',
      )
    : fail(
        'bootstrap',
        `no bootstrap node answers (${[...new Set(results)].join(', ')}): a firewall, or this network blocks them`,
        'let outgoing TCP to their ports pass; try from another network, or ask for a network.toml with others',
      )
}

function bindProblem(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(null)))
  })
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
