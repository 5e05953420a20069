import type { IpAddress } from '../../base/index.ts'
import type { Endpoint } from '../behaviour.ts'
import { Allowance } from './allowance.ts'
import type { StunServerLimits } from './config.ts'
import { scopeOf } from './endpoint.ts'
import {
  addressAttributes,
  addressOf,
  attributeBytes,
  attributeOf,
  BINDING,
  decodeStun,
  encodeStun,
  STUN_HEADER_BYTES,
  type StunAttribute,
  type StunMessage,
} from './message.ts'

/** The sockets of one address family: one or two addresses, each with the same two ports. */
export interface StunSite {
  /** As others see them; null where that is not known. */
  readonly addresses: readonly [IpAddress | null, IpAddress?]
  readonly ports: readonly [number, number]
}

/** One of the sockets of a site. */
export interface StunSocketPlace {
  readonly address: 0 | 1
  readonly port: 0 | 1
}

/** An answer, and from which socket of the site it goes where. */
export interface StunAnswer {
  readonly from: StunSocketPlace
  readonly to: Endpoint
  readonly bytes: Uint8Array
}

/** What a server did since it started. Bytes without the headers of UDP and IP. */
export interface StunServerStats {
  readonly requests: number
  readonly answers: number
  /** Of the answers, those that say 400 or 420. */
  readonly refusals: number
  readonly bytesReceived: number
  readonly bytesSent: number
  /** Datagrams that were not answered: no STUN request, too many, or longer to answer than the asker may be sent. */
  readonly droppedMalformed: number
  readonly droppedOverRate: number
  readonly droppedOverBytes: number
  /** Classic requests for an answer from a second address that is not there. */
  readonly droppedUnable: number
  readonly sources: number
}

const CHANGE_REQUEST = 0x0003
const RESPONSE_PORT = 0x0027
const reasons = { 400: 'Bad Request', 420: 'Unknown Attribute' } as const

/**
 * What a STUN server answers: RFC 5780 §6, and RFC 3489 §8 for requests without the magic cookie. Pure: the time is an argument.
 * docs/spec/stun.md §3 lists what it does otherwise, and why.
 */
export class StunResponder {
  readonly #limits: StunServerLimits
  readonly #otherPortAnswers: boolean
  readonly #allowance: Allowance
  readonly #counts = {
    requests: 0,
    answers: 0,
    refusals: 0,
    bytesReceived: 0,
    bytesSent: 0,
    droppedMalformed: 0,
    droppedOverRate: 0,
    droppedOverBytes: 0,
    droppedUnable: 0,
  }

  constructor(options: { readonly limits: StunServerLimits; readonly otherPortAnswers: boolean }, now: number) {
    this.#limits = options.limits
    this.#otherPortAnswers = options.otherPortAnswers
    this.#allowance = new Allowance(options.limits, now)
  }

  stats(): StunServerStats {
    return { ...this.#counts, sources: this.#allowance.sources }
  }

  /** The answer to a datagram that came from `from` to a socket of the site, or null. */
  handle(bytes: Uint8Array, from: Endpoint, site: StunSite, at: StunSocketPlace, now: number): StunAnswer | null {
    this.#counts.bytesReceived += bytes.length
    const request = this.#read(bytes, from)
    if (request === null) {
      this.#counts.droppedMalformed++
      return null
    }
    this.#counts.requests++
    if (!this.#allowance.admits(from.ip, now)) {
      this.#counts.droppedOverRate++
      return null
    }
    this.#allowance.earn(from.ip, bytes.length, now)
    const reply = this.#reply(request, bytes.length, from, site, at)
    if (reply === null) {
      this.#counts.droppedUnable++
      return null
    }
    const kind = reply.refused ? 'error' : 'success'
    const answer = encodeStun({ class: kind, method: BINDING, transactionId: request.transactionId }, reply.attributes)
    if (!this.#allowance.spend(from.ip, answer.length, now)) {
      this.#counts.droppedOverBytes++
      return null
    }
    this.#counts.answers++
    if (reply.refused) this.#counts.refusals++
    this.#counts.bytesSent += answer.length
    return { from: reply.from, to: { ip: from.ip, port: reply.toPort ?? from.port }, bytes: answer }
  }

  #read(bytes: Uint8Array, from: Endpoint): StunMessage | null {
    const scope = scopeOf(from.ip)
    if (bytes.length > this.#limits.maxRequestBytes || from.port === 0 || scope === 'none' || scope === 'multicast') return null
    try {
      const message = decodeStun(bytes)
      return message.class === 'request' && message.method === BINDING ? message : null
    } catch {
      return null
    }
  }

  #reply(request: StunMessage, room: number, from: Endpoint, site: StunSite, at: StunSocketPlace): Reply | null {
    // RFC 3489's RESPONSE-ADDRESS would send the answer to anyone: as if it were unknown (RFC 8489 §14.9).
    const unknown =
      addressOf(request, 'response-address') === null ? request.unknown : [addressAttributes['response-address'], ...request.unknown]
    const other = attributeOf(request, 'response-port')
    const refuse = (code: 400 | 420, types: readonly number[] = []): Reply => refusal(code, types, request, room, at)
    if (unknown.length > 0) return refuse(420, unknown)
    if (other !== null && !this.#otherPortAnswers) return refuse(420, [RESPONSE_PORT])
    // RFC 5780 §6.1.
    if (other !== null && (attributeOf(request, 'padding') !== null || other.port === 0)) return refuse(400)
    const change = attributeOf(request, 'change-request')
    if (change?.ip === true && site.addresses[1] === undefined) {
      // Debian's `stun` takes any answer, an error too, for one from the other address: silence is the truth.
      return request.classic ? null : refuse(420, [CHANGE_REQUEST])
    }
    const place: StunSocketPlace = {
      address: change?.ip === true ? other01(at.address) : at.address,
      port: change?.port === true ? other01(at.port) : at.port,
    }
    const isMoved = place.address !== at.address || place.port !== at.port || other !== null
    const attributes = successAttributes(request, room, from, site, at, place, isMoved)
    return { refused: false, attributes, from: place, toPort: other?.port ?? null }
  }
}

interface Reply {
  readonly refused: boolean
  readonly attributes: readonly StunAttribute[]
  readonly from: StunSocketPlace
  readonly toPort: number | null
}

/** All that RFC 5780 §6.1 and RFC 3489 §8.1 want when it fits into the length of the request, else the least that the asker can use. */
function successAttributes(
  request: StunMessage,
  room: number,
  from: Endpoint,
  site: StunSite,
  at: StunSocketPlace,
  place: StunSocketPlace,
  isMoved: boolean,
): StunAttribute[] {
  const mapped: StunAttribute = { type: 'mapped-address', endpoint: from }
  const xorMapped: StunAttribute = { type: 'xor-mapped-address', endpoint: from }
  const origin = addressAt(site, place)
  const other = otherAddress(request, site, at)
  const last: StunAttribute[] = attributeOf(request, 'fingerprint') === null ? [] : [{ type: 'fingerprint' }]
  const first = request.classic ? [mapped] : [xorMapped]
  const origins: StunAttribute[] =
    origin === null ? [] : [{ type: request.classic ? 'source-address' : 'response-origin', endpoint: origin }]
  const others: StunAttribute[] = other === null ? [] : [{ type: request.classic ? 'changed-address' : 'other-address', endpoint: other }]
  const whole = [...first, ...(request.classic ? [] : [mapped]), ...origins, ...others]
  const left = room - STUN_HEADER_BYTES - sizeOf([...whole, ...last])
  if (left < 0) return [...first, ...(isMoved ? [] : others), ...last]
  // RFC 5780 §6.1 wants as much padding as a packet holds: here as much as came.
  const padding = attributeOf(request, 'padding')
  const length = padding === null ? -1 : Math.min(padding.length, left - 4)
  return length < 0 ? [...whole, ...last] : [...whole, { type: 'padding', length }, ...last]
}

/** Without a reason when it would make the answer longer than the request. */
function refusal(code: 400 | 420, types: readonly number[], request: StunMessage, room: number, at: StunSocketPlace): Reply {
  const named = types.slice(0, 8)
  const last: StunAttribute[] = attributeOf(request, 'fingerprint') === null ? [] : [{ type: 'fingerprint' }]
  const list: StunAttribute[] = named.length === 0 ? [] : [{ type: 'unknown-attributes', types: named }]
  const withReason = [{ type: 'error-code' as const, code, reason: reasons[code] }, ...list, ...last]
  const fits = STUN_HEADER_BYTES + sizeOf(withReason) <= room
  const attributes = fits ? withReason : [{ type: 'error-code' as const, code, reason: '' }, ...list, ...last]
  return { refused: true, attributes, from: at, toPort: null }
}

/**
 * The other address with the other port, RFC 5780 §6.1, table 1; only a server with two addresses has one. RFC 3489 §8.1 always wants one: with a single
 * address that is its other port.
 */
function otherAddress(request: StunMessage, site: StunSite, at: StunSocketPlace): Endpoint | null {
  const hasTwo = site.addresses[1] !== undefined
  if (!hasTwo && !request.classic) return null
  return addressAt(site, { address: hasTwo ? other01(at.address) : at.address, port: other01(at.port) })
}

function addressAt(site: StunSite, place: StunSocketPlace): Endpoint | null {
  const ip = site.addresses[place.address] ?? null
  return ip === null ? null : { ip, port: site.ports[place.port] }
}

function sizeOf(attributes: readonly StunAttribute[]): number {
  return attributes.reduce((sum, attribute) => sum + attributeBytes(attribute), 0)
}

function other01(index: 0 | 1): 0 | 1 {
  return index === 0 ? 1 : 0
}
