import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { type IncomingHttpHeaders, request } from 'node:http'
import { join } from 'node:path'
import { type Logger, silentLogger } from '../../src/base/index.ts'
import { type ControlServer, startControl } from '../../src/control/index.ts'
import type { DashboardSection, NodeControl } from '../../src/node/index.ts'
import { temporaryFolder } from './processes.ts'

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
  /** The body as JSON; null when it is none. */
  readonly body: { readonly error?: { code: string; message: string; problems?: unknown[] } } & Record<string, unknown>
}

/** A control API with both its listeners, over some node, with a few files as its dashboard. */
export class ControlBench {
  readonly server: ControlServer
  readonly folder: string
  readonly #remove: () => void
  readonly #runtimeDir: string | undefined

  static async start(
    node: NodeControl,
    dashboard: DashboardSection | null = { enabled: true, listen: '127.0.0.1:0' },
    logger: Logger = silentLogger,
  ): Promise<ControlBench> {
    const folder = temporaryFolder('control')
    const runtimeDir = process.env.XDG_RUNTIME_DIR
    process.env.XDG_RUNTIME_DIR = folder.path
    const files = join(folder.path, 'dist')
    mkdirSync(join(files, 'assets'), { recursive: true })
    writeFileSync(join(files, 'index.html'), '<!doctype html><title>page</title>')
    writeFileSync(join(files, 'assets', 'app-1a2b.js'), 'let x = 1')
    symlinkSync('/etc/hostname', join(files, 'link.txt'))
    const server = await startControl(node, {
      config: { enabled: true, listen: 'unix:control.sock' },
      dashboard,
      dashboardFiles: files,
      dir: folder.path,
      logger,
      random: (length) => new Uint8Array(randomBytes(length)),
    })
    return new ControlBench(server, folder.path, folder.remove, runtimeDir)
  }

  private constructor(server: ControlServer, folder: string, remove: () => void, runtimeDir: string | undefined) {
    this.server = server
    this.folder = folder
    this.#remove = remove
    this.#runtimeDir = runtimeDir
  }

  /** The node's own token. */
  get token(): string {
    return readFileSync(join(this.folder, 'control-token'), 'utf8').trim()
  }

  get origin(): string {
    return `http://${this.server.dashboard}`
  }

  /** Asks the dashboard's listener. Nothing is added to the headers but Host, and what `json` needs. */
  web(method: string, path: string, headers: Record<string, string> = {}, body?: string): Promise<Answer> {
    const [host, port] = this.server.dashboard!.split(':')
    return ask({ host, port }, method, path, { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers }, body)
  }

  /** Asks the control socket. */
  socket(method: string, path: string, headers: Record<string, string> = {}, body?: string): Promise<Answer> {
    return ask({ socketPath: this.server.address }, method, path, { host: 'localhost', ...headers }, body)
  }

  /** A link's code. */
  async code(options: Record<string, unknown> = {}): Promise<string> {
    const { body } = await this.socket('POST', '/v1/dashboard-link', { authorization: `Bearer ${this.token}` }, JSON.stringify(options))
    return new URL(body.url as string).hash.replace('#code=', '')
  }

  /** The token of a new session. */
  async session(): Promise<string> {
    const { body } = await this.web('POST', '/v1/session', {}, JSON.stringify({ code: await this.code() }))
    return body.token as string
  }

  async close(): Promise<void> {
    await this.server.close()
    if (this.#runtimeDir === undefined) delete process.env.XDG_RUNTIME_DIR
    else process.env.XDG_RUNTIME_DIR = this.#runtimeDir
    this.#remove()
  }
}

/** One request on a connection of its own. */
export function ask(
  where: { host?: string | undefined; port?: string | undefined; socketPath?: string },
  method: string,
  path: string,
  headers: Record<string, string>,
  body?: string,
): Promise<Answer> {
  return new Promise((done, fail) => {
    let answered = false
    const asked = request({ ...where, method, path, agent: false, headers, setHost: headers.host === undefined }, (response) => {
      answered = true
      let text = ''
      response.setEncoding('utf8').on('data', (piece: string) => {
        text += piece
      })
      // Answers that last: their beginning is enough.
      if (/event-stream|ndjson/.test(response.headers['content-type'] ?? '')) setTimeout(() => response.destroy(), 5)
      const ended = (): void => done({ status: response.statusCode!, headers: response.headers, text, body: json(text) })
      response.once('end', ended).once('error', ended).once('close', ended)
    })
    // A refusal may come, and the connection end, before all of a body is sent.
    asked.on('error', (error) => !answered && fail(error)).end(body)
  })
}

function json(text: string): Answer['body'] {
  try {
    return JSON.parse(text) as Answer['body']
  } catch {
    return {}
  }
}
