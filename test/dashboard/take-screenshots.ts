import { join } from 'node:path'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { openLivelyDashboard } from '../support/lively-dashboard.ts'
import { PAGES } from './browser.ts'

const LOOKS = [
  { name: 'light', colorScheme: 'light', viewport: { width: 1280, height: 860 } },
  { name: 'dark', colorScheme: 'dark', viewport: { width: 1280, height: 860 } },
  { name: 'phone', colorScheme: 'light', viewport: { width: 360, height: 740 } },
  { name: 'phone-dark', colorScheme: 'dark', viewport: { width: 360, height: 740 } },
] as const

/** What animates and what is measured has settled by then. */
const SETTLE_MS = 1500

/** Takes a picture of each page of a node that has every role, and of what is seen when something is amiss. @param only a part of the name of those wanted */
export async function takeScreenshots(browser: Browser, into: string, only = ''): Promise<void> {
  const dashboard = await openLivelyDashboard({ relays: 500, streams: 180, serving: true })
  const client = await openLivelyDashboard({ relays: 40, streams: 0, serving: false })
  try {
    for (const { name, ...look } of LOOKS) {
      const context = await browser.newContext({ ...look, reducedMotion: 'reduce' })
      const shoot = async (page: Page, what: string): Promise<void> => {
        const file = `${what}-${name}.png`
        if (!file.includes(only)) return
        // A few say it all.
        if (name === 'phone-dark' && what !== 'overview') return
        await page.waitForTimeout(SETTLE_MS)
        await page.screenshot({ path: join(into, file), fullPage: what === 'overview' || what === 'serving' })
      }
      const page = await signIn(context, await dashboard.link())
      for (const path of PAGES) {
        await page.goto(`${dashboard.origin}/#/${path}`)
        await page.locator('h1').waitFor()
        await shoot(page, path)
      }
      const quiet = await signIn(context, await client.link())
      await shoot(quiet, 'client')
      await quiet.goto(`${client.origin}/#/reachability`)
      await shoot(quiet, 'no-reachability')
      await quiet.goto(`${client.origin}/#/overview`)
      await client.disconnect()
      await quiet.locator('.banner').waitFor()
      await shoot(quiet, 'disconnected')
      await client.reconnect()
      const stranger = await context.newPage()
      await stranger.goto(dashboard.origin)
      await shoot(stranger, 'signed-out')
      await context.close()
    }
  } finally {
    await dashboard.close()
    await client.close()
  }
}

async function signIn(context: BrowserContext, link: string): Promise<Page> {
  const page = await context.newPage()
  page.on('pageerror', (error) => console.error(`page error: ${error.message}`))
  page.on('console', (message) => {
    if (message.type() === 'error') console.error(`console: ${message.text()}`)
  })
  await page.goto(link)
  await page.locator('h1').waitFor()
  return page
}
