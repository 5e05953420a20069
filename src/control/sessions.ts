import { timingSafeEqual } from 'node:crypto'
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

/** Codes of links, and the sessions that they are exchanged for. Only hashes are kept. */
export class Sessions {
  readonly #random: (length: number) => Uint8Array
  readonly #wall: () => number
  #sessions: Session[] = []
  #codes: Code[] = []

  constructor(random: (length: number) => Uint8Array, wall: () => number) {
    this.#random = random
    this.#wall = wall
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
    return { token, expiresAt: expiryOf(session) }
  }

  /** Whether a token is that of a session; if it is, the session lasts on. */
  use(token: string): boolean {
    const now = this.#wall()
    this.#forgetSilent(now)
    const session = findEqual(this.#sessions, hash(token))
    if (session !== null) session.usedAt = now
    return session !== null
  }

  end(token: string): void {
    const session = findEqual(this.#sessions, hash(token))
    this.#sessions = this.#sessions.filter((other) => other !== session)
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
