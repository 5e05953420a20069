import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { extname, join } from 'node:path'
import { Refusal } from './http.ts'

/** A built dashboard has some tens of files. */
const MAX_FILES = 500
const MAX_FOLDERS_DEEP = 4

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.json': 'application/json',
  '.webmanifest': 'application/manifest+json',
  '.woff2': 'font/woff2',
  '.txt': 'text/plain; charset=utf-8',
}

/** Nothing from elsewhere, nothing inline, in nobody's frame. */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "font-src 'self'",
    "connect-src 'self'",
    "manifest-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
}

const NOT_BUILT = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Shallot: the dashboard is not built</title></head>
<body><h1>The dashboard is not built</h1>
<p>This copy of the program has the node, but not its pages. <code>sh bin/build-dashboard</code> in the program's folder builds them; then load this page again.</p>
<p>Everything else works: <code>shallot status</code> and the other commands tell the same.</p></body></html>
`

/**
 * The files of a folder. A request names one of those that are there: it never becomes a path, so there is nothing to climb out by. Links are not
 * followed.
 */
export class StaticFiles {
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
  }

  /** @throws Refusal */
  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method } = request
    if (method !== 'GET' && method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD')
      throw new Refusal(405, 'wrong-method', 'files are only read')
    }
    const path = (request.url ?? '/').split(/[?#]/)[0]!
    const files = await this.#files()
    if (!files.has('/index.html')) return send(response, 404, 'text/html; charset=utf-8', Buffer.from(NOT_BUILT), method)
    const file = files.get(path === '/' ? '/index.html' : path)
    if (file === undefined) throw new Refusal(404, 'no-such-file', 'there is no such file')
    const bytes = await readFile(file)
    const etag = `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"`
    response.setHeader('etag', etag)
    // The names of what a build makes hold a hash of what is in it.
    response.setHeader('cache-control', path.startsWith('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache')
    if (request.headers['if-none-match'] === etag) {
      response.writeHead(304, PAGE_HEADERS)
      response.end()
      return
    }
    send(response, 200, TYPES[extname(file)] ?? 'application/octet-stream', bytes, method)
  }

  /** By the path that a browser asks for. Looked up at each request: a new build is there at once. */
  async #files(): Promise<ReadonlyMap<string, string>> {
    const found = new Map<string, string>()
    const look = async (folder: string, path: string, depth: number): Promise<void> => {
      const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
      for (const entry of entries) {
        if (found.size >= MAX_FILES) return
        if (entry.isDirectory() && depth < MAX_FOLDERS_DEEP) await look(join(folder, entry.name), `${path}/${entry.name}`, depth + 1)
        else if (entry.isFile()) found.set(`${path}/${entry.name}`, join(folder, entry.name))
      }
    }
    await look(this.#folder, '', 0)
    return found
  }
}

function send(response: ServerResponse, status: number, type: string, bytes: Buffer, method: string): void {
  response.writeHead(status, { ...PAGE_HEADERS, 'content-type': type, 'content-length': bytes.length })
  response.end(method === 'HEAD' ? undefined : bytes)
}
