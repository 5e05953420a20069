import { readdir, readFile } from 'node:fs/promises'
import type { PerformanceObserver as Observer, PerformanceEntry } from 'node:perf_hooks'

/** What the process costs and how it keeps up, as of one moment. */
export interface RuntimeFacts {
  readonly cpuSeconds: number
  readonly startedAt: number
  readonly rssBytes: number
  readonly heapUsedBytes: number
  readonly heapTotalBytes: number
  readonly heapLimitBytes: number
  readonly externalBytes: number
  /** Null where the system does not tell. */
  readonly openFiles: number | null
  readonly maxFiles: number | null
  readonly resources: number
  /** How long the event loop has been at work since the start. */
  readonly loopActiveSeconds: number
  /** How late timers were, over the last minute that was looked at; null before there is one. */
  readonly lag: { readonly median: number; readonly p99: number; readonly max: number } | null
  readonly gc: readonly { readonly kind: string; readonly runs: number; readonly seconds: number }[]
}

/** Between two looks at the loop. 50 a second cost about a thousandth of a processor. */
const LAG_RESOLUTION_MS = 20
const GC_KINDS: Readonly<Record<number, string>> = { 1: 'minor', 2: 'minor', 4: 'major', 8: 'incremental', 16: 'weak-callbacks' }

/**
 * Watches this process from now on, until it is closed: timers and hooks of the engine, so only where somebody collects them.
 * @param windowMs over how long the lag is summed up, at least
 */
export class RuntimeWatch {
  readonly #windowMs: number
  readonly #delay: ReturnType<typeof import('node:perf_hooks').monitorEventLoopDelay>
  readonly #observer: Observer
  readonly #getHeapStatistics: typeof import('node:v8').getHeapStatistics
  readonly #gc = new Map<string, { runs: number; seconds: number }>()
  #lag: RuntimeFacts['lag'] = null
  #lagSince: number

  constructor(windowMs: number, now: number) {
    // Not `import`: docs/decisions/2026-11-20-memory-of-a-node.md
    const { monitorEventLoopDelay } = process.getBuiltinModule('node:perf_hooks')
    this.#getHeapStatistics = process.getBuiltinModule('node:v8').getHeapStatistics
    this.#windowMs = windowMs
    this.#lagSince = now
    this.#delay = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS })
    this.#delay.enable()
    for (const kind of Object.values(GC_KINDS)) this.#gc.set(kind, { runs: 0, seconds: 0 })
    this.#observer = new PerformanceObserver((list) => {
      for (const { duration, detail } of list.getEntries() as (PerformanceEntry & { readonly detail?: { readonly kind?: number } })[]) {
        const sums = this.#gc.get(GC_KINDS[detail?.kind ?? 0] ?? '')
        if (!sums) continue
        sums.runs++
        sums.seconds += duration / 1000
      }
    })
    this.#observer.observe({ entryTypes: ['gc'] })
  }

  /** @param now monotonic ms */
  async facts(now: number): Promise<RuntimeFacts> {
    this.#closeWindow(now)
    const { user, system } = process.cpuUsage()
    const { rss, heapUsed, heapTotal, external } = process.memoryUsage()
    return {
      cpuSeconds: (user + system) / 1e6,
      startedAt: Date.now() - process.uptime() * 1000,
      rssBytes: rss,
      heapUsedBytes: heapUsed,
      heapTotalBytes: heapTotal,
      heapLimitBytes: this.#getHeapStatistics().heap_size_limit,
      externalBytes: external,
      ...(await files()),
      resources: process.getActiveResourcesInfo().length,
      loopActiveSeconds: performance.eventLoopUtilization().active / 1000,
      lag: this.#lag,
      gc: [...this.#gc].map(([kind, sums]) => ({ kind, ...sums })),
    }
  }

  close(): void {
    this.#delay.disable()
    this.#observer.disconnect()
  }

  /** Several pages are made of one window: none of them takes it from the others. */
  #closeWindow(now: number): void {
    if (this.#delay.count === 0 || (this.#lag !== null && now - this.#lagSince < this.#windowMs)) return
    // What the engine gives holds the time between two looks too.
    const seconds = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e9 - LAG_RESOLUTION_MS / 1000)
    this.#lag = { median: seconds(this.#delay.percentile(50)), p99: seconds(this.#delay.percentile(99)), max: seconds(this.#delay.max) }
    this.#delay.reset()
    this.#lagSince = now
  }
}

async function files(): Promise<Pick<RuntimeFacts, 'openFiles' | 'maxFiles'>> {
  const [open, limits] = await Promise.all([
    readdir('/proc/self/fd').catch(() => null),
    readFile('/proc/self/limits', 'utf8').catch(() => ''),
  ])
  const max = /^Max open files\s+(\d+)/m.exec(limits)?.[1]
  return { openFiles: open?.length ?? null, maxFiles: max === undefined ? null : Number(max) }
}
