import { type IpAddress, parseIp, SeededRandom } from '../../src/base/index.ts'
import type { Endpoint } from '../../src/nat/behaviour.ts'
import {
  defaultStunProbeTiming,
  defaultStunServerConfig,
  parseEndpoint,
  type StunServerAddress,
  sameEndpoint,
} from '../../src/nat/stun/index.ts'
import { Probe, type ProbeDepth, type ProbeResult } from '../../src/nat/stun/probe.ts'
import { StunResponder, type StunSite } from '../../src/nat/stun/responder.ts'
import type { NatModel } from './nat-model.ts'

/** What some server on the net does with a datagram that came to one of its endpoints. */
export interface NetServer {
  readonly endpoints: readonly Endpoint[]
  answer(
    bytes: Uint8Array,
    from: Endpoint,
    at: Endpoint,
    now: number,
  ): readonly { readonly from: Endpoint; readonly to: Endpoint; readonly bytes: Uint8Array }[]
}

/** A real responder at one or two addresses, "ADDRESS:PORT" each, same port; the second port is the next one. */
export function honestServer(...texts: readonly string[]): NetServer {
  const [first, second] = texts.map(parseEndpoint)
  const site: StunSite = {
    addresses: second === undefined ? [first!.ip] : [first!.ip, second.ip],
    ports: [first!.port, first!.port + 1],
  }
  const responder = new StunResponder(defaultStunServerConfig, 0)
  const ips = site.addresses as readonly IpAddress[]
  const places = ips.flatMap((ip, address) =>
    site.ports.map((port, i) => ({ endpoint: { ip, port }, place: { address: address as 0 | 1, port: i as 0 | 1 } })),
  )
  return {
    endpoints: places.map(({ endpoint }) => endpoint),
    answer: (bytes, from, at, now) => {
      const answer = responder.handle(bytes, from, site, places.find(({ endpoint }) => sameEndpoint(endpoint, at))!.place, now)
      if (answer === null) return []
      return [{ from: { ip: ips[answer.from.address]!, port: site.ports[answer.from.port] }, to: answer.to, bytes: answer.bytes }]
    },
  }
}

export interface RunOptions {
  readonly servers: readonly NetServer[]
  /** Which are asked; default all, at their first endpoint. */
  readonly ask?: readonly StunServerAddress[]
  readonly nat: NatModel
  readonly inner?: IpAddress
  readonly depth?: ProbeDepth
  readonly maxLifetimeMs?: number
  readonly seed?: number
  /** The part of datagrams that is lost, each way. */
  readonly loss?: number
  /** Datagrams put into the first socket beside the others, as each one leaves it. */
  readonly inject?: (sent: Uint8Array, to: Endpoint) => readonly { readonly from: Endpoint; readonly bytes: Uint8Array }[]
}

export interface RunResult extends ProbeResult {
  /** Virtual time it took, and what left the machine. */
  readonly tookMs: number
  readonly sent: readonly { readonly to: Endpoint; readonly bytes: Uint8Array }[]
  /** How many datagrams came back to the machine, in bytes. */
  readonly receivedBytes: number
}

const ONE_WAY_MS = 20
const LOCAL_PORTS = [50_000, 50_001] as const
const MAX_EVENTS = 20_000

/** Runs a probe behind a NAT against servers, in virtual time. */
export function runProbe(options: RunOptions): RunResult {
  const { nat, servers, seed = 1, loss = 0 } = options
  const random = new SeededRandom(seed)
  const ask = options.ask ?? servers.map(({ endpoints }) => ({ ...endpoints[0]!, alternatePort: endpoints[0]!.port + 1 }))
  const inner = options.inner ?? parseIp('192.168.1.7')
  const sent: { to: Endpoint; bytes: Uint8Array }[] = []
  let receivedBytes = 0
  let now = 0
  const queue: { at: number; run: () => void }[] = []
  const later = (delay: number, run: () => void): void => {
    if (random.unit() >= loss) queue.push({ at: now + delay, run })
  }
  const probe = new Probe(
    {
      family: inner.family,
      servers: ask,
      local: { ip: inner, port: LOCAL_PORTS[0] },
      localAddresses: [inner],
      depth: options.depth ?? 'behaviour',
      timing: { ...defaultStunProbeTiming, maxLifetimeMs: options.maxLifetimeMs ?? defaultStunProbeTiming.maxLifetimeMs },
      random,
    },
    now,
  )
  const comeIn = (from: Endpoint, outer: Endpoint, bytes: Uint8Array): void => {
    const reached = nat.inbound(from, outer, now)
    if (reached === null) return
    receivedBytes += bytes.length
    probe.handleDatagram(reached.port === LOCAL_PORTS[0] ? 0 : 1, bytes, from, now)
  }
  const goOut = (source: Endpoint, to: Endpoint, bytes: Uint8Array): void => {
    const outer = nat.outbound(source, to, now)
    if (nat.isPublic(to)) {
      if (nat.hairpin) later(1, () => comeIn(outer, to, bytes))
      return
    }
    const server = servers.find(({ endpoints }) => endpoints.some((endpoint) => sameEndpoint(endpoint, to)))
    later(ONE_WAY_MS, () => {
      for (const answer of server?.answer(bytes, outer, to, now) ?? [])
        later(ONE_WAY_MS, () => comeIn(answer.from, answer.to, answer.bytes))
    })
  }
  for (let events = 0; probe.result === null; events++) {
    if (events > MAX_EVENTS) throw new Error('the probe does not end')
    for (const { socket, to, bytes } of probe.takeOutput()) {
      sent.push({ to, bytes })
      goOut({ ip: inner, port: LOCAL_PORTS[socket] }, to, bytes)
      for (const { from, bytes: forged } of options.inject?.(bytes, to) ?? []) probe.handleDatagram(0, forged, from, now)
    }
    if (probe.result !== null) break
    queue.sort((a, b) => a.at - b.at)
    const next = queue[0]
    if (next !== undefined && next.at <= probe.deadline) {
      queue.shift()
      now = Math.max(now, next.at)
      next.run()
    } else {
      now = Math.max(now, probe.deadline)
      probe.handleTime(now)
    }
  }
  return { ...probe.result, tookMs: now, sent, receivedBytes }
}
