import { computed, signal } from '@preact/signals'
import type { Circuit, Event, Stream, TrafficSample } from '../control/api-types.ts'
import { ask } from './api.ts'
import { onEvent, onOpen } from './connection.ts'
import { answerOf } from './resource.ts'

/** What the node is and does, as this page knows it. */

export const status = answerOf('GET /v1/status', 4000)
export const circuits = answerOf('GET /v1/circuits', 3000)
export const network = answerOf('GET /v1/network', 20_000)
export const nat = answerOf('GET /v1/nat', 15_000)
export const vpn = answerOf('GET /v1/vpn', 5000)
export const settings = answerOf('GET /v1/settings', null)
/** Every stream; asked for as long as the page that shows them is open. */
export const streams = answerOf('GET /v1/streams', 1000)

/** How much of the past the plots can show: what the node remembers. */
export const HISTORY_S = 600
/** Streams that the overview remembers. */
const MAX_LATEST = 40

/** Second by second, oldest first. */
export const traffic = signal<readonly TrafficSample[]>([])
/** The last streams that began, newest first, whatever became of them. */
export const latestStreams = signal<readonly Stream[]>([])

/** The circuit that the last stream took; else the newest that is open. */
export const circuitInUse = computed<Circuit | null>(() => {
  const known = circuits.data.value ?? []
  for (const stream of latestStreams.value) {
    const circuit = known.find(({ id }) => id === stream.circuit)
    if (circuit !== undefined && circuit.state !== 'closed') return circuit
  }
  const open = known.filter(({ state, purpose }) => state === 'open' && purpose === 'streams')
  return open.at(-1) ?? known.findLast(({ state }) => state === 'building') ?? null
})

/** How often the round trips of the circuit that is looked at are measured. */
const MEASURE_MS = 10_000

/** Measures the way to each hop of a circuit, now and then, until the returned function is called. */
export function measure(id: number): () => void {
  const once = async (): Promise<void> => {
    if (document.visibilityState === 'hidden') return
    // A circuit that has ended meanwhile has no round trip.
    const measured = await ask('POST /v1/circuits/{id}/ping', { path: { id } }).catch(() => null)
    if (measured !== null) circuits.update((known) => known.map((circuit) => (circuit.id === id ? measured : circuit)))
  }
  void once()
  const timer = setInterval(() => void once(), MEASURE_MS)
  return () => clearInterval(timer)
}

/** Keeps all of it up to date with what the node tells. */
export function followNode(): void {
  onEvent(take)
  onOpen(() => void catchUp())
}

/** What happened while nobody listened. */
async function catchUp(): Promise<void> {
  const [samples, recent] = await Promise.all([
    ask('GET /v1/traffic').catch(() => null),
    ask('GET /v1/streams', { query: { recent: 1 } }).catch(() => null),
  ])
  if (samples !== null) traffic.value = samples.slice(-HISTORY_S)
  if (recent !== null) {
    latestStreams.value = recent
      .filter(isShown)
      .sort((a, b) => b.openedAt - a.openedAt || b.id - a.id)
      .slice(0, MAX_LATEST)
  }
}

function take(event: Event): void {
  switch (event.type) {
    case 'traffic':
      traffic.value = [...traffic.peek().slice(1 - HISTORY_S), event.traffic]
      return
    case 'stream-open':
    case 'stream-closed':
      if (isShown(event.stream)) takeStream(event.stream)
      return
    case 'circuit-open':
    case 'circuit-retired':
    case 'circuit-closed':
      circuits.update((known) => [...known.filter(({ id }) => id !== event.circuit.id), event.circuit])
      circuits.refresh()
      return
    case 'vpn':
      vpn.data.value = event.vpn
      return
    case 'reachability':
      nat.data.value = event.nat
      return
    case 'warning':
      status.update((before) => ({
        ...before,
        warnings: [...before.warnings.filter(({ code }) => code !== event.warning.code), event.warning],
      }))
      return
    case 'warning-over':
      status.update((before) => ({ ...before, warnings: before.warnings.filter(({ code }) => code !== event.code) }))
      return
    case 'settings':
      settings.refresh()
      return
    case 'ready':
    case 'guard':
    case 'view':
    case 'draining':
      status.refresh()
      return
    default:
  }
}

function takeStream(stream: Stream): void {
  const before = latestStreams.peek()
  const others = before.filter(({ id }) => id !== stream.id)
  // A stream that ends stays where it began.
  latestStreams.value =
    others.length < before.length
      ? before.map((known) => (known.id === stream.id ? stream : known))
      : [stream, ...others].slice(0, MAX_LATEST)
}

function isShown({ kind, target }: Stream): boolean {
  return kind === 'stream' && target !== null
}
