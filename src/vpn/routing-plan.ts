import type { AllowedEntry, AllowListChange } from './allow-list.ts'
import type { ServingPort } from './facts.ts'
import { byFamily } from './kill-switch-text.ts'
import { BYPASS_MARK, ROUTE_PROTOCOL } from './limits.ts'
import { localNetworks } from './local-networks.ts'

export type Family = 4 | 6

/** What the routing depends on. */
export interface RoutingPlan {
  readonly device: string
  /** Whether the device is there now, and has addresses of this family. Without, everything is unreachable. */
  readonly deviceFamilies: readonly Family[]
  readonly table: number
  /** Of the first rule. */
  readonly priority: number
  readonly allowed: readonly AllowedEntry[]
  readonly serving: readonly ServingPort[]
  readonly bypass: readonly string[]
  readonly localNetwork: boolean
}

/** The order of the rules, each kind with a priority of its own after the first. */
const ORDER = { link: 0, allowed: 1, serving: 2, names: 3, bypass: 4, local: 5, everything: 6 } as const
/** How many priorities in a row are used. */
export const RULE_KINDS = Object.keys(ORDER).length
/** The worst there is: any other route of the table comes before. */
const WORST_METRIC = 4_294_967_295
const DEVICE_METRIC = 1

/**
 * Lines for `ip -4 -batch` or `ip -6 -batch` that fill the table: the device, and nothing where the device is not, so that no packet ever falls
 * through to the tables below.
 */
export function routeLines({ table, device, deviceFamilies }: RoutingPlan, family: Family): readonly string[] {
  return [
    `route replace unreachable default table ${table} metric ${WORST_METRIC} protocol ${ROUTE_PROTOCOL}`,
    ...(deviceFamilies.includes(family)
      ? [`route replace default dev ${device} table ${table} metric ${DEVICE_METRIC} protocol ${ROUTE_PROTOCOL}`]
      : []),
  ]
}

/** Lines that take them away, one by one: `ip route flush` passes over unreachable routes of IPv6, which it takes for the loopback's. */
export function routeRemovalLines(table: number): readonly string[] {
  return [
    `route del default table ${table} metric ${DEVICE_METRIC} protocol ${ROUTE_PROTOCOL}`,
    `route del unreachable default table ${table} metric ${WORST_METRIC} protocol ${ROUTE_PROTOCOL}`,
  ]
}

/**
 * Lines for `ip -batch` that put our rules before the machine's own: what may go around looks into the table `main`, which is the user's and
 * is never touched; names and everything else look into ours. The kernel asks them with protocol and ports when a socket connects, so source
 * addresses are right, and in reverse when a packet comes in, so reverse-path filters let in what answers (RFC 3704; Linux 4.17).
 */
export function ruleLines(plan: RoutingPlan, family: Family): readonly string[] {
  const { table, device } = plan
  const rule = (kind: keyof typeof ORDER, what: string, target: string): string =>
    `rule add priority ${plan.priority + ORDER[kind]} ${what} lookup ${target} protocol ${ROUTE_PROTOCOL}`
  return [
    // What comes back through the tunnel for somebody that this machine forwards for.
    rule('link', `iif ${device}`, 'main'),
    // DHCP asks its server directly when a lease is to be renewed (RFC 2131 §4.4.5).
    family === 4 ? rule('link', 'ipproto udp sport 68 dport 67', 'main') : rule('link', 'to fe80::/10', 'main'),
    ...plan.allowed.flatMap((entry) => (entry.family === family ? [allowedRule(plan, entry, 'add')] : [])),
    ...plan.serving.map(({ protocol, port }) => rule('serving', `ipproto ${protocol} sport ${port}`, 'main')),
    ...['tcp', 'udp'].flatMap((protocol) => [53, 853].map((port) => rule('names', `ipproto ${protocol} dport ${port}`, `${table}`))),
    rule('bypass', `fwmark 0x${BYPASS_MARK.toString(16)}`, 'main'),
    ...byFamily(plan.bypass)[family].map((network) => rule('bypass', `to ${network}`, 'main')),
    // The default route is nobody's neighbour.
    ...(plan.localNetwork ? localNetworks[family].map((network) => rule('local', `to ${network}`, 'main suppress_prefixlength 0')) : []),
    `rule add priority ${plan.priority + ORDER.everything} lookup ${table} protocol ${ROUTE_PROTOCOL}`,
  ]
}

/** A change of the allow-list, for `ip -batch` of the family. */
export function allowListLines(
  plan: Pick<RoutingPlan, 'priority'>,
  { added, removed }: AllowListChange,
  family: Family,
): readonly string[] {
  const of = (entries: readonly AllowedEntry[], verb: 'add' | 'del'): string[] =>
    entries.flatMap((entry) => (entry.family === family ? [allowedRule(plan, entry, verb)] : []))
  return [...of(added, 'add'), ...of(removed, 'del')]
}

function allowedRule({ priority }: Pick<RoutingPlan, 'priority'>, { peer }: AllowedEntry, verb: 'add' | 'del'): string {
  const port = peer.port === null ? '' : ` dport ${peer.port}`
  return `rule ${verb} priority ${priority + ORDER.allowed} to ${peer.ip} ipproto ${peer.protocol}${port} lookup main protocol ${ROUTE_PROTOCOL}`
}

/** What matters of `ip -json rule show`. */
interface ShownRule {
  readonly priority: number
  readonly table?: string
  readonly protocol?: string
}

/** Our rules of a family as the kernel has them, one comparable text each, sorted. @param json of `ip -json rule show` */
export function ownRules(json: string): readonly string[] {
  return parseRules(json)
    .filter(isOurs)
    .map((rule) => JSON.stringify({ ...rule, iif_detached: undefined }))
    .sort()
}

/** Priorities of rules of others that the kernel looks at before or among ours; the first rule, of local addresses, is everybody's. */
export function foreignRulesBefore(json: string, priority: number): readonly number[] {
  return parseRules(json)
    .filter((rule) => !isOurs(rule) && rule.priority < priority + RULE_KINDS && rule.table !== 'local')
    .map((rule) => rule.priority)
}

/** How many routes of a table are ours, and how many are somebody else's. @param json of `ip -json route show table N` */
export function routesIn(json: string): { readonly ours: number; readonly foreign: number } {
  const routes = JSON.parse(json === '' ? '[]' : json) as readonly { readonly protocol?: string }[]
  const ours = routes.filter(({ protocol }) => protocol === `${ROUTE_PROTOCOL}`).length
  return { ours, foreign: routes.length - ours }
}

function parseRules(json: string): readonly ShownRule[] {
  return JSON.parse(json === '' ? '[]' : json) as readonly ShownRule[]
}

function isOurs(rule: ShownRule): boolean {
  return rule.protocol === `${ROUTE_PROTOCOL}`
}
