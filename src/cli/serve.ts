import { startControl } from '../control/index.ts'
import { startMetrics } from '../metrics/index.ts'
import { type NodeConfig, type NodeControl, type NodeLogger, type NodeStatus, startNode } from '../node/index.ts'
import { systemSuite } from './system-suite.ts'

/** A stop that takes longer ends the process all the same. */
export const STOP_LIMIT_MS = 15_000

/** A node with its control API. */
export interface ServedNode {
  readonly control: NodeControl
  status(): NodeStatus
  /** Stops the control API and the node. */
  close(): Promise<void>
}

/** Starts a node and, as configured, its control API; when the signal aborts, both stop. */
export async function startServed(config: NodeConfig, logger: NodeLogger, signal: AbortSignal): Promise<ServedNode> {
  const control = await startNode(config, { dir: config.dir, logger, logs: logger.logs, signal })
  try {
    const server = config.control.enabled
      ? await startControl(control, {
          config: config.control,
          dashboard: config.dashboard,
          dir: config.dir,
          logger: logger.child('control'),
          random: (length) => systemSuite().random(length),
        })
      : null
    const metrics = await startMetrics(control, { config, logger: logger.child('metrics') })
    let closing: Promise<void> | null = null
    const close = (): Promise<void> => {
      closing ??= (async () => {
        await server?.close()
        await metrics?.close()
        await control.stop()
      })()
      return closing
    }
    if (signal.aborted) await close()
    else signal.addEventListener('abort', () => void close(), { once: true })
    return {
      control,
      status: () => ({ ...control.status(), control: server?.address ?? null, dashboard: server?.dashboard ?? null }),
      close,
    }
  } catch (error) {
    await control.stop()
    throw error
  }
}

/** What signals ask for. */
export interface SignalAnswers {
  /** The process is to end. */
  readonly end: () => void
  /** A service manager, or a person, asks to stop: when the node has others to wait for, how long it will at most, ms. 0: it ends now. */
  readonly drain?: () => number
  /** SIGHUP. Without it, and when a terminal is closed, the process ends. */
  readonly reload?: () => void
}

/**
 * Signals, and the end of standard input where that was asked for. The first signal lets a serving node drain, the next one ends it in order, one more
 * ends the process at once.
 */
export function watchForEnd(options: { readonly untilStdinEnds?: boolean }, { end, drain = () => 0, reload }: SignalAnswers): void {
  let asked: 'no' | 'drain' | 'end' = 'no'
  const ask = (): void => {
    if (asked === 'end') process.exit(1)
    const waitMs = asked === 'no' ? drain() : 0
    asked = waitMs > 0 ? 'drain' : 'end'
    if (asked === 'drain') return
    setTimeout(() => process.exit(1), STOP_LIMIT_MS).unref()
    end()
  }
  if (options.untilStdinEnds) {
    // Ctrl-C reaches every process of the terminal's group: here the parent decides.
    process.on('SIGINT', () => {})
    const gone = (): void => {
      if (asked === 'end') return
      asked = 'end'
      setTimeout(() => process.exit(1), STOP_LIMIT_MS).unref()
      end()
    }
    process.stdin.on('error', gone).once('close', gone).resume()
  } else {
    process.on('SIGINT', ask)
  }
  process.on('SIGTERM', ask)
  // A terminal that is closed sends it too, and nobody is there to be served any more then.
  process.on('SIGHUP', reload === undefined || process.stdout.isTTY ? ask : reload)
}
