import { signal } from '@preact/signals'
import type { Stream } from '../control/api-types.ts'
import { ask } from './api.ts'

/** Streams that the overview remembers. */
export const MAX_LATEST = 40
/** How often those in sight are looked at: events tell of begin and end alone, and of many at once not even that. */
const LOOK_MS = 2000

/** The last streams that began, newest first, whatever became of them. */
export const latestStreams = signal<readonly Stream[]>([])

/** What an event said of one. */
export function takeStream(stream: Stream): void {
  if (stream.kind !== 'stream' || stream.target === null) return
  const others = latestStreams.peek().filter(({ id }) => id !== stream.id)
  // One that ends stays where it began, however long ago: it is not the last that took a circuit.
  latestStreams.value = newestFirst([stream, ...others])
}

/** The node's own list in the place of what was known: of another start of the node it may have been. What is told meanwhile stays. */
export async function loadLatest(): Promise<void> {
  const before = new Set(latestStreams.peek())
  const answer = await askLatest()
  if (answer === null) return
  const told = latestStreams.peek().filter((stream) => !before.has(stream))
  latestStreams.value = merged(told, answer, new Set())
}

/** Keeps bytes and states of the last streams up to date while one of the first is open, until the returned function is called. */
export function watchLatest(shown: number): () => void {
  let busy = false
  const timer = setInterval(async () => {
    if (busy || document.visibilityState === 'hidden') return
    const before = latestStreams.peek()
    if (before.slice(0, shown).every(({ state }) => state === 'closed')) return
    busy = true
    const answer = await askLatest()
    busy = false
    if (answer === null) return
    latestStreams.value = merged(latestStreams.peek(), answer, new Set(before.map(({ id }) => id)))
  }, LOOK_MS)
  return () => clearInterval(timer)
}

/**
 * What is known with what the node answered, newest first. What was asked after and is not in the answer has ended; an end that was told
 * meanwhile stands.
 */
function merged(known: readonly Stream[], answer: readonly Stream[], asked: ReadonlySet<number>): Stream[] {
  const all = new Map(answer.map((stream) => [stream.id, stream]))
  for (const stream of known) {
    const found = all.get(stream.id)
    if (found?.state === 'closed') continue
    if (stream.state === 'closed') all.set(stream.id, stream)
    else if (found === undefined) all.set(stream.id, asked.has(stream.id) ? { ...stream, state: 'closed' } : stream)
  }
  return newestFirst([...all.values()])
}

/** Numbers rise in the order of their begin. */
function newestFirst(streams: Stream[]): Stream[] {
  return streams.sort((a, b) => b.id - a.id).slice(0, MAX_LATEST)
}

function askLatest(): Promise<readonly Stream[] | null> {
  return ask('GET /v1/streams', { query: { recent: 1, kind: 'stream', last: MAX_LATEST } }).catch(() => null)
}
