import type { Browser, Locator } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { NodeStatus } from '../../src/node/index.ts'
import { type LivelyDashboard, openLivelyDashboard } from '../support/lively-dashboard.ts'
import { type OpenPage, openBrowser, openPage, reasonToSkip } from './open-page.ts'

const HOUR = 3_600_000

describe.skipIf(reasonToSkip !== null)(`what is served${reasonToSkip === null ? '' : ` (${reasonToSkip})`}`, () => {
  let browser: Browser
  let dashboard: LivelyDashboard
  let open: OpenPage
  beforeAll(async () => {
    browser = await openBrowser()
  })
  afterAll(() => browser.close())
  beforeEach(async () => {
    dashboard = await openLivelyDashboard({ relays: 60, streams: 0, serving: true })
    open = await openPage(browser, dashboard)
  })
  afterEach(async () => {
    await open.context.close()
    await dashboard.close()
    expect(open.errors).toEqual([])
  })

  const card = (title: string): Locator => open.page.getByRole('region', { name: title, exact: true })
  const meter = (title: string, name: string): Promise<string | null> =>
    card(title).getByRole('meter', { name, exact: true }).getAttribute('aria-valuetext')
  const fact = (title: string, name: string): Promise<string | null> =>
    card(title).locator('.facts > div').filter({ hasText: name }).locator('dd').textContent()
  const reasons = (title: string, of: string): Promise<string[]> =>
    card(title)
      .getByRole('list', { name: `${of}, by reason` })
      .locator('.bar-row')
      .allInnerTexts()

  /** The node says otherwise from now on, and that something changed. */
  function say(change: (status: NodeStatus) => Partial<NodeStatus>): void {
    const { node } = dashboard
    const status = node.status.bind(node)
    node.status = () => ({ ...status(), ...change(status()) })
    node.emit({ type: 'settings', at: Date.now(), settings: { changed: [], applied: [], restart: [] } })
  }

  test('an exit’s raw packets are shown by direction, with what is open, what was dropped and why', async () => {
    const now = dashboard.node.status().exit!.packets!
    say(({ exit }) => ({ exit: { ...exit!, packets: { ...now, packetsFromClients: 91_234, bytesFromClients: 31 * 2 ** 20 } } }))
    await open.go('serving')
    const title = 'Exit: raw packets'
    await expect.poll(() => fact(title, 'From clients')).toBe('91,234 packets, 31.0\u00a0MiB')
    expect(await meter(title, 'Packet leases open')).toBe('2 of 1,024')
    expect(await meter(title, 'Buffers')).toBe('3.81 MiB of 256 MiB')
    expect(await fact(title, 'TCP connections')).toBe('61')
    expect(await fact(title, 'UDP ports')).toBe('9')
    expect(await fact(title, 'Pings (ICMP)')).toBe('1')
    expect(await fact(title, 'Sent to clients again')).toBe('190 TCP segments')
    expect(await reasons(title, 'Packets dropped')).toEqual([
      expect.stringMatching(/^More than the rate allows\s+40$/),
      expect.stringMatching(/^Forbidden by the policy\s+12$/),
    ])
  })

  test('what the kernel has is said to be the kernel’s; an exit without raw packets, and a middle, have no such card', async () => {
    say(({ exit }) => ({ exit: { ...exit!, packets: { ...exit!.packets!, stack: null } } }))
    await open.go('serving')
    await card('Exit: raw packets').getByText('The kernel has these connections').waitFor()
    expect(await card('Exit: raw packets').getByRole('meter', { name: 'Buffers' }).count()).toBe(0)
    say(({ exit }) => ({ exit: { ...exit!, packets: null, packetLeasesOpen: null } }))
    await card('Exit: raw packets').waitFor({ state: 'detached' })
    await card('Exit: TCP and UDP').waitFor()
    say(() => ({ exit: null }))
    await card('Exit: TCP and UDP').waitFor({ state: 'detached' })
    expect(await card('Exit: names (DNS)').count()).toBe(0)
    await card('Circuits carried').waitFor()
  })

  test('questions for names are shown with how many memory answered, and why others have no answer', async () => {
    await open.go('serving')
    const title = 'Exit: names (DNS)'
    expect(await fact(title, 'Questions')).toBe('900')
    expect(await fact(title, 'from memory')).toBe('610 (68 %)')
    expect(await reasons(title, 'Unanswered')).toEqual([
      expect.stringMatching(/^The resolver failed\s+8$/),
      expect.stringMatching(/^Refused by rule\s+3$/),
    ])
  })

  test('what is open stands against its limit, and a limit that is changed counts at once', async () => {
    await open.go('serving')
    const title = 'Exit: TCP and UDP'
    expect(await meter(title, 'TCP streams open')).toBe('122 of 16,384')
    expect(await meter(title, 'UDP associations open')).toBe('3 of 8,192')
    expect(await meter('Circuits carried', 'Open')).toBe('431 of 10,000')
    say(({ exit, relaying }) => ({
      exit: { ...exit!, limits: { streams: 200, associations: 4, packetLeases: 2 } },
      relaying: { ...relaying!, circuitsLimit: 500 },
    }))
    await expect.poll(() => meter(title, 'TCP streams open')).toBe('122 of 200')
    expect(await meter(title, 'UDP associations open')).toBe('3 of 4')
    expect(await meter('Exit: raw packets', 'Packet leases open')).toBe('2 of 2')
    expect(await meter('Circuits carried', 'Open')).toBe('431 of 500')
  })

  test('how long it has run is what the node counted, whatever its clock said at the start', async () => {
    say(() => ({ uptimeMs: 3 * HOUR + 1000, startedAt: Date.now() + HOUR }))
    await open.go('serving')
    await expect.poll(() => open.page.locator('.figure', { hasText: 'Up for' }).locator('.figure-value').textContent()).toBe('3 h')
    await open.go('overview')
    await expect.poll(() => open.page.locator('.facts > div', { hasText: 'Running for' }).locator('dd').textContent()).toBe('3 h')
    const seconds = async (): Promise<number> =>
      Number(/^(\d+) s$/.exec((await open.page.locator('.facts > div', { hasText: 'Running for' }).locator('dd').textContent())!)?.[1])
    // It moves on between two answers, which nothing that happens hastens now.
    dashboard.node.end()
    say(() => ({ uptimeMs: 2000 }))
    await expect.poll(seconds, { timeout: 8000 }).toBeGreaterThan(3)
  })
})
