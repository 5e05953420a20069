import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Browser, Locator } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { fakeVpn } from '../support/fake-node.ts'
import { type LivelyDashboard, openLivelyDashboard } from '../support/lively-dashboard.ts'
import { PAGES } from './browser.ts'
import { type OpenPage, openBrowser, openPage, reasonToSkip } from './open-page.ts'

describe.skipIf(reasonToSkip !== null)(`the dashboard${reasonToSkip === null ? '' : ` (${reasonToSkip})`}`, () => {
  let browser: Browser
  let dashboard: LivelyDashboard
  let open: OpenPage
  beforeAll(async () => {
    browser = await openBrowser()
  })
  afterAll(() => browser.close())
  beforeEach(async () => {
    dashboard = await openLivelyDashboard({ relays: 60, streams: 30, serving: true })
    open = await openPage(browser, dashboard)
  })
  afterEach(async () => {
    await open.context.close()
    await dashboard.close()
    expect(open.errors).toEqual([])
  })

  test('a link opens it once: the code is gone from the address, and the tab stays signed in', async () => {
    const { page } = open
    expect(page.url()).toBe(`${dashboard.origin}/#/`)
    await page.reload()
    await page.getByText('Live', { exact: true }).first().waitFor()
    const stranger = await open.context.newPage()
    await stranger.goto(dashboard.origin)
    await stranger.getByText('shallot ui', { exact: true }).waitFor()
    await stranger.goto(`${dashboard.origin}/#code=wrong`)
    await stranger.getByRole('alert').filter({ hasText: 'shallot ui' }).waitFor()
  })

  test('shows the circuit in use hop by hop, with the server that was asked for', async () => {
    const { page } = open
    const stops = page.locator('.path .stop')
    await expect.poll(() => stops.count()).toBe(5)
    const [stream] = [...dashboard.node.streams()].sort((a, b) => b.id - a.id)
    const circuit = dashboard.node.circuits(false).find(({ id }) => id === stream!.circuit)!
    // The node's streams come and go: the page shows one of its circuits, whole.
    const shown = await page.locator('.stop-code').allTextContents()
    expect(dashboard.node.circuits(false).map(({ path }) => path.map(({ country }) => country ?? '??').join())).toContain(shown.join())
    expect(circuit.path).toHaveLength(3)
    // The round trips are those of now.
    await expect.poll(() => dashboard.node.asked.filter((asked) => asked.startsWith('ping ')).length).toBeGreaterThan(0)
    await expect.poll(() => page.locator('.stop-target').textContent()).toMatch(/^[\w.]+example\.\w+:\d+$|^example\.com:443$/)
    expect(await page.locator('.stop-rtt').allTextContents()).toEqual([
      expect.stringMatching(/^\d+ ms$/),
      expect.stringMatching(/^\d+ ms$/),
      expect.stringMatching(/^\d+ ms$/),
    ])
  })

  test('a new circuit is asked for by a press, and its path is shown', async () => {
    const { page } = open
    await page.getByRole('button', { name: 'New circuit' }).press('Enter')
    await page.getByText('New requests take fresh circuits from now on').waitFor()
    expect(dashboard.node.asked).toContain('newCircuit')
    const said = await page.getByText('New requests take fresh circuits').textContent()
    const id = Number(/circuit (\d+)/.exec(said!)![1])
    expect(dashboard.node.circuits(false).some((circuit) => circuit.id === id)).toBe(true)
  })

  test('says why there is no new circuit', async () => {
    dashboard.node.failure = new (await import('../../src/base/index.ts')).ShallotError('no-circuit', 'no relay answered in time', {
      kind: 'relay',
      retry: 'later',
    })
    await open.page.getByRole('button', { name: 'New circuit' }).click()
    await open.page.getByRole('alert').filter({ hasText: 'no relay answered in time' }).waitFor()
  })

  test('an exit country is sent to the node, shown, and taken by the next circuit', async () => {
    const { page } = open
    const country = dashboard.node.networkSummary().countries.find(({ exits, key }) => exits > 0 && key !== '??')!.key
    await page.getByRole('combobox', { name: 'Come out in' }).selectOption(country)
    await page.getByText(/from the next request on/).waitFor()
    expect(readFileSync(dashboard.file, 'utf8')).toContain(`exit_countries = ["${country}"]`)
    await page.locator('.chip').waitFor()
    await page.getByRole('button', { name: 'New circuit' }).click()
    await page.getByText('New requests take fresh circuits from now on').waitFor()
    await expect.poll(() => dashboard.node.circuits(false).at(-1)!.path.at(-1)!.country).toBe(country)
    await page.locator('.chip button').click()
    await page.getByText('Any exit from the next request on').waitFor()
    expect(readFileSync(dashboard.file, 'utf8')).not.toContain(`"${country}"`)
  })

  test('what is wrong with a setting is shown at its field, and nothing is saved', async () => {
    const { page } = open
    await open.go('settings')
    const field = page.getByLabel('guards_in_use', { exact: true })
    await field.fill('99')
    await page.getByRole('button', { name: 'Save' }).click()
    const problem = page.locator('.setting', { has: field }).locator('.problem')
    await problem.waitFor()
    expect(await problem.textContent()).toMatch(/3/)
    expect(await field.getAttribute('aria-invalid')).toBe('true')
    expect(await field.getAttribute('aria-describedby')).toContain(await problem.getAttribute('id'))
    expect(readFileSync(dashboard.file, 'utf8')).not.toContain('guards_in_use')
    await field.fill('2')
    await page.getByRole('button', { name: 'Save' }).click()
    await page.getByText('Saved, and in force.').waitFor()
    expect(readFileSync(dashboard.file, 'utf8')).toContain('guards_in_use = 2')
  })

  test('a setting that counts from the next start says so', async () => {
    const { page } = open
    await open.go('settings')
    await page.getByRole('button', { name: 'ingress.http', exact: true }).click()
    await page.getByLabel('max_header_bytes', { exact: true }).fill('20000')
    await page.getByRole('button', { name: 'Save' }).click()
    await page
      .getByText(/ingress\.http\.max_header_bytes counts from the next start of the node/)
      .first()
      .waitFor()
    await page.getByText('waits for a restart').waitFor()
  })

  test('the log is filtered by level, by subsystem and by text, and waits when it is told to', async () => {
    const { page } = open
    const line = (level: 'info' | 'warn' | 'debug', sub: string, message: string): void =>
      dashboard.node.book.add({ at: Date.now(), level, sub, message, fields: {} }, 50)
    dashboard.node.end()
    await open.go('logs')
    const rows = page.locator('.table-logs .table-space [role=row]')
    await rows.first().waitFor()
    await page.getByRole('combobox', { name: 'Level', exact: true }).selectOption('warn')
    line('warn', 'onion', 'something odd')
    line('info', 'onion', 'nothing odd')
    await page.getByRole('button', { name: 'something odd' }).waitFor()
    expect(new Set(await page.locator('.table-logs .level').allTextContents())).toEqual(new Set(['warn']))
    await page.getByRole('combobox', { name: 'Subsystem', exact: true }).selectOption('onion')
    await expect.poll(() => rows.count()).toBe(1)
    await page.getByRole('combobox', { name: 'Level', exact: true }).selectOption('debug')
    await expect.poll(() => rows.count()).toBe(2)
    await page.getByLabel('Search the log').fill('nothing')
    await expect.poll(() => rows.count()).toBe(1)
    await page.getByLabel('Search the log').fill('')
    await page.getByRole('button', { name: 'Pause' }).click()
    line('debug', 'onion', 'while it waits')
    await page.getByRole('button', { name: 'Go on (1 new)' }).click()
    await page.getByRole('button', { name: 'while it waits' }).waitFor()
  })

  test('says that the node is gone, keeps what it knew, and is live again when the node is', async () => {
    const { page } = open
    await page.locator('.path .stop').first().waitFor()
    await dashboard.disconnect()
    await page.getByText('The node does not answer.', { exact: true }).first().waitFor()
    await page.getByText('Offline', { exact: true }).waitFor()
    expect(await page.locator('.path .stop').count()).toBe(5)
    await dashboard.reconnect()
    await page.getByText('Live', { exact: true }).first().waitFor()
    await expect.poll(() => page.locator('.banner').count()).toBe(0)
    const before = await page.locator('.plot-now').first().textContent()
    await expect.poll(() => page.locator('.plot-now').first().textContent(), { timeout: 5000 }).not.toBe(before)
  })

  test('a node that was started again is taken up by the open page by itself', async () => {
    const { page } = open
    await page.getByText('Live', { exact: true }).first().waitFor()
    await dashboard.restart(async () => {
      await page.getByText('Offline', { exact: true }).waitFor()
    })
    await page.getByText('Live', { exact: true }).first().waitFor()
    expect(await page.getByRole('heading', { name: 'Open this page with a fresh link' }).count()).toBe(0)
  })

  test('a node that knows the session no more asks for a fresh link, which the same tab takes', async () => {
    const { page } = open
    await dashboard.restart(async (dir) => rmSync(join(dir, 'dashboard-sessions.json')))
    await page.getByRole('heading', { name: 'Open this page with a fresh link' }).waitFor()
    await page.goto(await dashboard.link())
    await page.getByText('Live', { exact: true }).first().waitFor()
  })

  test('the VPN goes on and off by its button, and shows what others did with it', async () => {
    const { page } = open
    const card = page.locator('.card', { has: page.getByRole('heading', { name: 'Whole machine (VPN)' }) })
    await card.getByText('Off', { exact: true }).waitFor()
    await card.getByRole('button', { name: 'Turn on' }).press('Enter')
    await card.getByText('On', { exact: true }).waitFor()
    await card.getByText('shallot0').waitFor()
    await card.getByRole('button', { name: 'Turn off' }).press('Enter')
    await card.getByText('Off', { exact: true }).waitFor()
    expect(dashboard.node.asked.filter((asked) => asked.startsWith('vpn'))).toEqual(['vpnUp', 'vpnDown'])
    // By `shallot vpn up` in a terminal, say, on a machine whose mesh is away.
    dashboard.node.vpnFacts = { ...fakeVpn, state: 'blocked', problems: ['no guard answers'] }
    dashboard.node.emit({ type: 'vpn', at: Date.now(), vpn: dashboard.node.vpnFacts })
    await card.getByText('Blocked', { exact: true }).waitFor()
    await card.getByText('no guard answers').waitFor()
  })

  test('says why the VPN cannot go on, and that it is still off', async () => {
    const { page } = open
    const { ShallotError } = await import('../../src/base/index.ts')
    const message = 'the VPN needs root, or the capability CAP_NET_ADMIN: start the node by its service'
    dashboard.node.failure = new ShallotError('vpn-not-permitted', message, { kind: 'host', retry: 'never' })
    const card = page.locator('.card', { has: page.getByRole('heading', { name: 'Whole machine (VPN)' }) })
    await card.getByRole('button', { name: 'Turn on' }).click()
    await card.getByRole('alert').filter({ hasText: message }).waitFor()
    await card.getByText('Off', { exact: true }).waitFor()
    expect(await card.getByRole('button', { name: 'Turn on' }).isEnabled()).toBe(true)
    dashboard.node.failure = null
    await card.getByRole('button', { name: 'Turn on' }).click()
    await card.getByText('On', { exact: true }).waitFor()
    expect(await card.getByRole('alert').count()).toBe(0)
  })

  test('a circuit that takes nothing new is shown as such at once', async () => {
    const { page } = open
    dashboard.node.end()
    await open.go('circuits')
    await page.locator('.circuit').first().waitFor()
    const before = dashboard.node.circuits(false).filter(({ streams }) => streams > 0).length
    // Another tab, or `shallot new-circuit`.
    await dashboard.node.newCircuit()
    await expect.poll(() => page.locator('.circuit').filter({ hasText: 'Takes nothing new' }).count()).toBe(before)
  })

  test('settings that were changed elsewhere are shown, and a file changed by hand is read again', async () => {
    const { page } = open
    await open.go('settings')
    const field = page.getByLabel('guards_in_use', { exact: true })
    await expect.poll(() => field.inputValue()).toBe('1')
    await dashboard.node.changeSettings({ set: { 'path.guards_in_use': 2 } })
    await expect.poll(() => field.inputValue()).toBe('2')
    writeFileSync(dashboard.file, readFileSync(dashboard.file, 'utf8').replace('guards_in_use = 2', 'guards_in_use = 3'))
    await page.getByRole('button', { name: 'Read the file again' }).click()
    await page.getByText('Read. path.guards_in_use in force.').waitFor()
    await expect.poll(() => field.inputValue()).toBe('3')
    writeFileSync(dashboard.file, 'nonsense')
    await page.getByRole('button', { name: 'Read the file again' }).click()
    await page.getByRole('alert').filter({ hasText: 'nothing changes' }).waitFor()
  })

  test('a file that is not the node’s to write is said before anything is tried', async () => {
    const { page } = open
    const settings = dashboard.node.settings.bind(dashboard.node)
    dashboard.node.settings = async () => ({ ...(await settings()), writable: false })
    dashboard.node.emit({ type: 'settings', at: Date.now(), settings: { changed: [], applied: [], restart: [] } })
    await open.go('settings')
    await page.getByText(/may not write its settings file/).waitFor()
    expect(await page.getByLabel('guards_in_use', { exact: true }).isDisabled()).toBe(true)
    await open.go('overview')
    await page.getByText(/may not write its settings file/).waitFor()
    expect(await page.getByRole('combobox', { name: 'Come out in' }).isDisabled()).toBe(true)
  })

  test('leaving the network is asked twice', async () => {
    const { page } = open
    await open.go('serving')
    await page.getByRole('button', { name: 'Leave …' }).click()
    await page.getByRole('button', { name: 'Stay' }).click()
    expect(dashboard.node.asked).not.toContain('drain')
    await page.getByRole('button', { name: 'Leave …' }).click()
    await page.getByRole('button', { name: 'Leave, and end the node' }).click()
    await page.getByText('The node takes no new circuits.').waitFor()
    expect(dashboard.node.asked).toContain('drain')
  })

  test('streams are found by target and isolation key, and can be ended', async () => {
    const { page } = open
    dashboard.node.end()
    await open.go('streams')
    const count = page.locator('.count')
    await expect.poll(() => count.textContent()).toBe(`${dashboard.node.streams().length} open`)
    const { isolation } = dashboard.node.streams()[0]!
    await page.getByLabel('Search streams').fill(isolation!)
    const found = dashboard.node.streams().filter((stream) => stream.isolation === isolation).length
    await expect.poll(() => count.textContent()).toBe(`${found} of ${dashboard.node.streams().length}`)
    await page
      .getByRole('button', { name: /^End the stream/ })
      .first()
      .click()
    await expect.poll(() => dashboard.node.streams().filter((stream) => stream.isolation === isolation).length).toBe(found - 1)
  })

  test('the page asks no other host for anything', async () => {
    for (const path of PAGES) {
      await open.go(path)
      await open.page.waitForTimeout(150)
    }
    expect(open.requests.length).toBeGreaterThan(15)
    expect(open.requests.filter((url) => new URL(url).origin !== dashboard.origin)).toEqual([])
  })

  test('every act is done with the keyboard alone', async () => {
    const { page } = open
    /** Goes on by Tab until what is named has the focus. */
    const reach = async (what: Locator): Promise<void> => {
      for (let i = 0; i < 120; i++) {
        if ((await what.and(page.locator(':focus')).count()) > 0) return
        await page.keyboard.press('Tab')
      }
      throw new Error('Tab does not come there')
    }
    const goTo = async (name: string): Promise<void> => {
      await reach(page.getByRole('navigation').first().getByRole('link', { name, exact: true }))
      await page.keyboard.press('Enter')
      await page.getByRole('heading', { level: 1, name }).waitFor()
    }
    await reach(page.getByRole('button', { name: 'New circuit' }))
    await page.keyboard.press('Enter')
    await page.getByText('New requests take fresh circuits from now on').waitFor()
    await reach(page.getByRole('combobox', { name: 'Come out in' }))
    await page.keyboard.press('ArrowDown')
    await page.getByText(/from the next request on/).waitFor()
    await reach(page.locator('.chip button').first())
    await page.keyboard.press('Space')
    await page.getByText('Any exit from the next request on').waitFor()
    await reach(page.getByRole('button', { name: 'Turn on' }))
    await page.keyboard.press('Space')
    await page.getByRole('button', { name: 'Turn off' }).waitFor()

    await page.keyboard.press('Home')
    await page.reload()
    await goTo('Circuits')
    await reach(page.locator('.circuit summary').first())
    await page.keyboard.press('Enter')
    const end = page.getByRole('button', { name: /^End this circuit/ }).first()
    const circuits = dashboard.node.circuits(false).length
    await reach(end)
    await page.keyboard.press('Enter')
    await expect.poll(() => dashboard.node.circuits(false).length).toBe(circuits - 1)

    await page.reload()
    await goTo('Settings')
    await reach(page.getByLabel('guards_in_use', { exact: true }))
    await page.keyboard.press('Control+a')
    await page.keyboard.type('2')
    await reach(page.getByRole('button', { name: 'Save' }))
    await page.keyboard.press('Enter')
    await page.getByText('Saved, and in force.').waitFor()
    expect(readFileSync(dashboard.file, 'utf8')).toContain('guards_in_use = 2')

    await page.reload()
    await goTo('Logs')
    await reach(page.getByRole('combobox', { name: 'Level', exact: true }))
    await page.keyboard.press('Home')
    await reach(page.getByRole('button', { name: 'Pause' }))
    await page.keyboard.press('Space')
    await page.getByRole('button', { name: /^Go on/ }).waitFor()

    await page.reload()
    await goTo('Serving')
    await reach(page.getByRole('button', { name: 'Leave …' }))
    await page.keyboard.press('Enter')
    await reach(page.getByRole('button', { name: 'Leave, and end the node' }))
    await page.keyboard.press('Enter')
    await page.getByText('The node takes no new circuits.').waitFor()
  })

  test('the keyboard alone reaches the pages and what is on them', async () => {
    const { page } = open
    await page.keyboard.press('Tab')
    expect(await page.evaluate('document.activeElement.textContent')).toBe('Skip to the content')
    await page.keyboard.press('Enter')
    expect(await page.evaluate('document.activeElement.id')).toBe('main')
    await page.getByRole('link', { name: 'Network' }).focus()
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { level: 1, name: 'Network' }).waitFor()
    expect(await page.evaluate('document.activeElement.id')).toBe('main')
    await page.locator('.table-relays .link').first().focus()
    await page.keyboard.press('Enter')
    await page.getByRole('dialog').getByText('Claimed capacity').waitFor()
    await page.keyboard.press('Escape')
    await expect.poll(() => page.getByRole('dialog').count()).toBe(0)
  })
})
