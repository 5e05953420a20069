import { randomBytes } from 'node:crypto'
import { type NodeId, SeededRandom, silentLogger } from '../../../../src/base/index.ts'
import { createHost, type Host } from '../../../../src/link/index.ts'
import {
  defaultPunchingConfig,
  directEndpoint,
  Puncher,
  type PunchingConfig,
  type PunchPeer,
  type Upgrade,
  WebRtcSlot,
} from '../../../../src/nat/punch/index.ts'
import { Reservations, relayTransport, reservationsConfig } from '../../../../src/nat/relay/index.ts'
import type { TestRelay } from '../../../support/relayed-nodes.ts'

/** A node whose peers believe it to be behind NAT: it listens, but is dialled only through the relay. */
export interface HiddenNode {
  readonly id: NodeId
  readonly host: Host
  readonly puncher: Puncher
  readonly reservations: Reservations
  readonly upgrades: Upgrade[]
}

/** What all nodes of a test know of each other. */
export type World = Map<NodeId, PunchPeer>

const stops: (() => Promise<unknown>)[] = []
let next = 150

export async function stopHiddenNodes(): Promise<void> {
  for (const stop of stops.splice(0).reverse()) await stop()
}

export interface HiddenOptions {
  readonly config?: Partial<PunchingConfig>
  /** Whether its descriptor says that it can be dialled. */
  readonly isDirect?: boolean
  /** Endpoints of the descriptor; those it listens on when left out. */
  readonly place?: PunchPeer['place']
  readonly isUnknown?: boolean
  /** Runs before the puncher takes hold of the host. */
  readonly prepare?: (host: Host) => void
}

export async function startHidden(world: World, relay: TestRelay, options: HiddenOptions = {}): Promise<HiddenNode> {
  const transport = relayTransport()
  const webRtc = new WebRtcSlot()
  const host = await createHost({
    key: randomBytes(32),
    mode: 'server',
    listen: [`/ip4/127.${next++}.0.1/tcp/0`],
    transports: [transport.factory],
    services: { webRtc: webRtc.service } as never,
  })
  stops.push(() => host.stop())
  host.onChannel((channel) => {
    channel.attach({ cells: () => {}, drained: () => {}, ended: () => {} })
    return true
  })
  options.prepare?.(host)
  const reservations = new Reservations(reservationsConfig.parse({ relays: 1 }), {
    host,
    transport,
    candidates: () => [relay.candidate],
    random: new SeededRandom(1),
    logger: silentLogger,
    now: () => performance.now(),
    wall: () => Date.now(),
  })
  const addresses = host.addresses()
  if (options.isUnknown !== true) {
    world.set(host.id, {
      place: options.place ?? { endpoints: addresses.flatMap(directEndpoint) },
      directAddresses: options.isDirect === true ? addresses : [],
    })
  }
  const puncher = new Puncher(
    {
      config: { ...defaultPunchingConfig, ...options.config },
      privateAllowed: true,
      peer: (id) => world.get(id) ?? null,
      behaviours: () => [],
      stunServers: () => [],
      witnesses: () => [],
      timing: { sweepMs: 100, relayGraceMs: 600, reach: { beginWaitMs: 1500, quietMs: 800 } },
    },
    { host, webRtc, logger: silentLogger },
  )
  const upgrades: Upgrade[] = []
  puncher.onUpgrade((upgrade) => upgrades.push(upgrade))
  if (options.isDirect !== true) await puncher.prepare()
  await puncher.start()
  stops.push(() => puncher.stop())
  stops.push(() => reservations.stop())
  await reservations.start()
  return { id: host.id, host, puncher, reservations, upgrades }
}
