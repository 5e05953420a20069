import { METRICS, type Source } from './definitions.ts'

/** A page of metrics, in one of the two formats. */
export interface Page {
  readonly contentType: string
  readonly text: string
}

export type Format = 'prometheus' | 'openmetrics'

/** Pages are made anew at most this often: between two of them nobody sees what happened when. */
export const PAGE_AGE_MS = 60_000

/**
 * Writes pages. prom-client is loaded with the first one.
 * @param isLocal with the metrics of the node's own user
 */
export class PageWriter {
  readonly #source: () => Source
  readonly #now: () => number
  readonly #pages = new Map<string, { readonly madeAt: number; readonly page: Promise<Page> }>()

  constructor(source: () => Source, now: () => number) {
    this.#source = source
    this.#now = now
  }

  page(format: Format, isLocal: boolean): Promise<Page> {
    const key = `${format} ${isLocal}`
    const kept = this.#pages.get(key)
    if (kept && this.#now() - kept.madeAt < PAGE_AGE_MS) return kept.page
    const page = this.#make(format, isLocal)
    this.#pages.set(key, { madeAt: this.#now(), page })
    page.catch(() => this.#pages.delete(key))
    return page
  }

  async #make(format: Format, isLocal: boolean): Promise<Page> {
    const { default: client } = await import('prom-client')
    const registry = new client.Registry()
    // Both kinds of registry are one class; its type says which content type it was made with.
    if (format === 'openmetrics') registry.setContentType(client.Registry.OPENMETRICS_CONTENT_TYPE as never)
    const source = this.#source()
    for (const { name, help, type, labels, audience, step, read } of METRICS) {
      if (audience === 'local' && !isLocal) continue
      const samples = read(source)
      if (samples.length === 0) continue
      const options = { name, help, labelNames: [...labels], registers: [registry] }
      if (type === 'counter') {
        const made = new client.Counter(options)
        for (const { labels: at = {}, value } of samples) made.inc(at, coarse(value, step))
      } else {
        const made = new client.Gauge(options)
        for (const { labels: at = {}, value } of samples) made.set(at, coarse(value, step))
      }
    }
    processMetrics(client, registry)
    return { contentType: registry.contentType, text: await registry.metrics() }
  }
}

/** Down to a multiple of the step, so that a counter never goes back. */
function coarse(value: number, step: number): number {
  return Math.floor(value / step) * step
}

/** What Prometheus' own libraries say of a process, as of now; without timers and hooks of the engine, which would cost something all the time. */
function processMetrics(client: typeof import('prom-client'), registry: import('prom-client').Registry): void {
  const gauge = (name: string, help: string, value: number): void => new client.Gauge({ name, help, registers: [registry] }).set(value)
  const { rss, heapUsed } = process.memoryUsage()
  const { user, system } = process.cpuUsage()
  new client.Counter({ name: 'process_cpu_seconds_total', help: 'CPU time of the process.', registers: [registry] }).inc(
    Math.floor((user + system) / 1e6),
  )
  gauge('process_resident_memory_bytes', 'Resident memory.', coarse(rss, 1 << 20))
  gauge('nodejs_heap_size_used_bytes', "Memory in use by JavaScript's objects.", coarse(heapUsed, 1 << 20))
  gauge('process_start_time_seconds', 'When the process was started.', Math.floor(Date.now() / 1000 - process.uptime()))
  gauge('process_open_resources', 'Handles and requests of the event loop.', coarse(process.getActiveResourcesInfo().length, 8))
}
