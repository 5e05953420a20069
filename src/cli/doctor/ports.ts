import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'
import { type NodeConfig, parseIpPort, parseNodeAddress } from '../../node/index.ts'
import { type Finding, fail, ok } from './finding.ts'

/** A port that the configuration wants. */
export interface WantedPort {
  readonly key: string
  readonly protocol: 'tcp' | 'udp'
  readonly host: string
  readonly port: number
}

/** What became of trying to listen there: null when it worked, else the system's code. */
export interface PortFacts extends WantedPort {
  readonly problem: string | null
}

/** The ports that a node of this configuration takes when it starts. Those that may be any are left out. */
export function wantedPorts({ link, node, ingress, control, dashboard, metrics }: NodeConfig): WantedPort[] {
  const isClient = node.roles.includes('client')
  const wanted: WantedPort[] = link.listen.flatMap((text) => {
    const address = parseNodeAddress(text)
    return address === null ? [] : [{ key: 'link.listen', protocol: 'tcp' as const, host: address.host, port: address.port }]
  })
  const add = (key: string, list: readonly string[], ...protocols: readonly WantedPort['protocol'][]): void => {
    for (const text of list) {
      const address = parseIpPort(text)
      if (address !== null) wanted.push(...protocols.map((protocol) => ({ key, protocol, ...address })))
    }
  }
  if (isClient) {
    add('ingress.socks.listen', ingress.socks.listen, 'tcp')
    add('ingress.http.listen', ingress.http.listen, 'tcp')
    add('ingress.dns.listen', ingress.dns.listen, 'tcp', 'udp')
  }
  if (control.enabled) add('control.listen', [control.listen], 'tcp')
  // With "auto" another port is taken when this one is in use.
  if (dashboard.enabled === true) add('dashboard.listen', [dashboard.listen], 'tcp')
  add('metrics.listen', metrics.listen, 'tcp')
  return wanted.filter(({ port }) => port !== 0)
}

/** Tries to take them, for a moment each. */
export async function portFacts(wanted: readonly WantedPort[]): Promise<PortFacts[]> {
  return Promise.all(wanted.map(async (one) => ({ ...one, problem: await (one.protocol === 'tcp' ? tcpProblem : udpProblem)(one) })))
}

/** Whether the ports that a node which does not run would take are free. Pure. */
export function portFindings(facts: readonly PortFacts[]): Finding[] {
  const found = facts.flatMap((one) => portFinding(one) ?? [])
  if (found.length > 0) return found
  if (facts.length === 0) return [ok('ports', 'no port has to be free: the configuration takes any')]
  return [ok('ports', `free, as the configuration wants them: ${[...new Set(facts.map(({ port }) => port))].join(', ')}`)]
}

function portFinding({ key, protocol, host, port, problem }: PortFacts): Finding | null {
  const place = `${key}: ${protocol.toUpperCase()} port ${port} of ${host}`
  switch (problem) {
    case null:
      return null
    case 'EADDRINUSE': {
      const option = protocol === 'tcp' ? '-lntp' : '-lnup'
      return fail(
        'ports',
        `${place} is taken by another program`,
        `see by which, as root: ss ${option} 'sport = :${port}'; end it, or choose another port`,
      )
    }
    case 'EADDRNOTAVAIL':
      return fail(
        'ports',
        `${place}: that is no address of this machine`,
        'see which there are: ip address; behind a port mapping listen on 0.0.0.0 and set node.advertise',
      )
    case 'EACCES':
      return fail(
        'ports',
        `${place} may not be taken by this user`,
        'a port above 1023; or AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit',
      )
    default:
      return fail('ports', `${place} can't be listened on (${problem})`, `see ${key} in docs/configuration.md`)
  }
}

function tcpProblem({ host, port }: WantedPort): Promise<string | null> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(null)))
  })
}

function udpProblem({ host, port }: WantedPort): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
    socket.once('error', (error: NodeJS.ErrnoException) => {
      socket.close()
      resolve(error.code ?? error.message)
    })
    socket.bind({ address: host, port, exclusive: true }, () => socket.close(() => resolve(null)))
  })
}
