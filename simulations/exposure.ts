import { relayTag, View } from '../src/directory/index.ts'
import { choosePath, constraintsOf, GuardSample, PathViews, pathConfig } from '../src/path/index.ts'
import { mean } from './quantiles.ts'
import type { SimulatedRelay } from './relay.ts'
import { EPOCH, type World } from './world.ts'

const DAY = 86_400_000
const DAYS = 180
const CIRCUITS_A_DAY = 10
/** Every relay is away on one day in thirty. */
const AWAY = 1 / 30
const REFRESH_DAYS = 3
const SHOWN_DAYS: readonly number[] = [1, 7, 30, 60, 90, 120, 150, 180]

export interface ExposureReport {
  readonly clients: number
  readonly circuitsADay: number
  /** Guards a client had used by the end, on the mean. */
  readonly guardsUsed: number
  readonly days: readonly {
    readonly day: number
    /** Share of clients that had a hostile guard at least once until then. */
    readonly hostileGuard: number
    /** Share of clients of whom at least one circuit had both ends hostile. */
    readonly exposed: number
    /** The same share if every circuit drew a guard of its own. */
    readonly withoutGuards: number
    /** Share of that day's circuits with both ends hostile. */
    readonly bothEnds: number
  }[]
}

/**
 * Months of clients that keep their guards, over the run's relays: the real view with its ages, the real guard sample and path choice,
 * one step a day. No messages: who has which descriptor is no question here.
 */
export class Exposure {
  readonly #world: World
  readonly #relays: readonly SimulatedRelay[]

  constructor(world: World, relays: readonly SimulatedRelay[]) {
    this.#world = world
    this.#relays = relays
  }

  /** @param clientCount clients that live through the months */
  run(clientCount: number): ExposureReport {
    const { suite, rules, decode } = this.#world
    const random = this.#world.random('exposure')
    const config = pathConfig.parse({})
    const view = new View({ suite, rules, decode })
    for (const { id, profile } of this.#relays) {
      view.ages.restore({ id, tag: relayTag(suite, id), first: EPOCH - profile.ageMs, last: EPOCH, heard: null })
    }
    const paths = new PathViews(view, constraintsOf(config))
    const hostile = new Set(this.#relays.filter(({ profile }) => profile.hostile).map(({ id }) => id))
    const clients = Array.from({ length: clientCount }, () => ({
      guards: new GuardSample(config),
      used: new Set<string>(),
      badGuard: false,
      exposed: false,
    }))
    const days: ExposureReport['days'][number][] = []
    let unexposedWithoutGuards = 1
    let path = paths.current(this.#world.wall())
    for (let day = 1; day <= DAYS; day++) {
      const now = day * DAY
      const wall = this.#world.wall() + now
      if ((day - 1) % REFRESH_DAYS === 0) {
        view.expire(wall)
        for (const relay of this.#relays) view.add(relay.makeEdition(-now).bytes, wall)
        path = paths.current(wall)
      }
      const away = new Set(this.#relays.filter(() => random.unit() < AWAY).map(({ id }) => id))
      let both = 0
      let built = 0
      const pBoth = hostileShare(path, 'guard', hostile) * hostileShare(path, 'exit', hostile)
      unexposedWithoutGuards *= (1 - pBoth) ** CIRCUITS_A_DAY
      for (const client of clients) {
        client.guards.sample(path, random, wall)
        for (let i = 0; i < CIRCUITS_A_DAY; i++) {
          for (const id of client.guards.current(now + i)) {
            if (!away.has(id)) break
            client.guards.noteFailure(id, true, now + i)
          }
          const result = choosePath(
            path,
            { guards: client.guards.current(now + i), need: { ports: [443], family: null }, setAside: away },
            random,
          )
          if (result.kind === 'no-path') continue
          const [guard, , exit] = result.path
          client.guards.noteSuccess(guard, now + i, wall)
          client.used.add(guard)
          built++
          if (!hostile.has(guard)) continue
          client.badGuard = true
          if (!hostile.has(exit)) continue
          client.exposed = true
          both++
        }
      }
      if (!SHOWN_DAYS.includes(day)) continue
      days.push({
        day,
        hostileGuard: clients.filter(({ badGuard }) => badGuard).length / clientCount,
        exposed: clients.filter(({ exposed }) => exposed).length / clientCount,
        withoutGuards: 1 - unexposedWithoutGuards,
        bothEnds: both / built,
      })
    }
    return { clients: clientCount, circuitsADay: CIRCUITS_A_DAY, guardsUsed: mean(clients.map(({ used }) => used.size)), days }
  }
}

/** The hostile part of a position's weight. */
function hostileShare(path: ReturnType<PathViews['current']>, position: 'guard' | 'exit', hostile: ReadonlySet<string>): number {
  let bad = 0
  let all = 0
  for (const [index, { id }] of path.relays.entries()) {
    if (path.refusal(index, position) !== null) continue
    const weight = path.weight(index, position)
    all += weight
    if (hostile.has(id)) bad += weight
  }
  return all === 0 ? 0 : bad / all
}
