import type { Logger } from '../base/index.ts'
import { messageOf } from '../base/index.ts'
import type { NodeStatus } from '../node/index.ts'
import { type NotifySocket, openNotifySocket } from './notify-socket.ts'

/** How often the one line of `systemctl status` is written anew. */
const STATUS_MS = 10_000
/** Signs of life within the time that the manager allows. */
const SIGNS_PER_LIMIT = 3
const MIN_WATCHDOG_MS = 1_000

export interface ServiceManagerOptions {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly pid: number
  readonly logger: Logger
  readonly open?: (name: string) => Promise<NotifySocket | null>
}

/** What a service manager (systemd) is told of this process, sd_notify(3); nothing at all where none asks for it. */
export class ServiceManager {
  readonly #socket: NotifySocket | null
  /** How long the manager waits for a sign of life; null when it does not. */
  readonly #limitMs: number | null
  readonly #timers: NodeJS.Timeout[] = []
  #line = ''

  private constructor(socket: NotifySocket | null, limitMs: number | null) {
    this.#socket = socket
    this.#limitMs = limitMs
  }

  /** Reads NOTIFY_SOCKET and WATCHDOG_USEC. Never fails: a node runs without being supervised too. */
  static async find({ env, pid, logger, open = openNotifySocket }: ServiceManagerOptions): Promise<ServiceManager> {
    const name = env.NOTIFY_SOCKET
    if (!name) return new ServiceManager(null, null)
    try {
      const socket = await open(name)
      if (socket === null) logger.warn('the service manager cannot be told of readiness: NOTIFY_SOCKET is of a kind that is not known')
      return new ServiceManager(socket, socket === null ? null : watchdogMs(env, pid))
    } catch (error) {
      logger.warn('the service manager cannot be told of readiness', { error: messageOf(error) })
      return new ServiceManager(null, null)
    }
  }

  /** The node listens and does what its roles say. From now on signs of life are given while `isWell` says so, and `status` is shown. */
  started(isWell: () => boolean, status: () => NodeStatus): void {
    if (this.#socket === null) return
    this.#socket.send({ READY: '1', STATUS: this.#newLine(status()) })
    this.#timers.push(setInterval(() => this.#tell(status()), STATUS_MS))
    if (this.#limitMs !== null) {
      // A turn of the event loop that comes too late is a sign of life that is missing: that is the point.
      this.#timers.push(setInterval(() => isWell() && this.#socket?.send({ WATCHDOG: '1' }), this.#limitMs / SIGNS_PER_LIMIT))
    }
    for (const timer of this.#timers) timer.unref()
  }

  /** The configuration is read anew, until `reloaded`. */
  reloading(): void {
    this.#socket?.send({ RELOADING: '1', MONOTONIC_USEC: String(this.#socket.monotonicUsec()) })
  }

  reloaded(outcome: string): void {
    this.#socket?.send({ READY: '1', STATUS: outcome })
    this.#line = outcome
  }

  /** The node ends. @param withinMs when that may take longer than the manager was told to wait, this much longer */
  stopping(withinMs = 0): void {
    const extended = withinMs > 0 ? { EXTEND_TIMEOUT_USEC: String(Math.ceil(withinMs * 1000)) } : {}
    this.#socket?.send({ STOPPING: '1', STATUS: withinMs > 0 ? 'leaving: waiting for the last circuits' : 'stopping', ...extended })
  }

  close(): void {
    for (const timer of this.#timers) clearInterval(timer)
  }

  #tell(status: NodeStatus): void {
    const before = this.#line
    const line = this.#newLine(status)
    if (line !== before) this.#socket?.send({ STATUS: line })
  }

  #newLine(status: NodeStatus): string {
    this.#line = statusLine(status)
    return this.#line
  }
}

/** WATCHDOG_USEC, when it is meant for this process (sd_watchdog_enabled(3)); null when there is none. */
function watchdogMs({ WATCHDOG_USEC: usec = '', WATCHDOG_PID: pid }: ServiceManagerOptions['env'], own: number): number | null {
  if (!/^\d{1,16}$/.test(usec) || (pid !== undefined && pid !== String(own))) return null
  const ms = Number(usec) / 1000
  return ms >= MIN_WATCHDOG_MS ? ms : null
}

/** The node in a few words; nothing in it tells of anybody. */
export function statusLine({ roles, relaying, client, draining, view, warnings }: NodeStatus): string {
  const parts = [roles.join(', '), `${view.known.total} relays known`]
  if (relaying !== null) parts.push(`${relaying.circuitsOpen} circuits served`)
  if (client !== null) parts.push(`${client.circuitsOpen} circuits of its own`)
  if (draining !== null) parts.push(`leaving: ${draining.circuitsLeft} circuits left`)
  if (warnings.length > 0) parts.push(`${warnings.length} ${warnings.length === 1 ? 'warning' : 'warnings'}, see shallot status`)
  return parts.join('; ')
}
