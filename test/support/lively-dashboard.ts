import { randomBytes } from 'node:crypto'
import { createServer, request, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
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
  /** shallot.toml. */
  readonly file: string
  /** A link that opens a session. */
  link(): Promise<string>
  /** Nothing reaches the node any more. */
  disconnect(): Promise<void>
  reconnect(): Promise<void>
  /** Packets are lost: connections stay, and nothing comes through them any more; until `thaw`. */
  freeze(): void
  thaw(): void
  /** The node's listeners end and begin anew. */
  /** @param meanwhile what is done while it is down */
  restart(meanwhile?: (dir: string) => Promise<void>): Promise<void>
  close(): Promise<void>
}

export async function openLivelyDashboard(how: Omit<Liveliness, 'dir'>): Promise<LivelyDashboard> {
  const folder = temporaryFolder('dashboard')
  const node = await LivelyNode.start({ ...how, dir: folder.path })
  node.begin()
  const serve = (): Promise<ControlServer> =>
    startControl(node, {
      config: { enabled: true, listen: 'unix:control.sock' },
      dashboard: { enabled: true, listen: '127.0.0.1:0' },
      dir: folder.path,
      logger: silentLogger,
      random: (length) => new Uint8Array(randomBytes(length)),
    })
  let server = await serve()
  // What can be cut: the node itself keeps its sessions.
  const frost = { frozen: false }
  const cable = wayTo(() => server.dashboard!, frost)
  const port = await listen(cable, 0)
  const origin = `http://127.0.0.1:${port}`
  return {
    node,
    origin,
    file: join(folder.path, 'shallot.toml'),
    async link() {
      const client = new ControlClient(server.address, join(folder.path, 'control-token'))
      return (await client.dashboardLink()).url.replace(`http://${server.dashboard}`, origin)
    },
    async disconnect() {
      cable.closeAllConnections()
      await new Promise<void>((done) => cable.close(() => done()))
    },
    async reconnect() {
      await listen(cable, port)
    },
    freeze() {
      frost.frozen = true
    },
    thaw() {
      frost.frozen = false
    },
    async restart(meanwhile) {
      await server.close()
      await meanwhile?.(folder.path)
      server = await serve()
    },
    async close() {
      node.end()
      cable.closeAllConnections()
      cable.close()
      await server.close()
      folder.remove()
    },
  }
}

/** Passes requests on to where the node listens, under its own name there. */
function wayTo(address: () => string, frost: { readonly frozen: boolean }): Server {
  return createServer((asked, answer) => {
    if (frost.frozen) return
    const [host, port] = address().split(':')
    const headers = { ...asked.headers, host: address() }
    if (headers.origin !== undefined) headers.origin = `http://${address()}`
    const onward = request({ host: host!, port: Number(port), method: asked.method ?? 'GET', path: asked.url ?? '/', headers }, (got) => {
      answer.writeHead(got.statusCode!, got.headers)
      got.on('data', (bytes) => {
        if (!frost.frozen) answer.write(bytes)
      })
      got.once('end', () => answer.end())
      got.once('close', () => answer.destroy(got.complete ? undefined : new Error('cut off')))
    })
    onward.once('error', () => answer.destroy())
    answer.once('close', () => onward.destroy())
    asked.pipe(onward)
  })
}

async function listen(server: Server, port: number): Promise<number> {
  await new Promise<void>((done, fail) => server.once('error', fail).listen(port, '127.0.0.1', done))
  return (server.address() as AddressInfo).port
}
