import type { ServerResponse } from 'node:http'
import type { LogFilter, LogLine, NodeControl, NodeEvent } from '../node/index.ts'
import { fitsFilter } from '../node/index.ts'
import { EVENT_TYPES } from './api/routes.ts'
import type * as Api from './api-types.ts'
import type { Parameters } from './parameters.ts'
import { RelayChanges } from './relay-changes.ts'

const MAX_READERS = 16
/** A reader that lets this much wait is cut off: it can connect again and ask for the present state. */
const MAX_WAITING_BYTES = 256 * 1024
/** A comment now and then tells a reader that the node lives. */
const HEARTBEAT_MS = 15_000
/** Relays told in one event; beyond it the reader asks for the list. */
const MAX_RELAYS_TOLD = 100

type EventType = (typeof EVENT_TYPES)[number]
/** Only for who asks for them. */
const ON_DEMAND: readonly EventType[] = ['log', 'relays', 'traffic', 'streams', 'stream-open', 'stream-closed']

export const EVENT_HEADERS = { 'content-type': 'text/event-stream', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' }

interface Reader {
  readonly response: ServerResponse
  readonly types: ReadonlySet<string>
  readonly filter: LogFilter
  readonly lasts: () => boolean
}

/** Server-sent events (HTML standard §9.2) to any number of readers up to a limit. */
export class EventFeed {
  readonly #node: NodeControl
  readonly #readers = new Set<Reader>()
  readonly #unsubscribe: () => void
  #heartbeat: NodeJS.Timeout | null = null
  #unfollow: (() => void) | null = null
  #relays: RelayChanges | null = null

  constructor(node: NodeControl) {
    this.#node = node
    this.#unsubscribe = node.subscribe((event) => this.#publish(event))
  }

  /**
   * Makes the response a reader; false when there are too many.
   * @param parameters `types`, and for lines of the log `level` and `sub`
   * @param lasts whether it may go on reading: looked at now and then
   */
  add(response: ServerResponse, parameters: Parameters, lasts: () => boolean): boolean {
    if (this.#readers.size >= MAX_READERS) return false
    const types = new Set((parameters.types as string[] | undefined) ?? EVENT_TYPES.filter((type) => !ON_DEMAND.includes(type)))
    const reader: Reader = { response, types, filter: parameters as LogFilter, lasts }
    response.writeHead(200, EVENT_HEADERS)
    response.write(': shallot events\n\n')
    this.#readers.add(reader)
    this.#heartbeat ??= setInterval(() => this.#beat(), HEARTBEAT_MS).unref()
    if (types.has('log')) this.#unfollow ??= this.#node.logs.follow((line) => this.#publishLine(line))
    if (types.has('relays')) this.#relays ??= this.#newRelayChanges()
    response.once('close', () => this.#remove(reader))
    return true
  }

  /** Ends what is told to those who may read no longer. */
  dismiss(): void {
    for (const { response, lasts } of [...this.#readers]) if (!lasts()) response.end()
  }

  close(): void {
    this.#unsubscribe()
    for (const { response } of this.#readers) response.end()
    this.#readers.clear()
    this.#stopWatching()
  }

  #publish(event: NodeEvent): void {
    this.#tell(event)
    if (event.type !== 'view' || this.#relays === null) return
    const changes = this.#relays.since(this.#allRelays(), MAX_RELAYS_TOLD)
    if (changes !== null) this.#tell({ type: 'relays', at: event.at, ...changes })
  }

  #publishLine(line: LogLine): void {
    this.#tell({ type: 'log', at: line.at, line }, ({ filter }) => fitsFilter(line, filter))
  }

  #tell(event: Api.Event, wants: (reader: Reader) => boolean = () => true): void {
    let text: string | null = null
    for (const reader of this.#readers) {
      if (!reader.types.has(event.type) || !wants(reader)) continue
      text ??= `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`
      write(reader, text)
    }
  }

  #beat(): void {
    this.dismiss()
    for (const reader of this.#readers) if (!reader.response.writableEnded) write(reader, ': here\n\n')
  }

  #allRelays(): ReturnType<NodeControl['relayPage']>['relays'] {
    return this.#node.relayPage({ limit: Number.MAX_SAFE_INTEGER }).relays
  }

  #newRelayChanges(): RelayChanges {
    const changes = new RelayChanges()
    changes.since(this.#allRelays(), 0)
    return changes
  }

  #remove(reader: Reader): void {
    this.#readers.delete(reader)
    const wanted = (type: EventType): boolean => [...this.#readers].some(({ types }) => types.has(type))
    if (!wanted('relays')) this.#relays = null
    if (!wanted('log')) {
      this.#unfollow?.()
      this.#unfollow = null
    }
    if (this.#readers.size === 0) this.#stopWatching()
  }

  #stopWatching(): void {
    if (this.#heartbeat !== null) clearInterval(this.#heartbeat)
    this.#heartbeat = null
    this.#unfollow?.()
    this.#unfollow = null
    this.#relays = null
  }
}

function write({ response }: Reader, text: string): void {
  if (response.writableLength > MAX_WAITING_BYTES) response.destroy()
  else response.write(text)
}
