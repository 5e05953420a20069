import { formatHostPort, MalformedError, parseHostPort } from '../base/index.ts'
import { StreamError, type StreamErrorReason } from '../client/index.ts'
import type { Target } from '../onion/index.ts'
import type { Credentials } from './isolation.ts'

/** A request-target in absolute-form, taken apart. */
export interface AbsoluteTarget {
  readonly target: Target
  /** What the Host field has to say: RFC 9112 §3.2.2 lets a proxy replace what was received. */
  readonly authority: string
  /** The request-target for the server, in origin-form: path and query as they came, or `*`. */
  readonly path: string
}

/** `http://host:port/path?query`. User information is dropped. @throws MalformedError */
export function parseAbsoluteForm(url: string, method: string): AbsoluteTarget {
  const parts = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)([^#]*)/i.exec(url)
  if (!parts) throw new MalformedError('request target', 'is not an absolute http:// address')
  const [, scheme, authorityText, rest] = parts as unknown as [string, string, string, string]
  if (scheme.toLowerCase() === 'https') throw new MalformedError('request target', 'https:// goes through CONNECT')
  if (scheme.toLowerCase() !== 'http') throw new MalformedError('request target', 'only http:// is served')
  const { host, port } = parseHostPort(authorityText.slice(authorityText.lastIndexOf('@') + 1), 80)
  if (port === 0) throw new MalformedError('request target', 'the port is 0')
  let path = rest.startsWith('/') ? rest : `/${rest}`
  if (rest === '' && method === 'OPTIONS') path = '*' // RFC 9112 §3.2.4
  const authority = port === 80 ? formatHostPort(host.text, 80).slice(0, -3) : formatHostPort(host.text, port)
  return { target: { host: host.text, port }, authority, path }
}

/** `host:port` of CONNECT. @throws MalformedError */
export function parseAuthorityForm(url: string): Target {
  const { host, port } = parseHostPort(url)
  if (port === 0) throw new MalformedError('request target', 'the port is 0')
  return { host: host.text, port }
}

// RFC 9110 §7.6.1, and what is between the application and this proxy only (§11.7).
const hopByHop = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'te',
  'transfer-encoding',
  'upgrade',
  'proxy-authenticate',
  'proxy-authorization',
])

/** Header fields (name, value, name, value …) without those of this hop, those that Connection names, and those in `also` (lower case). */
export function withoutHopByHop(raw: readonly string[], also: readonly string[] = []): string[] {
  const drop = new Set([...hopByHop, ...also])
  for (let i = 0; i < raw.length; i += 2) {
    if (raw[i]!.toLowerCase() === 'connection') for (const name of raw[i + 1]!.split(',')) drop.add(name.trim().toLowerCase())
  }
  const kept: string[] = []
  for (let i = 0; i < raw.length; i += 2) if (!drop.has(raw[i]!.toLowerCase())) kept.push(raw[i]!, raw[i + 1]!)
  return kept
}

/** How a message says where its body ends. */
export type Framing =
  | { readonly type: 'none' }
  | { readonly type: 'length'; readonly length: number }
  | { readonly type: 'chunked' }
  | { readonly type: 'unsound'; readonly why: string } // two parsers could read it in two ways: request smuggling (RFC 9112 §11.2)
  | { readonly type: 'unsupported' }

/** The framing of a request by its header fields. The parser refuses what is unsound before; this is the second lock. */
export function requestFraming(raw: readonly string[]): Framing {
  const values = (name: string): string[] => raw.filter((_, i) => i % 2 === 1 && raw[i - 1]!.toLowerCase() === name)
  const lengths = values('content-length')
  const codings = values('transfer-encoding')
  if (lengths.length > 0 && codings.length > 0) return { type: 'unsound', why: 'both Content-Length and Transfer-Encoding' }
  if (codings.length > 0) return codings.join(',').trim().toLowerCase() === 'chunked' ? { type: 'chunked' } : { type: 'unsupported' }
  if (lengths.length === 0) return { type: 'none' }
  if (lengths.length > 1 || !/^\d{1,15}$/.test(lengths[0]!))
    return { type: 'unsound', why: 'more than one Content-Length, or none that is a number' }
  return { type: 'length', length: Number(lengths[0]) }
}

/** `Basic …` (RFC 7617), one character a byte; null when it is something else. */
export function parseBasic(header: string | undefined): Credentials | null {
  const token = /^basic +([A-Za-z0-9+/]+={0,2}) *$/i.exec(header ?? '')?.[1]
  if (token === undefined) return null
  const text = Buffer.from(token, 'base64').toString('latin1')
  const colon = text.indexOf(':')
  return colon < 0 ? null : { user: text.slice(0, colon), password: text.slice(colon + 1) }
}

/** What the proxy answers by itself: an HTTP status, RFC 9209's word for it, and words for people. */
export interface ProxyProblem {
  readonly status: number
  /** The `error` of the Proxy-Status field (RFC 9209 §2.3); null where it has no word. */
  readonly error: string | null
  readonly title: string
  readonly detail: string
}

const problems: Readonly<Record<StreamErrorReason, readonly [status: number, error: string, title: string]>> = {
  done: [502, 'connection_terminated', 'The server closed the connection'],
  reset: [502, 'connection_terminated', 'The server reset the connection'],
  refused: [502, 'connection_refused', 'The server refused the connection'],
  unreachable: [502, 'destination_ip_unroutable', 'The server is unreachable'],
  timeout: [504, 'connection_timeout', 'The server did not answer in time'],
  'resolve-failed': [502, 'dns_error', 'The name has no address'],
  policy: [403, 'destination_ip_prohibited', 'No exit allows this target'],
  'resource-limit': [503, 'connection_limit_reached', 'A limit was reached'],
  'not-exit': [502, 'proxy_internal_error', 'The last relay is no exit'],
  internal: [502, 'proxy_internal_error', 'The exit failed'],
  'circuit-lost': [502, 'connection_terminated', 'The circuit was lost'],
  'no-circuit': [503, 'destination_unavailable', 'No circuit could be built'],
  aborted: [502, 'connection_terminated', 'The request was given up'],
}

/** The answer for a stream that did not open, or for a server that did not speak HTTP. */
export function problemOf(error: unknown, target: Target): ProxyProblem {
  const where = formatHostPort(target.host, target.port)
  if (error instanceof StreamError) {
    const [status, word, title] = problems[error.reason]
    return { status, error: word, title, detail: `${where}: ${error.message}.` }
  }
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (code === 'HPE_HEADER_OVERFLOW')
    return { status: 502, error: 'http_response_header_section_size', title: "The server's answer has too long a head", detail: where }
  if (code.startsWith('HPE_'))
    return { status: 502, error: 'http_protocol_error', title: 'The server did not answer in HTTP', detail: where }
  return {
    status: 502,
    error: 'connection_terminated',
    title: 'The server closed the connection',
    detail: `${where}: it ended before an answer came.`,
  }
}

export function badRequest(detail: string): ProxyProblem {
  return { status: 400, error: 'http_request_error', title: 'This request is not of a form that is served', detail }
}

/** Head and body of a problem, as fields and text. */
export function problemPage(problem: ProxyProblem, html: boolean): { readonly headers: string[]; readonly body: string } {
  const body = html
    ? `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escapeHtml(problem.title)}</title>` +
      `<h1>${escapeHtml(problem.title)}</h1><p>${escapeHtml(problem.detail)}</p><p><small>Shallot HTTP proxy, ${problem.status}</small></p></html>\n`
    : `${problem.title}\n${problem.detail}\n`
  const headers = [
    ...['Content-Type', `${html ? 'text/html' : 'text/plain'}; charset=utf-8`],
    ...['Content-Length', String(Buffer.byteLength(body))],
    ...['Cache-Control', 'no-store'],
  ]
  if (problem.error !== null) headers.push('Proxy-Status', `shallot; error=${problem.error}`)
  if (problem.status === 407) headers.push('Proxy-Authenticate', 'Basic realm="Shallot", charset="UTF-8"')
  return { headers, body }
}

/** A whole answer for a connection that has no parser any more. The connection ends after it. */
export function rawProblem(problem: ProxyProblem, html = false): Buffer {
  const { headers, body } = problemPage(problem, html)
  return Buffer.from(encodeHead(problem.status, phrases[problem.status] ?? 'Error', [...headers, 'Connection', 'close']) + body, 'utf8')
}

/** A status line and fields, from values that have been checked. */
export function encodeHead(status: number, phrase: string, raw: readonly string[]): string {
  let head = `HTTP/1.1 ${status} ${phrase}\r\n`
  for (let i = 0; i < raw.length; i += 2) head += `${raw[i]}: ${raw[i + 1]}\r\n`
  return `${head}\r\n`
}

const phrases: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  403: 'Forbidden',
  407: 'Proxy Authentication Required',
  408: 'Request Timeout',
  413: 'Content Too Large',
  431: 'Request Header Fields Too Large',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}
