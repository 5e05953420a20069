import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LivelyDashboard, openLivelyDashboard } from '../support/lively-dashboard.ts'
import { openBrowser, openPage, reasonToSkip } from './open-page.ts'

/** SHALLOT_LONG=1: a minute, as the whole of the promise; else as long as a suite may wait. */
const WATCHED_MS = process.env.SHALLOT_LONG === '1' ? 60_000 : 10_000
/** What a person takes for immediate (RAIL: 100 ms). */
const LONGEST_TASK_MS = 100

interface TraceEvent {
  readonly name: string
  readonly ph: string
  readonly pid: number
  readonly tid: number
  /** Microseconds: by the clock, and of the processor. */
  readonly dur?: number
  readonly tdur?: number
  readonly args?: { readonly name?: string }
}

/** Tasks of the threads that draw pages, in ms, the longest first. `workMs` is what the processor did: the rest is other programs of the machine. */
function mainThreadTasks(trace: readonly TraceEvent[]): { readonly wallMs: number; readonly workMs: number }[] {
  const main = new Set(
    trace.filter(({ name, args }) => name === 'thread_name' && args?.name === 'CrRendererMain').map(({ pid, tid }) => `${pid} ${tid}`),
  )
  return trace
    .filter(({ name, ph, pid, tid }) => ph === 'X' && name.endsWith('RunTask') && main.has(`${pid} ${tid}`))
    .map(({ dur = 0, tdur }) => ({ wallMs: dur / 1000, workMs: (tdur ?? dur) / 1000 }))
    .sort((a, b) => b.wallMs - a.wallMs)
}

describe.skipIf(reasonToSkip !== null)(`the dashboard stays smooth${reasonToSkip === null ? '' : ` (${reasonToSkip})`}`, () => {
  let browser: Browser
  let dashboard: LivelyDashboard
  beforeAll(async () => {
    browser = await openBrowser()
    dashboard = await openLivelyDashboard({ relays: 500, streams: 5000, serving: true })
  })
  afterAll(async () => {
    await browser.close()
    await dashboard.close()
  })

  // By the clock, so a machine that is busy with something else gets another try.
  test(`with 500 relays and 5,000 streams that change each second, no task of the page takes ${LONGEST_TASK_MS} ms`, {
    retry: 2,
  }, async () => {
    const open = await openPage(browser, dashboard)
    const { page } = open
    await browser.startTracing(page, {
      categories: ['toplevel', 'disabled-by-default-devtools.timeline', 'devtools.timeline', '__metadata'],
    })
    for (const path of ['overview', 'streams', 'network', 'streams', 'logs']) {
      await open.go(path)
      if (path === 'streams') {
        await expect.poll(() => page.locator('.count').textContent()).toMatch(/5,0\d\d|4,9\d\d/)
        await page.locator('.table-body').evaluate('(body) => { body.scrollTop = 90000 }')
      }
      await page.waitForTimeout(WATCHED_MS / 5)
    }
    const { traceEvents } = JSON.parse((await browser.stopTracing()).toString('utf8')) as { traceEvents: TraceEvent[] }
    const tasks = mainThreadTasks(traceEvents)
    console.log(`tasks: ${tasks.length}; longest: ${JSON.stringify(tasks.slice(0, 3))}`)
    // The trace was one of a page at work.
    expect(tasks.length).toBeGreaterThan(100)
    expect(tasks[0]!.wallMs).toBeLessThan(LONGEST_TASK_MS)
    expect(open.errors).toEqual([])
    await open.context.close()
  })
})
