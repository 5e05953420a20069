import { join, resolve } from 'node:path'
import { type Logger, messageOf, ShallotError } from '../../base/index.ts'
import { startControl } from '../../control/index.ts'
import { CONFIG_FILE, createLogger, loadConfig, type NodeConfig, type NodeControl, type NodeStatus, startNode } from '../../node/index.ts'
import { say, sayJson } from '../output.ts'
import { defaultDir } from '../places.ts'
import { systemSuite } from '../system-suite.ts'

/** A stop that takes longer ends the process all the same. */
const STOP_LIMIT_MS = 10_000

export interface RunOptions {
  readonly config?: string
  readonly dir?: string
  readonly json?: boolean
  /** For whoever starts the node as a child: when it is gone, however it went, the node stops too. */
  readonly untilStdinEnds?: boolean
}

/** `shallot run` */
export async function run(options: RunOptions): Promise<number> {
  if (options.config !== undefined && options.dir !== undefined) {
    throw new ShallotError('usage', 'give --config or --dir, not both: the configuration says where its directory is', {
      kind: 'usage',
      retry: 'never',
    })
  }
  const file = resolve(options.config ?? join(options.dir ?? defaultDir(), CONFIG_FILE))
  const config = await loadConfig(file).catch((error) => {
    if (error instanceof ShallotError && error.code === 'config-unreadable' && options.config === undefined) {
      throw new ShallotError(
        error.code,
        `${error.message}. Make a node with \`shallot init\`, or try a whole mesh with \`shallot testnet\``,
        { kind: 'config', retry: 'never', cause: error },
      )
    }
    throw error
  })
  const logger = createLogger(config.log)
  const ending = new AbortController()
  watchForEnd(options, () => ending.abort())
  const node = await startServed(config, logger, ending.signal)
  announce(node.status(), options, 'started')
  node.control.ready(ending.signal).then(
    () => announce(node.status(), options, 'ready'),
    () => {}, // It ended before it was ready.
  )
  const failure = await node.control.stopped
  await node.close()
  if (failure !== null)
    throw new ShallotError('node-died', `the node ended: ${messageOf(failure)}`, { kind: 'process', retry: 'later', cause: failure })
  return 0
}

/** A node with its control API. */
export interface ServedNode {
  readonly control: NodeControl
  status(): NodeStatus
  /** Stops the control API and the node. */
  close(): Promise<void>
}

/** Starts a node and, as configured, its control API; when the signal aborts, both stop. */
export async function startServed(config: NodeConfig, logger: Logger, signal: AbortSignal): Promise<ServedNode> {
  const control = await startNode(config, { dir: config.dir, logger, signal })
  try {
    const server = config.control.enabled
      ? await startControl(control, {
          config: config.control,
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
    return { control, status: () => ({ ...control.status(), control: server?.address ?? null }), close }
  } catch (error) {
    await control.stop()
    throw error
  }
}

function announce(status: NodeStatus, options: RunOptions, what: 'started' | 'ready'): void {
  if (options.json) {
    const { id, roles, pid, listening, socks, http, control } = status
    sayJson({ [what]: true, id, roles, pid, listening, socks, http, control })
  } else if (what === 'started') {
    say(`Shallot ${status.version}, node ${status.id} (${status.roles.join(', ')}), network ${status.network.name}.`)
    for (const address of status.listening) say(`Listening on ${address}`)
    if (status.socks !== null) say(`SOCKS5 proxy on ${status.socks}`)
    if (status.http !== null) say(`HTTP proxy on ${status.http}`)
  } else {
    say(status.client === null ? 'Ready.' : `Ready to carry traffic: ${status.view.known.total} relays known.`)
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
