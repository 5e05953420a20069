import { formatIp, type IpAddress, networkKey, TokenBucket } from '../../base/index.ts'
import type { StunServerLimits } from './config.ts'

/** One IPv6 network has so many bits in common: a host has all its addresses. */
const SOURCE_BITS_6 = 64
/** How many seconds' worth of answers one source may ask for at once: a whole probe of one node, and some. */
const BURST_SECONDS = 3
const MINUTE_SECONDS = 60

interface Account {
  /** Bytes that came from this address and were not answered yet. */
  credit: number
  readonly allowance: TokenBucket
}

/**
 * How much may be sent to whom, so that forged source addresses make this server neither busy nor an amplifier (docs/spec/stun.md §4). Pure.
 * What an address is sent is at most what came from it, and the allowance. An address that is forgotten loses credit and gets at most a new allowance,
 * which the sum for all bounds.
 */
export class Allowance {
  readonly #limits: StunServerLimits
  readonly #rate: TokenBucket
  readonly #rates = new Map<string, TokenBucket>()
  readonly #allowance: TokenBucket
  readonly #accounts = new Map<string, Account>()

  constructor(limits: StunServerLimits, now: number) {
    this.#limits = limits
    this.#rate = new TokenBucket(limits.answersPerSecond, limits.answersPerSecond, now)
    this.#allowance = new TokenBucket(limits.allowanceBytesPerSecond, limits.allowanceBytesPerSecond, now)
  }

  /** Addresses remembered. */
  get sources(): number {
    return Math.max(this.#rates.size, this.#accounts.size)
  }

  /** Whether one more request of this source is looked at. */
  admits(source: IpAddress, now: number): boolean {
    const { answersPerSecondPerSource: perSecond, sources } = this.#limits
    const key = source.family === 4 ? formatIp(source) : networkKey(source, SOURCE_BITS_6)
    const bucket = touch(this.#rates, key, sources, () => new TokenBucket(perSecond, perSecond * BURST_SECONDS, now))
    // The source's own limit first: one that asks too much must not use up what is there for all.
    return bucket.take(1, now) && this.#rate.take(1, now)
  }

  /** Notes that `bytes` came from the address. */
  earn(source: IpAddress, bytes: number, now: number): void {
    const account = this.#account(source, now)
    account.credit = Math.min(account.credit + bytes, Math.max(bytes, this.#limits.creditBytes))
  }

  /** Whether the address may be sent `bytes`, which are then taken. */
  spend(source: IpAddress, bytes: number, now: number): boolean {
    const account = this.#account(source, now)
    const beyond = bytes - account.credit
    if (beyond > 0) {
      if (!account.allowance.take(beyond, now)) return false
      if (!this.#allowance.take(beyond, now)) return false
    }
    account.credit = Math.max(0, -beyond)
    return true
  }

  #account(source: IpAddress, now: number): Account {
    const { allowanceBytesPerMinute: perMinute, sources } = this.#limits
    return touch(this.#accounts, formatIp(source), sources, () => ({
      credit: 0,
      allowance: new TokenBucket(perMinute / MINUTE_SECONDS, perMinute, now),
    }))
  }
}

/** The entry of a table of at most `most`, made when it is missing; the one touched longest ago makes room. */
function touch<T>(table: Map<string, T>, key: string, most: number, make: () => T): T {
  const found = table.get(key)
  if (found !== undefined) {
    table.delete(key)
    table.set(key, found)
    return found
  }
  if (table.size >= most) table.delete(table.keys().next().value!)
  const made = make()
  table.set(key, made)
  return made
}
