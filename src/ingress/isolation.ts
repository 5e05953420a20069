import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'

/** What a stream comes from, as far as it shall be told apart. Strings are any text. */
export interface IsolationOrigin {
  /** Which listener, or other origin, it came in by: 'socks', 'http', 'fetch'. */
  readonly listener: string
  readonly user?: string | undefined
  readonly password?: string | undefined
  readonly clientAddress?: string | undefined
  /** Where it goes: a host, a port, or both in one text. */
  readonly destination?: string | undefined
}

/** Fresh in every process: a key says nothing of the credentials it was made of, even to who sees it and guesses. */
const secret = randomBytes(32)

/** The isolation key of an origin: equal for equal origins in one process, 32 hex digits. Streams with different keys never share a circuit. */
export function isolationKey(origin: IsolationOrigin): string {
  const { listener, user, password, clientAddress, destination } = origin
  const fields = [listener, user, password, clientAddress, destination].map((field) => field ?? null)
  return createHmac('sha256', secret).update(JSON.stringify(fields)).digest('hex').slice(0, 32)
}

/** What may tell streams apart beside the listener. */
export const isolateBy = z
  .array(z.enum(['credentials', 'client-address', 'destination-address', 'destination-port']))
  .default(['credentials', 'client-address'])
export type IsolateBy = z.output<typeof isolateBy>

export interface RequestOrigin {
  readonly listener: string
  readonly user: string | undefined
  readonly password: string | undefined
  readonly clientAddress: string | undefined
  readonly host: string
  readonly port: number
}

/** The isolation key of a request under the rules of its listener. */
export function requestIsolation(rules: IsolateBy, request: RequestOrigin): string {
  const by = (rule: IsolateBy[number]): boolean => rules.includes(rule)
  const destination: (string | number)[] = []
  if (by('destination-address')) destination.push(request.host)
  if (by('destination-port')) destination.push(request.port)
  return isolationKey({
    listener: request.listener,
    user: by('credentials') ? request.user : undefined,
    password: by('credentials') ? request.password : undefined,
    clientAddress: by('client-address') ? request.clientAddress : undefined,
    destination: destination.length === 0 ? undefined : JSON.stringify(destination),
  })
}

export interface Credentials {
  readonly user: string
  readonly password: string
}

/** A check of given credentials (one character a byte) whose time does not depend on how much of them is right. */
export function credentialChecker(allowed: readonly Credentials[]): (given: Credentials) => boolean {
  const digest = (user: Buffer, password: Buffer): Buffer =>
    createHash('sha256').update(secret).update(`${user.length}:`).update(user).update(password).digest()
  const known = allowed.map(({ user, password }) => digest(Buffer.from(user, 'utf8'), Buffer.from(password, 'utf8')))
  return ({ user, password }) => {
    const offered = digest(Buffer.from(user, 'latin1'), Buffer.from(password, 'latin1'))
    let found = false
    for (const one of known) if (timingSafeEqual(one, offered)) found = true
    return found
  }
}
