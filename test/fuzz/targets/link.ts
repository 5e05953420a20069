import { makeCertificate } from '../../../src/link/certificate.ts'
import { encodeFrame, encodeMove, FrameType, frameInPlace } from '../../../src/link/frames.ts'
import { decodeCertificate, FrameDecoder, type FrameSink, parseTcpAddress, verifyCertificate } from '../../../src/link/index.ts'
import { BATCH_HEADROOM, newBatch } from '../../../src/onion/index.ts'
import type { FuzzTarget } from '../fuzzer.ts'

const NOW = Date.UTC(2026, 10, 20)
const nothing = (): void => {}
const sink: FrameSink = {
  cellsFrame: nothing,
  cellBytes: nothing,
  cellsDone: nothing,
  window: nothing,
  fin: nothing,
  reset: nothing,
  ping: nothing,
  pong: nothing,
  goAwayFrame: nothing,
  move: nothing,
  moved: nothing,
}
const certificate = makeCertificate(new Uint8Array(32).fill(5), NOW).certificate

function frames(): Uint8Array {
  return Buffer.concat([
    encodeFrame(FrameType.ping, 0, 1),
    frameInPlace(newBatch(2).bytes, BATCH_HEADROOM, 2, 1),
    encodeFrame(FrameType.window, 128, 1),
    encodeMove(3, new Uint8Array(16).fill(9)),
    encodeFrame(FrameType.moved, 0, 2),
    encodeFrame(FrameType.fin, 0, 1),
    encodeFrame(FrameType.goAway, 0, 0),
  ])
}

export const linkTargets: readonly FuzzTarget[] = [
  {
    name: 'link frames',
    decode: (bytes) => {
      const decoder = new FrameDecoder(sink)
      // Two chunks, cut where the bytes say.
      const cut = bytes.length === 0 ? 0 : bytes[0]! % (bytes.length + 1)
      decoder.push(bytes.subarray(0, cut))
      decoder.push(bytes.subarray(cut))
    },
    seeds: () => [frames(), encodeFrame(FrameType.reset, 1, 3)],
  },
  { name: 'link certificate', decode: (bytes) => decodeCertificate(bytes), seeds: () => [Uint8Array.from(certificate)] },
  {
    name: 'link certificate proof',
    decode: (bytes) => verifyCertificate(bytes, NOW),
    seeds: () => [Uint8Array.from(certificate)],
    share: 0.02,
  },
  {
    name: 'multiaddr of a link',
    decode: (bytes) => parseTcpAddress(Buffer.from(bytes).toString('latin1')),
    seeds: () =>
      [
        '/ip4/127.5.0.1/tcp/4001',
        '/ip6/::1/tcp/1/tls',
        '/ip4/1.2.3.4/tcp/65535/tls/p2p/12D3KooWJRSrypvnpHgc6ZAgyCni4KcSmbV7uGRaMw5LgMKT18fq',
      ].map((text) => Uint8Array.from(Buffer.from(text, 'latin1'))),
  },
]
