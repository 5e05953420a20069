import { fromHex, SeededRandom } from '../../../src/base/index.ts'
import { decodeStun, defaultStunProbeTiming, defaultStunServerConfig, encodeStun, parseEndpoint } from '../../../src/nat/stun/index.ts'
import type { StunAttribute, StunMessage } from '../../../src/nat/stun/message.ts'
import { Probe } from '../../../src/nat/stun/probe.ts'
import { StunResponder } from '../../../src/nat/stun/responder.ts'
import type { FuzzTarget } from '../fuzzer.ts'

const id = fromHex('000102030405060708090a0b')
const classicId = fromHex('000102030405060708090a0b0c0d0e0f')
const here = parseEndpoint('11.0.1.1:4460')
const there = parseEndpoint('[2001:db8::1]:4461')
const message = (kind: StunMessage['class'], transactionId: Uint8Array, ...attributes: StunAttribute[]): Uint8Array =>
  encodeStun({ class: kind, method: 1, transactionId }, attributes)

const requests = (): Uint8Array[] => [
  message('request', id),
  message('request', id, { type: 'change-request', ip: true, port: true }, { type: 'padding', length: 9 }),
  message('request', id, { type: 'response-port', port: 9 }, { type: 'fingerprint' }),
  message('request', classicId, { type: 'change-request', ip: false, port: true }),
  message('request', classicId, { type: 'response-address', endpoint: here }),
]
const answers = (): Uint8Array[] => [
  message(
    'success',
    id,
    { type: 'xor-mapped-address', endpoint: there },
    { type: 'other-address', endpoint: here },
    { type: 'fingerprint' },
  ),
  message(
    'success',
    id,
    { type: 'xor-mapped-address', endpoint: here },
    { type: 'other-address', endpoint: parseEndpoint('11.0.1.2:4461') },
  ),
  message('success', classicId, { type: 'mapped-address', endpoint: here }, { type: 'changed-address', endpoint: here }),
  message('error', id, { type: 'error-code', code: 420, reason: 'Unknown Attribute' }, { type: 'unknown-attributes', types: [3, 0x27] }),
]

const responder = new StunResponder({ ...defaultStunServerConfig, limits: { ...defaultStunServerConfig.limits, sources: 16 } }, 0)
let now = 0

/** What comes over UDP to the STUN server and to the probe. */
export const stunTargets: readonly FuzzTarget[] = [
  { name: 'nat/stun-message', decode: decodeStun, seeds: () => [...requests(), ...answers()] },
  {
    name: 'nat/stun-server',
    // Whatever comes, an answer is at most as long as what its source sent, and the allowance; here each datagram has a source of its own.
    decode: (bytes) => {
      now += 100
      const from = { ip: { family: 4 as const, bytes: Uint8Array.of(11, now >> 18, now >> 10, now >> 2) }, port: 5000 }
      const answer = responder.handle(bytes, from, { addresses: [here.ip], ports: [4460, 4461] }, { address: 0, port: 0 }, now)
      if (answer !== null && answer.bytes.length > bytes.length + defaultStunServerConfig.limits.allowanceBytesPerMinute)
        throw new Error(`${answer.bytes.length} bytes for ${bytes.length}`)
      return answer
    },
    seeds: requests,
  },
  {
    name: 'nat/stun-probe',
    // The answer has the id of the request under way, so that it is looked at.
    decode: (bytes) => {
      const probe = new Probe(
        {
          family: 4,
          servers: [{ ...here, alternatePort: null }],
          local: parseEndpoint('0.0.0.0:5000'),
          localAddresses: [],
          depth: 'behaviour',
          timing: defaultStunProbeTiming,
          random: new SeededRandom(1),
        },
        0,
      )
      for (let round = 0; round < 4; round++) {
        const sent = probe.takeOutput()[0]
        if (sent === undefined) break
        bytes.set(sent.bytes.subarray(4, Math.min(20, bytes.length)), Math.min(4, bytes.length))
        probe.handleDatagram(0, bytes, here, 1 + round)
        probe.handleTime(1000 + round)
      }
      return probe.finish()
    },
    seeds: answers,
    share: 0.2,
  },
]
