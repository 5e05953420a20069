import { formatIp, type Logger, type Random } from '../base/index.ts'
import type { NatBehaviour } from './behaviour.ts'
import { probeNat, type StunProbeTiming, type StunServerAddress } from './stun/index.ts'

/** How long is asked at most. */
const TIMEOUT_MS = 3_000

export interface MovedOptions {
  readonly servers: readonly StunServerAddress[]
  readonly timing: StunProbeTiming
  readonly random: Random
  readonly logger: Logger
  /** Monotonic ms. */
  readonly now: () => number
  readonly signal: AbortSignal
}

/**
 * Asks no more than where this node is seen, which takes one round trip: a descriptor with a new public address should not wait for all of a NAT's
 * behaviour, which takes seconds. Returns those behaviours that have another address now, with it; their kind is that of before until it is looked at.
 */
export async function movedBehaviours(known: readonly NatBehaviour[], options: MovedOptions): Promise<NatBehaviour[]> {
  const { logger, now } = options
  const since = now()
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(TIMEOUT_MS)])
  const { ipv4, ipv6, servers } = await probeNat({ ...options, depth: 'address', signal })
  logger.debug('asked for the public address', { ms: Math.round(now() - since), verdicts: servers.map(({ verdict }) => verdict) })
  return known.flatMap((before) => {
    const seen = (before.family === 4 ? ipv4 : ipv6)?.behaviour.publicEndpoint ?? null
    if (seen === null || before.publicEndpoint === null || formatIp(seen.ip) === formatIp(before.publicEndpoint.ip)) return []
    return [{ ...before, publicEndpoint: seen }]
  })
}
