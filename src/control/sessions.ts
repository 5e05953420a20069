import { timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { hash } from './http.ts'

/** Browsers with a session at once; the one that was silent longest goes first. */
const MAX_SESSIONS = 16
/** A session ends after so much silence, and at last in any case. */
const IDLE_MS = 12 * 3_600_000
const LIFETIME_MS = 7 * 86_400_000
/** Codes that wait to be used; the oldest goes first. */
const MAX_CODES = 16
/** Codes and tokens: 256 bits. */
const SECRET_BYTES = 32

interface Session {
  readonly hash: Buffer
  readonly endsAt: number
  usedAt: number
}

interface Code {
  readonly hash: Buffer
  readonly expiresAt: number
  usesLeft: number
}

const HASH_BYTES = 32
/** How often the time of a session's last use is told to be kept. */
const KEEP_MS = 600_000

const keptSchema = z.strictObject({
  version: z.literal(1),
  sessions: z
    .array(
      z.strictObject({
        hash: z.string().refine((text) => Buffer.from(text, 'base64url').length === HASH_BYTES),
        endsAt: z.number(),
        usedAt: z.number(),
      }),
    )
    .max(MAX_SESSIONS),
})

/** Codes of links, and the sessions that they are exchanged for. Only hashes are kept. */
export class Sessions {
  readonly #changed: () => void
  #keptAt = 0
  readonly #random: (length: number) => Uint8Array
  readonly #wall: () => number
  #sessions: Session[] = []
  #codes: Code[] = []

  /** @param changed there is something new in `serialise` */
  constructor(random: (length: number) => Uint8Array, wall: () => number, changed: () => void = () => {}) {
    this.#random = random
    this.#wall = wall
    this.#changed = changed
  }

  /** What a file may keep, so that an open page outlives a restart of the node: no token can be made of it. */
  serialise(): string {
    const sessions = this.#sessions.map(({ hash: bytes, endsAt, usedAt }) => ({ hash: bytes.toString('base64url'), endsAt, usedAt }))
    return JSON.stringify({ version: 1, sessions } satisfies z.output<typeof keptSchema>)
  }

  /** Takes back what `serialise` gave; false when it is something else, and then nothing is taken. */
  restore(text: string): boolean {
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch {
      return false
    }
    const kept = keptSchema.safeParse(value)
    if (!kept.success) return false
    const now = this.#wall()
    // A clock that was wrong must not make one last for ever.
    this.#sessions = kept.data.sessions.map(({ hash: bytes, endsAt, usedAt }) => ({
      hash: Buffer.from(bytes, 'base64url'),
      endsAt: Math.min(endsAt, now + LIFETIME_MS),
      usedAt: Math.min(usedAt, now),
    }))
    this.#forgetSilent(now)
    return true
  }

  /** A code that `open` takes so often, for so long. */
  issueCode(forMs: number, uses: number): { code: string; expiresAt: number } {
    const code = this.#secret()
    const expiresAt = this.#wall() + forMs
    this.#codes.push({ hash: hash(code), expiresAt, usesLeft: uses })
    if (this.#codes.length > MAX_CODES) this.#codes.shift()
    return { code, expiresAt }
  }

  /** A session for a code; null when it is no such code, or not any more. */
  open(code: string): { token: string; expiresAt: number } | null {
    const now = this.#wall()
    this.#codes = this.#codes.filter(({ expiresAt }) => expiresAt > now)
    const found = findEqual(this.#codes, hash(code))
    if (found === null) return null
    found.usesLeft--
    if (found.usesLeft === 0) this.#codes = this.#codes.filter((other) => other !== found)
    const token = this.#secret()
    const session = { hash: hash(token), endsAt: now + LIFETIME_MS, usedAt: now }
    this.#forgetSilent(now)
    this.#sessions.push(session)
    if (this.#sessions.length > MAX_SESSIONS) {
      const silent = this.#sessions.reduce((a, b) => (a.usedAt <= b.usedAt ? a : b))
      this.#sessions = this.#sessions.filter((other) => other !== silent)
    }
    this.#keep(now)
    return { token, expiresAt: expiryOf(session) }
  }

  /** Whether a token is that of a session; if it is, the session lasts on. */
  use(token: string): boolean {
    const now = this.#wall()
    this.#forgetSilent(now)
    const session = findEqual(this.#sessions, hash(token))
    if (session !== null) session.usedAt = now
    if (session !== null && now - this.#keptAt >= KEEP_MS) this.#keep(now)
    return session !== null
  }

  end(token: string): void {
    const session = findEqual(this.#sessions, hash(token))
    this.#sessions = this.#sessions.filter((other) => other !== session)
    this.#keep(this.#wall())
  }

  #keep(now: number): void {
    this.#keptAt = now
    this.#changed()
  }

  #forgetSilent(now: number): void {
    this.#sessions = this.#sessions.filter((session) => expiryOf(session) > now)
  }

  #secret(): string {
    return Buffer.from(this.#random(SECRET_BYTES)).toString('base64url')
  }
}

function expiryOf({ usedAt, endsAt }: Session): number {
  return Math.min(endsAt, usedAt + IDLE_MS)
}

/** Looks at all of them, whichever it is. */
function findEqual<T extends { readonly hash: Buffer }>(all: readonly T[], wanted: Buffer): T | null {
  let found: T | null = null
  for (const one of all) if (timingSafeEqual(one.hash, wanted)) found = one
  return found
}
