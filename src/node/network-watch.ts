import { networkInterfaces } from 'node:os'
import { networkKey, parseIp } from '../base/index.ts'

/** How often this machine's addresses are looked at. */
const LOOK_INTERVAL_MS = 2_000
/** A timer this late means that the machine slept. */
const SLEEP_MS = 60_000
/** Addresses of IPv6 change within their network for privacy (RFC 8981): only the network counts. */
const IPV6_NETWORK_BITS = 64

/**
 * What tells one place in the internet from another: this machine's addresses, without loopback.
 * @param own names of devices that this program makes: they are at no place
 */
export function placeOfThisMachine(own: readonly string[] = []): string {
  const places = Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    (own.includes(name) ? [] : addresses)
      .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
      .map(({ family, address }) => (family === 'IPv4' ? address : networkKey(parseIp(address), IPV6_NETWORK_BITS))),
  )
  return [...new Set(places)].sort().join(' ')
}

/**
 * Calls `changed` when the machine is somewhere else than before, or has slept. One call at a time: what happens during one is seen after it.
 * @param place tells the present place; given in tests
 * @returns how to stop
 */
export function watchNetwork(
  changed: (why: 'addresses' | 'sleep') => Promise<void>,
  place: () => string = () => placeOfThisMachine(),
): () => void {
  let known = place()
  let lookedAt = performance.now()
  let running = false
  const timer = setInterval(() => {
    const now = performance.now()
    const slept = now - lookedAt > SLEEP_MS
    lookedAt = now
    if (running) return
    const present = place()
    // Without any address there is nowhere to appear: wait for the next place.
    if (present === known || present === '') {
      if (!slept) return
    }
    const why = present === known || present === '' ? 'sleep' : 'addresses'
    if (present !== '') known = present
    running = true
    changed(why).finally(() => {
      running = false
    })
  }, LOOK_INTERVAL_MS)
  timer.unref()
  return () => clearInterval(timer)
}
