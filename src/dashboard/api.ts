import type { ApiAnswers, ApiBodies, Problem, SettingProblem } from '../control/api-types.ts'
import { token } from './session.ts'

type RouteName = keyof ApiAnswers

/** What the node, or the way to it, says instead of an answer. */
export class ApiError extends Error {
  /** 0: no answer at all. */
  readonly status: number
  readonly code: string
  readonly problems: readonly SettingProblem[]

  constructor(status: number, code: string, message: string, problems: readonly SettingProblem[] = []) {
    super(message)
    this.status = status
    this.code = code
    this.problems = problems
  }
}

/** What a request carries beside its name. */
export interface Carried<R extends RouteName> {
  readonly path?: Readonly<Record<string, string | number>>
  readonly query?: Readonly<Record<string, string | number>>
  readonly body?: R extends keyof ApiBodies ? ApiBodies[R] : never
  readonly signal?: AbortSignal
}

/** Asks the node. @throws ApiError */
export async function ask<R extends RouteName>(route: R, carried: Carried<R> = {}): Promise<ApiAnswers[R]> {
  const response = await send(route, carried)
  return (await response.json().catch(() => {
    throw new ApiError(0, 'cut-off', 'The answer of the node was cut off.')
  })) as ApiAnswers[R]
}

/** As `ask`, without looking at the answer's body. @throws ApiError when it is not 2xx */
export async function send<R extends RouteName>(route: R, { path, query, body, signal }: Carried<R> = {}): Promise<Response> {
  const [method, pattern] = route.split(' ') as [string, string]
  const place = pattern.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(path?.[name] ?? '')))
  const search = query === undefined ? '' : `?${new URLSearchParams(Object.entries(query).map(([key, value]) => [key, String(value)]))}`
  const headers: Record<string, string> = { authorization: `Bearer ${token() ?? ''}` }
  if (body !== undefined) headers['content-type'] = 'application/json'
  let response: Response
  try {
    response = await fetch(`${place}${search}`, {
      method,
      headers,
      cache: 'no-store',
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    })
  } catch (error) {
    if (signal?.aborted) throw error
    throw new ApiError(0, 'unreachable', 'The node does not answer.')
  }
  if (response.ok) return response
  const problem = (await response.json().catch(() => null)) as Problem | null
  const { code, message, problems } = problem?.error ?? { code: 'unknown', message: `The node answered ${response.status}.`, problems: [] }
  throw new ApiError(response.status, code, message, problems)
}
