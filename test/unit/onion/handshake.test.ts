import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { AssertionError, fromHex, MalformedError, SeededRandom, toHex } from '../../../src/base/index.ts'
import { type CryptoSuite, nativeSuite, portableSuite } from '../../../src/crypto/index.ts'
import {
  answerHandshake,
  beginHandshake,
  ClientLayers,
  dropHandshake,
  finishHandshake,
  HANDSHAKE_MESSAGE_BYTES,
  type HandshakeState,
  type HopTarget,
  MAX_REPLY_BYTES,
  MAX_REQUEST_BYTES,
  MIN_REPLY_BYTES,
  MIN_REQUEST_BYTES,
  OnionKeyring,
  RelayLayers,
  requestTarget,
  wipeHopKeys,
} from '../../../src/onion/index.ts'
import { type HandshakeVector, handshakeVectors } from '../../vectors/onion-vectors.ts'

const native = nativeSuite()
const portable = portableSuite()
const empty = new Uint8Array()
const { vectors } = JSON.parse(readFileSync(new URL('../../vectors/handshake/handshake.json', import.meta.url), 'utf8')) as {
  vectors: HandshakeVector[]
}
const hexOf = (keys: object): object => Object.fromEntries(Object.entries(keys).map(([name, value]) => [name, toHex(value as Uint8Array)]))

function relay(suite: CryptoSuite = native): { keyring: OnionKeyring; target: HopTarget } {
  const keyring = OnionKeyring.create(suite, suite.random(32), 0)
  return { keyring, target: { id: keyring.identity, onionKey: keyring.current } }
}

/** A keyring that holds the given secret: restored from the bytes that `serialise` documents. */
function keyringOf(suite: CryptoSuite, identity: Uint8Array, b: Uint8Array): OnionKeyring {
  const bytes = OnionKeyring.create(suite, identity, 0).serialise()
  bytes.set(b, bytes.length - 33)
  return OnionKeyring.restore(suite, identity, bytes)
}

/** X25519 points whose multiples are all zero. RFC 7748 §6.1 */
const smallOrder = [
  new Uint8Array(32),
  Uint8Array.of(1, ...new Uint8Array(31)),
  fromHex('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800'),
  fromHex('5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157'),
]

const X_AT = 64
const EK_AT = 96

describe.each([native, portable])('the handshake, $name', (suite) => {
  test('the vectors replay on both sides', () => {
    expect(vectors.length).toBe(3)
    for (const { input, request, reply, keys, B } of vectors) {
      const ID = fromHex(input.ID)
      const keyring = keyringOf(suite, ID, fromHex(input.b))
      expect(toHex(keyring.current.x25519)).toBe(B)
      const state = beginHandshake(suite, { id: ID, onionKey: keyring.current }, fromHex(input.clientMessage), {
        x25519: fromHex(input.x),
        mlkem768: fromHex(input.seed),
      })
      expect(toHex(state.request)).toBe(request)
      const answer = answerHandshake(suite, keyring, fromHex(request), () => fromHex(input.relayMessage), {
        x25519: fromHex(input.y),
        mlkem768: fromHex(input.m),
      })
      expect(toHex(answer!.reply)).toBe(reply)
      expect(toHex(answer!.clientMessage)).toBe(input.clientMessage)
      expect(hexOf(answer!.keys)).toEqual(keys)
      const finished = finishHandshake(suite, state, fromHex(reply))
      expect(toHex(finished!.message)).toBe(input.relayMessage)
      expect(hexOf(finished!.keys)).toEqual(keys)
    }
  })

  test('a relay of the other suite answers, and a fresh handshake has fresh keys', () => {
    const other = suite === native ? portable : native
    const { keyring, target } = relay(other)
    const keys = [1, 2].map((message) => {
      const state = beginHandshake(suite, target, Uint8Array.of(message))
      const answer = answerHandshake(other, keyring, state.request, (clientMessage) => Uint8Array.of(...clientMessage, 9))!
      expect([...answer.clientMessage]).toEqual([message])
      const finished = finishHandshake(suite, state, answer.reply)!
      expect([...finished.message]).toEqual([message, 9])
      expect(hexOf(finished.keys)).toEqual(hexOf(answer.keys))
      return hexOf(finished.keys)
    })
    expect(keys[0]).not.toEqual(keys[1])
  })

  test('an invalid ek or a point of small order is refused by the relay, even under a right MAC', () => {
    const { keyring, target } = relay(suite)
    // The MAC is made over the ek that the client holds: a client whose ek is invalid.
    const badKem: CryptoSuite = {
      ...suite,
      mlkem768: { ...suite.mlkem768, keyPair: () => ({ secret: new Uint8Array(64), publicKey: new Uint8Array(1184).fill(0xff) }) },
    }
    let asked = 0
    const state = beginHandshake(badKem, target, empty)
    const respond = (): Uint8Array => {
      asked++
      return empty
    }
    expect(answerHandshake(suite, keyring, state.request, respond)).toBeNull()
    expect(asked).toBe(1)
    for (const point of smallOrder) {
      const request = beginHandshake(suite, target, empty).request.slice()
      request.set(point, X_AT)
      expect(answerHandshake(suite, keyring, request, () => empty)).toBeNull()
    }
  })

  test('a reply with a point of small order is refused by the client', () => {
    const { keyring, target } = relay(suite)
    for (const point of smallOrder) {
      const state = beginHandshake(suite, target, empty)
      const reply = answerHandshake(suite, keyring, state.request, () => empty)!.reply.slice()
      reply.set(point, 0)
      expect(finishHandshake(suite, state, reply)).toBeNull()
    }
  })

  test('a relay whose onion key is of small order gets a request that it must refuse, and no reply is taken', () => {
    const { keyring } = relay(suite)
    for (const x25519 of smallOrder) {
      const state = beginHandshake(suite, { id: keyring.identity, onionKey: { x25519 } }, Uint8Array.of(1, 2, 3))
      expect(state.request.length).toBe(MIN_REQUEST_BYTES + 3)
      expect(finishHandshake(suite, state, new Uint8Array(MIN_REPLY_BYTES))).toBeNull()
    }
  })
})

test('the vectors are what the generator makes', () => {
  expect(handshakeVectors().vectors).toEqual(vectors)
})

describe('sizes', () => {
  test('are those of the specification', () => {
    expect([MIN_REQUEST_BYTES, MAX_REQUEST_BYTES, MIN_REPLY_BYTES, MAX_REPLY_BYTES]).toEqual([1312, 1504, 1152, 1344])
    const { keyring, target } = relay()
    const longest = new Uint8Array(HANDSHAKE_MESSAGE_BYTES)
    const state = beginHandshake(native, target, longest)
    expect(state.request.length).toBe(MAX_REQUEST_BYTES)
    expect(answerHandshake(native, keyring, state.request, () => longest)!.reply.length).toBe(MAX_REPLY_BYTES)
    expect(() => beginHandshake(native, target, new Uint8Array(HANDSHAKE_MESSAGE_BYTES + 1))).toThrow(AssertionError)
  })

  test('a request or reply of any other length is null, and a cut one too', () => {
    const { keyring, target } = relay()
    const state = beginHandshake(native, target, Uint8Array.of(1, 2, 3, 4))
    const { reply } = answerHandshake(native, keyring, state.request, () => Uint8Array.of(5, 6))!
    for (const length of [0, 1, 31, 32, 1311, MIN_REQUEST_BYTES, state.request.length - 1]) {
      expect(answerHandshake(native, keyring, state.request.subarray(0, length), () => empty)).toBeNull()
    }
    const grown = (bytes: Uint8Array, by: number): Uint8Array => Uint8Array.of(...bytes, ...new Uint8Array(by))
    for (const by of [1, 300]) expect(answerHandshake(native, keyring, grown(state.request, by), () => empty)).toBeNull()
    for (const changed of [
      empty,
      reply.subarray(0, MIN_REPLY_BYTES - 1),
      reply.subarray(0, reply.length - 1),
      grown(reply, 1),
      grown(reply, 400),
    ]) {
      expect(finishHandshake(native, reusable(state), changed)).toBeNull()
    }
    expect(finishHandshake(native, state, reply)).not.toBeNull()
  })

  test('the leading identity of a request is its target', () => {
    const { target } = relay()
    expect(toHex(requestTarget(beginHandshake(native, target, empty).request))).toBe(toHex(target.id))
    expect(() => requestTarget(new Uint8Array(31))).toThrow(MalformedError)
  })
})

describe('nothing can be changed on the way', () => {
  test('a flipped bit in any byte of the request is refused', () => {
    const { keyring, target } = relay()
    const { request } = beginHandshake(native, target, Uint8Array.of(1, 1, 7))
    for (let i = 0; i < request.length; i++) {
      const changed = request.slice()
      changed[i]! ^= 1 << (i & 7)
      // The top bit of X is ignored by X25519 itself; the MAC covers it all the same.
      if (answerHandshake(native, keyring, changed, () => empty) !== null) expect.fail(`byte ${i}`)
    }
  })

  test('a flipped bit in any byte of the reply is refused', () => {
    const { keyring, target } = relay()
    const state = beginHandshake(native, target, empty)
    const { reply } = answerHandshake(native, keyring, state.request, () => Uint8Array.of(2, 0))!
    for (let i = 0; i < reply.length; i++) {
      const changed = reply.slice()
      changed[i]! ^= 1 << (i & 7)
      if (finishHandshake(native, reusable(state), changed) !== null) expect.fail(`byte ${i}`)
    }
    expect(finishHandshake(native, state, reply)).not.toBeNull()
  })

  test('random bytes of every accepted length are refused', () => {
    const random = new SeededRandom(21)
    const { keyring, target } = relay()
    const state = beginHandshake(native, target, empty)
    for (let i = 0; i < 200; i++) {
      const request = random.bytes(MIN_REQUEST_BYTES + random.int(HANDSHAKE_MESSAGE_BYTES + 1))
      request.set(keyring.identity)
      request.set(keyring.current.x25519, 32)
      expect(answerHandshake(native, keyring, request, () => empty)).toBeNull()
      expect(finishHandshake(native, reusable(state), random.bytes(MIN_REPLY_BYTES + random.int(HANDSHAKE_MESSAGE_BYTES + 1)))).toBeNull()
    }
  })

  test('a reply to another request, of the same client to the same relay, is refused', () => {
    const { keyring, target } = relay()
    const first = beginHandshake(native, target, empty)
    const second = beginHandshake(native, target, empty)
    const { reply } = answerHandshake(native, keyring, second.request, () => empty)!
    expect(finishHandshake(native, first, reply)).toBeNull()
  })

  test('a relay in the middle that swaps the ek for its own learns nothing that is accepted', () => {
    const { keyring, target } = relay()
    const { request } = beginHandshake(native, target, empty)
    const own = native.mlkem768.keyPair()
    const changed = request.slice()
    changed.set(own.publicKey, EK_AT)
    expect(answerHandshake(native, keyring, changed, () => empty)).toBeNull()
  })

  test('who holds another identity or another onion key can not answer', () => {
    const { keyring, target } = relay()
    const { request } = beginHandshake(native, target, empty)
    const sameKeyOtherIdentity = keyring.serialise()
    const identity = native.random(32)
    sameKeyOtherIdentity.set(identity, 'shallot onion keys 1\n'.length)
    expect(answerHandshake(native, OnionKeyring.restore(native, identity, sameKeyOtherIdentity), request, () => empty)).toBeNull()
    expect(answerHandshake(native, OnionKeyring.create(native, keyring.identity, 0), request, () => empty)).toBeNull()
    expect(answerHandshake(native, keyring, request, () => empty)).not.toBeNull()
  })
})

describe('state', () => {
  test('the relay may refuse the message', () => {
    const { keyring, target } = relay()
    const state = beginHandshake(native, target, Uint8Array.of(0x80, 0))
    expect(answerHandshake(native, keyring, state.request, () => null)).toBeNull()
  })

  test('is good for one reply: a wrong one uses it up, and its secrets are overwritten', () => {
    const { keyring, target } = relay()
    const state = beginHandshake(native, target, empty)
    const { reply } = answerHandshake(native, keyring, state.request, () => empty)!
    expect(finishHandshake(native, state, reply.subarray(1))).toBeNull()
    expect(finishHandshake(native, state, reply)).toBeNull()
    const dropped = beginHandshake(native, target, empty)
    dropHandshake(dropped)
    for (const { secrets } of [state, dropped]) {
      expect(secrets.usable).toBe(false)
      for (const secret of [secrets.x, secrets.dk, secrets.bx]) expect(secret.every((byte) => byte === 0)).toBe(true)
    }
  })

  test('an onion key that was replaced answers in its grace', () => {
    const { keyring, target } = relay()
    const { request } = beginHandshake(native, target, empty)
    keyring.rotate(native, keyring.nextRotationAt)
    expect(toHex(keyring.current.x25519)).not.toBe(toHex(target.onionKey.x25519))
    expect(answerHandshake(native, keyring, request, () => empty)).not.toBeNull()
    keyring.rotate(native, keyring.nextRotationAt)
    keyring.rotate(native, keyring.nextRotationAt)
    expect(answerHandshake(native, keyring, request, () => empty)).toBeNull()
  })

  test('the keys open layers on both sides, which keep copies: the hop keys can be wiped', () => {
    const { keyring, target } = relay()
    const state = beginHandshake(native, target, empty)
    const answer = answerHandshake(native, keyring, state.request, () => empty)!
    const { keys } = finishHandshake(native, state, answer.reply)!
    const client = new ClientLayers()
    client.addHop(native, keys)
    const layers = new RelayLayers(native, answer.keys)
    wipeHopKeys(keys)
    wipeHopKeys(answer.keys)
    expect(keys.forwardSeed.every((byte) => byte === 0)).toBe(true)
    const batch = { bytes: new Uint8Array(32 + 1536), start: 32, count: 1 }
    client.sealForward(batch, 0)
    expect(layers.openForward(batch, 0)).toBe(0)
  })
})

/** A copy of a state, since a reply uses it up. */
function reusable({ request, secrets }: HandshakeState): HandshakeState {
  return { request, secrets: { x: secrets.x.slice(), dk: secrets.dk.slice(), bx: secrets.bx.slice(), usable: secrets.usable } }
}
