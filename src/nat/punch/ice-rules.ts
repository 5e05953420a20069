import { type IpAddress, isIpText, parseIp } from '../../base/index.ts'
import { addressScope } from '../../directory/index.ts'
import { acceptAddresses, isSamePlace, type OwnEndpoints, type PeerPlace } from './candidates.ts'
import { encodeEndpoint } from './hole-punch.ts'

/** Remote candidates that are tried in one attempt. */
export const MAX_REMOTE_CANDIDATES = 8
/** A session description or candidate that is longer is not looked at. */
export const MAX_SDP_CHARS = 16_384

/** A line of an ICE candidate (RFC 8839 §5.1), as far as the rules ask. */
export interface IceCandidate {
  readonly ip: IpAddress
  readonly port: number
  readonly type: string
}

/** Null when it is not UDP at an IP address: names (mDNS) and TCP are never used. */
export function parseCandidate(line: string): IceCandidate | null {
  const fields = line.trim().replace(/^a=/, '').split(/\s+/)
  const [, , protocol = '', , host = '', portText = '', typ, type = ''] = fields
  const port = Number(portText)
  if (!fields[0]?.startsWith('candidate:') || protocol.toUpperCase() !== 'UDP' || typ !== 'typ') return null
  if (!isIpText(host) || !/^\d{1,5}$/.test(portText) || port < 1 || port > 65_535) return null
  return { ip: parseIp(host), port, type }
}

/** Which candidates may go out to a peer, and which of its own may be tried. The same rules as for TCP. docs/spec/punching.md §5 */
export class IceRules {
  readonly #own: () => OwnEndpoints
  readonly #peer: PeerPlace
  readonly #privateAllowed: boolean
  #remote = 0

  constructor(own: () => OwnEndpoints, peer: PeerPlace, privateAllowed: boolean) {
    this.#own = own
    this.#peer = peer
    this.#privateAllowed = privateAllowed
  }

  /** Whether a peer may learn this candidate of ours: public addresses, and those of the home network when it is in the same place. */
  mayTell(line: string): boolean {
    const candidate = parseCandidate(line)
    if (candidate === null) return false
    if (candidate.type !== 'host') return true
    const scope = addressScope(candidate.ip)
    if (scope === 'unusable') return false
    return scope === 'public' || this.#privateAllowed || isSamePlace(this.#own(), this.#peer)
  }

  /** Whether packets may be sent to this candidate of the peer's. Counts: only so many are. */
  mayTry(line: string): boolean {
    const candidate = parseCandidate(line)
    if (candidate === null || this.#remote >= MAX_REMOTE_CANDIDATES) return false
    const offered = encodeEndpoint(candidate)
    if (acceptAddresses([offered], this.#own(), this.#peer, this.#privateAllowed).endpoints.length === 0) return false
    this.#remote++
    return true
  }

  /** A session description without the candidates that `may` refuses. */
  filter(sdp: string, may: (line: string) => boolean): string {
    return sdp
      .split('\r\n')
      .filter((line) => !line.startsWith('a=candidate:') || may(line))
      .join('\r\n')
  }
}
