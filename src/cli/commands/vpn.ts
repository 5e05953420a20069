import { resolve } from 'node:path'
import { ShallotError } from '../../base/index.ts'
import type { Api, ControlClient } from '../../control/index.ts'
import { repair, type Undone, vpnWithoutNode } from '../../vpn/index.ts'
import { bytesText, complain, durationText, facts, say, sayJson, styled, visible, wrap } from '../output.ts'
import { defaultDir, findNode, type NodeChoice } from '../places.ts'
import { isCutOff, sshPeer } from '../ssh-session.ts'

export interface VpnOptions extends NodeChoice {
  readonly json?: boolean
}

/** Exit codes of `shallot vpn status`, for scripts. */
const STATUS_CODES: Readonly<Record<Api.VpnFacts['state'], number>> = { up: 0, down: 3, blocked: 4, starting: 4, stopping: 4 }
const WIDTH = 80

export interface VpnUpOptions extends VpnOptions {
  readonly cutSsh?: boolean
}

/** `shallot vpn up`: 1 when it is set up and nothing can be carried yet. */
export async function vpnUp(options: VpnUpOptions): Promise<number> {
  const node = await findNode(options)
  if (options.cutSsh !== true) await refuseToCutSsh(node)
  const vpn = await node.vpnUp()
  if (options.json) sayJson(vpn)
  else say(vpnText(vpn, Date.now()))
  return vpn.state === 'up' ? 0 : 1
}

/** Whoever types this over SSH would be locked out: no answer leaves for their address any more. */
async function refuseToCutSsh(node: ControlClient): Promise<void> {
  const peer = sshPeer()
  if (peer === null) return
  const vpn = await node.vpn()
  if (vpn === null || vpn.state !== 'down' || !isCutOff(peer, vpn)) return
  throw new ShallotError(
    'vpn-cuts-ssh',
    `this is an SSH session from ${peer}, and the VPN would end it: what comes in to this machine is answered into the tunnel.\n` +
      `Let that address around it, in shallot.toml under [ingress.tun]: bypass = ["${peer}/${peer.includes(':') ? 128 : 32}"], and restart the node; ` +
      'or say --cut-ssh if you have another way in',
    { kind: 'host', retry: 'never' },
  )
}

/** `shallot vpn down`: by the node, or, when none runs, by undoing what it left. */
export async function vpnDown(options: VpnOptions): Promise<number> {
  const node = await nodeIfAny(options)
  const left = node === null ? await vpnWithoutNode(dirOf(options), Date.now()) : null
  if (node === null && left?.state !== 'down') return undo(options, false)
  const vpn = (await node?.vpnDown()) ?? left
  if (options.json) sayJson(vpn)
  else say('The VPN is down: this machine sends as it did before.')
  return 0
}

/** `shallot vpn status` */
export async function vpnStatus(options: VpnOptions): Promise<number> {
  const node = await nodeIfAny(options)
  const vpn = node === null ? await vpnWithoutNode(dirOf(options), Date.now()) : await node.vpn()
  if (vpn === null) throw notAClient()
  if (options.json) sayJson(vpn)
  else say(vpnText(vpn, Date.now()))
  return STATUS_CODES[vpn.state]
}

/** `shallot vpn repair` */
export async function vpnRepair(options: { readonly dir?: string; readonly force?: boolean; readonly json?: boolean }): Promise<number> {
  return undo(options, options.force === true)
}

async function undo(options: VpnOptions, force: boolean): Promise<number> {
  const undone = await repair(dirOf(options), { force })
  if (options.json) sayJson({ undone })
  else if (undone.length === 0) say('Nothing was left of the VPN.')
  else for (const part of undone) say(`Undone: ${UNDONE_WORDS[part]}.`)
  if (undone.includes('dns-removed'))
    complain(
      "shallot: what resolv.conf held before is not known any more; the network's manager writes it at the next connection, or do so by hand",
    )
  return 0
}

const UNDONE_WORDS: Readonly<Record<Undone, string>> = {
  dns: "the machine's resolver settings are those of before",
  'dns-removed': "the resolv.conf that named the tunnel's resolver is removed",
  routing: "the VPN's routing rules and routes are removed",
  'kill-switch': 'the kill switch is lifted',
}

/** The VPN as a person reads it. */
export function vpnText(vpn: Api.VpnFacts, now: number): string {
  const [colour, words] = STATE_WORDS[vpn.state]
  const lines: [string, string][] = [
    ['VPN', `${words}${vpn.state === 'down' ? '' : `, for ${durationText(Math.max(0, now - vpn.since))}`}`],
  ]
  const { device, counts, dns } = vpn
  if (device !== null) lines.push(['device', `${device.name}, MTU ${device.mtu}, ${device.addresses.join(', ')}`])
  if (dns !== null)
    lines.push(['names', dns.how === 'none' ? 'settings left as they are' : `${dns.servers.join(', ')}, by ${DNS_WORDS[dns.how]}`])
  if (counts !== null) {
    lines.push([
      'carried',
      `${bytesText(counts.bytesOut)} out, ${bytesText(counts.bytesIn)} in; ${counts.tcpFlows} TCP and ${counts.udpFlows} UDP flows open`,
    ])
    lines.push(['dropped', `${counts.blocked} packets that would have gone around`])
    lines.push(['local net', vpn.localNetwork ? 'reachable' : 'out of reach'])
    if (vpn.bypass.length > 0) lines.push(['around it', vpn.bypass.join(', ')])
    if (vpn.serving.length > 0)
      lines.push(['answers', vpn.serving.map(({ protocol, port }) => `from ${protocol.toUpperCase()} port ${port}`).join(', ')])
    lines.push([
      'allowed',
      vpn.allowed.length === 0 ? 'nobody: the node knows no guard and no bootstrap node yet' : allowedText(vpn.allowed),
    ])
  }
  const problems = vpn.problems.flatMap((problem) =>
    wrap(visible(problem), WIDTH - 9).map((line, i) => (i === 0 ? `${styled('yellow', 'problem')}  ${line}` : `         ${line}`)),
  )
  return [facts(lines).replace(words, styled(colour, words)), ...problems].join('\n')
}

const STATE_WORDS = {
  up: ['green', 'up: everything goes through the mesh'],
  blocked: ['yellow', 'blocked: nothing goes through the mesh, and nothing around it'],
  down: ['dim', 'down'],
  starting: ['yellow', 'going up'],
  stopping: ['yellow', 'going down'],
} as const

const DNS_WORDS = { 'resolv.conf': 'resolv.conf', resolved: 'systemd-resolved' } as const

/** More than these would only fill the screen: --json has them all. */
const SHOWN_ALLOWED = 12

function allowedText(allowed: Api.VpnFacts['allowed']): string {
  const shown = allowed
    .slice(0, SHOWN_ALLOWED)
    .map(({ ip, protocol, port, why }) => `${ip.includes(':') ? `[${ip}]` : ip}:${port ?? 'any'}/${protocol} (${why})`)
  const more = allowed.length - shown.length
  return shown.join(', ') + (more > 0 ? ` and ${more} more` : '')
}

async function nodeIfAny(options: VpnOptions): Promise<ControlClient | null> {
  try {
    return await findNode(options)
  } catch (error) {
    // Somebody who names a node's address wants that node.
    if (error instanceof ShallotError && error.code === 'node-not-running' && options.control === undefined) return null
    throw error
  }
}

function dirOf(options: NodeChoice): string {
  return resolve(options.dir ?? defaultDir())
}

function notAClient(): ShallotError {
  return new ShallotError('not-a-client', 'this node has not the role "client", so there is no VPN', { kind: 'usage', retry: 'never' })
}
