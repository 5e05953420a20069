import { formatIp, type IpAddress } from '../base/index.ts'
import type { View } from '../directory/index.ts'
import {
  createExitService,
  createResolver,
  type Exit,
  KernelBackend,
  loadTunNat,
  NetstackBackend,
  ownAddressCheck,
  type PacketBackend,
  servedFamilies,
} from '../egress/index.ts'
import { type Host, outboundAddressFor } from '../link/index.ts'
import { addressOf } from '../path/index.ts'
import type { NodeConfig } from './config.ts'
import type { Ground } from './ground.ts'
import { privateDestinations } from './private-networks.ts'

/**
 * The exit's part of a node, its packet backend started.
 * @param stops gets how to stop what was started
 * @throws ShallotError when the backend that is asked for can't be had
 */
export async function startExit(ground: Ground, host: Host, stops: Ground['stops']): Promise<Exit> {
  const { config, live, view, clocks, logger } = ground
  const resolver = createResolver({ config: config.exit, now: clocks.now })
  const relayAddresses = new RelayAddresses(view)
  const ownAddresses = (): string[] => host.addresses().flatMap((address) => ipText(address) ?? [])
  const packets = await createPacketBackend(ground, ownAddresses)
  if (packets !== null) {
    stops.push(() => packets.stop())
    await packets.start()
  }
  const exit = createExitService({
    config: live.section('exit'),
    backend: new KernelBackend({ ...config.exit, loopbackIpv4: ownLoopback(config) }),
    packets,
    resolver,
    privateDestinations: privateDestinations(ground),
    isRelayAddress: (ip) => relayAddresses.has(ip),
    isOwnAddress: ownAddressCheck(clocks.now, ownAddresses),
    now: clocks.now,
    logger: logger.child('exit'),
  })
  stops.push(() => exit.close())
  return exit
}

/** Where the exit of a testnet connects from: every node has a loopback address of its own, and a server should see whose. */
function ownLoopback({ link }: NodeConfig): string | undefined {
  return outboundAddressFor('127.0.0.1', 'auto', link.listen)
}

async function createPacketBackend(ground: Ground, ownAddresses: () => readonly string[]): Promise<PacketBackend | null> {
  const { config, live, suite, clocks, logger } = ground
  const families = servedFamilies(config.exit, privateDestinations(ground))
  const shared = { config: live.section('exit'), families, now: clocks.now, logger: logger.child('exit') }
  switch (config.exit.packets) {
    case 'off':
      return null
    case 'netstack':
      return new NetstackBackend({ ...shared, suite })
    case 'tun': {
      const { TunNatBackend } = await loadTunNat()
      return new TunNatBackend({ ...shared, privateDestinations: privateDestinations(ground), ownAddresses })
    }
  }
}

/** The addresses of all known relays, made anew when the view has changed. */
class RelayAddresses {
  readonly #view: View
  #version = -1
  #texts: ReadonlySet<string> = new Set()

  constructor(view: View) {
    this.#view = view
  }

  has(ip: IpAddress): boolean {
    if (this.#version !== this.#view.version) {
      this.#texts = new Set(
        this.#view.relays().flatMap(({ descriptor }) => descriptor.addresses.flatMap((address) => ipText(address) ?? [])),
      )
      this.#version = this.#view.version
    }
    return this.#texts.has(formatIp(ip))
  }
}

function ipText(multiaddr: string): string | null {
  const ip = addressOf(multiaddr)
  return ip && formatIp(ip)
}
