import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'
import type { LivelyDashboard } from '../support/lively-dashboard.ts'
import { root } from '../support/repository.ts'
import { chromiumPath } from './browser.ts'

/** Why these tests cannot run here; null when they can. */
export const reasonToSkip = chromiumPath() === null ? 'needs Chromium, or SHALLOT_CHROMIUM that names one' : null

/** Chromium, once the pages that are served are those of the sources. */
export function openBrowser(): Promise<Browser> {
  execFileSync('sh', [join(root, 'bin/tool'), 'node', '-e', ''])
  return chromium.launch({ executablePath: chromiumPath()!, args: ['--no-sandbox'] })
}

/** A page that is signed in, with what went wrong in it. */
export interface OpenPage {
  readonly context: BrowserContext
  readonly page: Page
  readonly errors: string[]
  /** Every address that was asked for. */
  readonly requests: string[]
  go(path: string): Promise<void>
}

export interface Look {
  readonly colorScheme?: 'light' | 'dark'
  readonly viewport?: { readonly width: number; readonly height: number }
  /** How far the browser's clock is ahead of the node's. */
  readonly clockMs?: number
}

export async function openPage(
  browser: Browser,
  { link, origin }: Pick<LivelyDashboard, 'link' | 'origin'>,
  { clockMs = 0, ...look }: Look = {},
): Promise<OpenPage> {
  const context = await browser.newContext({ reducedMotion: 'reduce', ...look })
  if (clockMs !== 0) await context.addInitScript(`{ const now = Date.now; Date.now = () => now() + ${clockMs} }`)
  const page = await context.newPage()
  const errors: string[] = []
  const requests: string[] = []
  page.on('pageerror', (error) => errors.push(error.message))
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) errors.push(message.text())
  })
  page.on('request', (request) => requests.push(request.url()))
  await page.goto(await link())
  await page.getByText('Live', { exact: true }).first().waitFor()
  return {
    context,
    page,
    errors,
    requests,
    async go(path) {
      await page.goto(`${origin}/#/${path}`)
      await page.locator(`nav a[href="#/${path}"][aria-current="page"]`).waitFor({ state: 'attached' })
    },
  }
}
