import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LivelyDashboard, openLivelyDashboard } from '../support/lively-dashboard.ts'
import { root } from '../support/repository.ts'
import { PAGES } from './browser.ts'
import { openBrowser, openPage, reasonToSkip } from './open-page.ts'

const axe = readFileSync(join(root, 'node_modules/axe-core/axe.min.js'), 'utf8')

interface Violation {
  readonly id: string
  readonly help: string
  readonly nodes: readonly { readonly html: string; readonly failureSummary: string }[]
}

/** What axe finds, one line each. */
async function violationsOf(page: Page): Promise<string[]> {
  await page.evaluate(axe)
  const found = (await page.evaluate(
    'axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations)',
  )) as Violation[]
  return found.map(
    ({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(' | ')}`,
  )
}

describe.skipIf(reasonToSkip !== null)(`everybody can use the dashboard${reasonToSkip === null ? '' : ` (${reasonToSkip})`}`, () => {
  let browser: Browser
  let dashboard: LivelyDashboard
  let client: LivelyDashboard
  beforeAll(async () => {
    browser = await openBrowser()
    dashboard = await openLivelyDashboard({ relays: 60, streams: 30, serving: true })
    client = await openLivelyDashboard({ relays: 12, streams: 0, serving: false })
  })
  afterAll(async () => {
    await browser.close()
    await dashboard.close()
    await client.close()
  })

  describe.each(['light', 'dark'] as const)('in %s colours', (colorScheme) => {
    test('axe finds nothing on any page', async () => {
      const open = await openPage(browser, dashboard, { colorScheme })
      for (const path of PAGES) {
        await open.go(path)
        await open.page.waitForTimeout(500)
        expect(await violationsOf(open.page), path).toEqual([])
      }
      await open.go('circuits')
      await open.page.locator('.circuit summary').first().click()
      expect(await violationsOf(open.page), 'a circuit').toEqual([])
      await open.go('network')
      await open.page.locator('.table-relays .link').first().click()
      await open.page.getByText('Claimed capacity').waitFor()
      expect(await violationsOf(open.page), 'a relay').toEqual([])
      await open.context.close()
    })

    test('nor where something is empty, wrong or away', async () => {
      const open = await openPage(browser, client, { colorScheme })
      const { page } = open
      for (const path of ['overview', 'streams', 'reachability', 'serving'] as const) {
        await open.go(path)
        await page.waitForTimeout(400)
        expect(await violationsOf(page), path).toEqual([])
      }
      await open.go('settings')
      await page.getByLabel('guards_in_use', { exact: true }).fill('99')
      await page.getByRole('button', { name: 'Save' }).click()
      await page.locator('.problem').waitFor()
      expect(await violationsOf(page), 'a wrong setting').toEqual([])
      await client.disconnect()
      await page.locator('.banner').waitFor()
      expect(await violationsOf(page), 'disconnected').toEqual([])
      await client.reconnect()
      await page.getByText('Live', { exact: true }).first().waitFor()
      const stranger = await open.context.newPage()
      await stranger.goto(client.origin)
      await stranger.locator('h1').waitFor()
      expect(await violationsOf(stranger), 'signed out').toEqual([])
      await open.context.close()
    })

    test('nothing is wider than a screen of 360 px', async () => {
      const open = await openPage(browser, dashboard, { colorScheme, viewport: { width: 360, height: 740 } })
      for (const path of PAGES) {
        await open.go(path)
        await open.page.waitForTimeout(400)
        expect(await open.page.evaluate('document.documentElement.scrollWidth'), path).toBeLessThanOrEqual(360)
      }
      await open.page.getByRole('button', { name: 'Pages' }).click()
      await open.page.getByRole('link', { name: 'Streams' }).click()
      await open.page.getByRole('heading', { level: 1, name: 'Streams' }).waitFor()
      await expect.poll(() => open.page.getByRole('link', { name: 'Network' }).isVisible()).toBe(false)
      await open.context.close()
    })
  })
})
