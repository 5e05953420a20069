import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Control } from '../support/control.ts'
import { run, runOk, startTestnet, type Testnet, temporaryFolder } from '../support/processes.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'
import { openBrowser, openPage, reasonToSkip } from './open-page.ts'

describe.skipIf(reasonToSkip !== null)(`the dashboard of a testnet${reasonToSkip === null ? '' : ` (${reasonToSkip})`}`, () => {
  const folder = temporaryFolder('dashboard-testnet')
  let browser: Browser
  let web: WebServer
  let testnet: Testnet
  beforeAll(async () => {
    const countries = join(folder.path, 'world')
    writeFileSync(countries, '127.0.0.0/10 DE\n127.64.0.0/10 FR\n127.128.0.0/9 NL\n')
    web = await startWebServer()
    testnet = await startTestnet({ relays: 9, exits: 3, processes: false, more: ['--countries', countries] })
    browser = await openBrowser()
  })
  afterAll(async () => {
    await browser?.close()
    await testnet?.stop()
    await web?.close()
    folder.remove()
  })

  /** A fetch through the mesh; the country of the exit whose address the server saw. */
  async function fetched(): Promise<string | null | undefined> {
    const seen = await runOk('curl', ['-sSf', '--max-time', '30', '-x', `socks5h://${testnet.ready.socks}`, `${web.url}/seen`])
    return testnet.ready.nodes.find(({ address }) => address?.startsWith(`${seen}:`))?.country
  }

  test('shows the path of a curl that was just run, and the country that is chosen is that of the next', async () => {
    const control = new Control(testnet.ready.control, testnet.client.dir)
    const link = async (): Promise<string> => (await control.ask<{ url: string }>('POST', '/v1/dashboard-link', {})).url
    const origin = new URL(await link()).origin
    const open = await openPage(browser, { link, origin })
    const { page } = open

    const exit = await fetched()
    const target = new URL(web.url).host
    await page.locator('.requests').getByText(target, { exact: true }).first().waitFor()
    await expect.poll(() => page.locator('.stop-target').textContent()).toBe(target)
    const shown = await page.locator('.stop-code').allTextContents()
    expect(shown).toHaveLength(3)
    expect(shown.at(-1)).toBe(exit)
    const [circuit] = (await control.circuits()).filter(({ path }) => path.map(({ country }) => country).join() === shown.join())
    expect(circuit).toBeDefined()

    for (const country of ['FR', 'NL']) {
      const chips = page.locator('.countries').first().locator('.chip button')
      while ((await chips.count()) > 0) {
        const before = await chips.count()
        await chips.first().click()
        await expect.poll(() => chips.count()).toBe(before - 1)
      }
      await page.getByRole('combobox', { name: 'Come out in' }).selectOption(country)
      await page.getByText(/^Exits in .* from the next request on/).waitFor()
      expect(await fetched()).toBe(country)
      await expect.poll(() => page.locator('.stop-code').last().textContent()).toBe(country)
    }
    expect(open.requests.filter((url) => new URL(url).origin !== origin)).toEqual([])
    expect(open.errors).toEqual([])
    await open.context.close()
  })

  test('a connection that lasts is shown with what it carries, and does not hold the drawing on its old circuit', async () => {
    const control = new Control(testnet.ready.control, testnet.client.dir)
    const link = async (): Promise<string> => (await control.ask<{ url: string }>('POST', '/v1/dashboard-link', {})).url
    const open = await openPage(browser, { link, origin: new URL(await link()).origin })
    const { page } = open
    const lasting = `${web.url}/bytes/100000000?per=20000&every=100`
    const curl = spawn('curl', ['-sS', '-o', '/dev/null', '-x', `socks5h://${testnet.ready.socks}`, lasting], { stdio: 'ignore' })
    try {
      const row = page.locator('.requests li').first()
      await row.getByText('open', { exact: true }).waitFor()
      await row
        .locator('.request-bytes')
        .filter({ hasText: /[KM]iB/ })
        .waitFor()
      const title = page.getByRole('heading', { name: /^Your circuit \d+$/ })
      const before = await title.textContent()
      await page.getByRole('button', { name: 'New circuit' }).click()
      const said = await page.getByText('New requests take fresh circuits').textContent()
      const fresh = `Your circuit ${/circuit (\d+)/.exec(said!)![1]}`
      expect(fresh).not.toBe(before)
      await expect.poll(() => title.textContent()).toBe(fresh)
      const [stream] = await control.streams()
      expect(`Your circuit ${stream!.circuit}`).toBe(before)
      await page.waitForTimeout(3500)
      expect(await title.textContent()).toBe(fresh)
      expect(open.errors).toEqual([])
    } finally {
      curl.kill()
      await open.context.close()
    }
  })

  test('a request that fails is shown with what the exit said', async () => {
    const control = new Control(testnet.ready.control, testnet.client.dir)
    const link = async (): Promise<string> => (await control.ask<{ url: string }>('POST', '/v1/dashboard-link', {})).url
    const open = await openPage(browser, { link, origin: new URL(await link()).origin })
    const closed = createServer()
    await new Promise<void>((done) => closed.listen(0, '127.0.0.1', done))
    const { port } = closed.address() as AddressInfo
    await new Promise((done) => closed.close(done))
    const { code } = await run('curl', ['-s', '--max-time', '20', '-x', `socks5h://${testnet.ready.socks}`, `http://127.0.0.1:${port}/`])
    expect(code).not.toBe(0)
    const row = open.page.locator('.requests li', { hasText: `127.0.0.1:${port}` }).first()
    await row.getByText('failed', { exact: true }).waitFor()
    await row.getByText('The server refused the connection').waitFor()
    await open.context.close()
    expect(open.errors).toEqual([])
  })
})
