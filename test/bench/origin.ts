import { randomFillSync } from 'node:crypto'
import { createReadStream, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { hasCommand, Program } from '../support/processes.ts'

/** What the transfers end at: a static web server and an upload sink, each in a process of its own. */
export interface Origin {
  readonly kind: string
  /** "ADDRESS:PORT" */
  readonly web: string
  readonly sink: string
  readonly pids: readonly number[]
  /** The file of so many MB that the web server has under `/NNm`. */
  file(mb: number): string
  stop(): Promise<void>
}

/** MB (10^6 bytes): the largest that takes about the wished time is used. */
export const fileSizesMb = [2, 5, 10, 20, 50, 100, 200, 400] as const

/**
 * nginx where the machine has it (as the runner for Tor uses it), else a server of Node's.
 * @param sinkCommand a program that prints a line when it listens on the HOST and PORT that are put after it; our own when null
 * @param host an IPv4 address of this machine to listen on
 */
export async function startOrigin(folder: string, sinkCommand: readonly string[] | null = null, host = '127.0.0.1'): Promise<Origin> {
  const root = join(folder, 'www')
  mkdirSync(root, { recursive: true })
  for (const mb of fileSizesMb) writeRandomFile(join(root, `${mb}m`), mb * 1_000_000)
  writeRandomFile(join(root, '1k'), 1024)
  const webPort = await freePort(host)
  const sinkPort = await freePort(host)
  const nginx = await hasCommand('nginx')
  const web = nginx
    ? Program.start('nginx', ['-p', folder, '-c', writeNginxConfig(folder, root, host, webPort)])
    : Program.node(import.meta.filename, ['web', host, String(webPort), root])
  const sink = sinkCommand
    ? Program.start(sinkCommand[0]!, [...sinkCommand.slice(1), host, String(sinkPort)])
    : Program.node(import.meta.filename, ['sink', host, String(sinkPort)])
  await sink.waitFor(/\n/, 10_000)
  await waitForPort(host, webPort, 10_000)
  return {
    kind: `${nginx ? 'nginx' : 'node'}, sink ${sinkCommand ? sinkCommand.at(-1) : 'node'}`,
    web: `${host}:${webPort}`,
    sink: `${host}:${sinkPort}`,
    pids: [web.pid, sink.pid],
    file: (mb) => join(root, `${mb}m`),
    async stop() {
      await Promise.all([web.stop('SIGTERM'), sink.stop('SIGTERM')])
    },
  }
}

/** A port of 127.0.0.1 (or another address of this machine) that was free a moment ago. */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => {
    server.listen(0, host, resolve)
  })
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function waitForPort(host: string, port: number, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    try {
      await fetch(`http://${host}:${port}/1k`)
      return
    } catch (error) {
      if (performance.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
}

/** Random, so that nothing on the way can compress it. Kept when it is there already. */
function writeRandomFile(path: string, size: number): void {
  if (statSync(path, { throwIfNoEntry: false })?.size === size) return
  writeFileSync(path, randomFillSync(Buffer.allocUnsafe(size)))
}

function writeNginxConfig(folder: string, root: string, host: string, port: number): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}/tmp;`).join(' ')
  const path = join(folder, 'nginx.conf')
  writeFileSync(
    path,
    `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log ${folder}/nginx.log warn; worker_rlimit_nofile 16384;
${process.getuid?.() === 0 ? 'user root;' : ''}
events { worker_connections 8000; multi_accept on; }
http {
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; default_type application/octet-stream; ${temporary}
  server { listen ${host}:${port} backlog=4096; root ${root}; }
}
`,
  )
  return path
}

function serveWeb(host: string, port: number, root: string): void {
  createHttpServer((request, response) => {
    const path = join(root, (request.url ?? '/').replace(/[^0-9a-z]/g, ''))
    const size = statSync(path, { throwIfNoEntry: false })?.size
    if (size === undefined) {
      response.writeHead(404).end()
      return
    }
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': size })
    createReadStream(path, { highWaterMark: 256 << 10 }).pipe(response)
  }).listen(port, host, 4096)
}

/** Reads uploads (HTTP PUT with a length) and throws them away as cheaply as Node can. */
function serveSink(host: string, port: number): void {
  const serve = (socket: Socket): void => {
    let head = ''
    let left = -1
    socket.on('error', () => socket.destroy())
    socket.on('data', (bytes) => {
      let length = bytes.length
      if (left < 0) {
        head += bytes.toString('latin1')
        const end = head.indexOf('\r\n\r\n')
        if (end < 0) return
        left = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0)
        if (/^expect: *100/im.test(head)) socket.write('HTTP/1.1 100 Continue\r\n\r\n')
        length = head.length - end - 4
        head = ''
      }
      left -= length
      if (left > 0) return
      left = -1
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
    })
  }
  createServer({ noDelay: true, highWaterMark: 1 << 20 }, serve).listen(port, host, 512, () => console.log('ready'))
}

if (import.meta.main) {
  const [what, host, port, root] = process.argv.slice(2)
  if (what === 'web') serveWeb(host!, Number(port), root!)
  else serveSink(host!, Number(port))
}
