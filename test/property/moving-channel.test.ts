import { expect, it } from 'vitest'
import { type NodeId, type Random, SeededRandom } from '../../src/base/index.ts'
import { ByteMeter } from '../../src/link/index.ts'
import { MovingChannel } from '../../src/link/moving-channel.ts'
import type { Turns } from '../../src/link/turns.ts'
import { numbered, Recorder } from '../compliance/cell-channel.ts'
import { FakePipe } from '../support/fake-ways.ts'

const RUNS = 500

interface Side {
  readonly channel: MovingChannel
  readonly recorder: Recorder
  sent: number
  hasClosed: boolean
}

/** Two sides of a channel over connections that come and go, in an order that the random numbers say. */
class World {
  readonly random: Random
  readonly meter = new ByteMeter()
  readonly a: Side
  readonly b: Side
  readonly pipes: FakePipe[]
  moves = 0
  rank = 0
  wasKilled = false
  wasAborted = false

  constructor(seed: number) {
    this.random = new SeededRandom(seed)
    const first = new FakePipe(0, false)
    this.pipes = [first]
    this.a = this.#side(first, 0)
    this.b = this.#side(first, 1)
  }

  #side(pipe: FakePipe, end: 0 | 1): Side {
    const channel = new MovingChannel({
      peer: '12D3KooWtest' as NodeId,
      remoteAddress: 'here',
      way: pipe.ends[end],
      meter: this.meter,
      turns: new ImmediateTurns() as unknown as Turns,
      closeTimeoutMs: 1 << 30,
      now: () => 0,
      rested: () => {},
      over: () => {},
    })
    const recorder = new Recorder()
    channel.attach(recorder)
    return { channel, recorder, sent: 0, hasClosed: false }
  }

  send(side: Side): void {
    const { channel } = side
    const count = Math.min(channel.room, 1 + this.random.int(20))
    if (count === 0) return
    channel.send(numbered(side.sent, count))
    side.sent += count
  }

  /** The opener begins a move to something better, if it may. */
  move(): void {
    const { channel } = this.a
    if (!channel.isResting || channel.rank >= 2) return
    const rank = channel.rank + 1 + this.random.int(2 - channel.rank)
    const pipe = new FakePipe(rank, rank === 2)
    this.pipes.push(pipe)
    const [mine, theirs] = pipe.ends
    theirs.onMove = () => {
      if (!this.b.channel.isResting || this.b.channel.rank >= rank) return false
      theirs.agree()
      this.b.channel.move(theirs)
      this.moves++
      return true
    }
    channel.ask(
      (asking) => {
        mine.ask(asking)
        return mine
      },
      () => {},
    )
  }

  /** One thing happens to what is on its way. Returns whether anything could. */
  step(): boolean {
    const busy = this.pipes.filter((pipe) => pipe.hasWork)
    if (busy.length === 0) return false
    busy[this.random.int(busy.length)]!.step(this.random)
    return true
  }

  async settle(): Promise<void> {
    for (const { channel } of [this.a, this.b]) channel.resume()
    for (let i = 0; i < 100_000; i++) {
      const didStep = this.step()
      await Promise.resolve()
      for (const { channel } of [this.a, this.b]) channel.resume()
      if (!didStep && !this.step()) return
    }
    throw new Error('never at rest')
  }
}

/** Everything in the same turn. */
class ImmediateTurns {
  input(task: { runInput?(): void }): void {
    queueMicrotask(() => task.runInput!())
  }
  output(task: { runOutput?(): void }): void {
    queueMicrotask(() => task.runOutput!())
  }
}

interface Chances {
  readonly kill?: number
  readonly abort?: number
  readonly close?: number
}

async function play(seed: number, chances: Chances): Promise<World> {
  const world = new World(seed)
  const { random } = world
  const happens = (chance: number | undefined): boolean => chance !== undefined && random.unit() < chance
  for (let i = 0; i < 150; i++) {
    for (const side of [world.a, world.b]) {
      if (random.unit() < 0.5) world.send(side)
      if (random.unit() < 0.1) side.channel.pause()
      if (random.unit() < 0.15) side.channel.resume()
      if (happens(chances.close)) {
        side.channel.close()
        side.hasClosed = true
      }
      if (happens(chances.abort)) {
        side.channel.abort()
        world.wasAborted = true
      }
    }
    if (random.unit() < 0.1) world.move()
    if (happens(chances.kill)) {
      world.wasKilled = true
      world.pipes[random.int(world.pipes.length)]!.kill()
    }
    for (let n = random.int(4); n > 0; n--) world.step()
    if (random.unit() < 0.3) await Promise.resolve()
  }
  await world.settle()
  return world
}

/** What must hold whatever happened: no gap, no repetition, one end. */
function sound(world: World, seed: number): void {
  for (const side of [world.a, world.b]) {
    expect(side.recorder.wrong, `seed ${seed}`).toBeNull()
    expect(side.recorder.ends.length, `seed ${seed}`).toBeLessThanOrEqual(1)
  }
  // Both end, or none.
  expect(world.a.recorder.ends.length, `seed ${seed}`).toBe(world.b.recorder.ends.length)
  expect(world.meter.total, `seed ${seed}`).toBe(0)
  for (const [from, to] of [
    [world.a, world.b],
    [world.b, world.a],
  ] as const) {
    // An end that says "complete" is: unless the receiver itself wanted no more.
    if (to.recorder.ends[0] === 'fin' && !to.hasClosed) expect(to.recorder.count, `seed ${seed}`).toBe(from.sent)
  }
}

it('moves under load without loss, reorder or repetition, to the best way', async () => {
  let moves = 0
  for (let seed = 1; seed <= RUNS; seed++) {
    const world = await play(seed, {})
    sound(world, seed)
    expect([world.a.recorder.ends.length, world.a.recorder.count, world.b.recorder.count], `seed ${seed}`).toEqual([
      0,
      world.b.sent,
      world.a.sent,
    ])
    expect(world.a.channel.isResting && world.b.channel.isResting, `seed ${seed}`).toBe(true)
    expect(world.a.channel.rank, `seed ${seed}`).toBe(world.b.channel.rank)
    moves += world.moves
  }
  expect(moves).toBeGreaterThan(RUNS)
}, 60_000)

it('ends well when either side, or both, closes at any moment of a move', async () => {
  let ends = 0
  for (let seed = 1; seed <= RUNS; seed++) {
    const world = await play(seed, { close: 0.01 })
    sound(world, seed)
    if (world.a.recorder.ends.length === 0) continue
    ends++
    expect([world.a.recorder.ends, world.b.recorder.ends], `seed ${seed}`).toEqual([['fin'], ['fin']])
  }
  expect(ends).toBeGreaterThan(RUNS / 2)
}, 60_000)

it('ends as a reset, never with a gap, when a connection that matters is lost at any moment', async () => {
  const seen = { ended: 0, survived: 0 }
  for (let seed = 1; seed <= RUNS; seed++) {
    const world = await play(seed, { kill: 0.01, abort: 0.001, close: 0.003 })
    sound(world, seed)
    if (world.wasKilled) seen[world.a.recorder.ends.length > 0 ? 'ended' : 'survived']++
  }
  // Ways that were left, or not yet moved to, may die without harm.
  expect(seen.ended).toBeGreaterThan(RUNS / 10)
  expect(seen.survived).toBeGreaterThan(RUNS / 100)
}, 60_000)
