import { concatBytes, equalBytes, type NodeId, nodeKey, utf8Bytes } from '../../base/index.ts'
import type { CryptoSuite } from '../../crypto/index.ts'
import { peerIdBytes } from './messages.ts'
import { bytesField, bytesIn, decodeFields, numberField, numberIn, varint } from './protobuf.ts'

/** What a voucher says: the relay has a place for the peer until then (wall clock, seconds). */
export interface Voucher {
  readonly relay: NodeId
  readonly peer: NodeId
  readonly expiresAt: number
}

const DOMAIN = utf8Bytes('libp2p-relay-rsvp')
/** multicodec libp2p-relay-rsvp */
const PAYLOAD_TYPE = Uint8Array.of(0x03, 0x02)
/** libp2p's protobuf of an Ed25519 public key, but the key. */
const KEY_HEAD = Uint8Array.of(0x08, 0x01, 0x12, 0x20)

/**
 * A reservation voucher: a libp2p signed envelope (RFC 0002) that proves a reservation to third parties. relay/circuit-v2.md "Reservation Vouchers".
 * @param seed the relay's Ed25519 seed
 */
export function sealVoucher(suite: CryptoSuite, seed: Uint8Array, voucher: Voucher): Uint8Array {
  const payload = encodePayload(voucher)
  return concatBytes(
    bytesField(1, concatBytes(KEY_HEAD, nodeKey(voucher.relay))),
    bytesField(2, PAYLOAD_TYPE),
    bytesField(3, payload),
    bytesField(5, suite.ed25519.sign(seed, signedBytes(payload))),
  )
}

/** Whether the envelope is the relay's voucher for just that. @throws MalformedError when it is no envelope at all */
export function isVoucherFor(suite: CryptoSuite, envelope: Uint8Array, voucher: Voucher): boolean {
  const what = 'reservation voucher'
  const fields = new Map(decodeFields(what, envelope).map((field) => [field.number, field]))
  const bytes = (number: number): Uint8Array => {
    const field = fields.get(number)
    return field === undefined ? new Uint8Array() : bytesIn(what, field)
  }
  const payload = new Map(decodeFields(what, bytes(3)).map((field) => [field.number, field]))
  const [relay, peer, expiresAt] = [payload.get(1), payload.get(2), payload.get(3)]
  if (!relay || !peer || !expiresAt) return false
  return (
    equalBytes(bytes(1), concatBytes(KEY_HEAD, nodeKey(voucher.relay))) &&
    equalBytes(bytes(2), PAYLOAD_TYPE) &&
    equalBytes(bytesIn(what, relay), peerIdBytes(voucher.relay)) &&
    equalBytes(bytesIn(what, peer), peerIdBytes(voucher.peer)) &&
    numberIn(what, expiresAt) === BigInt(voucher.expiresAt) &&
    bytes(5).length === 64 &&
    suite.ed25519.verify(nodeKey(voucher.relay), signedBytes(bytes(3)), bytes(5))
  )
}

/** message ReservationVoucher { relay = 1; peer = 2; expiration = 3 } */
function encodePayload({ relay, peer, expiresAt }: Voucher): Uint8Array {
  return concatBytes(bytesField(1, peerIdBytes(relay)), bytesField(2, peerIdBytes(peer)), numberField(3, expiresAt))
}

function signedBytes(payload: Uint8Array): Uint8Array {
  return concatBytes(varint(DOMAIN.length), DOMAIN, varint(PAYLOAD_TYPE.length), PAYLOAD_TYPE, varint(payload.length), payload)
}
