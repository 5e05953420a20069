/** What one peer found when it was asked to dial an address of ours. */
export interface DialBackVerdict {
  /** The network the peer is in (`networkKey` of /16 or /32): two peers of one network are one witness. */
  readonly network: string
  /**
   * `reached`: a connection came in and brought our number, whatever the peer says. `unreachable`: the peer says that it got no connection.
   * `other`: it got one, but not to us. `no-answer`: refused, silent, or it contradicts what we saw. The last one counts for nothing.
   */
  readonly verdict: 'reached' | 'unreachable' | 'other' | 'no-answer'
}

/** `untried` and `undecided` say nothing; `failed` is what enough peers agree on. */
export type CheckState = 'untried' | 'undecided' | 'confirmed' | 'failed'

/** So many witnesses of different networks decide, where there are so many: one that lies decides nothing. */
export const WITNESSES = 2
/** A confirmed address is looked at again this often. */
export const RECHECK_MS = 30 * 60_000
/** What a witness saw counts for this long. */
export const WITNESS_MS = 3 * 60 * 60_000
/** The first pause after a check that failed or decided nothing; it doubles up to `RECHECK_MS`. */
export const RETRY_MS = 30_000
/** Failed rounds in a row that take away what was confirmed or trusted. */
export const FAILED_ROUNDS = 2
/** Addresses whose checks are remembered: more than a node can have candidates for. */
const MAX_ADDRESSES = 16

interface Check {
  /** Witness to when it saw the address reached. */
  readonly reachedAt: Map<string, number>
  /** Whether the last confirmation was by one witness because there was no other. */
  alone: boolean
  failedRounds: number
  /** Rounds in a row that confirmed nothing. */
  fruitless: number
  rounds: number
  nextAt: number
}

/**
 * What peers from outside found out about this node's addresses. Pure. An address is confirmed by two witnesses (by one where only one
 * could be asked), and stops being so only after two rounds in which at least as many say the opposite and nobody else came through.
 */
export class AddressChecks {
  readonly #checks = new Map<string, Check>()

  /** Forgets everything: another network. */
  clear(): void {
    this.#checks.clear()
  }

  /** Forgets all but these addresses. */
  keep(addresses: readonly string[]): void {
    for (const address of this.#checks.keys()) if (!addresses.includes(address)) this.#checks.delete(address)
  }

  state(address: string, now: number): CheckState {
    const check = this.#checks.get(address)
    if (check === undefined || check.rounds === 0) return 'untried'
    if (isConfirmed(check, now)) return 'confirmed'
    return check.failedRounds > 0 ? 'failed' : 'undecided'
  }

  /** Whether an address that is good without a witness is so no more. */
  isDisproved(address: string, now: number): boolean {
    const check = this.#checks.get(address)
    return check !== undefined && check.failedRounds >= FAILED_ROUNDS && !isConfirmed(check, now)
  }

  /** When the address should be checked next: at once when it never was. */
  nextAt(address: string): number {
    return this.#checks.get(address)?.nextAt ?? Number.NEGATIVE_INFINITY
  }

  /** When a confirmation ends by itself; null when there is none. */
  expiresAt(address: string, now: number): number | null {
    const check = this.#checks.get(address)
    if (check === undefined || !isConfirmed(check, now)) return null
    const times = [...check.reachedAt.values()].sort((a, b) => b - a)
    return times[check.alone ? 0 : WITNESSES - 1]! + WITNESS_MS
  }

  /** @param available how many peers of different networks could have been asked */
  round(address: string, verdicts: readonly DialBackVerdict[], available: number, now: number): void {
    const check = this.#of(address, now)
    check.rounds++
    const reached = networksOf(verdicts, 'reached')
    const denied = new Set([...networksOf(verdicts, 'unreachable'), ...networksOf(verdicts, 'other')])
    const needed = Math.min(WITNESSES, Math.max(1, available))
    for (const [network, at] of check.reachedAt) if (now - at >= WITNESS_MS) check.reachedAt.delete(network)
    for (const network of reached) check.reachedAt.set(network, now)
    if (reached.size > 0) {
      check.failedRounds = 0
      // Who was enough when there was nobody else stays enough until others are heard: one that denies it changes nothing.
      if (needed === 1) check.alone = true
      else if (check.reachedAt.size >= WITNESSES) check.alone = false
    } else if (denied.size >= needed) {
      check.failedRounds++
      if (check.failedRounds >= FAILED_ROUNDS) {
        check.reachedAt.clear()
        check.alone = false
      }
    }
    const proven = reached.size > 0 && isConfirmed(check, now)
    check.fruitless = proven ? 0 : check.fruitless + 1
    check.nextAt = now + (proven ? RECHECK_MS : Math.min(RECHECK_MS, RETRY_MS * 2 ** Math.min(10, check.fruitless - 1)))
  }

  #of(address: string, now: number): Check {
    let check = this.#checks.get(address)
    if (check === undefined) {
      if (this.#checks.size >= MAX_ADDRESSES) this.#checks.delete(this.#checks.keys().next().value!)
      check = { reachedAt: new Map(), alone: false, failedRounds: 0, fruitless: 0, rounds: 0, nextAt: now }
      this.#checks.set(address, check)
    }
    return check
  }
}

function isConfirmed(check: Check, now: number): boolean {
  let witnesses = 0
  for (const at of check.reachedAt.values()) if (now - at < WITNESS_MS) witnesses++
  return witnesses >= (check.alone ? 1 : WITNESSES)
}

function networksOf(verdicts: readonly DialBackVerdict[], verdict: DialBackVerdict['verdict']): Set<string> {
  return new Set(verdicts.filter((one) => one.verdict === verdict).map((one) => one.network))
}
