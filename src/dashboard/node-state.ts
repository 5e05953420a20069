import { computed, signal } from '@preact/signals'
import type { Circuit, Event, TrafficSample } from '../control/api-types.ts'
import { ask } from './api.ts'
import { onEvent, onOpen } from './connection.ts'
import { latestStreams, loadLatest, takeStream } from './latest-streams.ts'
import { answerOf } from './resource.ts'
import { nodeSays, useNow } from './use-now.ts'

/** What the node is and does, as this page knows it. */

export const status = answerOf('GET /v1/status', 4000)
export const circuits = answerOf('GET /v1/circuits', 3000)
export const network = answerOf('GET /v1/network', 20_000)
export const nat = answerOf('GET /v1/nat', 15_000)
export const vpn = answerOf('GET /v1/vpn', 5000)
export const settings = answerOf('GET /v1/settings', null)
/** Every stream; asked for as long as the page that shows them is open. */
export const streams = answerOf('GET /v1/streams', 1000)

/** How long the node has run, moving on once a second: what it said, and the time since. No clock that is set changes it. */
export function useUptime(): number {
  useNow()
  return (status.data.value?.uptimeMs ?? 0) + performance.now() - status.readAt
}

/** How much of the past the plots can show: what the node remembers. */
export const HISTORY_S = 600

/** Second by second, oldest first. */
export const traffic = signal<readonly TrafficSample[]>([])

/** The circuit that was asked for last: the next request takes it. */
export const freshCircuit = signal<number | null>(null)

/** Asks for fresh circuits, and shows the first of them until a request takes another. */
export async function askForCircuit(): Promise<Circuit> {
  const circuit = await ask('POST /v1/new-circuit')
  freshCircuit.value = circuit.id
  return circuit
}

/** The circuit that the last stream took; else the one that was asked for, or the newest that is open. One that takes nothing new is shown only where there is no other. */
export const circuitInUse = computed<Circuit | null>(() => {
  const known = circuits.data.value ?? []
  let retired: Circuit | null = null
  for (const stream of latestStreams.value) {
    const circuit = known.find(({ id }) => id === stream.circuit)
    if (circuit?.state === 'open') return circuit
    if (circuit?.state === 'retired') retired ??= circuit
  }
  const open = known.filter(({ state, purpose }) => state === 'open' && purpose === 'streams')
  return open.find(({ id }) => id === freshCircuit.value) ?? open.at(-1) ?? known.findLast(({ state }) => state === 'building') ?? retired
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
  const [samples] = await Promise.all([ask('GET /v1/traffic').catch(() => null), loadLatest()])
  if (samples !== null) traffic.value = samples.slice(-HISTORY_S)
}

function take(event: Event): void {
  switch (event.type) {
    case 'traffic':
      nodeSays(event.at)
      traffic.value = [...traffic.peek().slice(1 - HISTORY_S), event.traffic]
      return
    case 'stream-open':
    case 'stream-closed':
      takeStream(event.stream)
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
      // Whether it reaches anything may have changed with it.
      status.refresh()
      return
    case 'warning-over':
      status.update((before) => ({ ...before, warnings: before.warnings.filter(({ code }) => code !== event.code) }))
      status.refresh()
      return
    case 'settings':
      settings.refresh()
      // Limits are among them.
      status.refresh()
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
