import type { PathFailure, PathResult } from './choose.ts'
import type { Rule, RuleCounts } from './constraints.ts'
import type { ExitNeed } from './path-view.ts'
import type { Position } from './relay-facts.ts'

/** What each rule says of a relay, for people. */
const SAYS: Readonly<Record<Rule, string>> = {
  role: 'do not serve this position',
  'not-eligible': 'are known, but not yet good enough for own paths',
  version: 'speak no circuit version of ours',
  'no-address': 'have no IP address to hold against the network rules',
  'not-direct': 'are behind NAT, and guards must be reached directly',
  'not-punchable': 'are exits behind a NAT that nothing can be punched through',
  'nat-relay-unknown': 'are behind NAT relays none of which is in the view and can carry them',
  'excluded-node': 'are in path.exclude_nodes',
  'excluded-network': 'are in path.exclude_networks',
  'excluded-country': 'are in path.exclude_countries',
  'country-unknown': 'are in a country that is not known, and countries were chosen',
  'not-in-exit-nodes': 'are not in path.exit_nodes',
  'not-in-exit-countries': 'are not in path.exit_countries, or not only there',
  'own-node': 'are this node, or share network or family with it',
  'no-weight': 'have no capacity to offer',
  port: 'refuse the port',
  packets: 'serve no raw packets',
  'not-in-view': 'are not in the view',
  'set-aside': 'are set aside after failures',
  'excluded-here': 'refused this request before',
  'same-node': 'are in the path already',
  'same-nat-relay': 'share a NAT relay with another hop, or one is the NAT relay of the other',
  'same-network': 'are in the same /16 (IPv6: /32) as another hop',
  'same-family': 'are of the same family as another hop',
  'nat-only-last-resort': 'are only ever reached through their NAT relay, and there is a middle that is not',
}

/** The choice in lines of text: what `shallot circuits --why` prints. Names relays by id, never a target. */
export function explain(result: PathResult): readonly string[] {
  if (result.kind === 'no-path') return [explainFailure(result)]
  const [guard, middle, exit] = result.path
  const { reasons } = result
  const passed = reasons.guard.passedOver.map(({ id, failure }) => `guard ${id} passed over: ${failureText(failure)}`)
  return [
    ...passed,
    `guard ${guard}: number ${reasons.guard.place + 1} of ${reasons.guard.of} usable guards of the sample`,
    `exit ${exit}: ${drawnText(reasons.exit)}${portsText(reasons.need)}`,
    `middle ${middle}: ${drawnText(reasons.middle)}`,
    ...(reasons.lastResortUsed ? ['the middle is only ever reached through its NAT relay: no other middle was left'] : []),
    ...(reasons.setAsideUsed ? ['relays that are set aside had to be used: nothing else was left'] : []),
  ]
}

/** One line: which position had nobody left, which rule took the last, how many each rule refused, and which settings would allow more. */
export function explainFailure(failure: PathFailure): string {
  const choices = explainChoices(failure)
  return choices === null ? failureText(failure) : `${failureText(failure)}; to allow more, ${choices.advice}`
}

function failureText({ position, rule, counts, need }: PathFailure): string {
  const ports = position === 'exit' ? portsText(need) : ''
  if (rule === null)
    return position === 'guard'
      ? 'no guard: none is known, or all wait to be tried again'
      : `no ${position}${ports}: there are no candidates`
  return `no ${position}${ports}: the last were refused because they ${SAYS[rule]} (${countsText(counts)})`
}

/** The settings that a person's choices of relays stand in. */
type ChoiceKey = 'exclude_nodes' | 'exclude_networks' | 'exclude_countries' | 'exit_nodes' | 'exit_countries'

const ALLOW: Readonly<Record<ChoiceKey, string>> = {
  exclude_nodes: 'take nodes out of path.exclude_nodes',
  exclude_networks: 'take networks out of path.exclude_networks',
  exclude_countries: 'take countries out of path.exclude_countries',
  exit_nodes: 'add exits to path.exit_nodes, or empty it (any exit)',
  exit_countries: 'add countries to path.exit_countries, or empty it (any country)',
}

/**
 * Which settings refused relays where no path was left, those that refused most first, and what would allow more. Null where none did.
 * For people; names settings by their keys, never what they hold.
 */
export function explainChoices({
  position,
  counts,
}: Pick<PathFailure, 'position' | 'counts'>): { readonly message: string; readonly advice: string } | null {
  const refused = new Map<ChoiceKey, number>()
  for (const [rule, count] of Object.entries(counts) as [Rule, number][]) {
    for (const key of keysOf(rule, position, counts)) refused.set(key, (refused.get(key) ?? 0) + count)
  }
  if (refused.size === 0) return null
  const keys = [...refused].sort((a, b) => b[1] - a[1]).map(([key]) => key)
  return {
    message: `the choices in ${keys.map((key) => `path.${key}`).join(' and ')} leave no ${position}`,
    advice: keys.map((key) => ALLOW[key]).join(', or '),
  }
}

function keysOf(rule: Rule, position: Position, counts: RuleCounts): readonly ChoiceKey[] {
  switch (rule) {
    case 'excluded-node':
      return ['exclude_nodes']
    case 'excluded-network':
      return ['exclude_networks']
    case 'excluded-country':
      return ['exclude_countries']
    case 'not-in-exit-nodes':
      return ['exit_nodes']
    case 'not-in-exit-countries':
      return ['exit_countries']
    case 'country-unknown':
      // Both lists of countries refuse it. Exclusion is held against a relay first.
      if (position !== 'exit' || counts['excluded-country'] !== undefined) return ['exclude_countries']
      return counts['not-in-exit-countries'] === undefined ? ['exclude_countries', 'exit_countries'] : ['exit_countries']
    default:
      return []
  }
}

function drawnText({
  how,
  candidates,
  probability,
  refused,
}: {
  how: string
  candidates: number
  probability: number
  refused: RuleCounts
}): string {
  const chance = `${(probability * 100).toFixed(probability < 0.01 ? 3 : 1)} %`
  const before = Object.keys(refused).length > 0 ? `; refused ${how === 'exact' ? 'of all relays' : 'before'}: ${countsText(refused)}` : ''
  return `drawn by weight from ${candidates} candidate${candidates === 1 ? '' : 's'}, a chance of ${chance}${before}`
}

function countsText(counts: RuleCounts): string {
  return Object.entries(counts)
    .map(([rule, count]) => `${count} ${rule}`)
    .join(', ')
}

function portsText({ ports, family, packets }: ExitNeed): string {
  if (packets) return ' for raw packets'
  if (ports.length === 0) return ''
  return ` for port${ports.length > 1 ? 's' : ''} ${ports.join(', ')}${family ? ` over IPv${family}` : ''}`
}
