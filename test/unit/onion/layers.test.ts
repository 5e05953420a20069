import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { AssertionError, SeededRandom, shuffle, toHex } from '../../../src/base/index.ts'
import { type CryptoSuite, nativeSuite, portableSuite } from '../../../src/crypto/index.ts'
import {
  batchCells,
  batchOf,
  CELL_BYTES,
  type CellBatch,
  ClientLayers,
  type HopKeys,
  KEY_STEP_CELLS,
  MAX_HOPS,
  NOT_RECOGNISED,
  newBatch,
  RelayLayers,
  TAG_BYTES,
} from '../../../src/onion/index.ts'
import { TwinClient, TwinRelay } from '../../support/onion-twin.ts'
import { hopKeys, inputCell, type LayerStep, type LayerVectors, layerVectors } from '../../vectors/onion-vectors.ts'

const native = nativeSuite()
const suites: CryptoSuite[] = [native, portableSuite()]
const vectors = JSON.parse(readFileSync(new URL('../../vectors/layers/layers.json', import.meta.url), 'utf8')) as LayerVectors

/** A client and its relays with fresh states of the same keys. */
function circuit(suite: CryptoSuite, hops: number): { client: ClientLayers; relays: RelayLayers[] } {
  const client = new ClientLayers()
  const relays: RelayLayers[] = []
  for (let hop = 0; hop < hops; hop++) {
    client.addHop(suite, hopKeys(hop))
    relays.push(new RelayLayers(suite, hopKeys(hop)))
  }
  return { client, relays }
}

/** Cells with the tag and otherwise random content. */
function plainBatch(count: number, random: SeededRandom): CellBatch {
  const batch = newBatch(count)
  for (let i = 0; i < count; i++) batch.bytes.set(random.bytes(CELL_BYTES - TAG_BYTES), batch.start + i * CELL_BYTES + TAG_BYTES)
  return batch
}

const cellsOf = (batch: CellBatch): Uint8Array[] =>
  Array.from({ length: batch.count }, (_, i) => batchCells(batch).slice(i * CELL_BYTES, (i + 1) * CELL_BYTES))
const joinCells = (cells: Uint8Array[]): CellBatch => batchOf(Buffer.concat(cells))
const copyOf = (batch: CellBatch): CellBatch => batchOf(batchCells(batch).slice())

/** Sends cells forward through relays [0, hop]; returns the indexes that each relay recognised and the cells at the end. */
function carryForward(relays: RelayLayers[], batch: CellBatch, hop: number): number[][] {
  const recognised: number[][] = []
  for (let at = 0; at <= hop; at++) {
    const mine: number[] = []
    for (let from = 0; from < batch.count; ) {
      const index = relays[at]!.openForward(batch, from)
      if (index < 0) break
      mine.push(index)
      from = index + 1
    }
    recognised.push(mine)
  }
  return recognised
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

describe.each(suites)('layers, $name', (suite) => {
  test('the vectors replay: every cell on every link, consumed, passed on and originated, over key steps', () => {
    const { client, relays } = circuit(suite, vectors.keys.length)
    const send = (direction: LayerStep['direction'], hop: number, input: string, seen: (cell: Uint8Array) => void): void => {
      const batch = batchOf(inputCell(input))
      if (direction === 'forward') {
        client.sealForward(batch, hop)
        for (let at = 0; at <= hop; at++) {
          seen(batchCells(batch))
          expect(relays[at]!.openForward(batch, 0)).toBe(at === hop ? 0 : -1)
        }
      } else {
        for (let at = hop; at >= 0; at--) {
          relays[at]!.sealBackward(batch)
          seen(batchCells(batch))
        }
        const recognised = new Uint8Array(1)
        client.openBackward(batch, recognised)
        expect(recognised[0]).toBe(hop)
      }
      expect(toHex(batchCells(batch).subarray(0, 64))).toBe(toHex(inputCell(input).subarray(0, 64)))
    }
    for (const step of vectors.steps) {
      if ('fill' in step) {
        for (let i = 0; i < step.fill; i++) send(step.direction, step.hop, `${step.input} ${i}`, () => {})
        continue
      }
      const links: string[] = []
      const ends: string[] = []
      send(step.direction, step.hop, step.input, (cell) => {
        links.push(toHex(suite.sha3_256(cell)))
        ends.push(`${toHex(cell.subarray(0, 32))}…${toHex(cell.subarray(-16))}`)
      })
      expect({ what: step.what, links, ends }).toEqual({ what: step.what, links: step.links, ends: step.ends })
    }
  })

  test('cells for several hops in mixed batches arrive whole, in order, at their addressees, and come back', () => {
    const random = new SeededRandom(11)
    const { client, relays } = circuit(suite, 3)
    for (let round = 0; round < 12; round++) {
      const hop = random.int(3)
      const batch = plainBatch(1 + random.int(70), random)
      const plain = toHex(batchCells(batch))
      client.sealForward(batch, hop)
      const recognised = carryForward(relays, batch, hop)
      expect(recognised).toEqual(range(hop + 1).map((at) => (at === hop ? range(batch.count) : [])))
      expect(toHex(batchCells(batch))).toBe(plain)

      const origin = random.int(3)
      for (let at = origin; at >= 0; at--) relays[at]!.sealBackward(batch)
      const hops = new Uint8Array(batch.count)
      client.openBackward(batch, hops)
      expect([...hops]).toEqual(range(batch.count).map(() => origin))
      expect(toHex(batchCells(batch))).toBe(plain)
    }
  })
})

test('the vectors are what the generator makes, and record the states of docs/spec/cell.md', () => {
  expect(layerVectors()).toEqual(vectors)
})

describe('against the simple twin', () => {
  test('random traffic in both directions and batches of any size, over key steps: each cell on each link is the same', () => {
    const random = new SeededRandom(2026)
    const { client, relays } = circuit(native, 3)
    const keys = range(3).map((hop) => hopKeys(hop))
    const twinClient = new TwinClient(keys)
    const twinRelays = keys.map((hop) => new TwinRelay(hop))
    let cells = 0
    while (cells < 2400) {
      const hop = random.int(3)
      const count = 1 + random.int(90)
      cells += count
      const batch = plainBatch(count, random)
      const plain = cellsOf(batch)
      // Against the twin only where it says something: its own cells cost a thousand times as much.
      if (random.int(2) === 0) {
        client.sealForward(batch, hop)
        let expected = plain.map((cell) => twinClient.sealForward(cell, hop))
        for (let at = 0; at <= hop; at++) {
          expect(Buffer.compare(batchCells(batch), Buffer.concat(expected))).toBe(0)
          const opened = expected.map((cell) => twinRelays[at]!.openForward(cell))
          carryForward([relays[at]!], batch, 0)
          expect(opened.every(({ recognised }) => recognised === (at === hop))).toBe(true)
          expected = opened.map(({ cell }) => cell)
        }
      } else {
        let expected = plain
        for (let at = hop; at >= 0; at--) {
          relays[at]!.sealBackward(batch)
          expected = expected.map((cell) => twinRelays[at]!.sealBackward(cell))
          expect(Buffer.compare(batchCells(batch), Buffer.concat(expected))).toBe(0)
        }
        const hops = new Uint8Array(count)
        client.openBackward(batch, hops)
        const opened = expected.map((cell) => twinClient.openBackward(cell))
        expect(opened.map((one) => one.hop)).toEqual([...hops])
      }
      expect(Buffer.compare(batchCells(batch), Buffer.concat(plain))).toBe(0)
    }
    for (const [at, relay] of twinRelays.entries()) {
      for (const direction of ['forward', 'backward'] as const) {
        const mine = relay[direction]
        const clients = twinClient.hops[at]![direction]
        if (at === 0) expect(mine.counter).toBeGreaterThan(KEY_STEP_CELLS)
        expect([clients.counter, toHex(clients.chain), toHex(clients.seed)]).toEqual([mine.counter, toHex(mine.chain), toHex(mine.seed)])
      }
    }
  })

  test('one backward batch of cells that different hops originated is peeled as the twin peels it cell by cell', () => {
    const random = new SeededRandom(5)
    const { client } = circuit(native, 3)
    const keys = range(3).map((hop) => hopKeys(hop))
    const twinRelays = keys.map((hop) => new TwinRelay(hop))
    for (let round = 0; round < 6; round++) {
      const origins = range(100).map(() => random.int(3))
      const plain = cellsOf(plainBatch(origins.length, random))
      const sealed = plain.map((cell, i) => {
        let travelling = cell
        for (let at = origins[i]!; at >= 0; at--) travelling = twinRelays[at]!.sealBackward(travelling)
        return travelling
      })
      const batch = joinCells(sealed)
      const hops = new Uint8Array(batch.count)
      client.openBackward(batch, hops)
      expect([...hops]).toEqual(origins)
      expect(Buffer.compare(batchCells(batch), Buffer.concat(plain))).toBe(0)
    }
  })
})

describe('what a hop does with a cell', () => {
  test('a recognised cell ends the run, so that the cells behind it are still sealed', () => {
    const random = new SeededRandom(3)
    const { client, relays } = circuit(native, 2)
    const forFirst = plainBatch(1, random)
    const forSecond = plainBatch(3, random)
    const plain = toHex(batchCells(forFirst))
    client.sealForward(forFirst, 0)
    client.sealForward(forSecond, 1)
    const batch = joinCells([...cellsOf(forFirst), ...cellsOf(forSecond)])
    const sealed = toHex(batchCells(batch).subarray(CELL_BYTES))
    expect(relays[0]!.openForward(batch, 0)).toBe(0)
    expect(toHex(batchCells(batch).subarray(0, CELL_BYTES))).toBe(plain)
    expect(toHex(batchCells(batch).subarray(CELL_BYTES))).toBe(sealed)
    expect(relays[0]!.openForward(batch, 1)).toBe(-1)
    expect(relays[1]!.openForward(batch, 1)).toBe(1)
  })

  test('a backward cell that a hop originated leaves the layers behind it as they were', () => {
    const random = new SeededRandom(4)
    const { client, relays } = circuit(native, 3)
    const hops = new Uint8Array(1)
    for (const origin of [2, 0, 0, 1, 0, 2, 1, 2]) {
      const batch = plainBatch(1, random)
      for (let at = origin; at >= 0; at--) relays[at]!.sealBackward(batch)
      client.openBackward(batch, hops)
      expect(hops[0]).toBe(origin)
    }
  })

  test('cells before a hop is added do not touch its layers', () => {
    const random = new SeededRandom(6)
    const { client, relays } = circuit(native, 1)
    const early = plainBatch(5, random)
    client.sealForward(early, 0)
    carryForward(relays, early, 0)
    client.addHop(native, hopKeys(1))
    relays.push(new RelayLayers(native, hopKeys(1)))
    const late = plainBatch(2, random)
    client.sealForward(late, 1)
    expect(carryForward(relays, late, 1)).toEqual([[], [0, 1]])
  })

  test('keys change exactly at cell 1024: a relay that skipped the step would read noise', () => {
    const random = new SeededRandom(7)
    const { client, relays } = circuit(native, 1)
    const batch = plainBatch(KEY_STEP_CELLS - 1, random)
    client.sealForward(batch, 0)
    carryForward(relays, batch, 0)
    // The same keys from a state in which the step falls elsewhere: one hop that has seen no cell.
    const other = new RelayLayers(native, hopKeys(0))
    const last = plainBatch(1, random)
    client.sealForward(last, 0)
    expect(other.openForward(copyOf(last), 0)).toBe(-1)
    expect(relays[0]!.openForward(last, 0)).toBe(0)
    const next = plainBatch(2 * KEY_STEP_CELLS, random)
    client.sealForward(next, 0)
    expect(carryForward(relays, next, 0)).toEqual([range(2 * KEY_STEP_CELLS)])
  })

  test('our own mistakes are assertions: destroyed layers, a hop that is not there, a batch without headroom, too many hops', () => {
    const { client, relays } = circuit(native, 1)
    const batch = newBatch(1)
    expect(() => client.sealForward(batch, 1)).toThrow(AssertionError)
    expect(() => relays[0]!.openForward({ ...batch, start: 16 }, 0)).toThrow(AssertionError)
    expect(() => relays[0]!.sealBackward({ ...batch, count: 2 })).toThrow(AssertionError)
    for (let hop = 1; hop < MAX_HOPS; hop++) client.addHop(native, hopKeys(hop))
    expect(client.hops).toBe(MAX_HOPS)
    expect(() => client.addHop(native, hopKeys(9))).toThrow(AssertionError)
    client.sealForward(batch, 0)
    client.destroy()
    for (const relay of relays) relay.destroy()
    expect(() => client.sealForward(batch, 0)).toThrow(AssertionError)
    expect(() => client.openBackward(batch, new Uint8Array(1))).toThrow(AssertionError)
    expect(() => relays[0]!.openForward(batch, 0)).toThrow(AssertionError)
    expect(() => relays[0]!.sealBackward(batch)).toThrow(AssertionError)
  })
})

describe('a changed wire', () => {
  /** One hop's cells as honest sealed cells, forward from a client or backward from a relay. */
  const honest = (direction: 'forward' | 'backward', count: number, seed: number): CellBatch => {
    const { client, relays } = circuit(native, 1)
    const batch = plainBatch(count, new SeededRandom(seed))
    if (direction === 'forward') client.sealForward(batch, 0)
    else relays[0]!.sealBackward(batch)
    return batch
  }
  /** How many cells the receiver of that direction takes before the first noise. */
  const receive = (direction: 'forward' | 'backward', batch: CellBatch): number => {
    if (direction === 'forward') return carryForward([new RelayLayers(native, hopKeys(0))], batch, 0)[0]!.length
    const client = new ClientLayers()
    client.addHop(native, hopKeys(0))
    const hops = new Uint8Array(batch.count)
    client.openBackward(batch, hops)
    return untilNoise(hops).length
  }

  test.each(['forward', 'backward'] as const)('%s: every single bit of a cell, flipped, makes noise of it', (direction) => {
    const sealed = batchCells(honest(direction, 2, 8))
    expect(receive(direction, batchOf(sealed.slice()))).toBe(2)
    for (let bit = 0; bit < CELL_BYTES * 8; bit++) {
      const batch = batchOf(sealed)
      batch.bytes[batch.start + (bit >> 3)]! ^= 1 << (bit & 7)
      if (receive(direction, batch) !== 0) expect.fail(`a tag after a flip of bit ${bit}`)
    }
  })

  /** What a hostile relay or wire can do to a run of cells at position `at`. */
  const attacks: Record<string, (cells: Uint8Array[], at: number, random: SeededRandom) => Uint8Array[]> = {
    flip: (cells, at, random) => cells.map((cell, i) => (i === at ? flip(cell, random.int(CELL_BYTES * 8)) : cell)),
    drop: (cells, at) => cells.filter((_, i) => i !== at),
    repeat: (cells, at) => cells.flatMap((cell, i) => (i === at ? [cell, cell] : [cell])),
    swap: (cells, at) => cells.map((cell, i) => (i === at ? cells[at + 1]! : i === at + 1 ? cells[at]! : cell)),
    replace: (cells, at, random) => cells.map((cell, i) => (i === at ? random.bytes(CELL_BYTES) : cell)),
    insert: (cells, at, random) => cells.flatMap((cell, i) => (i === at ? [random.bytes(CELL_BYTES), cell] : [cell])),
    replay: (cells, at) => cells.flatMap((cell, i) => (i === at ? [cells[0]!, cell] : [cell])),
    shuffle: (cells, at, random) => [...cells.slice(0, at), ...derange(cells.slice(at), random)],
  }
  const cases = Object.keys(attacks).flatMap((attack) =>
    (['forward', 'backward'] as const).flatMap((way) => range(3).map((link) => [attack, way, link] as const)),
  )

  test.each(cases)('%s, %s, on link %i: the cells before arrive, then noise', (attack, direction, link) => {
    const random = new SeededRandom(99 + link)
    const { client, relays } = circuit(native, 3)
    const count = 24
    const at = 5 + random.int(10)
    const plain = plainBatch(count, random)
    // Of a repeated cell, the first copy is honest.
    const before = range(attack === 'repeat' ? at + 1 : at)
    if (direction === 'forward') {
      // Link n leads to hop n; the cells are for the last hop.
      client.sealForward(plain, 2)
      carryForward(relays.slice(0, link), plain, link - 1)
      const attacked = joinCells(attacks[attack]!(cellsOf(plain), at, random))
      expect(carryForward(relays.slice(link), attacked, 2 - link)).toEqual(range(3 - link).map((hop) => (hop === 2 - link ? before : [])))
      // Honest cells afterwards are noise too.
      const later = plainBatch(60, random)
      client.sealForward(later, 2)
      expect(carryForward(relays, later, 2)[2]).toEqual([])
    } else {
      // Link n leads from hop n; the cells are from the last hop.
      for (let hop = 2; hop >= link; hop--) relays[hop]!.sealBackward(plain)
      const attacked = joinCells(attacks[attack]!(cellsOf(plain), at, random))
      for (let hop = link - 1; hop >= 0; hop--) relays[hop]!.sealBackward(attacked)
      const hops = new Uint8Array(attacked.count)
      client.openBackward(attacked, hops)
      expect(untilNoise(hops)).toEqual(before)
      // The client closes at the first noise. Behind it, a wrong count of cells is wrong for good.
      const later = plainBatch(60, random)
      for (let hop = 2; hop >= 0; hop--) relays[hop]!.sealBackward(later)
      const laterHops = new Uint8Array(later.count)
      client.openBackward(later, laterHops)
      if (attacked.count !== count) expect([...laterHops].filter((hop) => hop !== NOT_RECOGNISED)).toEqual([])
    }
  })

  test('a cell that hop 0 was sent does not open at hop 1, nor one direction in the other', () => {
    const random = new SeededRandom(12)
    const { client, relays } = circuit(native, 2)
    const batch = plainBatch(1, random)
    client.sealForward(batch, 0)
    expect(relays[1]!.openForward(copyOf(batch), 0)).toBe(-1)
    const keys = hopKeys(0)
    const mirrored: HopKeys = {
      forwardSeed: keys.backwardSeed,
      forwardChain: keys.backwardChain,
      backwardSeed: keys.forwardSeed,
      backwardChain: keys.forwardChain,
    }
    // Even with seeds and chains exchanged: the direction is in the tweak.
    const reflecting = new RelayLayers(native, mirrored)
    const original = plainBatch(1, random)
    reflecting.sealBackward(original)
    expect(relays[0]!.openForward(original, 0)).toBe(-1)
  })
})

/** What a client takes of a backward batch: everything before the first cell that is nobody's. docs/spec/cell.md §6 */
function untilNoise(hops: Uint8Array): number[] {
  const end = hops.indexOf(NOT_RECOGNISED)
  return range(end < 0 ? hops.length : end)
}

function flip(cell: Uint8Array, bit: number): Uint8Array {
  const copy = cell.slice()
  copy[bit >> 3]! ^= 1 << (bit & 7)
  return copy
}

/** Another order that moves the first cell. */
function derange(cells: Uint8Array[], random: SeededRandom): Uint8Array[] {
  const first = cells[0]
  for (;;) {
    const shuffled = shuffle([...cells], random)
    if (shuffled[0] !== first) return shuffled
  }
}
