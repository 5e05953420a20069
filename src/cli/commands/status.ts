import packageJson from '../../../package.json' with { type: 'json' }
import type { Api } from '../../control/index.ts'
import { bytesText, complain, durationText, facts, say, sayJson, shortId, styled, visible } from '../output.ts'
import { findNode, type NodeChoice } from '../places.ts'

/** `shallot status` */
export async function status(options: NodeChoice & { readonly json?: boolean }): Promise<number> {
  const node = await (await findNode(options)).status()
  if (options.json) sayJson(node)
  else say(statusText(node))
  return 0
}

/** The status as a person reads it; of a node that is older than this program too, which does not tell everything. */
export function statusText(node: Api.NodeStatus): string {
  const lines: [string, string][] = [
    ['node', node.id],
    ['roles', node.roles.join(', ')],
    ['state', `${stateText(node)}; up ${durationText(node.uptimeMs)}, process ${node.pid}`],
    [
      'version',
      node.version === packageJson.version
        ? node.version
        : `${node.version}; this program is ${packageJson.version}: start the node again to run it`,
    ],
    ['crypto', `${node.crypto.name} (${node.crypto.description})`],
    ['memory', `${bytesText(node.memory.rssBytes)}, ${node.links} links`],
  ]
  if (node.listening.length > 0) lines.push(['listening', node.listening.join(' ')])
  if (node.socks != null) lines.push(['SOCKS5', node.socks])
  if (node.http != null) lines.push(['HTTP proxy', node.http])
  if (node.dns != null) lines.push(['DNS', node.dns])
  if (node.dashboard != null) lines.push(['dashboard', `http://${node.dashboard}/ (\`shallot ui\` opens it)`])
  if (node.control != null) lines.push(['control', node.control])
  if (node.draining != null)
    lines.push([
      'leaving',
      `takes no new circuits; ends with the last of ${node.draining.circuitsLeft}, at ${new Date(node.draining.until).toISOString()} at the latest`,
    ])
  if (node.onionKey != null)
    lines.push([
      'onion key',
      `since ${new Date(node.onionKey.since).toISOString()}, replaced ${new Date(node.onionKey.rotatesAt).toISOString()}`,
    ])
  lines.push(['view', `${countsText(node.view.known)} known; ${countsText(node.view.eligible)} eligible`])
  for (const guard of node.guards ?? []) {
    lines.push([
      `guard ${guard.rank + 1}`,
      `${shortId(guard.id)} ${guard.state}, ${guard.circuitsBuilt} circuits built, ${guard.circuitsFailed} failed`,
    ])
  }
  if (node.client !== null) {
    const { client } = node
    lines.push([
      'circuits',
      `${client.circuitsOpen} open, ${client.circuitsBuilding} being built; ${client.circuitsBuilt} built, ${client.circuitsFailed} failed so far`,
    ])
    lines.push(['streams', `${client.streamsOpen} open; ${client.streamsOpened} opened, ${client.streamsFailed} failed so far`])
    lines.push(['traffic', `${bytesText(client.bytesSent)} sent, ${bytesText(client.bytesReceived)} received`])
  }
  if (node.relaying != null) {
    const { relaying } = node
    lines.push([
      'relaying',
      `${relaying.circuitsOpen} circuits open; ${relaying.circuitsCreated} created, ${relaying.circuitsRefused} refused, ${relaying.circuitsShed} shed so far`,
    ])
    lines.push(['queued', `${bytesText(relaying.budget.usedBytes)} of at most ${bytesText(relaying.budget.limitBytes)}`])
    if (node.roles.includes('exit'))
      lines.push(['exit', `${relaying.exitStreamsOpen} streams open, ${relaying.exitStreamsRefused} refused so far`])
  }
  if (node.reachability != null) lines.push(['reached', `${node.reachability}; \`shallot netcheck\` says why`])
  if (node.natRelay != null) {
    const { reservations, connections, bytes } = node.natRelay
    const moved = bytes.fromReserved + bytes.toReserved
    lines.push([
      'NAT relay',
      `${reservations.open} nodes reserved, ${connections.open} connections open, ${connections.total} so far; ${bytesText(moved)} relayed, ${bytesText(bytes.held)} held`,
    ])
  }
  if (node.stun != null) lines.push(['STUN', `${node.stun.requests} requests, ${node.stun.answers} answered`])
  lines.push([
    'network',
    node.network.changes.length === 0
      ? `${node.network.name}, all rules at their defaults`
      : `${node.network.name}, with these rules changed:`,
  ])
  for (const change of node.network.changes)
    lines.push(['', `${change.key} = ${JSON.stringify(change.value)} (usually ${JSON.stringify(change.default)})`])
  const { signature } = node.network
  const issued = signature?.issued == null ? '' : `, issued ${signature.issued}`
  lines.push(['signed by', signature == null ? 'nobody' : `${signature.publisher}${issued}`])
  const warnings = node.warnings.map((warning) => `\n${styled('yellow', 'warning')}  ${visible(warning.message)}`)
  return facts(lines) + warnings.join('')
}

/** How it does, in a word or two; of a node that is older than this program too. */
export function stateText({ ready, outage }: Pick<Api.NodeStatus, 'ready' | 'outage'>): string {
  return outage != null ? 'reaches nothing' : ready ? 'ready' : 'starting'
}

function countsText(counts: Api.RoleCounts): string {
  const roles = (['guard', 'middle', 'exit'] as const).map((role) => `${counts[role]} ${role}`)
  return `${counts.total} relays (${roles.join(', ')})`
}

/** For a command that cannot go on before the node is ready. */
export function complainNotReady(node: Api.NodeStatus): void {
  complain(`shallot: the node is still starting: it knows ${node.view.known.total} relays`)
}
