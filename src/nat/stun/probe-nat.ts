import { lookup } from 'node:dns/promises'
import { networkInterfaces } from 'node:os'
import { type IpAddress, parseHostPort, parseIp, type Random, ShallotError } from '../../base/index.ts'
import type { Endpoint, NatBehaviour } from '../behaviour.ts'
import type { StunServerFacts } from '../facts.ts'
import type { NatKind } from './classify.ts'
import { defaultStunProbeTiming, type StunProbeTiming } from './config.ts'
import { type DatagramOpener, type DatagramSocket, hasRoute, openDatagrams } from './datagrams.ts'
import { formatEndpoint } from './endpoint.ts'
import { Probe, type ProbeDepth, type ProbeResult, type StunServerAddress } from './probe.ts'

/** The port of STUN. RFC 8489 §18.5 */
const STUN_PORT = 3478
const wildcard = { 4: parseIp('0.0.0.0'), 6: parseIp('::') }

export interface ProbeNatOptions {
  /** Of either family; several of different operators, so that a lying one is found out. */
  readonly servers: readonly StunServerAddress[]
  readonly random: Random
  /** Default `behaviour`. */
  readonly depth?: ProbeDepth
  /** Where to ask from, one address of a family at most; default any. */
  readonly localAddresses?: readonly IpAddress[]
  /** Default any free one. */
  readonly localPort?: number
  readonly timing?: StunProbeTiming
  /** Monotonic, milliseconds. */
  readonly now?: () => number
  readonly open?: DatagramOpener
  /** Whether there is a way to a server; default as this machine's system says. */
  readonly isRouted?: (server: Endpoint) => Promise<boolean>
  /** Told of each family as soon as it is through: the other one may take seconds longer. */
  readonly done?: (report: FamilyReport, servers: readonly StunServerFacts[]) => void
  /** Ends the probe with what is known by then. */
  readonly signal?: AbortSignal
}

/** What was found out about one address family. */
export interface FamilyReport {
  readonly behaviour: NatBehaviour
  readonly kind: NatKind
  /** What was not found out, and what was strange: plain sentences. */
  readonly notes: readonly string[]
  /** The socket asked from. */
  readonly local: Endpoint
}

export interface NatReport {
  /** Null when there is no server of the family, or no way to any though there is one in the other family. */
  readonly ipv4: FamilyReport | null
  readonly ipv6: FamilyReport | null
  readonly servers: readonly StunServerFacts[]
}

/**
 * Asks STUN servers how this machine's NAT behaves, for both families at the same time, each over one UDP socket. A family that this machine has no
 * connection in is left out, unless that is so of both.
 * @throws ShallotError `udp-port-in-use` when `localPort` is taken
 */
export async function probeNat(options: ProbeNatOptions): Promise<NatReport> {
  const families = await connectedFamilies(options)
  const probe = async (family: 4 | 6): Promise<Awaited<ReturnType<typeof probeFamily>>> => {
    const found = families.includes(family) ? await probeFamily(family, options) : null
    if (found !== null) options.done?.(found.report, found.servers)
    return found
  }
  const [ipv4, ipv6] = await Promise.all([probe(4), probe(6)])
  return {
    ipv4: ipv4?.report ?? null,
    ipv6: ipv6?.report ?? null,
    servers: [...(ipv4?.servers ?? []), ...(ipv6?.servers ?? [])],
  }
}

/** The STUN servers of nodes by their addresses `/ip4/ADDRESS/tcp/PORT…`: UDP on the same port number. Other addresses are skipped. */
export function stunServersOf(multiaddrs: readonly string[]): StunServerAddress[] {
  return multiaddrs.flatMap((text) => {
    const [, host, portText] = /^\/ip[46]\/([^/]+)\/tcp\/(\d{1,5})(?:\/|$)/.exec(text) ?? []
    try {
      const port = Number(portText)
      return host !== undefined && port > 0 && port < 65_535 ? [{ ip: parseIp(host), port, alternatePort: port + 1 }] : []
    } catch {
      return []
    }
  })
}

/**
 * The addresses of a server written as HOST, HOST:PORT or [IPv6]:PORT; a name may have one of each family, none when it is not found.
 * @throws MalformedError when it is written otherwise
 */
export async function resolveStunServer(text: string): Promise<StunServerAddress[]> {
  const { host, port } = parseHostPort(text, STUN_PORT)
  if (host.type === 'ip') return [{ ip: host.ip, port, alternatePort: null }]
  const found = await lookup(host.text, { all: true }).catch(() => [])
  return ([4, 6] as const).flatMap((family) => {
    const first = found.find((one) => one.family === family)
    return first === undefined ? [] : [{ ip: parseIp(first.address), port, alternatePort: null }]
  })
}

/** Those with a way to a server; both when there is none at all: then it is all of the network that is missing. */
async function connectedFamilies({ servers, open, isRouted = hasRoute }: ProbeNatOptions): Promise<readonly (4 | 6)[]> {
  const both = [4, 6] as const
  // Who has sockets of another kind has ways of another kind.
  if (open !== undefined) return both
  const routed = await Promise.all(servers.map(async (server) => ((await isRouted(server)) ? server.ip.family : null)))
  const found = both.filter((family) => routed.includes(family))
  return found.length > 0 ? found : both
}

async function probeFamily(
  family: 4 | 6,
  options: ProbeNatOptions,
): Promise<{ readonly report: FamilyReport; readonly servers: StunServerFacts[] } | null> {
  const servers = options.servers.filter(({ ip }) => ip.family === family)
  if (servers.length === 0) return null
  const ip = options.localAddresses?.find((address) => address.family === family) ?? wildcard[family]
  const local = { ip, port: options.localPort ?? 0 }
  try {
    const { result, at } = await run(family, servers, local, options)
    return { report: { behaviour: result.behaviour, kind: result.kind, notes: result.notes, local: at }, servers: factsOf(result) }
  } catch (error) {
    // No address of this family, or not the one asked for: nothing can be asked.
    if (!(error instanceof ShallotError) || error.code !== 'udp-unavailable') throw error
    return unreachableReport(family, servers, local, error.message)
  }
}

async function run(
  family: 4 | 6,
  servers: readonly StunServerAddress[],
  local: Endpoint,
  options: ProbeNatOptions,
): Promise<{ result: ProbeResult; at: Endpoint }> {
  const {
    random,
    signal,
    depth = 'behaviour',
    timing = defaultStunProbeTiming,
    open = openDatagrams,
    now = () => performance.now(),
  } = options
  const sockets: DatagramSocket[] = []
  const { promise: ended, resolve: end } = Promise.withResolvers<void>()
  let probe: Probe | null = null
  let timer: NodeJS.Timeout | undefined
  const drain = (): void => {
    if (probe === null) return
    for (const { socket, to, bytes } of probe.takeOutput()) sockets[socket]?.send(bytes, to)
    clearTimeout(timer)
    if (probe.result !== null) end()
    else timer = setTimeout(tick, Math.max(0, Math.ceil(probe.deadline - now())))
  }
  const tick = (): void => {
    probe?.handleTime(now())
    drain()
  }
  const listenOn = (socket: 0 | 1) => (bytes: Uint8Array, from: Endpoint) => {
    probe?.handleDatagram(socket, bytes, from, now())
    drain()
  }
  const abort = (): void => {
    probe?.finish()
    drain()
  }
  try {
    sockets.push(await open(local, listenOn(0)))
    if (depth === 'lifetime') sockets.push(await open({ ip: local.ip, port: 0 }, listenOn(1)))
    const at = sockets[0]!.local
    probe = new Probe({ family, servers, local: at, localAddresses: machineAddresses(), depth, timing, random }, now())
    signal?.addEventListener('abort', abort, { once: true })
    if (signal?.aborted === true) abort()
    else drain()
    await ended
    return { result: probe.finish(), at }
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
    await Promise.all(sockets.map((socket) => socket.close()))
  }
}

function factsOf({ servers, verdicts }: ProbeResult): StunServerFacts[] {
  return servers.map(({ address, said }, i) => ({
    server: formatEndpoint(address),
    verdict: verdicts[i]!,
    said: said === null ? null : formatEndpoint(said),
  }))
}

function unreachableReport(
  family: 4 | 6,
  servers: readonly StunServerAddress[],
  local: Endpoint,
  why: string,
): { readonly report: FamilyReport; readonly servers: StunServerFacts[] } {
  const behaviour: NatBehaviour = {
    family,
    publicEndpoint: null,
    mapping: null,
    filtering: null,
    portPreserved: null,
    hairpin: null,
    bindingLifetimeMs: null,
  }
  return {
    report: { behaviour, kind: 'blocked', notes: [why], local },
    servers: servers.map((server) => ({ server: formatEndpoint(server), verdict: 'silent', said: null })),
  }
}

/** All addresses of this machine. */
function machineAddresses(): IpAddress[] {
  return Object.values(networkInterfaces()).flatMap((addresses = []) => addresses.map(({ address }) => parseIp(address.split('%')[0]!)))
}
