import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { silentLogger } from '../../src/base/index.ts'
import { ControlClient, type ControlServer, startControl } from '../../src/control/index.ts'
import { type Liveliness, LivelyNode } from './lively-node.ts'
import { temporaryFolder } from './processes.ts'

/** A dashboard over a node with made-up data: the real listener, the real pages. */
export interface LivelyDashboard {
  readonly node: LivelyNode
  /** Where the pages are, without a code. */
  readonly origin: string
  /** A link that opens a session. */
  link(): Promise<string>
  /** The node's listeners close, as if it had died. */
  disconnect(): Promise<void>
  /** They are there again, at the same address. */
  reconnect(): Promise<void>
  close(): Promise<void>
}

export async function openLivelyDashboard(how: Omit<Liveliness, 'dir'>): Promise<LivelyDashboard> {
  const folder = temporaryFolder('dashboard')
  const node = await LivelyNode.start({ ...how, dir: folder.path })
  node.begin()
  const serve = (listen: string): Promise<ControlServer> =>
    startControl(node, {
      config: { enabled: true, listen: 'unix:control.sock' },
      dashboard: { enabled: true, listen },
      dir: folder.path,
      logger: silentLogger,
      random: (length) => new Uint8Array(randomBytes(length)),
    })
  let server = await serve('127.0.0.1:0')
  const address = server.dashboard!
  return {
    node,
    origin: `http://${address}`,
    async link() {
      const client = new ControlClient(server.address, join(folder.path, 'control-token'))
      return (await client.dashboardLink()).url
    },
    disconnect: () => server.close(),
    async reconnect() {
      server = await serve(address)
    },
    async close() {
      node.end()
      await server.close()
      folder.remove()
    },
  }
}
