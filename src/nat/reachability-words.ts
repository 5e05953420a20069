import { formatIp } from '../base/index.ts'
import { isPunchable } from './behaviour.ts'
import type { ServiceFacts } from './facts.ts'
import type { FamilyView, Situation } from './reachability-types.ts'
import { natKind } from './stun/index.ts'

/** The NAT or firewall of a family in plain words. */
export function kindOf({ behaviour, isSilent, direct, isFirewalled }: FamilyView): string {
  if (behaviour === null) {
    if (isFirewalled) return 'firewall'
    if (direct?.source === 'interface') return 'no NAT'
    return isSilent ? 'blocked: no STUN server answered over UDP' : 'unknown'
  }
  const kind = natKind(behaviour, true)
  return isFirewalled && kind === 'no NAT' ? 'firewall' : kind
}

/** Why the state is what it is, the deciding reason first. */
export function reasonsFor(situation: Situation): string[] {
  const { state, families, announce, mapping, mappingProblem, reservations } = situation
  const reasons = [decidingReason(situation)]
  const [v4, v6] = ([4, 6] as const).map((family) => families.find((one) => one.family === family))
  if (situation.warning !== null) reasons.push(situation.warning)
  if (announce?.reach.kind === 'relayed' && v6?.direct)
    reasons.push('the IPv6 address is reachable, but peers that have only IPv4 need the relays, so those are announced as well')
  if (announce?.reach.kind === 'direct' && v4 && !v4.direct && v4.publicIp !== null)
    reasons.push('only IPv6 is announced: IPv4 is behind NAT and no relay was found')
  for (const view of families)
    if (view.isFirewalled) reasons.push(`the own IPv${view.family} address is public, but peers could not connect to it`)
  if (mapping !== null && state !== 'mapped' && v4?.direct?.source !== 'mapping') {
    const unproven = leadsNowhere(mapping.external, families)
      ? 'which is not the address that others see: there is another NAT before it'
      : 'but peers have not come through it'
    reasons.push(`the router forwards ${mapping.external} (${mappingName(mapping.protocol)}), ${unproven}`)
  }
  if (mapping === null && mappingProblem !== null && (state === 'punchable' || state === 'relayed')) reasons.push(mappingProblem)
  if (situation.usesRelays && (state === 'punchable' || state === 'relayed')) {
    if (reservations === 0) reasons.push('no relay has accepted this node yet, so nobody can reach it')
    else reasons.push(`${reservations === 1 ? 'one relay holds' : `${reservations} relays hold`} a place for this node`)
  }
  return reasons
}

function decidingReason({ state, families, port, punching }: Situation): string {
  const deciding = families.find((one) => one.state === state) ?? families[0]
  const direct = deciding?.direct
  switch (state) {
    case 'unknown':
      if (port === null) return 'the node listens on no port'
      return deciding === undefined ? 'the node listens on loopback addresses only' : 'it is not known yet how others see this node'
    case 'public':
      if (direct?.source === 'advertised') return 'the operator says so: node.advertise'
      if (direct?.source === 'forward')
        return `peers connect to ${placeOf(direct.address)}: the router forwards the port by its own settings`
      return direct?.check === 'confirmed'
        ? `peers connected to ${placeOf(direct.address)}, an address of this machine`
        : `${placeOf(direct?.address)} is an address of this machine`
    case 'mapped':
      return `the router forwards a port on request, and peers connected to ${placeOf(direct?.address)}`
    case 'punchable':
      return deciding!.behaviour!.mapping === 'none'
        ? 'a firewall lets in only answers, so holes can be punched'
        : 'the NAT gives out one public port for all destinations, so holes can be punched'
    case 'relayed':
      if (deciding?.isSilent) return 'UDP is blocked: no STUN server answered, so the NAT is unknown and peers come through relays'
      if (deciding?.behaviour == null) return 'what the NAT does is not known yet; relays work whatever it is'
      if (deciding.behaviour.mapping === null) return 'what the NAT does could not be found out; relays work whatever it is'
      if (deciding.publicIp === null) return 'STUN servers see this node at a private address: they are not outside of its network'
      if (isPunchable(deciding.behaviour) && !punching.tcp && !punching.udp)
        return 'holes could be punched, but this machine lacks what that needs'
      return 'the NAT gives out another public port for each destination (symmetric), so holes can hardly be punched'
  }
}

/** A multiaddr of TCP for people: "192.0.2.7, port 4460". */
function placeOf(multiaddr: string | undefined): string {
  const [, , host, , port] = (multiaddr ?? '').split('/')
  return port === undefined ? (multiaddr ?? 'it') : `${host}, port ${port}`
}

/** A mapping of another public address than the one seen from outside leads nowhere: there is another NAT before that router. */
function leadsNowhere(external: string, families: readonly FamilyView[]): boolean {
  const seen = families.find(({ family }) => family === 4)?.publicIp
  return seen != null && !external.startsWith(`${formatIp(seen)}:`)
}

/** What a person could do to be reached better; empty when there is nothing. */
export function adviceFor(situation: Situation): string[] {
  const { state, families, port, mappingEnabled, mapping, warning } = situation
  const advice: string[] = []
  const [v4, v6] = ([4, 6] as const).map((family) => families.find((one) => one.family === family))
  const ports = port === null ? 'the port that it listens on' : `TCP port ${port}`
  if (warning !== null) advice.push('correct node.advertise, or remove it so that the node finds out by itself')
  if (state === 'unknown' && port === null) advice.push('set link.listen, such as ["/ip4/0.0.0.0/tcp/4460", "/ip6/::/tcp/4460"]')
  if (v4 && !v4.direct && v4.isFirewalled) advice.push(`let ${ports} through this machine's firewall`)
  else if (v4 && !v4.direct && v4.state !== 'unknown') {
    if (mapping === null && !mappingEnabled) advice.push('set nat.mapping.enabled = true, so that the router is asked for a port')
    const wish = mapping === null && mappingEnabled ? 'turn on UPnP or NAT-PMP in the router, or ' : ''
    // Only there is it found out by itself (see `Reachability`).
    const isFoundOut = v4.behaviour?.filtering === 'address-and-port-dependent'
    advice.push(
      `${wish}forward ${ports} to this machine in the router's settings${isFoundOut ? '' : ' and name the public address in node.advertise'}`,
    )
    if (mapping !== null && leadsNowhere(mapping.external, families))
      advice.push(
        'the router is itself behind another one: put it into bridge mode, forward the port in both, or ask the provider for a public address',
      )
  }
  if (v6 && !v6.direct && v6.state !== 'unknown') advice.push(`allow incoming ${ports} over IPv6 to this machine in the router's firewall`)
  if (families.some(({ isSilent }) => isSilent)) advice.push('allow outgoing UDP, so that the NAT can be found out and holes be punched')
  return advice
}

/** What the node can be for others, by how it is reached. */
export function servicesFor({ state, announce }: Situation): ServiceFacts[] {
  const isDirect = announce?.reach.kind === 'direct'
  const nowhere = announce === null
  const service = (role: ServiceFacts['role'], possible: boolean, why: string): ServiceFacts => ({
    role,
    possible: possible && !nowhere,
    why: nowhere ? 'nobody can be told yet how to reach this node' : why,
  })
  if (isDirect || nowhere)
    return (['guard', 'middle', 'exit', 'relay'] as const).map((role) => service(role, true, 'anyone can connect to it directly'))
  const isPunchable = state === 'punchable'
  return [
    service('guard', false, 'a guard must be reachable directly: its relay would see who its clients are'),
    service(
      'middle',
      true,
      isPunchable
        ? 'neighbours come through a relay first, and directly a moment later'
        : 'only when nothing better serves: its traffic goes through a relay',
    ),
    service(
      'exit',
      isPunchable,
      isPunchable ? 'because neighbours can reach it directly by hole punching' : 'an exit needs direct connections',
    ),
    service('relay', false, 'a relay for others must be reachable directly'),
  ]
}

/** "UPnP", "NAT-PMP", "PCP". */
export function mappingName(protocol: 'upnp' | 'nat-pmp' | 'pcp'): string {
  return { upnp: 'UPnP', 'nat-pmp': 'NAT-PMP', pcp: 'PCP' }[protocol]
}
