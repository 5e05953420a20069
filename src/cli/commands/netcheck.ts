import { join, resolve } from 'node:path'
import { parseNodeId, ShallotError } from '../../base/index.ts'
import type { Api } from '../../control/index.ts'
import type { ServiceFacts } from '../../nat/index.ts'
import { complain, durationText, say, sayJson, shortId, styled, visible, wrap } from '../output.ts'
import { defaultDir, findNode, type NodeChoice } from '../places.ts'

export interface NetcheckOptions extends NodeChoice {
  readonly json?: boolean
  readonly peer?: string
  readonly probe?: boolean
}

/** What `--json` prints, whatever was asked. */
export interface NetcheckResult {
  /** Whether a running node said it; else this command found it out by itself. */
  readonly running: boolean
  /** Null when there is nothing to check; `why` then says why. */
  readonly nat: Api.NatFacts | null
  readonly why: string | null
  /** With --peer. */
  readonly peer: Api.ReachFacts | null
}

const CLIENT_ONLY = 'a client dials out only; nothing to check: it needs no reachability'
const SWITCHED_OFF = 'nat.enabled is false: the node is announced as its configuration says, and nothing is checked'

/** `shallot netcheck [--peer ID] [--probe]` */
export async function netcheck(options: NetcheckOptions): Promise<number> {
  if (options.peer !== undefined && options.probe) throw usage('--peer asks a running node, --probe none: give one of them')
  if (options.peer !== undefined) return reachPeer(options.peer, options)
  if (options.probe) return probeAlone(options)
  let node: Awaited<ReturnType<typeof findNode>>
  try {
    node = await findNode(options)
  } catch (error) {
    // Somebody who names a node's address wants that node.
    if (!(error instanceof ShallotError) || error.code !== 'node-not-running' || options.control !== undefined) throw error
    return probeAlone(options)
  }
  const nat = await node.nat()
  const why = nat !== null ? null : (await node.status()).roles.some((role) => role !== 'client') ? SWITCHED_OFF : CLIENT_ONLY
  if (options.json) sayJson({ running: true, nat, why, peer: null } satisfies NetcheckResult)
  else if (nat !== null) say(natText(nat, Date.now()))
  else
    for (const line of wrap(`${sentence(why!)} \`shallot netcheck --probe\` asks STUN servers about the NAT all the same.`, WIDTH))
      say(line)
  return 0
}

/** Without a node: an act of the person's, who is told what is asked. */
async function probeAlone(options: NetcheckOptions): Promise<number> {
  // What this needs takes a while to load, and few need it.
  const { probeThisMachine } = await import('../probe.ts')
  const dir = resolve(options.dir ?? defaultDir())
  const found = await probeThisMachine(join(dir, 'shallot.toml'), (servers, network) => {
    if (!options.json)
      complain(`Asking ${servers} STUN ${servers === 1 ? 'server' : 'servers'} of the network ${network}; no node is involved.`)
  })
  if (options.json) sayJson({ running: false, nat: found.nat, why: found.why, peer: null } satisfies NetcheckResult)
  else {
    say(natText(found.nat, Date.now()))
    say()
    for (const line of wrap(sentence(found.why), WIDTH)) say(line)
  }
  return 0
}

async function reachPeer(text: string, options: NetcheckOptions): Promise<number> {
  const id =
    safely(() => parseNodeId(text)) ?? usageOf('--peer takes the id of a node (12D3KooW…); `shallot relays --json` lists those known')
  const peer = await (await findNode(options)).reach(id)
  if (options.json) sayJson({ running: true, nat: null, why: null, peer } satisfies NetcheckResult)
  else say(reachText(peer))
  return peer.how === 'unreachable' ? 1 : 0
}

const WIDTH = 80
const MARGIN = 11

/** How a node is reached, as a person reads it. */
export function natText(nat: Api.NatFacts, now: number): string {
  const lines: string[] = []
  const put = (name: string, value: string): void => {
    const [first = '', ...more] = value.split('\n').flatMap((line) => wrap(visible(line), WIDTH - MARGIN))
    lines.push(`${styled('dim', name.padEnd(MARGIN))}${first}`, ...more.map((line) => ' '.repeat(MARGIN) + line))
  }
  const list = (heading: string, items: readonly string[]): void => {
    if (items.length === 0) return
    lines.push('', styled('bold', heading))
    for (const item of items) lines.push(...wrap(visible(item), WIDTH - 4).map((line, i) => `${i === 0 ? '  - ' : '    '}${line}`))
  }
  const [deciding = '', ...others] = nat.reasons
  lines.push(...wrap(`${stateText(nat)}: ${visible(deciding)}.`, WIDTH))
  for (const reason of others) lines.push(...wrap(visible(sentence(reason)), WIDTH - 2).map((line) => `  ${line}`))
  lines.push('')
  put('IPv4', nat.ipv4 === null ? 'none' : familyText(nat.ipv4))
  put('IPv6', nat.ipv6 === null ? 'none' : familyText(nat.ipv6))
  put('mapping', nat.mapping === null ? 'none' : mappingText(nat.mapping, now))
  put(
    'relays',
    nat.relays.length === 0
      ? 'none reserved'
      : nat.relays
          .map(({ relay, since, expiresAt }) => `${shortId(relay)} for ${span(now - since)}, until in ${span(expiresAt - now)}`)
          .join('\n'),
  )
  put('listening', plainAddresses(nat.listening))
  put('announced', nat.announced.length === 0 ? 'nothing yet' : plainAddresses(nat.announced))
  if (nat.stun.length > 0)
    put('STUN', nat.stun.map(({ server, verdict, said }) => `${server} ${verdict}${said === null ? '' : `: it sees ${said}`}`).join('\n'))
  if (nat.serves.length > 0) {
    lines.push('', styled('bold', 'What this node can be for others'))
    for (const service of nat.serves) lines.push(...serviceLines(service))
  }
  list('What would make it better', nat.advice)
  list('What this machine lacks', nat.lost)
  return lines.join('\n')
}

/** How a peer was reached, as a person reads it. */
export function reachText(peer: Api.ReachFacts): string {
  const words: Readonly<Record<Api.ReachFacts['how'], string>> = {
    direct: 'directly',
    reversed: 'directly: it connected to this node',
    'punched-tcp': 'directly, through a hole punched by TCP',
    'punched-udp': 'directly, through a hole punched by UDP',
    relayed: 'through its relay only',
    unreachable: 'not at all',
  }
  const colour = peer.how === 'unreachable' ? 'red' : peer.how === 'relayed' ? 'yellow' : 'green'
  const times = [
    ...(peer.reachedMs === null ? [] : [`reached after ${durationText(peer.reachedMs)}`]),
    ...(peer.upgradedMs === null ? [] : [`direct after ${durationText(peer.upgradedMs)}`]),
  ]
  return [
    `${shortId(peer.peer)} is reached ${styled(colour, words[peer.how])}${times.length === 0 ? '' : ` (${times.join(', ')})`}.`,
    ...peer.steps.flatMap((step, i) =>
      wrap(visible(step), WIDTH - 6).map((line, j) => (j === 0 ? `${String(i + 1).padStart(4)}  ${line}` : `      ${line}`)),
    ),
  ].join('\n')
}

function stateText({ state }: Api.NatFacts): string {
  const words = {
    unknown: ['yellow', 'Not known yet'],
    public: ['green', 'Public'],
    mapped: ['green', 'Mapped'],
    punchable: ['green', 'Punchable'],
    relayed: ['yellow', 'Relayed'],
  } as const
  const [colour, word] = words[state]
  return styled(colour, word)
}

function familyText(family: Api.FamilyFacts): string {
  const { local, kind, mapping, filtering, portPreserved, hairpin, bindingLifetimeMs, dialBack } = family
  const where = [
    ...(family.public === null ? [] : [`seen at ${family.public}`]),
    ...(local.length === 0 ? [] : [`here ${local.join(', ')}`]),
  ]
  const details = [
    ...(mapping === null || mapping === 'none' ? [] : [MAPPING_WORDS[mapping]]),
    ...(filtering === null ? [] : [FILTERING_WORDS[filtering]]),
    ...(portPreserved === null || mapping === 'none' ? [] : [portPreserved ? 'keeps port numbers' : 'changes port numbers']),
    ...(hairpin === null ? [] : [hairpin ? 'reaches itself from inside' : 'does not reach itself from inside']),
    ...(bindingLifetimeMs === null ? [] : [`forgets after more than ${span(bindingLifetimeMs)} of silence`]),
  ]
  const tried = dialBack === null ? [] : [dialBack ? 'peers from outside connected to it' : 'peers from outside could not connect to it']
  return [[kind, ...where].join('; '), ...(details.length === 0 ? [] : [details.join('; ')]), ...tried].join('\n')
}

const MAPPING_WORDS = {
  'endpoint-independent': 'one public port for all destinations',
  'address-dependent': 'another public port for each destination address',
  'address-and-port-dependent': 'another public port for each destination',
} as const

const FILTERING_WORDS = {
  'endpoint-independent': 'lets everybody in once it was used',
  'address-dependent': 'lets in addresses that were sent to',
  'address-and-port-dependent': 'lets in only whom was sent to',
} as const

function mappingText({ protocol, external, expiresAt }: NonNullable<Api.NatFacts['mapping']>, now: number): string {
  const name = { upnp: 'UPnP', 'nat-pmp': 'NAT-PMP', pcp: 'PCP' }[protocol]
  return `${external} by ${name}, for another ${span(expiresAt - now)}`
}

function serviceLines({ role, possible, why }: ServiceFacts): string[] {
  const answer = possible ? styled('green', 'yes') : styled('yellow', 'no ')
  return wrap(visible(why), WIDTH - 15).map((line, i) => (i === 0 ? `  ${role.padEnd(8)} ${answer} ${line}` : ' '.repeat(15) + line))
}

/** Multiaddrs without those that only add `/tls`. */
function plainAddresses(addresses: readonly string[]): string {
  const plain = addresses.filter((address) => !address.endsWith('/tls'))
  return plain.length === 0 ? 'nothing' : plain.join('\n')
}

function span(ms: number): string {
  return durationText(Math.max(0, ms))
}

function sentence(text: string): string {
  return `${text[0]!.toUpperCase()}${text.slice(1)}.`
}

function safely<T>(act: () => T): T | null {
  try {
    return act()
  } catch {
    return null
  }
}

function usage(message: string): ShallotError {
  return new ShallotError('usage', message, { kind: 'usage', retry: 'never' })
}

function usageOf(message: string): never {
  throw usage(message)
}
