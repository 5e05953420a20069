import { formatIp, type IpAddress, isIpText, type Logger, messageOf, parseIp, sensitive, TokenBucket } from '../../base/index.ts'
import { type ClientService, type DatagramAssociation, StreamError } from '../../client/index.ts'
import { DNS_HEADER_BYTES, fitDatagram } from '../../dns/index.ts'
import type { Datagram, Endpoint } from '../../netstack/index.ts'
import type { IcmpErrorKind } from '../../packet/index.ts'
import type { DnsAsker } from './tun-ingress.ts'

/** Bounds of this implementation. */
export const udpFlowLimits = {
  /** Bytes and datagrams of one flow that wait for its association to be opened. */
  waitingBytes: 65_536,
  waitingDatagrams: 64,
  /** Addresses one flow may be answered from: those it sent to last. */
  remotes: 4096,
  /** Associations opened per second, and at once after a pause: each costs the exit a socket. */
  opensPerSecond: 200,
  openBurst: 400,
  /** After a failure, datagrams are refused for so long before it is tried again. */
  retryMs: 2000,
  /** Questions by UDP under way. */
  questions: 1024,
} as const

export interface UdpFlowsModules {
  readonly client: ClientService
  readonly dns: DnsAsker | null
  readonly isolation: (from: Endpoint, to: Endpoint) => string
  readonly dnsIsolation: (from: Endpoint) => string
  readonly isHop: (to: Endpoint) => boolean
  readonly maxFlows: number
  readonly idleTimeoutMs: number
  readonly logger: Logger
  readonly now: () => number
  /** Sends a datagram to the machine; false: no room. */
  readonly send: (datagram: Datagram) => boolean
  /** Tells the machine that a datagram goes no further. */
  readonly refuse: (datagram: Datagram, kind: IcmpErrorKind) => void
}

type FlowState =
  | { readonly is: 'opening'; readonly waiting: { readonly to: Endpoint; readonly data: Uint8Array }[]; readonly abort: AbortController }
  | { readonly is: 'open'; readonly association: DatagramAssociation }
  | { readonly is: 'refused'; readonly kind: IcmpErrorKind; readonly until: number }

/** One local address and port that sends, and its association at an exit. */
interface UdpFlow {
  readonly key: string
  readonly local: Endpoint
  state: FlowState
  usedAt: number
  /** Whether anything was ever answered. */
  answered: boolean
  waitingBytes: number
  /** Whom it has sent to, by address in text; those it sent to last are last. */
  readonly remotes: Map<string, IpAddress>
  lastTo: { readonly endpoint: Endpoint; readonly target: { readonly host: string; readonly port: number } } | null
}

/** What became of datagrams, by name: for people. */
export interface UdpCounts {
  opened: number
  refused: number
  /** New flows for which there was no room, and datagrams that waited too many. */
  overflow: number
  /** Answers from where nothing was sent to. */
  unasked: number
  questions: number
}

/**
 * The machine's UDP. A local address and port is one association, whatever it sends to (endpoint-independent mapping), and is answered only from
 * addresses that it sent to (address-dependent filtering: RFC 4787 §4.1, §5). Names never come in.
 */
export class UdpFlows {
  readonly counts: UdpCounts = { opened: 0, refused: 0, overflow: 0, unasked: 0, questions: 0 }
  readonly #m: UdpFlowsModules
  readonly #flows = new Map<string, UdpFlow>()
  readonly #opens: TokenBucket
  readonly #stopped = new AbortController()
  #last: UdpFlow | null = null
  #questions = 0

  constructor(modules: UdpFlowsModules) {
    this.#m = modules
    this.#opens = new TokenBucket(udpFlowLimits.opensPerSecond, udpFlowLimits.openBurst, modules.now())
  }

  get size(): number {
    return this.#flows.size
  }

  /** A datagram of the machine; its bytes are ours. */
  take(datagram: Datagram): void {
    const { from, to } = datagram
    if (this.#stopped.signal.aborted) return
    if (to.port === 53 && this.#m.dns !== null) {
      void this.#ask(this.#m.dns, datagram)
      return
    }
    if (this.#m.isHop(to)) {
      this.#m.refuse(datagram, 'port-unreachable')
      return
    }
    const flow = this.#flowOf(from, to)
    if (flow === null) this.counts.overflow++
    else this.#send(flow, datagram)
  }

  /** The machine says that nobody takes what came for this local port any more. */
  unwanted(local: Endpoint): void {
    for (const flow of this.#flows.values()) {
      if (flow.local.port === local.port && sameAddress(flow.local.address, local.address)) this.#close(flow)
    }
  }

  /** Closes what has been idle for too long. */
  sweep(now: number): void {
    for (const flow of this.#flows.values()) if (now - flow.usedAt >= this.#m.idleTimeoutMs) this.#close(flow)
  }

  stop(): void {
    this.#stopped.abort()
    for (const flow of this.#flows.values()) this.#close(flow)
  }

  #flowOf(from: Endpoint, to: Endpoint): UdpFlow | null {
    const isolation = this.#m.isolation(from, to)
    const last = this.#last
    if (last !== null && last.local.port === from.port && last.key.startsWith(isolation) && sameAddress(last.local.address, from.address))
      return last
    const key = `${isolation} ${from.port} ${formatIp(from.address)}`
    const flow = this.#flows.get(key) ?? this.#open(key, from, isolation)
    if (flow !== null) this.#last = flow
    return flow
  }

  #open(key: string, local: Endpoint, isolation: string): UdpFlow | null {
    const { client, maxFlows, now } = this.#m
    if (!this.#opens.take(1, now())) return null
    if (this.#flows.size >= maxFlows && !this.#giveWay()) return null
    const abort = new AbortController()
    const state: FlowState = { is: 'opening', waiting: [], abort }
    const flow: UdpFlow = {
      key,
      local,
      state,
      usedAt: now(),
      answered: false,
      waitingBytes: 0,
      remotes: new Map(),
      lastTo: null,
    }
    this.#flows.set(key, flow)
    client
      .openDatagrams(
        { isolation, signal: abort.signal },
        (from, bytes) => this.#receive(flow, from, bytes),
        () => this.#close(flow),
      )
      .then(
        (association) => {
          if (flow.state !== state) {
            association.close()
            return
          }
          this.counts.opened++
          flow.state = { is: 'open', association }
          for (const { to, data } of state.waiting) this.#send(flow, { from: local, to, data })
        },
        (error: unknown) => {
          if (flow.state === state) this.#failed(flow, state.waiting, error)
        },
      )
    return flow
  }

  /** As a NAT does when its table is full: the oldest of those that nobody ever answered goes. */
  #giveWay(): boolean {
    for (const flow of this.#flows.values()) {
      if (flow.answered) continue
      this.#close(flow)
      return true
    }
    return false
  }

  #failed(flow: UdpFlow, waiting: readonly { readonly to: Endpoint; readonly data: Uint8Array }[], error: unknown): void {
    const { logger, now, refuse } = this.#m
    const reason = error instanceof StreamError ? error.reason : null
    if (reason === null) logger.warn('opening an association failed unexpectedly', { error: sensitive(messageOf(error)) })
    else logger.debug('datagrams refused', { reason })
    const kind = reason === 'not-exit' || reason === 'policy' ? 'prohibited' : 'net-unreachable'
    flow.state = { is: 'refused', kind, until: now() + udpFlowLimits.retryMs }
    for (const { to, data } of waiting) {
      this.counts.refused++
      refuse({ from: flow.local, to, data }, kind)
    }
  }

  #send(flow: UdpFlow, datagram: Datagram): void {
    const { state } = flow
    const { to, data } = datagram
    const now = this.#m.now()
    switch (state.is) {
      case 'open':
        flow.usedAt = now
        state.association.send(this.#targetOf(flow, to), data)
        return
      case 'opening':
        flow.usedAt = now
        if (state.waiting.length >= udpFlowLimits.waitingDatagrams || flow.waitingBytes + data.length > udpFlowLimits.waitingBytes) {
          this.counts.overflow++
          return
        }
        flow.waitingBytes += data.length
        state.waiting.push({ to, data })
        return
      case 'refused':
        this.counts.refused++
        this.#m.refuse(datagram, state.kind)
        if (state.until <= now) this.#close(flow)
    }
  }

  #targetOf(flow: UdpFlow, to: Endpoint): { readonly host: string; readonly port: number } {
    const last = flow.lastTo
    if (last !== null && last.endpoint.port === to.port && sameAddress(last.endpoint.address, to.address)) return last.target
    const target = { host: formatIp(to.address), port: to.port }
    flow.lastTo = { endpoint: to, target }
    flow.remotes.delete(target.host)
    if (flow.remotes.size >= udpFlowLimits.remotes) flow.remotes.delete(flow.remotes.keys().next().value!)
    flow.remotes.set(target.host, to.address)
    return target
  }

  #receive(flow: UdpFlow, from: { readonly host: string; readonly port: number }, bytes: Uint8Array): void {
    const address = flow.remotes.get(from.host) ?? (isIpText(from.host) ? flow.remotes.get(formatIp(parseIp(from.host))) : undefined)
    if (address === undefined || from.port === 0) {
      this.counts.unasked++
      return
    }
    flow.answered = true
    flow.usedAt = this.#m.now()
    if (!this.#m.send({ from: { address, port: from.port }, to: flow.local, data: bytes })) this.counts.overflow++
  }

  #close(flow: UdpFlow): void {
    if (this.#flows.get(flow.key) === flow) this.#flows.delete(flow.key)
    if (this.#last === flow) this.#last = null
    const { state } = flow
    flow.state = { is: 'refused', kind: 'net-unreachable', until: 0 }
    if (state.is === 'opening') state.abort.abort(new StreamError('aborted'))
    if (state.is === 'open') state.association.close()
  }

  async #ask(dns: DnsAsker, { from, to, data }: Datagram): Promise<void> {
    // What claims to be an answer gets none, so that two servers never talk to each other.
    if (data.length < DNS_HEADER_BYTES || (data[2]! & 0x80) !== 0) return
    this.counts.questions++
    if (this.#questions >= udpFlowLimits.questions) {
      this.counts.overflow++
      return
    }
    this.#questions++
    try {
      const answer = await dns.ask(data, this.#m.dnsIsolation(from), this.#stopped.signal)
      if (this.#stopped.signal.aborted) return
      this.#m.send({ from: to, to: from, data: fitDatagram(data, answer) })
    } catch (error) {
      // Silence: who asked asks again (RFC 1035 §4.2.1), perhaps when there is a circuit.
      this.#m.logger.debug('a question was not answered', { error: sensitive(messageOf(error)) })
    } finally {
      this.#questions--
    }
  }
}

function sameAddress(a: IpAddress, b: IpAddress): boolean {
  if (a.bytes.length !== b.bytes.length) return false
  for (let i = 0; i < a.bytes.length; i++) if (a.bytes[i] !== b.bytes[i]) return false
  return true
}
