import { computed, effect, signal } from '@preact/signals'
import type { Event, LogLevel, LogLine } from '../control/api-types.ts'
import { ask } from './api.ts'
import { onEvent, onOpen, wantEvents } from './connection.ts'

export const LEVELS: readonly LogLevel[] = ['error', 'warn', 'info', 'debug', 'trace']
/** Lines that the page keeps. */
const MAX_LINES = 5000

export const level = signal<LogLevel>('info')
export const subsystem = signal('')
export const logText = signal('')
export const paused = signal(false)

/** Oldest first. */
export const lines = signal<readonly LogLine[]>([])
export const subsystems = signal<readonly string[]>([])
export const loaded = signal(false)
/** Lines that came while the page was paused. */
export const waiting = signal<readonly LogLine[]>([])
export const logError = signal<string | null>(null)

/** Those that the search finds; level and subsystem are the node's to choose by. */
export const shownLines = computed(() => {
  const text = logText.value.trim().toLowerCase()
  if (text === '') return lines.value
  return lines.value.filter((line) => `${line.sub} ${line.message} ${JSON.stringify(line.fields)}`.toLowerCase().includes(text))
})

/** Listens to the log until the returned function is called. */
export function followLog(): () => void {
  let stopWanting = (): void => {}
  const stopFilter = effect(() => {
    const filter = { level: level.value, ...(subsystem.value === '' ? {} : { sub: subsystem.value }) }
    lines.value = []
    waiting.value = []
    loaded.value = false
    stopWanting()
    stopWanting = wantEvents(['log'], filter)
    void load(filter)
  })
  const stopOpen = onOpen(() => void load(filterNow()))
  const stopHearing = onEvent(take)
  return () => {
    stopHearing()
    stopOpen()
    stopFilter()
    stopWanting()
  }
}

/** What comes waits. */
export function pause(): void {
  paused.value = true
}

/** Goes on with what came meanwhile. */
export function resume(): void {
  paused.value = false
  add(waiting.peek())
  waiting.value = []
}

function filterNow(): Record<string, string> {
  return { level: level.peek(), ...(subsystem.peek() === '' ? {} : { sub: subsystem.peek() }) }
}

async function load(filter: Readonly<Record<string, string>>): Promise<void> {
  try {
    const page = await ask('GET /v1/log', { query: { limit: 1000, ...filter } })
    if (JSON.stringify(filter) !== JSON.stringify(filterNow())) return
    subsystems.value = page.subsystems.filter((name) => name !== '').toSorted()
    logError.value = null
    // Those that are known may be more than the node still remembers.
    if (!paused.peek() || lines.peek().length === 0) add(page.lines)
    loaded.value = true
  } catch (error) {
    logError.value = error instanceof Error ? error.message : String(error)
    loaded.value = true
  }
}

function take(event: Event): void {
  if (event.type !== 'log') return
  const { line } = event
  if (line.sub !== '' && !subsystems.peek().includes(line.sub)) subsystems.value = [...subsystems.peek(), line.sub].sort()
  if (paused.peek()) waiting.value = [...waiting.peek(), line].slice(-MAX_LINES)
  else add([line])
}

function add(more: readonly LogLine[]): void {
  if (more.length === 0) return
  const before = lines.peek()
  const last = before.at(-1)?.seq ?? -1
  // A node that was started again counts from zero.
  const restarted = more.some(({ seq, at }) => seq <= last && at > before.at(-1)!.at)
  const fresh = restarted ? more.filter(({ at }) => at > before.at(-1)!.at) : more.filter(({ seq }) => seq > last)
  if (fresh.length > 0) lines.value = [...before, ...fresh].slice(-MAX_LINES)
}
