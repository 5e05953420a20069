import type { Browser, Locator } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { StreamEnd } from '../../src/control/api-types.ts'
import { type LivelyDashboard, openLivelyDashboard } from '../support/lively-dashboard.ts'
import { type OpenPage, openBrowser, openPage, reasonToSkip } from './open-page.ts'

describe.skipIf(reasonToSkip !== null)(`the overview${reasonToSkip === null ? '' : ` (${reasonToSkip})`}`, () => {
  let browser: Browser
  let dashboard: LivelyDashboard
  let open: OpenPage
  beforeAll(async () => {
    browser = await openBrowser()
  })
  afterAll(() => browser.close())
  beforeEach(async () => {
    dashboard = await openLivelyDashboard({ relays: 60, streams: 0, serving: false })
    open = await openPage(browser, dashboard)
  })
  afterEach(async () => {
    await open.context.close()
    await dashboard.close()
    expect(open.errors).toEqual([])
  })

  const shownPath = (): Promise<string[]> => open.page.locator('.stop-code').allTextContents()
  const pathOf = (id: number): string[] =>
    dashboard.node
      .circuits(false)
      .find((circuit) => circuit.id === id)!
      .path.map(({ country }) => country!)
  const request = (target: string): Locator => open.page.locator('.requests li', { hasText: target })

  test('draws the circuit that was asked for while a stream is still open on an older one', async () => {
    const { page } = open
    const stream = dashboard.node.openStream({ target: 'kept.example:443' })
    await expect.poll(shownPath).toEqual(pathOf(stream.circuit!))
    await page.getByRole('button', { name: 'New circuit' }).click()
    const said = await page.getByText('New requests take fresh circuits').textContent()
    const fresh = Number(/circuit (\d+)/.exec(said!)![1])
    expect(fresh).not.toBe(stream.circuit)
    expect(dashboard.node.circuits(false).find(({ id }) => id === stream.circuit)!.state).toBe('retired')
    await expect.poll(shownPath).toEqual(pathOf(fresh))
    // The number that the notice names is that of the drawing.
    await page.getByRole('heading', { name: `Your circuit ${fresh}` }).waitFor()
    await page.getByText('Your traffic comes out in').waitFor()
    // It stays so when the answers have come anew.
    await page.waitForTimeout(3500)
    expect(await shownPath()).toEqual(pathOf(fresh))
    dashboard.node.openStream({ target: 'next.example:443', circuit: fresh })
    await expect.poll(() => page.locator('.stop-target').textContent()).toBe('next.example:443')
  })

  test('shows what a request that lasts has carried so far, and its end, though no event tells of it', async () => {
    const stream = dashboard.node.openStream({ target: 'long.example:443', state: 'opening', bytesSent: 0, bytesReceived: 0 })
    const row = request('long.example:443')
    await row.getByText('opening').waitFor()
    dashboard.node.changeStream(stream.id, { state: 'open', bytesReceived: 5 * 2 ** 20 })
    await row.getByText('open', { exact: true }).waitFor()
    await row.getByText(/^5\.\d\d MiB$/).waitFor()
    const untold = dashboard.node.openStream({ target: 'untold.example:443' }, false)
    await request('untold.example:443').waitFor()
    dashboard.node.changeStream(stream.id, null)
    dashboard.node.changeStream(untold.id, null)
    await expect.poll(() => open.page.locator('.requests .badge').count(), { timeout: 8000 }).toBe(0)
    expect(await open.page.locator('.requests li').count()).toBe(2)
  })

  test('a request of long ago that ends is not taken for the last one', async () => {
    const { node } = dashboard
    const old = node.openStream({ target: 'old.example:443', circuit: 1 })
    for (let i = 0; i < 45; i++) node.openStream({ target: `n${i}.example:443`, circuit: 2 })
    await request('n44.example:443').waitFor()
    node.endStream(old.id)
    node.openStream({ target: 'newest.example:443', circuit: 2 })
    await request('newest.example:443').waitFor()
    expect(await open.page.locator('.request-target').allTextContents()).not.toContain('old.example:443')
    await expect.poll(shownPath).toEqual(pathOf(2))
    await open.page.getByRole('heading', { name: 'Your circuit 2' }).waitFor()
  })

  test.each([
    ['behind', -3_600_000],
    ['ahead', 3_600_000],
  ])('counts ages by the node’s clock where the browser’s is an hour %s', async (_, clockMs) => {
    const elsewhere = await openPage(browser, dashboard, { clockMs })
    const age = elsewhere.page.locator('.figure', { hasText: 'Age' }).locator('.figure-value')
    await expect.poll(() => age.textContent()).toMatch(/^([1-9]\d? s|[1-9] min( \d+ s)?)$/)
    const before = await age.textContent()
    await expect.poll(() => age.textContent(), { timeout: 5000 }).not.toBe(before)
    await elsewhere.context.close()
    expect(elsewhere.errors).toEqual([])
  })

  test('a request that failed is shown as such, with what went wrong; one that was given up here is not', async () => {
    const { node } = dashboard
    const of = (target: string, end: StreamEnd): void => {
      node.endStream(node.openStream({ target, state: 'opening', bytesSent: 0, bytesReceived: 0 }).id, { end })
    }
    of('refuses.example:443', 'refused')
    await request('refuses.example:443').getByText('failed', { exact: true }).waitFor()
    await request('refuses.example:443').getByText('The server refused the connection').waitFor()
    of('nobody.example:443', 'resolve-failed')
    await request('nobody.example:443').getByText('The name has no address').waitFor()
    of('given-up.example:443', 'aborted')
    of('fine.example:443', 'done')
    await request('fine.example:443')
      .getByText(/^\d\d:\d\d:\d\d$/)
      .waitFor()
    expect(await open.page.locator('.requests .badge').allTextContents()).toEqual(['failed', 'failed'])
  })

  test('a way on which packets are lost without a word is not live any more after ten seconds', async () => {
    const { page } = open
    dashboard.freeze()
    await page.getByText('Offline', { exact: true }).waitFor({ timeout: 16_000 })
    dashboard.thaw()
    await page.getByText('Live', { exact: true }).first().waitFor({ timeout: 16_000 })
  })

  test('a quiet node stays live: its traffic is told each second', async () => {
    await open.page.waitForTimeout(11_000)
    expect(await open.page.getByText('Live', { exact: true }).count()).toBeGreaterThan(0)
    expect(await open.page.locator('.banner').count()).toBe(0)
  })

  test('addresses of the proxies are copied by the keyboard, and that is said', async () => {
    const { page } = open
    await open.context.grantPermissions(['clipboard-read', 'clipboard-write'])
    await page.getByRole('button', { name: 'Copy the address of the SOCKS5 proxy' }).press('Enter')
    await page.getByRole('status').filter({ hasText: 'Copied' }).waitFor()
    expect(await page.evaluate('navigator.clipboard.readText()')).toBe('127.0.0.1:9250')
  })

  test('the round trip that is plotted is that of the circuit that is drawn', async () => {
    const { page } = open
    dashboard.node.openStream({ target: 'plotted.example:443' })
    const drawn = page.locator('.stop-rtt').last()
    const figure = page.locator('.figure', { hasText: 'Round trip' }).locator('.figure-value')
    const plotted = page.locator('.plot-card', { hasText: 'Round trip' }).locator('.plot-now')
    const shown = async (): Promise<number> =>
      new Set([await drawn.textContent(), await figure.textContent(), await plotted.textContent()]).size
    await expect.poll(shown, { timeout: 8000 }).toBe(1)
  })

  test('where no path is possible the sentence says so, not that the node is ready', async () => {
    const { page } = open
    const { node } = dashboard
    await page.getByText('Your traffic comes out in').waitFor()
    const status = node.status.bind(node)
    const outage = { code: 'nothing-allowed', message: 'the choices of countries leave no path', advice: 'allow more', since: 0 } as const
    node.status = () => ({ ...status(), ready: false, outage })
    node.emit({ type: 'warning-over', at: Date.now(), code: 'anything' })
    await page.locator('.sentence', { hasText: 'The choices of countries leave no path.' }).waitFor()
    await page.getByText('Reaches nothing', { exact: true }).waitFor()
  })

  test('streams on a phone say what they carry in a second line, under a header that is whole', async () => {
    const stream = dashboard.node.openStream({ target: 'phone.example:443', bytesReceived: 3 * 2 ** 20, bytesSent: 512 })
    const phone = await openPage(browser, dashboard, { viewport: { width: 360, height: 740 } })
    await phone.go('streams')
    const row = phone.page.locator('.table-streams .table-space [role=row]', { hasText: stream.target! })
    await row.getByText(/^3\.\d\d MiB down · .* up$/).waitFor()
    const cut =
      '[...document.querySelectorAll(".table-streams [role=columnheader]:not(.col-end)")].filter((head) => head.scrollWidth > head.clientWidth)'
    expect(await phone.page.evaluate(`${cut}.length`)).toBe(0)
    await phone.context.close()
    expect(phone.errors).toEqual([])
  })
})
