import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type * as Api from './api-types.ts'

/** What both listeners of the control API do with HTTP. */

/** The longest body there is: a change of settings. */
export const MAX_BODY_BYTES = 64 * 1024
/** The longest of a request whose body is not looked at. */
export const MAX_UNREAD_BODY_BYTES = 1024

type Problem = Api.SettingProblem

/** An answer that is not the one asked for. */
export class Refusal extends Error {
  readonly status: number
  readonly code: string
  readonly problems: readonly Problem[] | undefined

  constructor(status: number, code: string, message: string, problems?: readonly Problem[]) {
    super(message)
    this.status = status
    this.code = code
    this.problems = problems
  }
}

/** SHA-256: hashes of secrets are compared, so that the time tells neither the length nor a prefix. */
export function hash(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

/** Whether a text is the one with this hash, in the same time whatever it is. */
export function matches(text: string, hashed: Buffer): boolean {
  return timingSafeEqual(hash(text), hashed)
}

/** The token of `Authorization: Bearer TOKEN`. */
export function bearerOf(request: IncomingMessage): string | undefined {
  return /^Bearer ([\x21-\x7e]{1,200})$/.exec(request.headers.authorization ?? '')?.[1]
}

/** One JSON value as the whole answer. */
export function send(response: ServerResponse, status: number, body: unknown): void {
  const text = `${JSON.stringify(body)}\n`
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  })
  response.end(text)
}

/** Says why not. What is left of the request is not read: the connection cannot go on. */
export function refuse(response: ServerResponse, { status, code, message, problems }: Refusal): void {
  if (response.headersSent) return void response.destroy()
  response.setHeader('connection', 'close')
  const problem: Api.Problem = { error: { code, message, ...(problems === undefined ? {} : { problems }) } }
  send(response, status, problem)
}

/** The body as text. @throws Refusal when it is longer, or when the asker is gone */
export async function readBody(request: IncomingMessage, mostBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  try {
    for await (const chunk of request) {
      length += (chunk as Buffer).length
      if (length > mostBytes) throw new Refusal(413, 'body-too-long', `a body may have at most ${mostBytes} bytes here`)
      chunks.push(chunk as Buffer)
    }
  } catch (error) {
    if (error instanceof Refusal) throw error
    throw new Refusal(400, 'bad-body', 'the body did not come whole')
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** The path and the query of a request's target. @throws Refusal */
export function targetOf(request: IncomingMessage): { path: string; query: URLSearchParams } {
  const [, path, query] = /^(\/[^?#]*)(?:\?([^#]*))?$/.exec(request.url ?? '') ?? []
  if (path === undefined) throw new Refusal(400, 'bad-path', 'the path must begin with a slash')
  return { path, query: new URLSearchParams(query ?? '') }
}
