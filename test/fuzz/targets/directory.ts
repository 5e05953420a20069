import { nodeIdFromKey } from '../../../src/base/index.ts'
import { nativeSuite } from '../../../src/crypto/index.ts'
import {
  decodeDescriptor,
  decodeGossip,
  decodeSyncAnswer,
  decodeSyncRequest,
  encodeGossip,
  encodeSnapshot,
  encodeSyncAnswer,
  encodeSyncRequest,
  openDescriptor,
  parseBootstrapAddress,
  parseRelayAddress,
  parseRules,
  restoreSnapshot,
  type SignedDescriptor,
  type SyncAnswer,
  type SyncRequest,
  signDescriptor,
  solveWork,
  testnetRules,
  View,
  ViewServer,
  workPeriod,
} from '../../../src/directory/index.ts'
import { decodePublisherState, encodePublisherState } from '../../../src/discovery/index.ts'
import type { FuzzTarget } from '../fuzzer.ts'

const suite = nativeSuite()
const rules = parseRules({ ...testnetRules, work: { bits: 1 } })
const NOW = 1_700_000_000_000
const peer = nodeIdFromKey(new Uint8Array(32).fill(9))
const text = new TextEncoder()

/** A view with a few relays, and what it would say to others. */
const view = new View({ suite, rules })
const descriptors: SignedDescriptor[] = [1, 2, 3].map((n) => descriptor(n))
for (const { bytes } of descriptors) view.add(bytes, NOW)
const server = new ViewServer(view, NOW)

const requests: SyncRequest[] = [
  { type: 'summary', networkId: view.networkId },
  { type: 'list', buckets: [0, 7, 255] },
  { type: 'fetch', digests: descriptors.map(({ digest }) => Buffer.from(digest.subarray(0, 16)).toString('hex')) },
  { type: 'ages', from: 0 },
]
const refused: SyncAnswer = { type: 'refused', reason: 'busy' }

export const directoryTargets: readonly FuzzTarget[] = [
  { name: 'directory/descriptor', decode: (bytes) => decodeDescriptor(bytes), seeds: () => descriptors.map(({ bytes }) => bytes) },
  {
    name: 'directory/descriptor-signature',
    decode: (bytes) => openDescriptor(suite, bytes),
    seeds: () => descriptors.map(({ bytes }) => bytes),
    share: 0.1,
  },
  {
    name: 'directory/view-add',
    decode: (bytes) => new View({ suite, rules }).add(bytes, NOW),
    seeds: () => descriptors.map(({ bytes }) => bytes),
    share: 0.02,
  },
  { name: 'directory/view-request', decode: decodeSyncRequest, seeds: () => requests.map(encodeSyncRequest) },
  { name: 'directory/view-answer', decode: decodeSyncAnswer, seeds: () => answers() },
  {
    name: 'directory/view-server',
    decode: (bytes) => server.answer(peer, bytes, NOW),
    seeds: () => requests.map(encodeSyncRequest),
    share: 0.2,
  },
  { name: 'directory/gossip', decode: decodeGossip, seeds: () => gossip() },
  {
    name: 'directory/view-snapshot',
    decode: (bytes) => restoreSnapshot(suite, new View({ suite, rules }), bytes, NOW),
    seeds: () => [encodeSnapshot(suite, view, NOW)],
    share: 0.02,
  },
  {
    name: 'directory/publisher-state',
    decode: decodePublisherState,
    seeds: () => [encodePublisherState({ sequence: 7, proofs: [{ period: 3, nonce: new Uint8Array(8) }] })],
  },
  {
    name: 'directory/relay-address',
    decode: (bytes) => parseRelayAddress(asText(bytes)),
    seeds: () => ['/ip4/192.0.2.1/tcp/443/tls', '/ip6/2001:db8::1/tcp/9001'].map((one) => text.encode(one)),
  },
  {
    name: 'directory/bootstrap-address',
    decode: (bytes) => parseBootstrapAddress(asText(bytes)),
    seeds: () => [text.encode(`/ip4/192.0.2.1/tcp/443/p2p/${peer}`)],
  },
]

function answers(): Uint8Array[] {
  return [...requests.map((request) => server.answer(peer, encodeSyncRequest(request), NOW).frame), encodeSyncAnswer(refused)]
}

function gossip(): Uint8Array[] {
  const [first] = descriptors
  return [
    encodeGossip({ type: 'hello', networkId: view.networkId, descriptor: first!.bytes }),
    encodeGossip({ type: 'descriptors', descriptors: descriptors.map(({ bytes }) => bytes) }),
  ]
}

function descriptor(n: number): SignedDescriptor {
  const seed = new Uint8Array(32).fill(n)
  const id = nodeIdFromKey(suite.ed25519.keyPair(seed).publicKey)
  const period = workPeriod(NOW, rules.work.periodMs)
  const networkId = new View({ suite, rules }).networkId
  return signDescriptor(suite, seed, {
    sequence: n,
    publishedAt: NOW,
    expiresAt: NOW + rules.descriptors.lifetimeMs,
    onionKey: { x25519: seed },
    addresses: [`/ip4/127.${n}.0.1/tcp/4001`, `/ip4/127.${n}.0.1/tcp/4001/tls`, '/ip6/2001:db8::1/tcp/1'],
    reach: n === 3 ? { kind: 'relayed', via: [peer], punchable: true } : { kind: 'direct' },
    roles: ['middle', 'exit'],
    exitPolicy: {
      ipv4: [
        { from: 80, to: 80 },
        { from: 443, to: 500 },
      ],
      ipv6: [{ from: 1, to: 65_535 }],
    },
    bandwidth: 1_000_000,
    family: [peer],
    protocols: { circuit: [1, 2], link: [1], packet: [] },
    leaving: false,
    software: 'shallot 0.1.0',
    work: { period, nonce: solveWork(suite, { networkId, id, period }, rules.work.bits) },
  })
}

function asText(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1')
}
