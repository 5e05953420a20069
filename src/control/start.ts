import type { NodeControl } from '../node/index.ts'
import type { ControlOptions, ControlServer } from './server.ts'

/**
 * Serves the control API of a node. The server and what it needs are loaded here, so that commands which only ask start quickly.
 * @throws ShallotError 'address-in-use', 'socket-path-too-long', 'listen-failed', 'directory-unwritable'
 */
export async function startControl(node: NodeControl, options: ControlOptions): Promise<ControlServer> {
  const { serveControl } = await import('./server.ts')
  return serveControl(node, options)
}
