import { join, resolve } from 'node:path'
import { type Logger, messageOf, ShallotError } from '../../base/index.ts'
import { CONFIG_FILE, ConfigError, createLogger, loadConfig, type NodeStatus } from '../../node/index.ts'
import { giveBackIdleMemory } from '../idle-memory.ts'
import { complain, say, sayJson } from '../output.ts'
import { defaultDir } from '../places.ts'
import { Pulse } from '../pulse.ts'
import { type ServedNode, STOP_LIMIT_MS, startServed, watchForEnd } from '../serve.ts'
import { ServiceManager } from '../service-manager.ts'

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
    if (
      error instanceof ShallotError &&
      error.code === 'config-unreadable' &&
      options.config === undefined &&
      error.message.includes(file)
    ) {
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
  let node: ServedNode | null = null
  const manager = await ServiceManager.find({ env: process.env, pid: process.pid, logger: logger.child('service') })
  watchForEnd(options, {
    end: () => {
      manager.stopping()
      ending.abort()
    },
    drain: () => drainFor(node, manager),
    reload: () => void reload(node, manager, logger),
  })
  node = await startServed(config, logger, ending.signal)
  const { control } = node
  const pulse = new Pulse(config.dir, () => void control.status())
  manager.started(
    () => pulse.isWell(),
    () => control.status(),
  )
  announce(node.status(), options, 'started')
  node.control.ready(ending.signal).then(
    () => {
      announce(node.status(), options, 'ready')
      giveBackIdleMemory()
    },
    () => {}, // It ended before it was ready.
  )
  const failure = await node.control.stopped
  manager.close()
  await node.close()
  logger.info('the node has stopped')
  if (failure !== null)
    throw new ShallotError('node-died', `the node ended: ${messageOf(failure)}`, { kind: 'process', retry: 'later', cause: failure })
  return 0
}

/** A node that serves others lets them finish: how long that may take, or 0. */
function drainFor(node: ServedNode | null, manager: ServiceManager): number {
  const limitMs = node?.control.drainOnStopMs ?? 0
  if (node === null || limitMs === 0) return 0
  const { circuitsLeft } = node.control.drain({ limitMs })
  manager.stopping(limitMs + STOP_LIMIT_MS)
  complain(`shallot: leaving: ${circuitsLeft} circuits left, ${Math.ceil(limitMs / 1000)} s at most; once more to stop at once`)
  return limitMs
}

/** Reads the configuration again; what is wrong with it changes nothing. */
async function reload(node: ServedNode | null, manager: ServiceManager, logger: Logger): Promise<void> {
  if (node === null) return
  manager.reloading()
  try {
    const { applied, restart } = await node.control.reload()
    logger.info('the configuration was read again', { applied: applied.join(' '), restart: restart.join(' ') })
    manager.reloaded(
      restart.length === 0 ? 'configuration read again' : `configuration read again; from the next start: ${restart.join(', ')}`,
    )
  } catch (error) {
    // The message names keys and lines of the operator's own file: it is for whoever reads standard error. The log, which the dashboard shows, says that it happened.
    logger.warn('the configuration was not read again: the one before stays in force', {
      problems: error instanceof ConfigError ? error.problems.length : 1,
    })
    complain(`shallot: the configuration was not read again, and the one before stays in force:\n${messageOf(error)}`)
    manager.reloaded('the configuration is wrong; the one before stays in force')
  }
}

function announce(status: NodeStatus, options: RunOptions, what: 'started' | 'ready'): void {
  if (options.json) {
    const { id, roles, pid, listening, socks, http, control, dashboard } = status
    sayJson({ [what]: true, id, roles, pid, listening, socks, http, control, dashboard })
  } else if (what === 'started') {
    say(`Shallot ${status.version}, node ${status.id} (${status.roles.join(', ')}), network ${status.network.name}.`)
    for (const address of status.listening) say(`Listening on ${address}`)
    if (status.socks !== null) say(`SOCKS5 proxy on ${status.socks}`)
    if (status.http !== null) say(`HTTP proxy on ${status.http}`)
    if (status.dashboard !== null) say(`Dashboard on http://${status.dashboard}/; \`shallot ui\` opens it`)
  } else {
    say(status.client === null ? 'Ready.' : `Ready to carry traffic: ${status.view.known.total} relays known.`)
  }
}
