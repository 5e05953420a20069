import { MalformedError, messageOf, type NodeId, ShallotError } from '../base/index.ts'
import { CircuitPool, Client, type PoolEvent } from '../client/index.ts'
import { systemRandom } from '../crypto/index.ts'
import { DnsServer, DnsService, HttpProxy, SocksServer } from '../ingress/index.ts'
import type { ChannelDialer, Host } from '../link/index.ts'
import { constraintsOf, GuardSample, type PathConfig, PathViews } from '../path/index.ts'
import type { NodeConfig } from './config.ts'
import type { Ground } from './ground.ts'
import type { ClientParts } from './node-parts.ts'
import { privateDestinations } from './private-networks.ts'
import type { NodeVpn } from './vpn-parts.ts'

const GUARDS_FILE = 'guards.json'
/** Guard tallies change with every circuit; they are written this long after a change. */
const GUARDS_SAVE_MS = 1_000

/**
 * The client's part of a node, its ways in open.
 * @param self this node as a relay, which its own paths keep away from; null for a pure client
 * @param vpn what carries the whole machine's traffic, where there is one
 */
export async function startClient(
  ground: Ground,
  host: Pick<Host, 'dialer' | 'suspect'>,
  self: NodeId | null,
  vpn: NodeVpn | null,
  event: (event: PoolEvent) => void,
): Promise<ClientParts> {
  const { config, live, modules, suite, view, countries, clocks, logger, store, stops } = ground
  const guards = (await store.loadState(GUARDS_FILE, (bytes) => restoreGuards(config, bytes))) ?? new GuardSample(config.path)
  const saver = new GuardSaver(ground, guards)
  stops.push(() => saver.stop())
  const options = live.section('client')
  const wishes = (path: PathConfig) => constraintsOf(path, self, countries.countryOf)
  const paths = new PathViews(view, wishes(config.path))
  const pool = new CircuitPool({
    config: config.path,
    get buildAttempts() {
      return options.buildAttempts
    },
    liveness: options,
    suite,
    random: systemRandom(suite),
    view,
    paths,
    guards,
    dialer: vpn === null ? host.dialer : throughTheBlock(host.dialer, vpn),
    suspectLink: (guard) => host.suspect(guard),
    memory: ground.memory,
    now: clocks.now,
    wall: clocks.wall,
    logger: logger.child('client'),
    guardsChanged: () => {
      saver.changed()
      vpn?.needsChanged()
    },
    event,
  })
  stops.push(() => pool.stop())
  const client = new Client({ config: options, pool, logger: logger.child('client') })
  stops.push(() => client.stop())
  const parts = { client, logger: logger.child('ingress') }
  const socks =
    modules.has('ingress') && config.ingress.socks.listen.length > 0 ? new SocksServer(live.section('ingress', 'socks'), parts) : null
  if (socks) {
    await socks.start()
    stops.push(() => socks.stop())
  }
  const http =
    modules.has('ingress') && config.ingress.http.listen.length > 0 ? new HttpProxy(live.section('ingress', 'http'), parts) : null
  if (http) {
    await http.start()
    stops.push(() => http.stop())
  }
  const dns = modules.has('ingress') ? await startDns(ground, client) : null
  pool.plan()
  if (vpn !== null && dns !== null) await vpn.start({ client, pool, guards, dns: dns.service })
  live.onChange('path', () => {
    const { path } = live.current
    paths.constrain(wishes(path))
    guards.configure(path)
    pool.pathsChanged(path)
  })
  return { pool, client, guards, socks, http, dns: dns?.server ?? null, vpn }
}

/** The service that the TUN asks too, and the listener where there is to be one. */
async function startDns(ground: Ground, client: Client): Promise<{ service: DnsService; server: DnsServer | null }> {
  const { live, clocks, logger, stops } = ground
  const dns = live.section('ingress', 'dns')
  const modules = { client, logger: logger.child('ingress'), now: clocks.now, privateDestinations: privateDestinations(ground) }
  const service = new DnsService(dns, modules)
  stops.push(() => service.close())
  if (dns.listen.length === 0) return { service, server: null }
  const server = new DnsServer(dns, { service, logger: modules.logger })
  await server.start()
  stops.push(() => server.stop())
  return { service, server }
}

/** Whoever is dialled is let through the VPN's block first. */
function throughTheBlock(dialer: ChannelDialer, vpn: NodeVpn): ChannelDialer {
  return {
    async openChannel(id, addresses, signal) {
      await vpn.ensureAllowed(addresses)
      return dialer.openChannel(id, addresses, signal)
    },
  }
}

function restoreGuards(config: NodeConfig, bytes: Uint8Array): GuardSample {
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    throw new MalformedError('guard file', 'not JSON')
  }
  return GuardSample.restore(config.path, value)
}

/** Writes the guard sample a little after it changed, and at the end. */
class GuardSaver {
  readonly #ground: Ground
  readonly #guards: GuardSample
  #timer: NodeJS.Timeout | null = null

  constructor(ground: Ground, guards: GuardSample) {
    this.#ground = ground
    this.#guards = guards
  }

  changed(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null
      void this.#save()
    }, GUARDS_SAVE_MS)
    this.#timer.unref()
  }

  async stop(): Promise<void> {
    if (!this.#timer) return
    clearTimeout(this.#timer)
    this.#timer = null
    await this.#save()
  }

  async #save(): Promise<void> {
    const { store, warnings } = this.#ground
    try {
      await store.write(GUARDS_FILE, Buffer.from(`${JSON.stringify(this.#guards.toState(), null, 1)}\n`))
      warnings.over('guards-not-written')
    } catch (error) {
      const message = `the guards were not written: ${messageOf(error)}`
      warnings.raise(error instanceof ShallotError ? error.code : 'write-failed', message, 'guards-not-written')
    }
  }
}
