import { type Logger, messageOf, type ShallotError } from '../base/index.ts'
import type { PacketPort } from '../packet/index.ts'
import { openTun } from '../tun/index.ts'
import { Block } from './block.ts'
import { vpnError } from './errors.ts'
import type { AllowedPeer, VpnFacts } from './facts.ts'
import { KillSwitch } from './kill-switch.ts'
import { vpnLimits } from './limits.ts'
import { hasIpv6 } from './machine-facts.ts'
import type { DataPath, VpnModules } from './modules.ts'
import { Names, resolverAddresses } from './names.ts'
import { checkPrivileges } from './privileges.ts'
import { runProgram } from './programs.ts'
import { ResolvConf } from './resolv-conf.ts'
import { Resolved } from './resolved.ts'
import { Routing } from './routing.ts'
import { VpnStateFile } from './state.ts'
import { Turns } from './turns.ts'
import { undoAll } from './undo.ts'
import { WatchedPort } from './watched-port.ts'

/** 'armed': nothing is carried, the block stands, and the VPN is to be up. */
type Phase = 'down' | 'armed' | 'starting' | 'up' | 'stopping'

interface OpenDevice {
  readonly port: PacketPort
  readonly path: DataPath
  readonly addresses: readonly string[]
}

/**
 * The whole machine through the mesh, or nowhere. Order of what is set up: kill switch with its allow-list, device and data path, routes and rules,
 * names; taken down in reverse, the kill switch last. All of it but the device outlives this process, until `down` or `repair`.
 */
export class Vpn {
  readonly #m: VpnModules
  readonly #logger: Logger
  readonly #killSwitch: KillSwitch
  readonly #routing: Routing
  readonly #names: Names
  readonly #state: VpnStateFile
  readonly #block: Block
  /** Whole operations: up, down, start, stop. */
  readonly #operations = new Turns()
  /** What touches the kernel: short. */
  readonly #kernel = new Turns()
  readonly #stopping = new AbortController()
  #phase: Phase = 'down'
  #since: number
  #couldCarry = false
  #device: OpenDevice | null = null
  #failure: string | null = null
  #timer: NodeJS.Timeout | null = null
  #retryTimer: NodeJS.Timeout | null = null
  #retryMs: number = vpnLimits.retryMs

  constructor(modules: VpnModules) {
    this.#m = modules
    this.#logger = modules.logger
    this.#since = modules.wall()
    const run = modules.run ?? runProgram
    this.#killSwitch = new KillSwitch(run)
    this.#routing = new Routing(run)
    this.#state = new VpnStateFile(modules.dir, () => Buffer.from(modules.random(8)).toString('hex'))
    this.#names = new Names({
      how: modules.answersNames ? modules.config.dns : 'none',
      state: this.#state,
      resolvConf: modules.resolvConf ?? new ResolvConf(),
      resolved: new Resolved(run),
      nsswitch: modules.nsswitch ?? '/etc/nsswitch.conf',
    })
    this.#block = new Block({
      vpn: modules,
      state: this.#state,
      killSwitch: this.#killSwitch,
      routing: this.#routing,
      kernel: this.#kernel,
    })
  }

  /**
   * The first thing of a node's start, before anything is dialled: sets the block where the VPN is to be up (in place of one that stands, without
   * a gap), and undoes what a crash left where it is not.
   * @throws ShallotError when it is to be up and the block can't be set: the node must not start then
   */
  protect(): Promise<void> {
    return this.#operations.take(async () => {
      const left = await this.#state.load()
      if (this.#m.config.up || this.#state.current.wanted) {
        await checkPrivileges()
        await this.#block.set()
        this.#enter('armed')
        this.#watch()
        return
      }
      if (!left) return
      try {
        await this.#undo()
        this.#logger.info('what an earlier VPN of this node had left was undone')
      } catch (error) {
        this.#failure = messageOf(error)
        this.#logger.warn('what an earlier VPN of this node had left could not be undone', { error: messageOf(error) })
      }
    })
  }

  /** Once the node can be asked to carry packets: goes up where it is to be. What fails then is tried again while the block stands; it never throws. */
  start(): Promise<void> {
    return this.#operations.take(() => this.#tryAgain())
  }

  /**
   * Everything through the mesh from now on; blocked until the mesh carries it. Resolves when it does, or when it does not yet after a while:
   * the state says which. A failure on the way undoes everything, unless the VPN was to be up before: the block stays then.
   * @throws ShallotError 'vpn-not-on-this-platform', 'vpn-not-permitted', 'vpn-program-missing', 'vpn-in-use', 'vpn-system-refused', 'vpn-dns-not-taken', 'tun-…'
   */
  async up(): Promise<VpnFacts> {
    await this.#operations.take(async () => {
      this.#refuseStopped()
      if (this.#phase !== 'up') await this.#bringUp()
    })
    await this.#m.whenReady(AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(vpnLimits.readyMs)])).catch(() => {})
    return this.facts()
  }

  /** The machine as it was before. @throws ShallotError 'vpn-not-undone' when a part of it could not be undone */
  down(): Promise<VpnFacts> {
    return this.#operations.take(async () => {
      this.#refuseStopped()
      await this.#takeDown()
      return this.facts()
    })
  }

  /**
   * Lets these places be reached, before they are dialled; they stay for two minutes, and as long as `allowed()` names them. Resolves when the
   * kernel knows it; at once when no VPN is up.
   * @throws MalformedError, ShallotError 'vpn-allow-list-full', 'vpn-system-refused'
   */
  async ensureAllowed(peers: readonly AllowedPeer[]): Promise<void> {
    this.#block.lease(peers)
    if (this.#block.stands && !this.#stopping.signal.aborted) await this.#block.sync()
  }

  /** To be called when the machine's network has changed: looks at once whether everything still stands. */
  networkChanged(): void {
    void this.#look()
  }

  facts(): VpnFacts {
    this.#noteCarrying()
    const { config } = this.#m
    const block = this.#block
    const device = this.#device
    const stats = device?.port.stats
    const flows = device?.path.counts()
    return {
      state: this.#stateNow(),
      since: this.#since,
      device: device === null ? null : { name: device.port.name, mtu: device.port.mtu, addresses: device.addresses },
      allowed: block.allowed,
      serving: block.serving,
      bypass: config.bypass,
      localNetwork: config.localNetwork,
      dns: this.#names.facts,
      counts: block.stands
        ? {
            packetsIn: stats?.sentPackets ?? 0,
            packetsOut: stats?.receivedPackets ?? 0,
            bytesIn: stats?.sentBytes ?? 0,
            bytesOut: stats?.receivedBytes ?? 0,
            tcpFlows: flows?.tcpFlows ?? 0,
            udpFlows: flows?.udpFlows ?? 0,
            blocked: block.dropped,
          }
        : null,
      problems: [
        ...(this.#failure === null ? [] : [this.#failure]),
        ...(this.#phase === 'up' && !this.#couldCarry
          ? ['no circuit carries packets now: everything is blocked until one does; `shallot status` says how the node is doing']
          : []),
        ...(this.#names.problem === null ? [] : [this.#names.problem]),
        ...block.problems(),
      ],
    }
  }

  /** With the node. The block stays unless the configuration says otherwise. Never throws. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#operations.take(async () => {
      this.#forgetTimers()
      if (!this.#block.stands) return
      if (this.#m.config.whenStopped === 'restore') {
        await this.#takeDown().catch((error) => this.#logger.error('the VPN could not be taken down', { error: messageOf(error) }))
        return
      }
      await this.#closeDevice()
      this.#logger.warn("the VPN's block stays: nothing leaves this machine until the node runs again, or `shallot vpn down`")
    })
  }

  async #bringUp(): Promise<void> {
    // Where the block stood already it has to stay.
    const stood = this.#block.stands
    this.#enter('starting')
    try {
      await checkPrivileges()
      await this.#block.set()
      const addresses = await this.#openDevice()
      await this.#block.route(addresses)
      await this.#kernel.take(() => this.#names.take(this.#m.device.name, resolverAddresses(addresses)))
      await this.#block.sync()
      this.#failure = null
      this.#retryMs = vpnLimits.retryMs
      this.#enter('up')
      this.#watch()
      this.#logger.info('the VPN is up')
    } catch (error) {
      if (stood) {
        await this.#fallBack(messageOf(error))
        throw error
      }
      const left = await this.#takeDown().then(
        () => null,
        (undoing) => messageOf(undoing),
      )
      throw left === null ? error : vpnError('vpn-not-undone', `${messageOf(error)}; ${left}`, { cause: error })
    }
  }

  async #openDevice(): Promise<readonly string[]> {
    const { device, attach, openDevice = openTun } = this.#m
    const addresses = hasIpv6() ? device.addresses : device.addresses.filter((address) => !address.includes(':'))
    const opened = await openDevice({ name: device.name, mtu: device.mtu, addresses })
    const port = new WatchedPort(opened, (error) => this.#deviceEnded(port, error))
    try {
      this.#device = { port, path: await attach(port, addresses), addresses }
    } catch (error) {
      port.close()
      throw error
    }
    return addresses
  }

  async #closeDevice(): Promise<void> {
    const device = this.#device
    this.#device = null
    if (device === null) return
    try {
      await device.path.stop()
    } catch (error) {
      this.#logger.warn('the data path did not stop in order', { error: messageOf(error) })
    }
    device.port.close()
    this.#block.deviceGone()
  }

  /** Somebody removed the device: the routes to it went with it, the unreachable ones stand. It is made anew. */
  #deviceEnded(port: PacketPort, error: ShallotError | null): void {
    void this.#operations.take(async () => {
      if (this.#device?.port === port) await this.#fallBack(error === null ? 'the device of the VPN was closed' : error.message)
    })
  }

  /** Nothing is carried any more, and the block stands. */
  async #fallBack(why: string): Promise<void> {
    await this.#closeDevice()
    this.#failure = why
    this.#logger.error('the VPN carries nothing now; the block stays, and it is tried again', { error: why })
    this.#enter('armed')
    if (this.#stopping.signal.aborted) return
    if (this.#retryTimer !== null) clearTimeout(this.#retryTimer)
    this.#retryTimer = setTimeout(() => void this.#operations.take(() => this.#tryAgain()), this.#retryMs)
    this.#retryTimer.unref()
    this.#retryMs = Math.min(this.#retryMs * 2, vpnLimits.retryMostMs)
  }

  async #tryAgain(): Promise<void> {
    if (this.#phase === 'armed' && !this.#stopping.signal.aborted) await this.#bringUp().catch(() => {})
  }

  async #takeDown(): Promise<void> {
    this.#forgetTimers()
    this.#enter('stopping')
    try {
      await this.#undo()
      this.#failure = null
      this.#logger.info('the VPN is down')
    } catch (error) {
      this.#failure = messageOf(error)
      throw error
    } finally {
      this.#enter('down')
    }
  }

  async #undo(): Promise<void> {
    await this.#kernel.take(async () => {
      this.#block.leave()
      const tools = { state: this.#state, names: this.#names, routing: this.#routing, killSwitch: this.#killSwitch }
      try {
        await this.#state.save({ wanted: false })
        await undoAll(tools, () => this.#closeDevice())
      } finally {
        this.#block.undone()
      }
    })
  }

  #watch(): void {
    this.#timer ??= setInterval(() => void this.#look(), vpnLimits.watchMs)
    this.#timer.unref()
  }

  async #look(): Promise<void> {
    if (!this.#block.stands) return
    try {
      await this.#block.look()
      await this.#kernel.take(async () => {
        if (this.#phase === 'up') await this.#names.look()
      })
    } catch (error) {
      this.#logger.warn("the VPN's set-up could not be looked at", { error: messageOf(error) })
    }
    this.#noteCarrying()
  }

  #stateNow(): VpnFacts['state'] {
    switch (this.#phase) {
      case 'armed':
        return 'blocked'
      case 'up':
        return this.#couldCarry ? 'up' : 'blocked'
      case 'down':
        // What could not be undone.
        return this.#state.current.killSwitch ? 'blocked' : 'down'
      default:
        return this.#phase
    }
  }

  #noteCarrying(): void {
    const can = this.#phase === 'up' && this.#m.canCarry()
    if (can === this.#couldCarry) return
    this.#couldCarry = can
    if (this.#phase === 'up') this.#since = this.#m.wall()
  }

  #enter(phase: Phase): void {
    if (phase === this.#phase) return
    this.#phase = phase
    this.#since = this.#m.wall()
    this.#noteCarrying()
  }

  #forgetTimers(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    if (this.#retryTimer !== null) clearTimeout(this.#retryTimer)
    this.#timer = null
    this.#retryTimer = null
  }

  #refuseStopped(): void {
    if (this.#stopping.signal.aborted) throw vpnError('vpn-stopped', 'the node is stopping', { kind: 'process', retry: 'later' })
  }
}
