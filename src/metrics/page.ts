import { METRICS } from './definitions.ts'
import type { Source } from './metric.ts'
import type { RuntimeWatch } from './runtime.ts'

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
  readonly #source: () => Omit<Source, 'runtime'>
  readonly #runtime: Pick<RuntimeWatch, 'facts'>
  readonly #now: () => number
  readonly #pages = new Map<string, { readonly madeAt: number; readonly page: Promise<Page> }>()

  constructor(source: () => Omit<Source, 'runtime'>, runtime: Pick<RuntimeWatch, 'facts'>, now: () => number) {
    this.#source = source
    this.#runtime = runtime
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
    const runtime = await this.#runtime.facts(this.#now())
    const registry = new client.Registry()
    // Both kinds of registry are one class; its type says which content type it was made with.
    if (format === 'openmetrics') registry.setContentType(client.Registry.OPENMETRICS_CONTENT_TYPE as never)
    const source: Source = { ...this.#source(), runtime }
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
    return { contentType: registry.contentType, text: await registry.metrics() }
  }
}

/** Down to a multiple of the step, so that a counter never goes back. */
function coarse(value: number, step: number): number {
  // Parts of one are divided by a whole number: 0.3 stays 0.3.
  return step < 1 ? Math.floor(value / step) / Math.round(1 / step) : Math.floor(value / step) * step
}
