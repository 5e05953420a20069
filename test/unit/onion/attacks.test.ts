import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import { batchCells, batchOf, CELL_BYTES, type CellBatch } from '../../../src/onion/index.ts'
import { CircuitChain, type Direction, type Tampered } from '../../support/circuit-chain.ts'

/** Every cell of every link, in both directions, under everything that a link or a relay in between can do to it. */
const seed = Number(process.env.SHALLOT_TEST_SEED ?? Date.now() % 0x1_0000_0000)
const random = new SeededRandom(seed)
const LINKS = [0, 1, 2]
const DIRECTIONS: Direction[] = ['forward', 'backward']
const EXIT = 2
const target = { host: 'example.com', port: 80 }
const CELLS = 40
const payload = random.bytes(CELLS * 1515)
const reasons = new Set(['protocol', 'channel-lost', 'handshake-failed', 'timeout', 'not-allowed', 'connect-failed', 'unknown-relay'])

type Attack = (cells: Uint8Array[]) => Uint8Array[] | 'cut'

function flip(bit: number): Attack {
  return ([first, ...rest]) => {
    const changed = first!.slice()
    changed[bit >> 3]! ^= 1 << (bit & 7)
    return [changed, ...rest]
  }
}

const drop: Attack = ([, ...rest]) => rest
const repeat: Attack = ([first, ...rest]) => [first!, first!.slice(), ...rest]
const swap: Attack = ([first, second, ...rest]) => [second!, first!, ...rest]
const cut: Attack = () => 'cut'

function split(batch: CellBatch): Uint8Array[] {
  const cells = batchCells(batch)
  return Array.from({ length: batch.count }, (_, i) => cells.slice(i * CELL_BYTES, (i + 1) * CELL_BYTES))
}

/** Attacks the first batch of at least `least` cells that enters the link once `arm` was called. */
function attacker(
  link: number,
  direction: Direction,
  attack: Attack,
  least: number,
): { tamper: (l: number, d: Direction, batch: CellBatch) => Tampered; arm: () => void; done: () => boolean } {
  let isArmed = false
  let isDone = false
  return {
    arm: () => {
      isArmed = true
    },
    done: () => isDone,
    tamper: (l, d, batch) => {
      if (!isArmed || isDone || l !== link || d !== direction || batch.count < least) return batch
      isDone = true
      const changed = attack(split(batch))
      return changed === 'cut' ? 'reset' : batchOf(new Uint8Array(Buffer.concat(changed)))
    },
  }
}

/** Builds, begins a transfer both ways, and attacks in the middle of it. */
function transferUnder(link: number, direction: Direction, attack: Attack, least: number): void {
  const { tamper, arm, done } = attacker(link, direction, attack, least)
  const chain = new CircuitChain({ tamper, most: 5 }).build()
  const stream = chain.client.open(target, chain.now)
  chain.run()
  let sent = 0
  const send = (bytes: number): void => {
    const piece = payload.slice(sent, sent + bytes)
    sent += bytes
    chain.client.offer(stream, piece.slice())
    chain.relays[EXIT]!.offer(stream, piece.slice())
    chain.run()
  }
  send(10 * 1515)
  arm()
  send(payload.length - sent)
  chain.client.end(stream, 'done')
  chain.relays[EXIT]!.end(stream, 'done')
  chain.run()
  expect(done()).toBe(true)
  const closed = chain.closedAt(-1)
  expect(closed, 'the client is told').toBeDefined()
  expect(reasons.has(closed!.reason), closed!.reason).toBe(true)
  for (const party of [-1, EXIT]) {
    const received = chain.bytesAt(party, stream)
    expect(Buffer.compare(received, payload.subarray(0, received.length)), 'only a prefix is delivered').toBe(0)
    expect(received.length).toBeGreaterThanOrEqual(10 * 1515)
    const { ends } = chain.seenAt(party, stream)
    // What looks complete is complete; else the last word is that the circuit was lost.
    if (ends.includes('done')) expect(received.length).toBe(payload.length)
    expect(ends.at(-1)).toBe('circuit-lost')
    const lost = direction === 'forward' ? EXIT : -1
    if (party === lost) expect(received.length).toBeLessThan(payload.length)
  }
  for (const relay of chain.relays) expect(relay.state).toBe('closed')
}

describe(`cells attacked on a link (SHALLOT_TEST_SEED=${seed})`, () => {
  for (const link of LINKS) {
    for (const direction of DIRECTIONS) {
      describe(`link ${link}, ${direction}`, () => {
        it('one bit flipped, anywhere', () => {
          // The tag, the headers, the last bit, and places by chance.
          const bits = [0, 127, 128, 135, 168, CELL_BYTES * 8 - 1, ...Array.from({ length: 10 }, () => random.int(CELL_BYTES * 8))]
          for (const bit of bits) transferUnder(link, direction, flip(bit), 1)
        })
        it('a cell dropped', () => transferUnder(link, direction, drop, 1))
        it('a cell repeated', () => transferUnder(link, direction, repeat, 1))
        it('two cells swapped', () => transferUnder(link, direction, swap, 2))
        it('the channel cut', () => transferUnder(link, direction, cut, 1))
      })
    }
  }

  it('is clean without an attack', () => {
    expect(() => transferUnder(0, 'forward', (cells) => cells, 1)).toThrow()
  })
})

describe('cells attacked while the circuit is built', () => {
  /** The cells of a build, by link and direction: the first are CREATE and CREATED. */
  const attacks: { what: string; attack: () => Attack }[] = [
    { what: 'a bit flipped', attack: () => flip(random.int(1300 * 8)) },
    { what: 'a bit of the padding flipped', attack: () => flip(1520 * 8 + random.int(16 * 8)) },
    { what: 'dropped', attack: () => drop },
    { what: 'repeated', attack: () => repeat },
    { what: 'the channel cut', attack: () => cut },
  ]
  for (const link of LINKS) {
    for (const direction of DIRECTIONS) {
      for (const { what, attack } of attacks) {
        it(`link ${link}, ${direction}: ${what}`, () => {
          for (let nth = 0; nth < 3 - link; nth++) {
            let count = 0
            let isDone = false
            const change = attack()
            const chain = new CircuitChain({
              tamper: (l, d, batch) => {
                if (l !== link || d !== direction || count++ !== nth) return batch
                isDone = true
                const changed = change(split(batch))
                return changed === 'cut' ? 'reset' : batchOf(new Uint8Array(Buffer.concat(changed)))
              },
            })
            for (let i = 0; i < 3 && chain.client.hops === i && !chain.client.isClosed; i++) {
              chain.client.extend(chain.target(i), chain.now)
              chain.run(chain.now + 60_000)
            }
            expect(isDone).toBe(true)
            // A repeated CREATED of the last hop is noticed with the next cell; everything else closes at once or by a timeout.
            if (!chain.client.isClosed) {
              chain.client.ping(chain.now)
              chain.run(chain.now + 60_000)
            }
            const closed = chain.closedAt(-1)
            expect(closed, `cell ${nth}`).toBeDefined()
            expect(reasons.has(closed!.reason), closed!.reason).toBe(true)
          }
        })
      }
    }
  }
})

describe('cells from nowhere', () => {
  it.each(LINKS)('noise sent to a relay or a client on link %i closes the circuit', (link) => {
    for (const direction of DIRECTIONS) {
      const chain = new CircuitChain().build()
      const stream = chain.client.open(target, chain.now)
      chain.run()
      chain.inject(link, direction, batchOf(random.bytes(CELL_BYTES * 3)))
      chain.run()
      expect(chain.closedAt(-1)).toMatchObject({ reason: 'protocol' })
      expect(chain.seenAt(-1, stream).ends).toEqual(['circuit-lost'])
      expect(chain.seenAt(EXIT, stream).ends).toEqual(['circuit-lost'])
      expect(chain.bytesAt(-1, stream).length + chain.bytesAt(EXIT, stream).length).toBe(0)
    }
  })
})
