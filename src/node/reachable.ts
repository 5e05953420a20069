import type { Transport } from '@libp2p/interface'
import { MalformedError, messageOf, type NodeId, parseNodeId, ShallotError } from '../base/index.ts'
import { systemRandom } from '../crypto/index.ts'
import type { Descriptor, ServingRole } from '../directory/index.ts'
import { type Host, outboundAddressFor, parseTcpAddress } from '../link/index.ts'
import { type Announcement, NatService, relayTransport, WebRtcSlot } from '../nat/index.ts'
import { announcedAddresses } from './announced-addresses.ts'
import type { Ground } from './ground.ts'
import type { Identity } from './identity.ts'

/** The relays in front of a node behind NAT: after a restart they are asked first, so that what its descriptor says stays true. */
const RELAYS_FILE = 'nat-relays.json'
const MAX_KEPT_RELAYS = 8

/** What the host must be made with so that the node can be reached, and reach others, through relays. */
export class ReachParts {
  readonly transport = relayTransport()
  readonly webRtc = new WebRtcSlot()

  /** For `createHost`. */
  get transports(): readonly ((components: never) => Transport)[] {
    return [this.transport.factory]
  }
  get services(): { webRtc: (components: unknown) => object } {
    return { webRtc: this.webRtc.service }
  }
}

/** How a serving node is reached, as its configuration has it: found out and helped along, or taken at its word. */
export interface Reach {
  /** Null when `nat.enabled` is false. */
  readonly service: NatService | null
  /** What may be announced now. */
  readonly announce: () => Announcement | null
}

/**
 * @param parts what the host was made with; null where the node takes its configuration's word
 * @param isViewReady whether the view can be trusted to have everybody
 * @param changed what may be announced has changed
 * @throws ShallotError 'no-announced-address' when nobody could ever connect to what is listened on
 */
export async function createReach(
  ground: Ground,
  identity: Identity,
  host: Host,
  parts: ReachParts | null,
  isViewReady: () => boolean,
  changed: () => void,
): Promise<Reach> {
  const { config, live, modules, view, suite, store, clocks, warnings, logger } = ground
  const { network, link, node } = config
  const { privateAddresses } = network.admission
  if (parts === null) {
    const announce = (): Announcement => ({
      addresses: announcedAddresses(host.addresses(), node.advertise, privateAddresses),
      reach: { kind: 'direct' },
    })
    // Told at the start rather than by every edition of the descriptor.
    announce()
    return { service: null, announce }
  }
  if (node.advertise.length === 0 && host.addresses().every(isOfThisMachineOnly)) announcedAddresses(host.addresses(), [], privateAddresses)
  const preferredRelays = (await store.loadState(RELAYS_FILE, decodeRelays)) ?? []
  const service = new NatService(
    {
      config: config.nat,
      relay: modules.has('nat-relay') ? live.section('relay') : null,
      servesStun: modules.has('stun'),
      seed: identity.seed,
      listen: link.listen,
      advertise: node.advertise,
      bootstrap: network.bootstrap,
      privateAddresses,
    },
    {
      host,
      transport: parts.transport,
      webRtc: parts.webRtc,
      view,
      suite,
      random: systemRandom(suite),
      logger: logger.child('nat'),
      preferredRelays,
      keepRelays: (relays) => {
        store
          .write(RELAYS_FILE, Buffer.from(`${JSON.stringify(relays)}\n`))
          .catch((error) => logger.warn('the relays in front of this node were not written', { error: messageOf(error) }))
      },
      outboundAddressFor: (target) => outboundAddressFor(target, link.outboundAddress, link.listen),
      isViewReady,
      now: clocks.now,
      wall: clocks.wall,
      changed: () => {
        warnOfRoles(ground, service.announce)
        changed()
      },
      warn: (code, message) => (message === null ? warnings.over(code) : warnings.raise(code, message)),
    },
  )
  return { service, announce: () => service.announce }
}

/** The roles that a node reached this way may claim (docs/spec/descriptor.md): behind NAT no guard, relay or bootstrap, and an exit only where it can be punched. */
export function rolesWhenReached(roles: readonly ServingRole[], reach: Descriptor['reach']): ServingRole[] {
  if (reach.kind === 'direct') return [...roles]
  return roles.filter((role) => role === 'middle' || (role === 'exit' && reach.punchable))
}

function warnOfRoles({ config, warnings }: Ground, announce: Announcement | null): void {
  const wanted = config.node.roles.filter((role) => role !== 'client')
  const possible = announce === null ? wanted : rolesWhenReached(wanted, announce.reach)
  const lost = wanted.filter((role) => !possible.includes(role))
  if (lost.length === 0) {
    warnings.over('role-not-possible')
    return
  }
  const roles = lost.join(', ')
  warnings.raise(
    'role-not-possible',
    `others reach this node only through relays, so it does not serve as ${roles} for now; \`shallot netcheck\` says what would help`,
  )
}

/** Loopback and link-local: no NAT is in front of those, and nobody comes to them. */
function isOfThisMachineOnly(address: string): boolean {
  const host = parseTcpAddress(address)?.host ?? ''
  return host.startsWith('127.') || host === '::1' || host.startsWith('169.254.') || /^fe[89ab]/i.test(host)
}

/** A client has none of it. */
export function notServing(): ShallotError {
  return new ShallotError('not-serving', 'this node is a client: it serves nobody, and nobody has to reach it', {
    kind: 'usage',
    retry: 'never',
  })
}

export function natDisabled(): ShallotError {
  return new ShallotError('nat-disabled', 'nat.enabled is false: this node takes no part in reaching others through relays', {
    kind: 'usage',
    retry: 'never',
  })
}

/** @throws MalformedError */
function decodeRelays(bytes: Uint8Array): readonly NodeId[] {
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    throw new MalformedError('relays file', 'not JSON')
  }
  if (!Array.isArray(value) || value.length > MAX_KEPT_RELAYS)
    throw new MalformedError('relays file', `not a list of at most ${MAX_KEPT_RELAYS} ids`)
  return value.map((id) => parseNodeId(String(id)))
}
