import { type CryptoSuite, chooseSuite } from '../../src/crypto/index.ts'
import {
  answerHandshake,
  batchCells,
  beginHandshake,
  type CellBatch,
  ClientLayers,
  finishHandshake,
  type HopKeys,
  newBatch,
  OnionKeyring,
  RelayLayers,
} from '../../src/onion/index.ts'
import { median, round } from './stats.ts'

/** Cells in a batch: 64 KiB, what a busy link hands on at a time. */
const batchCount = 42
const hops = 3

/** Microseconds a cell, of one thread. */
export interface CellCost {
  /** One layer in a relay: taking one off a cell that is passed on, and putting one on a cell towards the client. */
  readonly relayForward: number
  readonly relayBackward: number
  /** The client's three layers together. */
  readonly clientForward: number
  readonly clientBackward: number
}

/** Microseconds. */
export interface HandshakeCost {
  readonly begin: number
  readonly answer: number
  readonly finish: number
}

export interface MicroResult {
  readonly suite: string
  readonly batched: CellCost
  readonly oneAtATime: CellCost
  readonly handshake: HandshakeCost
}

export function measureMicro(runs: number): readonly MicroResult[] {
  return (['native', 'portable'] as const).map((name) => {
    const { suite } = chooseSuite(name)
    const fast = name === 'native' ? 1 : 0.05 // the portable one is many times slower: fewer rounds of the same
    return {
      suite: suite.description,
      batched: cellCost(suite, batchCount, Math.ceil(400 * fast), runs),
      oneAtATime: cellCost(suite, 1, Math.ceil(8000 * fast), runs),
      handshake: handshakeCost(suite, Math.ceil(300 * fast), runs),
    }
  })
}

function cellCost(suite: CryptoSuite, cells: number, rounds: number, runs: number): CellCost {
  const keys = Array.from({ length: hops }, () => randomKeys(suite))
  const client = new ClientLayers()
  for (const key of keys) client.addHop(suite, key)
  const relay = new RelayLayers(suite, keys[0]!)
  const batch = newBatch(cells)
  batchCells(batch).set(suite.random(batchCells(batch).length))
  const recognised = new Uint8Array(cells)
  const each = (work: (batch: CellBatch) => void): number => timeOf(() => work(batch), rounds, runs) / cells
  return {
    // Random cells: none shows the tag but for one in 2^128, so that all layers are taken off.
    relayForward: each((cells) => relay.openForward(cells, 0)),
    relayBackward: each((cells) => relay.sealBackward(cells)),
    clientForward: each((cells) => client.sealForward(cells, hops - 1)),
    clientBackward: each((cells) => client.openBackward(cells, recognised)),
  }
}

function handshakeCost(suite: CryptoSuite, rounds: number, runs: number): HandshakeCost {
  const identity = suite.ed25519.keyPair().publicKey
  const keyring = OnionKeyring.create(suite, identity, 0)
  const target = { id: identity, onionKey: keyring.current }
  const message = suite.random(16)
  const begun = (): ReturnType<typeof beginHandshake> => beginHandshake(suite, target, message)
  const answer = (request: Uint8Array): Uint8Array => answerHandshake(suite, keyring, request, () => message)!.reply
  const { request } = begun()
  const ready = Array.from({ length: rounds * runs + rounds }, begun).map((state) => ({ state, reply: answer(state.request) }))
  return {
    begin: timeOf(begun, rounds, runs),
    answer: timeOf(() => answer(request), rounds, runs),
    finish: timeOf(
      () => {
        const { state, reply } = ready.pop()!
        if (finishHandshake(suite, state, reply) === null) throw new Error('a handshake was not accepted')
      },
      rounds,
      runs,
    ),
  }
}

/** Median microseconds of one call; one set of rounds goes before the clock starts. */
function timeOf(work: () => void, rounds: number, runs: number): number {
  const times: number[] = []
  for (let run = 0; run <= runs; run++) {
    const began = performance.now()
    for (let i = 0; i < rounds; i++) work()
    if (run > 0) times.push(((performance.now() - began) * 1000) / rounds)
  }
  return round(median(times))
}

function randomKeys(suite: CryptoSuite): HopKeys {
  return {
    forwardSeed: suite.random(32),
    forwardChain: suite.random(16),
    backwardSeed: suite.random(32),
    backwardChain: suite.random(16),
  }
}
