import type { IpAddress } from '../base/index.ts'
import type { EndReason } from '../onion/index.ts'
import { ExitRefusal, endReasonOf } from '../relaying/index.ts'
import type { ExitSocket } from './backend.ts'

export interface DialOptions {
  /** After how long the next address is tried beside the ones under way. */
  readonly attemptDelayMs: number
  readonly attemptTimeoutMs: number
}

/** The order in which addresses are tried: families in turn, IPv6 first (RFC 8305 §4), each in the order of the answer. */
export function dialOrder(addresses: readonly IpAddress[], most: number): readonly IpAddress[] {
  const v6 = addresses.filter((address) => address.family === 6)
  const v4 = addresses.filter((address) => address.family === 4)
  const order: IpAddress[] = []
  for (let i = 0; i < Math.max(v6.length, v4.length); i++) {
    if (v6[i]) order.push(v6[i]!)
    if (v4[i]) order.push(v4[i]!)
  }
  return order.slice(0, most)
}

/**
 * Connects to the first address that answers (RFC 8305 §5): the next one starts when an attempt fails, or after a delay beside it; the others are given up.
 * @throws ExitRefusal: what says most of all that went wrong; the signal's reason when that aborts first
 */
export function dialFirst(
  addresses: readonly IpAddress[],
  attempt: (address: IpAddress, signal: AbortSignal) => Promise<ExitSocket>,
  options: DialOptions,
  signal: AbortSignal,
): Promise<{ readonly socket: ExitSocket; readonly address: IpAddress }> {
  return new Promise((resolve, reject) => {
    const under = new Set<AbortController>()
    const failures: ExitRefusal[] = []
    let next = 0
    let over = false
    let beside: NodeJS.Timeout | undefined

    const finish = (): void => {
      over = true
      clearTimeout(beside)
      signal.removeEventListener('abort', aborted)
      for (const one of under) one.abort(new ExitRefusal('timeout', 'another address was faster'))
    }
    const aborted = (): void => {
      finish()
      reject(signal.reason)
    }
    const start = (): void => {
      clearTimeout(beside)
      const address = addresses[next]
      if (over || !address) return
      next++
      if (next < addresses.length) beside = setTimeout(start, options.attemptDelayMs)
      const own = new AbortController()
      under.add(own)
      const slow = setTimeout(() => own.abort(new ExitRefusal('timeout', 'the server did not answer in time')), options.attemptTimeoutMs)
      attempt(address, own.signal).then(
        (socket) => {
          clearTimeout(slow)
          under.delete(own)
          if (over) {
            socket.resetAndDestroy()
            return
          }
          finish()
          resolve({ socket, address })
        },
        (error: unknown) => {
          clearTimeout(slow)
          under.delete(own)
          if (over) return
          failures.push(error instanceof ExitRefusal ? error : new ExitRefusal(endReasonOf(error), 'connecting failed', error))
          if (next < addresses.length) start()
          else if (under.size === 0) {
            finish()
            reject(mostTelling(failures))
          }
        },
      )
    }

    if (signal.aborted) aborted()
    else if (addresses.length === 0) reject(mostTelling([]))
    else {
      signal.addEventListener('abort', aborted, { once: true })
      start()
    }
  })
}

/** A server that said no tells more than one that said nothing, and that more than a missing route. */
const telling: readonly EndReason[] = ['resource-limit', 'refused', 'reset', 'timeout', 'unreachable']

function mostTelling(failures: readonly ExitRefusal[]): ExitRefusal {
  for (const reason of telling) {
    const found = failures.find((failure) => failure.reason === reason)
    if (found) return found
  }
  return failures[0] ?? new ExitRefusal('resolve-failed', 'there is no address to connect to')
}
