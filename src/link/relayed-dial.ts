import type { Connection, Libp2p } from '@libp2p/interface'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { messageOf, type NodeId } from '../base/index.ts'
import { relayOf } from './multiaddrs.ts'
import { connectFailed } from './tls-sockets.ts'

/** Relays of a peer that are tried; it names no more. */
const MAX_RELAYS = 4
/** How long a relay may take to join the two, once it is connected: a dead peer behind a live relay must not use up the time of all. */
const JOIN_TIMEOUT_MS = 4000

/**
 * A connection to the peer through one of its relays: the first that answers is used, the next is asked when one fails or is slow.
 * @param relayed multiaddrs `/…/p2p/RELAY/p2p-circuit/p2p/PEER`
 * @throws ShallotError 'connect-failed'; an error of libp2p's
 */
export async function dialRelayed(
  libp2p: Libp2p,
  id: NodeId,
  relayed: readonly Multiaddr[],
  staggerMs: number,
  signal: AbortSignal,
): Promise<Connection> {
  const over = new AbortController()
  const both = AbortSignal.any([signal, over.signal])
  const candidates = relayed.slice(0, MAX_RELAYS)
  /** libp2p makes one of two dials to the same peer, so that the second relay would wait for the first: one at a time is asked to join us. */
  let joining: Promise<unknown> = Promise.resolve()
  const attempt = async (target: Multiaddr): Promise<Connection> => {
    await connectRelay(libp2p, target, both)
    const before = joining
    const joined = before.then(async () => {
      both.throwIfAborted()
      return await libp2p.dial(target, { signal: AbortSignal.any([both, AbortSignal.timeout(JOIN_TIMEOUT_MS)]) })
    })
    joining = joined.catch(() => {})
    return await joined
  }
  try {
    return await firstOf(candidates, attempt, staggerMs, both)
  } catch (error) {
    throw connectFailed(`no relay of ${id.slice(-6)} joined us with it: ${messageOf(error)}`, error)
  } finally {
    over.abort()
  }
}

/** The address of a relay is what comes before `/p2p-circuit`. A connection to it that is up is used. */
async function connectRelay(libp2p: Libp2p, target: Multiaddr, signal: AbortSignal): Promise<void> {
  const text = target.toString()
  const relay = text.slice(0, text.indexOf('/p2p-circuit'))
  if (relayOf(text) !== null) await libp2p.dial(multiaddr(relay), { signal })
}

/** The first attempt to succeed; the next one begins when one has failed, or after a wait beside it (as RFC 8305 §5 does). */
function firstOf<T, R>(items: readonly T[], attempt: (item: T) => Promise<R>, staggerMs: number, signal: AbortSignal): Promise<R> {
  return new Promise((resolve, reject) => {
    let next = 0
    let running = 0
    let timer: NodeJS.Timeout | undefined
    let last: unknown = null
    const begin = (): void => {
      clearTimeout(timer)
      const item = items[next++]
      if (item === undefined || signal.aborted) return
      if (next < items.length) timer = setTimeout(begin, staggerMs)
      running++
      attempt(item).then(
        (result) => {
          clearTimeout(timer)
          resolve(result)
        },
        (error) => {
          running--
          last = error
          if (next < items.length && !signal.aborted) {
            begin()
          } else if (running === 0) {
            clearTimeout(timer)
            reject(last)
          }
        },
      )
    }
    begin()
  })
}
