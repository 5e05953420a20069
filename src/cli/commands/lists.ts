import type { Api } from '../../control/index.ts'
import type { ServingRole } from '../../directory/index.ts'
import { bytesText, countryText, durationText, say, sayJson, shortId, styled, table, visible, wrap } from '../output.ts'
import { findNode, type NodeChoice } from '../places.ts'

interface ListOptions extends NodeChoice {
  readonly json?: boolean
}

/** `shallot circuits [--why]` */
export async function circuits(options: ListOptions & { readonly why?: boolean }): Promise<number> {
  const list = await (await findNode(options)).circuits(options.why === true)
  if (options.json) sayJson(list)
  else say(list.length === 0 ? 'No circuits: nothing has been asked for, or the node is still starting.' : circuitsText(list))
  return 0
}

/** `shallot relays [--role R] [--country CC]` */
export async function relays(options: ListOptions & { readonly role?: ServingRole; readonly country?: string }): Promise<number> {
  const all = await (await findNode(options)).relays(options.role)
  const wanted = options.country?.toUpperCase()
  const list = wanted === undefined ? all : all.filter(({ country }) => (country ?? '??') === wanted)
  if (options.json) sayJson(list)
  else say(list.length > 0 ? relaysText(list) : all.length > 0 ? `None of ${all.length} relays is in ${wanted}.` : 'No relays known yet.')
  return 0
}

/** `shallot streams` */
export async function streams(options: ListOptions): Promise<number> {
  const list = await (await findNode(options)).streams()
  if (options.json) sayJson(list)
  else say(list.length === 0 ? 'No streams open.' : streamsText(list))
  return 0
}

/** `shallot new-circuit` */
export async function newCircuit(options: ListOptions): Promise<number> {
  const circuit = await (await findNode(options)).newCircuit()
  if (options.json) sayJson(circuit)
  else say(`New streams take fresh circuits from now on. The first: ${pathText(circuit)}`)
  return 0
}

/** The circuits as a person reads them; with reasons where there are any. */
export function circuitsText(list: readonly Api.Circuit[]): string {
  const now = Date.now()
  const rows = list.map((circuit) => [
    String(circuit.id),
    circuit.state,
    durationText(Math.max(0, now - circuit.createdAt)),
    circuit.rttMs === null ? '-' : `${Math.round(circuit.rttMs)} ms`,
    String(circuit.streams),
    `${pathText(circuit)}${circuit.closed === null ? '' : ` (${circuit.closed.reason}${circuit.closed.hop === null ? '' : ` at hop ${circuit.closed.hop + 1}`})`}`,
  ])
  const overview = table(['ID', 'STATE', 'AGE', 'RTT', 'STR', 'GUARD > MIDDLE > EXIT'], rows)
  return [overview, ...list.filter((circuit) => circuit.why !== null).map(whyText)].join('\n')
}

/** "abcdefgh DE > ijklmnop > qrstuvwx FR": the ends of the ids, and countries where they are known */
export function pathText(circuit: Api.Circuit, idLength = 8): string {
  return circuit.path.map(({ id, country }) => `${id.slice(-idLength)}${country === null ? '' : ` ${country}`}`).join(' > ')
}

function whyText(circuit: Api.Circuit): string {
  const lines = [`\n${styled('bold', `Circuit ${circuit.id}`)}`]
  for (const { position, reasons } of circuit.why ?? []) {
    const hop = circuit.path.find((one) => one.position === position)
    lines.push(
      `  ${position}${hop === undefined ? '' : ` ${shortId(hop.id)} at ${hop.address}${hop.country === null ? '' : `, ${countryText(hop.country)}`}`}`,
    )
    for (const reason of reasons)
      lines.push(
        ...wrap(visible(hop === undefined ? reason : reason.replace(`${hop.id}: `, '')), 74).map(
          (line, i) => `    ${i === 0 ? '-' : ' '} ${line}`,
        ),
      )
  }
  return lines.join('\n')
}

function relaysText(list: readonly Api.Relay[]): string {
  const now = Date.now()
  const rows = list.map((relay) => [
    shortId(relay.id),
    relay.roles.join(','),
    bytesText(relay.weight),
    durationText(Math.max(0, now - relay.firstSeenAt)),
    relay.eligible ? 'yes' : 'no',
    relay.country ?? '??',
    relay.addresses[0] === undefined ? '-' : shortAddress(relay.addresses[0]),
  ])
  const reasons = list.filter((relay) => !relay.eligible).map((relay) => `  ${shortId(relay.id)}: ${visible(relay.notEligible.join('; '))}`)
  const overview = table(['ID', 'ROLES', 'WEIGHT/S', 'KNOWN FOR', 'USED', 'IN', 'ADDRESS'], rows)
  return reasons.length === 0 ? overview : [overview, '', 'Not used for own paths:', ...reasons].join('\n')
}

/** "192.0.2.7:4460" of a multiaddr. */
function shortAddress(multiaddr: string): string {
  const [, protocol, host, , port] = multiaddr.split('/')
  return protocol === 'ip6' ? `[${host}]:${port}` : `${host}:${port}`
}

function streamsText(list: readonly Api.Stream[]): string {
  const now = Date.now()
  const rows = list.map((stream) => [
    String(stream.id),
    stream.state,
    stream.circuit === null ? '-' : String(stream.circuit),
    durationText(Math.max(0, now - stream.openedAt)),
    bytesText(stream.bytesSent),
    bytesText(stream.bytesReceived),
    stream.target ?? `(${stream.kind})`,
  ])
  return table(['ID', 'STATE', 'CIRCUIT', 'OPEN FOR', 'SENT', 'RECEIVED', 'TARGET'], rows)
}
