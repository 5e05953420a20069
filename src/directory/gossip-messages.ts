import { MalformedError, Reader, Writer } from '../base/index.ts'
import { DESCRIPTOR_BYTES_MAX } from './descriptor-codec.ts'

/**
 * The frames of `/shallot/gossip/1`, docs/spec/directory.md §4.
 *
 *   HELLO        01 | network id 8 | length u16 | the sender's own descriptor
 *   DESCRIPTORS  02 | count u8 (1 to 32) | per descriptor: length u16, bytes
 */
export type GossipMessage =
  | { readonly type: 'hello'; readonly networkId: Uint8Array; readonly descriptor: Uint8Array }
  | { readonly type: 'descriptors'; readonly descriptors: readonly Uint8Array[] }

export const GOSSIP_DESCRIPTORS_MAX = 32
export const GOSSIP_FRAME_MAX = 2 + GOSSIP_DESCRIPTORS_MAX * (2 + DESCRIPTOR_BYTES_MAX)

/** One frame, without the length before it. */
export function encodeGossip(message: GossipMessage): Uint8Array {
  const writer = new Writer(1_024)
  if (message.type === 'hello') {
    return writer.u8(1).bytes(message.networkId).u16(message.descriptor.length).bytes(message.descriptor).finish()
  }
  writer.u8(2).u8(message.descriptors.length)
  for (const bytes of message.descriptors) writer.u16(bytes.length).bytes(bytes)
  return writer.finish()
}

/** The descriptors are views of `bytes`. @throws MalformedError */
export function decodeGossip(bytes: Uint8Array): GossipMessage {
  const reader = new Reader('gossip', bytes)
  const type = reader.u8()
  if (type === 1) {
    const networkId = reader.bytes(8).slice()
    const descriptor = readDescriptor(reader)
    reader.end()
    return { type: 'hello', networkId, descriptor }
  }
  if (type !== 2) throw new MalformedError('gossip', `has unknown type ${type}`)
  const count = reader.u8()
  if (count < 1 || count > GOSSIP_DESCRIPTORS_MAX)
    throw new MalformedError('gossip', `has ${count} descriptors, not 1 to ${GOSSIP_DESCRIPTORS_MAX}`)
  const descriptors: Uint8Array[] = []
  for (let i = 0; i < count; i++) descriptors.push(readDescriptor(reader))
  reader.end()
  return { type: 'descriptors', descriptors }
}

function readDescriptor(reader: Reader): Uint8Array {
  const length = reader.u16()
  if (length > DESCRIPTOR_BYTES_MAX) throw new MalformedError('gossip', 'has a descriptor that is too long')
  return reader.bytes(length)
}
