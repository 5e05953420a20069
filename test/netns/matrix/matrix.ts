import { delay, until } from '../../support/processes.ts'
import { Lab, type LinkLabel, labelLink, type Observer } from '../lab/index.ts'
import { LabMesh, type LabNode } from '../support/lab-mesh.ts'
import { homePlanOf, kinds, type Pair, type PlaceKind } from './places.ts'

/** One attempt of one node to reach another. */
export interface Attempt {
  readonly pair: Pair
  /** The place that sought, and the one it sought. */
  readonly seeker: string
  readonly sought: string
  /** What the seeker says; null when it could not be asked. */
  readonly said: LinkLabel | 'unreachable' | null
  /** What the packets say. */
  readonly seen: LinkLabel
  readonly family: 4 | 6 | null
  /** Whether the direct link was still there a moment later; true when there was none. */
  readonly lasts: boolean
  readonly reachedMs: number | null
  readonly upgradedMs: number | null
  readonly steps: readonly string[]
}

export interface MatrixOptions {
  /** Default true; without it no row that needs punching can hold. */
  readonly punching?: boolean
  readonly relays?: number
  /** Default all. */
  readonly kinds?: readonly PlaceKind[]
}

const settledWithinMs = 60_000
/** How long after the answer the link may take to carry what marks it. */
const afterglowMs = 300

/** A mesh with two places of every kind, whose nodes reach for each other. */
export class ReachMatrix {
  readonly lab: Lab
  readonly mesh: LabMesh
  readonly #observer: Observer
  #startedAt = 0

  static async start({ punching = true, relays = 3, kinds: wanted = kinds }: MatrixOptions = {}): Promise<ReachMatrix> {
    const relayNames = Array.from({ length: relays }, (_, i) => `relay${i + 1}`)
    const homes = wanted.filter((kind) => kind !== 'public')
    const publics = wanted.includes('public') ? sides.map((side) => placeName('public', side)) : []
    const lab = await Lab.build({
      hosts: { boot: { addresses: 2 }, ...Object.fromEntries([...relayNames, ...publics].map((name) => [name, {}])) },
      homes: Object.fromEntries(homes.flatMap((kind) => sides.map((side) => [placeName(kind, side), homePlanOf(kind)]))),
    })
    const more = { nat: { punching: { enabled: punching } } }
    const mesh = LabMesh.plan(lab, [
      { name: 'boot', on: lab.host('boot'), roles: ['bootstrap'] },
      ...relayNames.map((name) => ({ name, on: lab.host(name), roles: ['relay'] as const })),
      ...publics.map((name) => ({ name, on: lab.host(name), roles: ['middle'] as const, more })),
      ...lab.homes.map((home) => ({ name: home.name, on: home.machine(), roles: ['middle'] as const, more })),
    ])
    try {
      const matrix = new ReachMatrix(lab, mesh, await lab.observe())
      matrix.#startedAt = Date.now()
      await mesh.start()
      await matrix.#settled()
      return matrix
    } catch (error) {
      await mesh.stop()
      await lab.remove()
      throw error
    }
  }

  private constructor(lab: Lab, mesh: LabMesh, observer: Observer) {
    this.lab = lab
    this.mesh = mesh
    this.#observer = observer
  }

  /** Everybody starts again, behind routers that remember nothing: no two have met. */
  async renew(): Promise<void> {
    const nodes = this.#middles()
    await Promise.all(nodes.map((node) => node.stop()))
    await Promise.all(this.lab.homes.map((home) => home.rebootRouter()))
    this.#startedAt = Date.now()
    await this.mesh.startAll(nodes)
    await this.#settled()
  }

  /** One node of each kind reaches for the other. @param turned whether b seeks a */
  async attempt(pair: Pair, turned = false): Promise<Attempt> {
    const names = [placeName(pair.a, 'a'), placeName(pair.b, 'b')] as const
    const [seeker, sought] = turned ? [names[1], names[0]] : names
    const before = await this.#observer.bytes()
    const answer = await this.mesh
      .node(seeker)
      .control.reach(this.mesh.node(sought).servingId)
      .catch((error) => ({ how: null, reachedMs: null, upgradedMs: null, steps: [String(error)] }))
    await delay(afterglowMs)
    const { label, family } = labelLink(
      await this.#observer.flows(),
      this.lab.publicAddressesOf(seeker),
      this.lab.publicAddressesOf(sought),
      before,
    )
    const { how, reachedMs, upgradedMs, steps } = answer
    const lasts = label === 'relayed' || label === 'punched-udp' || (await this.#isConnected(seeker, sought))
    return { pair, seeker, sought, said: how, seen: label, family, lasts, reachedMs, upgradedMs, steps }
  }

  /** Whether the seeker's system has a TCP connection with the sought one. */
  async #isConnected(seeker: string, sought: string): Promise<boolean> {
    const remote = this.lab.publicAddressesOf(sought).map((address) => `dst ${address.includes(':') ? `[${address}]` : address}`)
    const filter = `( ${remote.join(' or ')} )`
    return (await this.mesh.node(seeker).machine.runOk('ss', ['-Htn', 'state', 'established', filter])).trim() !== ''
  }

  has(kind: PlaceKind): boolean {
    return this.mesh.nodes.some(({ plan }) => plan.name === placeName(kind, 'a'))
  }

  async stop(): Promise<void> {
    await this.mesh.stop()
    await this.lab.remove()
  }

  /** The nodes that reach for each other. */
  #middles(): readonly LabNode[] {
    return this.mesh.nodes.filter(({ plan }) => plan.roles.includes('middle'))
  }

  /** Until every node knows how it is reached, and everybody has the others' word of it. */
  async #settled(): Promise<void> {
    const nodes = this.#middles()
    await Promise.all(
      nodes.map((node) =>
        until(`${node.plan.name} knows how it is reached`, settledWithinMs, async () => {
          const facts = await node.control.nat()
          if (!facts || facts.state === 'unknown') return false
          const known = [facts.ipv4, facts.ipv6].every((family) => family === null || !family.kind.includes('unknown'))
          return known && (facts.relays.length > 0 || facts.state === 'public' || facts.state === 'mapped')
        }),
      ),
    )
    const wanted = nodes.map(({ servingId }) => servingId)
    await Promise.all(
      nodes.map((node) =>
        until(`${node.plan.name} knows the others as they are now`, settledWithinMs, async () => {
          const fresh = new Set(
            (await node.control.relays()).filter(({ publishedAt }) => publishedAt >= this.#startedAt).map(({ id }) => id),
          )
          return wanted.every((id) => id === node.servingId || fresh.has(id))
        }),
      ),
    )
  }
}

const sides = ['a', 'b'] as const

function placeName(kind: PlaceKind, side: 'a' | 'b'): string {
  return `${kind}-${side}`
}

/** Runs attempts, some at a time, never two with the same place at once. */
export async function attemptAll(
  matrix: ReachMatrix,
  pairs: readonly Pair[],
  turned: (pair: Pair, index: number) => boolean,
  atOnce: number,
  done: (attempt: Attempt) => void = () => {},
): Promise<readonly Attempt[]> {
  const waiting = pairs.map((pair, index) => ({ pair, index }))
  const busy = new Set<string>()
  const attempts: Attempt[] = []
  await new Promise<void>((resolve, reject) => {
    let running = 0
    const next = (): void => {
      for (let i = 0; i < waiting.length && running < atOnce; ) {
        const { pair, index } = waiting[i]!
        const places = [placeName(pair.a, 'a'), placeName(pair.b, 'b')]
        if (places.some((place) => busy.has(place))) {
          i++
          continue
        }
        waiting.splice(i, 1)
        for (const place of places) busy.add(place)
        running++
        matrix.attempt(pair, turned(pair, index)).then((attempt) => {
          for (const place of places) busy.delete(place)
          running--
          attempts.push(attempt)
          done(attempt)
          next()
        }, reject)
      }
      if (running === 0 && waiting.length === 0) resolve()
    }
    next()
  })
  return attempts
}
