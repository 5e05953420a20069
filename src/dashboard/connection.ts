import { batch, effect, signal } from '@preact/signals'
import type { Event } from '../control/api-types.ts'
import { ApiError } from './api.ts'
import { readEvents } from './event-stream.ts'
import { forget, token } from './session.ts'

/** How the page and the node are connected. */
export type Connection =
  | { readonly state: 'connecting' }
  | { readonly state: 'open' }
  | { readonly state: 'lost'; readonly why: string; readonly since: number; readonly retryAt: number }
  | { readonly state: 'signed-out'; readonly why: string | null }

type EventType = Event['type']
type Listener = (event: Event) => void

/** Waits between attempts; the last one from then on. */
const RETRY_MS = [500, 1000, 2000, 4000, 5000] as const
/** A page that nobody sees gives its connection back after this long: a browser has six for one host, whatever the number of its tabs. */
const HIDDEN_MS = 15_000
/** What every page wants to know. */
const ALWAYS: readonly EventType[] = [
  'ready',
  'circuit-open',
  'circuit-retired',
  'circuit-closed',
  'stream-open',
  'stream-closed',
  'guard',
  'view',
  'reachability',
  'vpn',
  'traffic',
  'settings',
  'draining',
  'warning',
  'warning-over',
  'stopping',
]

/** The connection as it is now. */
export const connection = signal<Connection>({ state: 'connecting' })

const wanted = signal<Readonly<Record<string, string>>>({ types: ALWAYS.join(',') })
const hidden = signal(false)
const listeners = new Set<Listener>()
const openers = new Set<() => void>()
let retryNow = (): void => {}

/** Hears every event from now on, until the returned function is called. */
export function onEvent(listener: Listener): () => void {
  listeners.add(listener)
  return () => void listeners.delete(listener)
}

/** Called whenever events begin to come: what was known before may be old. */
export function onOpen(opener: () => void): () => void {
  openers.add(opener)
  return () => void openers.delete(opener)
}

/** Asks for events of more types, with what they are filtered by, until the returned function is called. One page asks at a time. */
export function wantEvents(types: readonly EventType[], filter: Readonly<Record<string, string>> = {}): () => void {
  const mine = { types: [...ALWAYS, ...types].join(','), ...filter }
  wanted.value = mine
  return () => {
    if (wanted.peek() === mine) wanted.value = { types: ALWAYS.join(',') }
  }
}

/** Does not wait for the next attempt. */
export function tryNow(): void {
  retryNow()
}

/** The token is no good any more. */
export function signOut(why: string | null): void {
  forget()
  connection.value = { state: 'signed-out', why }
}

/** Connects, and again whenever the connection was lost. */
export function startConnection(): void {
  watchVisibility()
  effect(() => {
    const query = wanted.value
    if (hidden.value) return
    if (token() === null) return
    const ending = new AbortController()
    void keepReading(query, ending.signal)
    return () => ending.abort()
  })
}

async function keepReading(query: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void> {
  for (let attempt = 0; !signal.aborted; ) {
    let why = 'The node ended the connection.'
    try {
      const reader = {
        open() {
          attempt = 0
          connection.value = { state: 'open' }
          for (const opener of openers) opener()
        },
        events: tell,
      }
      await readEvents(query, reader, signal)
    } catch (error) {
      if (signal.aborted) return
      if (error instanceof ApiError && error.status === 401) return signOut('The link that opened this page is no longer good.')
      why = error instanceof Error ? error.message : String(error)
    }
    if (signal.aborted) return
    const waitMs = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]!
    attempt += 1
    const before = connection.peek()
    const now = Date.now()
    connection.value = { state: 'lost', why, since: before.state === 'lost' ? before.since : now, retryAt: now + waitMs }
    await new Promise<void>((done) => {
      const timer = setTimeout(done, waitMs)
      retryNow = () => {
        clearTimeout(timer)
        done()
      }
      signal.addEventListener('abort', retryNow, { once: true })
    })
  }
}

function tell(events: readonly Event[]): void {
  batch(() => {
    for (const event of events) for (const listener of listeners) listener(event)
  })
}

function watchVisibility(): void {
  let timer: ReturnType<typeof setTimeout> | undefined
  document.addEventListener('visibilitychange', () => {
    clearTimeout(timer)
    if (document.visibilityState === 'visible') hidden.value = false
    else
      timer = setTimeout(() => {
        hidden.value = true
      }, HIDDEN_MS)
  })
}
