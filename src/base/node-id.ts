import { base58btc } from 'multiformats/bases/base58'
import { assert, MalformedError } from './errors.ts'

/** The name of a node: its libp2p PeerId as text (`12D3KooW…`), which holds its whole Ed25519 public key. */
export type NodeId = string & { readonly __nodeId: true }

/** identity multihash (0x00, 36 bytes) of the protobuf public key: type Ed25519, 32 bytes. libp2p peer-ids specification. */
const prefix = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20)
export const NODE_KEY_BYTES = 32

/** @param key Ed25519 public key, 32 bytes */
export function nodeIdFromKey(key: Uint8Array): NodeId {
  assert(key.length === NODE_KEY_BYTES, 'a node key has 32 bytes')
  const multihash = new Uint8Array(prefix.length + key.length)
  multihash.set(prefix)
  multihash.set(key, prefix.length)
  return base58btc.baseEncode(multihash) as NodeId
}

/** The Ed25519 public key, 32 bytes. */
export function nodeKey(id: NodeId): Uint8Array {
  return base58btc.baseDecode(id).slice(prefix.length)
}

/** @throws MalformedError when the text is not the PeerId of an Ed25519 key */
export function parseNodeId(value: string): NodeId {
  let bytes: Uint8Array
  try {
    bytes = base58btc.baseDecode(value)
  } catch {
    throw new MalformedError('node id', 'not base58')
  }
  if (bytes.length !== prefix.length + NODE_KEY_BYTES || !prefix.every((byte, i) => bytes[i] === byte)) {
    throw new MalformedError('node id', 'not the PeerId of an Ed25519 key (12D3KooW…)')
  }
  return value as NodeId
}
