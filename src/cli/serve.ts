import { startControl } from '../control/index.ts'
import { type NodeConfig, type NodeControl, type NodeLogger, type NodeStatus, startNode } from '../node/index.ts'
import { systemSuite } from './system-suite.ts'

/** A stop that takes longer ends the process all the same. */
const STOP_LIMIT_MS = 15_000

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
    let closing: Promise<void> | null = null
    const close = (): Promise<void> => {
      closing ??= (async () => {
        await server?.close()
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

/** Signals, and the end of standard input where that was asked for. A second signal ends the process at once. */
export function watchForEnd(options: { readonly untilStdinEnds?: boolean }, end: () => void): void {
  let asked = false
  const ask = (): void => {
    if (asked) process.exit(1)
    asked = true
    setTimeout(() => process.exit(1), STOP_LIMIT_MS).unref()
    end()
  }
  if (options.untilStdinEnds) {
    // Ctrl-C reaches every process of the terminal's group: here the parent decides.
    process.on('SIGINT', () => {})
    process.stdin
      .on('error', ask)
      .once('close', () => !asked && ask())
      .resume()
  } else {
    process.on('SIGINT', ask)
  }
  process.on('SIGTERM', ask)
  process.on('SIGHUP', ask)
}
