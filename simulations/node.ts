import { type NodeId, type Random, shuffle } from '../src/base/index.ts'
import { type SignedDescriptor, View, ViewPuller, ViewServer } from '../src/directory/index.ts'
import type { Cancel } from './event-queue.ts'
import { type Place, randomPlace } from './network.ts'
import type { NodeKind } from './observations.ts'
import { EPOCH, type World } from './world.ts'

/** How often a node throws out what has expired. */
const EXPIRE_EVERY_MS = 10 * 60_000
/** A pull that brought nothing new after this many in the quick pace ends the joining. */
const JOINED_AFTER_SAME = 2
const MOST_JOINING_PULLS = 30

/** What a node knows to be true of another: enough to reach it. */
export interface Reachable {
  readonly id: NodeId
  readonly place: Place
  readonly server: ViewServer
}

/** A relay that a node has known for long. */
export interface Acquaintance {
  readonly signed: SignedDescriptor
  readonly tag: string
  readonly ageMs: number
}

/** A simulated node: the real view, the real pull machine, and a place on the virtual network. */
export abstract class SimulatedNode {
  abstract readonly id: NodeId
  abstract readonly kind: NodeKind
  readonly world: World
  readonly random: Random
  readonly place: Place
  view: View
  server: ViewServer
  #puller: ViewPuller
  #seenVersion = 0
  #joiningPulls = 0
  #same = 0
  #timers: Cancel[] = []
  #life = 0

  constructor(world: World, name: string) {
    this.world = world
    this.random = world.random(name)
    this.place = randomPlace(this.random)
    this.place.up = false
    this.view = this.#newView()
    this.server = new ViewServer(this.view, world.wall())
    this.#puller = new ViewPuller(this.view, world.suite, this.random)
  }

  /** Whom to pull from next, or null when there is nobody. */
  protected abstract nextPeer(): Reachable | null
  /** What this node had not known before, just now. */
  protected abstract handleNews(ids: readonly NodeId[]): void

  /** Gives the node a view that it has had for long: descriptors and their ages. For nodes that were there before the run began. */
  settle(known: readonly Acquaintance[]): void {
    for (const { signed, tag, ageMs } of known) {
      const { id } = signed.descriptor
      this.view.ages.restore({ id, tag, first: EPOCH - ageMs, last: EPOCH, heard: null })
      this.view.add(signed.bytes, this.world.wall())
    }
    this.view.ages.closeHearsay()
    this.#seenVersion = this.view.version
    this.#joiningPulls = MOST_JOINING_PULLS
  }

  /** Comes up, with the view it has. */
  start(): void {
    this.place.up = true
    this.#life++
    const { spread } = this.world.rules
    this.#schedulePull(this.#isJoining ? spread.joinSyncMs * this.random.unit() : spread.syncMs * this.random.unit())
    this.every(EXPIRE_EVERY_MS, () => {
      if (this.view.expire(this.world.wall()) > 0) this.#seenVersion = this.view.version
    })
  }

  /** Goes down at once. */
  stop(): void {
    this.place.up = false
    this.#life++
    for (const cancel of this.#timers) cancel()
    this.#timers = []
  }

  /** Runs something again and again while this life of the node lasts, first at a random part of the pause. */
  protected every(pauseMs: number, run: () => void): void {
    const life = this.#life
    const again = (): void => {
      if (life !== this.#life) return
      run()
      this.world.queue.after(pauseMs, again)
    }
    this.world.queue.after(pauseMs * this.random.unit(), again)
  }

  /** Takes a descriptor that was handed on. Returns whether it was news. */
  take(bytes: Uint8Array): boolean {
    const result = this.view.add(bytes, this.world.wall())
    if (result.type !== 'added' && result.type !== 'replaced') return false
    this.#noteNews()
    return true
  }

  get #isJoining(): boolean {
    return this.#joiningPulls < MOST_JOINING_PULLS && this.#same < JOINED_AFTER_SAME
  }

  #newView(): View {
    const { suite, rules, decode } = this.world
    return new View({ suite, rules, decode })
  }

  #schedulePull(delayMs: number): void {
    const life = this.#life
    this.#timers = [
      this.world.queue.after(delayMs, () => {
        if (life === this.#life) this.#pull(life)
      }),
    ]
  }

  #pull(life: number): void {
    const { network, observations, rules } = this.world
    const peer = this.nextPeer()
    const again = (): void => {
      if (life === this.#life)
        this.#schedulePull(this.#isJoining ? rules.spread.joinSyncMs : rules.spread.syncMs * (0.75 + 0.5 * this.random.unit()))
    }
    if (!peer) {
      again()
      return
    }
    this.#joiningPulls++
    const session = this.#puller.begin(peer.id, { ages: this.view.ages.wantsHearsay })
    const step = (output: ReturnType<typeof session.start> | null): void => {
      if (!output) return
      if (output.type === 'done') {
        const { outcome } = output
        observations.pulls++
        if (outcome.same) observations.pullsSame++
        observations.pullEnds.set(outcome.end, (observations.pullEnds.get(outcome.end) ?? 0) + 1)
        if (outcome.end === 'complete') this.#same = outcome.added === 0 ? this.#same + 1 : 0
        if (!this.#isJoining) this.view.ages.closeHearsay()
        again()
        return
      }
      const lost = (): void => {
        if (life === this.#life) step(session.handleLost())
      }
      network.send(
        this.place,
        peer.place,
        output.frame.length,
        () => {
          const answer = peer.server.answer(this.id, output.frame, this.world.wall())
          network.send(
            peer.place,
            this.place,
            answer.frame.length,
            () => {
              if (life !== this.#life) return
              const next = session.handleAnswer(answer.frame, this.world.wall())
              this.#noteNews()
              step(next)
            },
            lost,
          )
        },
        lost,
      )
    }
    step(session.start(this.world.wall()))
  }

  /** Compares the view with what it was the last time, and tells of what is new. */
  #noteNews(): void {
    const changes = this.view.changesSince(this.#seenVersion) ?? []
    this.#seenVersion = this.view.version
    const news: NodeId[] = []
    for (const { id, kind } of changes) {
      if (kind === 'removed') continue
      const entry = this.view.get(id)
      if (!entry) continue
      this.world.observations.received(this.kind, id, entry.descriptor.sequence, this.world.queue.now)
      news.push(id)
    }
    if (news.length > 0) this.handleNews(news)
  }

  /** A random relay of the view (not this node), or null. */
  protected randomKnown(): NodeId | null {
    const relays = this.view.relays()
    if (relays.length === 0) return null
    const { id } = relays[this.random.int(relays.length)]!
    return id === this.id ? null : id
  }

  protected shuffled<T>(items: readonly T[]): T[] {
    return shuffle([...items], this.random)
  }
}
