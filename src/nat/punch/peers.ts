import type { Descriptor } from '../../directory/index.ts'
import { directEndpoint } from './own-endpoints.ts'
import type { PunchPeer } from './puncher.ts'

/** What a descriptor says of where its node can be met. */
export function punchPeerOf(descriptor: Descriptor): PunchPeer {
  const { addresses, reach } = descriptor
  return { place: { endpoints: addresses.flatMap(directEndpoint) }, directAddresses: reach.kind === 'direct' ? addresses : [] }
}
