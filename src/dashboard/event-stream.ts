import type { Event } from '../control/api-types.ts'
import { send } from './api.ts'

/** The node tells of its traffic each second; after this long without a word it is gone, whatever the socket says. */
const SILENCE_MS = 10_000
/** A timer that comes later than this belongs to a page that slept: what came meanwhile is still to be read. */
const SLEPT_MS = 2000
/** No event is longer. */
const MAX_EVENT_CHARS = 4 * 1024 * 1024

/** What a reader is told. */
export interface EventReader {
  /** Several at once where they came at once: one redraw for all of them. */
  readonly events: (events: readonly Event[]) => void
  readonly open?: () => void
}

/**
 * Reads `GET /v1/events` until it ends (HTML standard §9.2.6, of which the node uses `data` alone). EventSource cannot send a token.
 * @throws ApiError when the node refuses; returns when the stream ends
 */
export async function readEvents(query: Readonly<Record<string, string>>, reader: EventReader, signal: AbortSignal): Promise<void> {
  const silence = new AbortController()
  const watch = watchFor(SILENCE_MS, () => silence.abort())
  try {
    const response = await send('GET /v1/events', { query, signal: AbortSignal.any([signal, silence.signal]) })
    const body = response.body?.pipeThrough(new TextDecoderStream()).getReader()
    if (body === undefined) return
    reader.open?.()
    let text = ''
    for (;;) {
      const { value, done } = await body.read()
      if (done || text.length > MAX_EVENT_CHARS) return
      watch.heard()
      text += value
      const end = text.lastIndexOf('\n\n')
      if (end < 0) continue
      const events = text.slice(0, end).split('\n\n').flatMap(eventOf)
      text = text.slice(end + 2)
      if (events.length > 0) reader.events(events)
    }
  } catch (error) {
    if (signal.aborted || silence.signal.aborted || error instanceof TypeError) return
    throw error
  } finally {
    watch.stop()
  }
}

/** Calls when nothing was heard for so long. */
function watchFor(ms: number, silent: () => void): { heard(): void; stop(): void } {
  let timer: ReturnType<typeof setTimeout> | undefined
  const start = (): void => {
    clearTimeout(timer)
    const due = performance.now() + ms
    timer = setTimeout(() => (performance.now() - due > SLEPT_MS ? start() : silent()), ms)
  }
  start()
  return { heard: start, stop: () => clearTimeout(timer) }
}

function eventOf(block: string): Event[] {
  const data = block
    .split('\n')
    .filter((line) => line.startsWith('data:'))
    .map((line) => line.slice(5).trimStart())
    .join('\n')
  return data === '' ? [] : [JSON.parse(data) as Event]
}
