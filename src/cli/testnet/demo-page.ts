import { once } from 'node:events'
import type { AddressInfo } from 'node:net'

// Not `import`: docs/decisions/2026-11-20-memory-of-a-node.md
const { createServer } = process.getBuiltinModule('node:http')

/** A page to fetch through the mesh where there is no internet. */
export interface DemoPage {
  readonly url: string
  close(): Promise<void>
}

/** Serves one small page on a free port of 127.0.0.1; it tells what its server saw of the visitor. */
export async function startDemoPage(): Promise<DemoPage> {
  const server = createServer((request, response) => {
    request.resume()
    const seen = request.socket.remoteAddress ?? 'an unknown address'
    const text = [
      '<!doctype html>',
      '<meta charset="utf-8"><title>Shallot demo page</title>',
      '<h1>It works</h1>',
      `<p>This page came to you through three relays. Its server saw a visitor from ${seen}: the exit, not you.</p>`,
      '',
    ].join('\n')
    response.writeHead(200, {
      'content-type': 'text/html; charset=utf-8',
      'content-length': Buffer.byteLength(text),
      'cache-control': 'no-store',
    })
    response.end(request.method === 'HEAD' ? undefined : text)
  })
  server.maxConnections = 64
  server.unref()
  server.listen({ host: '127.0.0.1', port: 0 })
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
