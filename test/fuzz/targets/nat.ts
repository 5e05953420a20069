import { parseIp, utf8Bytes } from '../../../src/base/index.ts'
import {
  type DialMessage,
  decodeDialBack,
  decodeDialMessage,
  encodeDialBack,
  encodeDialMessage,
  isDialBackOk,
} from '../../../src/nat/dial-back/messages.ts'
import { decodePcpMap, decodePmp, encodePcpMap, NONCE_BYTES } from '../../../src/nat/mapping/pcp.ts'
import { parseXml } from '../../../src/nat/mapping/xml.ts'
import type { FuzzTarget } from '../fuzzer.ts'

const nonce = new Uint8Array(NONCE_BYTES)
const messages: readonly DialMessage[] = [
  { type: 'request', addresses: [Uint8Array.of(4, 11, 2, 3, 4, 6, 0x11, 0x6c)], nonce: 1n },
  { type: 'response', status: 200, index: 0, dialStatus: 101 },
  { type: 'data-request', index: 0, bytes: 30_000 },
  { type: 'data', data: new Uint8Array(40) },
]

function pcpAnswer(): Uint8Array {
  const answer = encodePcpMap({ internalPort: 4460, externalPort: 4460, lifetimeMs: 3_600_000 }, parseIp('192.168.1.5'), nonce)
  answer[1] = 0x81
  return answer
}

/** What comes from peers that dial back, and from routers. */
export const natTargets: readonly FuzzTarget[] = [
  { name: 'nat/dial-message', decode: decodeDialMessage, seeds: () => messages.map(encodeDialMessage) },
  { name: 'nat/dial-back', decode: (bytes) => [decodeDialBack(bytes), isDialBackOk(bytes)], seeds: () => [encodeDialBack(1n)] },
  { name: 'nat/pcp', decode: (bytes) => decodePcpMap(bytes, nonce), seeds: () => [pcpAnswer()] },
  {
    name: 'nat/nat-pmp',
    decode: decodePmp,
    seeds: () => [
      Uint8Array.of(0, 128, 0, 0, 0, 0, 0, 1, 11, 2, 3, 4),
      Uint8Array.of(0, 130, 0, 0, 0, 0, 0, 1, 17, 108, 17, 108, 0, 0, 14, 16),
    ],
  },
  {
    name: 'nat/upnp-xml',
    decode: (bytes) => parseXml(Buffer.from(bytes).toString('utf8')),
    seeds: () => [
      utf8Bytes(
        '<?xml version="1.0"?><s:Envelope xmlns:s="x"><s:Body><!-- c --><a b="c">1 &amp; &#50;</a><![CDATA[<]]><e/></s:Body></s:Envelope>',
      ),
    ],
  },
]
