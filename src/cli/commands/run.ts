import { join, resolve } from 'node:path'
import { messageOf, ShallotError } from '../../base/index.ts'
import { CONFIG_FILE, createLogger, loadConfig, type NodeStatus } from '../../node/index.ts'
import { giveBackIdleMemory } from '../idle-memory.ts'
import { say, sayJson } from '../output.ts'
import { defaultDir } from '../places.ts'
import { startServed, watchForEnd } from '../serve.ts'

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
    () => {
      announce(node.status(), options, 'ready')
      giveBackIdleMemory()
    },
    () => {}, // It ended before it was ready.
  )
  const failure = await node.control.stopped
  await node.close()
  if (failure !== null)
    throw new ShallotError('node-died', `the node ended: ${messageOf(failure)}`, { kind: 'process', retry: 'later', cause: failure })
  return 0
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
