import type { Logger } from '../base/index.ts'
import type { NodeConfig } from './config.ts'
import type { NodeLogs } from './log-book.ts'
import type { NodeControl } from './node-control.ts'

export interface StartOptions {
  /** The directory of keys and state; held by a lock while the node runs. */
  readonly dir: string
  readonly logger: Logger
  /** The logger's last lines and levels; a logger that has none of that leaves it out. */
  readonly logs?: NodeLogs
  /** Stops the node. */
  readonly signal: AbortSignal
  /** Tells where this machine is in the internet: given in tests. */
  readonly place?: () => string
}

/**
 * Starts a node: resolves once everything its roles need is built and listening (`ready()` tells when it carries traffic).
 * What a node consists of is loaded here, so that reading a configuration alone stays quick.
 * @throws ShallotError 'directory-in-use', 'directory-unwritable', 'key-corrupt', 'address-in-use', …
 */
export async function startNode(config: NodeConfig, options: StartOptions): Promise<NodeControl> {
  const compose = await import('./compose.ts')
  return compose.startNode(config, options)
}
