import { formatIp, parseIp, ShallotError } from '../../base/index.ts'
import { askByUdp, type Place } from './exchange.ts'
import type { Gateway, Grant } from './gateway.ts'
import {
  ANSWER_BYTES_MAX,
  decodePcpMap,
  decodePmp,
  encodePcpMap,
  encodePmpExternal,
  encodePmpMap,
  type GatewayAnswer,
  refusalWords,
} from './pcp.ts'

type Mapped = GatewayAnswer & { type: 'mapped' }

/** RFC 6887 §15: a lifetime of more than a day is not believed. */
const LIFETIME_MAX_MS = 86_400_000
const LIFETIME_MIN_MS = 1_000

/** PCP (RFC 6887). */
export class PcpGateway implements Gateway {
  readonly protocol = 'pcp'
  readonly #to: Place
  readonly #local: string
  readonly #nonce: Uint8Array
  readonly #timeoutMs: number
  #asked = false

  /** @param local this machine's address towards it, @param nonce 12 random bytes */
  constructor(to: Place, local: string, nonce: Uint8Array, timeoutMs: number) {
    this.#to = to
    this.#local = local
    this.#nonce = nonce
    this.#timeoutMs = timeoutMs
  }

  async map(port: number, externalPort: number, leaseMs: number, signal: AbortSignal): Promise<Grant> {
    this.#asked = true
    const answer = await this.#ask(port, externalPort, leaseMs, signal)
    return grantOf(answer, answer.ip === null ? null : formatIp(answer.ip))
  }

  /** Asking again is how PCP looks: it renews what is there, and puts back what a restarted router has lost (RFC 6887 §8.5). */
  look(port: number, grant: Grant, leaseMs: number, signal: AbortSignal): Promise<Grant | null> {
    return this.map(port, grant.externalPort, leaseMs, signal)
  }

  async unmap(port: number, signal: AbortSignal): Promise<void> {
    if (this.#asked) await this.#ask(port, 0, 0, signal)
    this.#asked = false
  }

  async #ask(internalPort: number, externalPort: number, lifetimeMs: number, signal: AbortSignal): Promise<Mapped> {
    const request = encodePcpMap({ internalPort, externalPort, lifetimeMs }, parseIp(this.#local), this.#nonce)
    return ask(this.#to, request, (bytes) => decodePcpMap(bytes, this.#nonce), internalPort, this.#timeoutMs, signal)
  }
}

/** NAT-PMP (RFC 6886). */
export class PmpGateway implements Gateway {
  readonly protocol = 'nat-pmp'
  readonly #to: Place
  readonly #timeoutMs: number
  #asked = false

  constructor(to: Place, timeoutMs: number) {
    this.#to = to
    this.#timeoutMs = timeoutMs
  }

  async map(port: number, externalPort: number, leaseMs: number, signal: AbortSignal): Promise<Grant> {
    this.#asked = true
    const answer = await this.#ask(port, externalPort, leaseMs, signal)
    const external = await askByUdp(this.#to, encodePmpExternal(), read(decodePmp, 'external'), this.#timeoutMs, signal)
    if (external.type === 'refused') throw refused(external)
    return grantOf(answer, external.type === 'external' ? formatIp(external.ip) : null)
  }

  look(port: number, grant: Grant, leaseMs: number, signal: AbortSignal): Promise<Grant | null> {
    return this.map(port, grant.externalPort, leaseMs, signal)
  }

  async unmap(port: number, signal: AbortSignal): Promise<void> {
    // RFC 6886 §3.4: external port 0 and lifetime 0.
    if (this.#asked) await this.#ask(port, 0, 0, signal)
    this.#asked = false
  }

  async #ask(internalPort: number, externalPort: number, lifetimeMs: number, signal: AbortSignal): Promise<Mapped> {
    return ask(this.#to, encodePmpMap({ internalPort, externalPort, lifetimeMs }), decodePmp, internalPort, this.#timeoutMs, signal)
  }
}

async function ask(
  to: Place,
  request: Uint8Array,
  decode: (bytes: Uint8Array) => GatewayAnswer,
  port: number,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Mapped> {
  const answer = await askByUdp(to, request, read(decode, 'mapped', port), timeoutMs, signal)
  if (answer.type !== 'mapped') throw refused(answer)
  return answer
}

/** What answers a request of this kind; null for anything else that comes. */
function read(decode: (bytes: Uint8Array) => GatewayAnswer, type: 'mapped' | 'external', port: number | null = null) {
  return (bytes: Uint8Array): GatewayAnswer | null => {
    if (bytes.length > ANSWER_BYTES_MAX) return null
    const answer = decode(bytes)
    if (answer.type === 'refused') return answer
    if (answer.type !== type) return null
    return answer.type === 'mapped' && answer.internalPort !== port ? null : answer
  }
}

function grantOf({ externalPort, lifetimeMs }: Mapped, externalIp: string | null): Grant {
  if (externalPort === 0 || externalIp === null || lifetimeMs < LIFETIME_MIN_MS)
    throw new ShallotError('refused', 'granted a mapping without a port, an address or a time', { kind: 'host', retry: 'later' })
  return { externalIp, externalPort, lifetimeMs: Math.min(lifetimeMs, LIFETIME_MAX_MS) }
}

function refused(answer: GatewayAnswer): ShallotError {
  const why = answer.type === 'refused' ? refusalWords(answer) : 'answered something else'
  return new ShallotError('refused', why, { kind: 'host', retry: 'later' })
}
