import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { chromiumPath } from '../dashboard/browser.ts'
import { openPage, reasonToSkip } from '../dashboard/open-page.ts'
import { VpnClient } from './support/vpn-client.ts'
import { reasonAgainstVpn, reasonAgainstVpnLab, VpnLab } from './support/vpn-lab.ts'

const reason = (await reasonAgainstVpnLab()) ?? reasonAgainstVpn ?? reasonToSkip

describe.skipIf(reason !== null)(`the VPN by the dashboard's buttons${reason === null ? '' : ` (${reason})`}`, () => {
  let lab: VpnLab
  let vpn: VpnClient
  beforeAll(async () => {
    lab = await VpnLab.build()
    await lab.startMesh({ pc: {} })
    vpn = new VpnClient(lab.mesh.node('pc'))
    await vpn.node.start()
  })
  afterAll(() => lab?.remove())

  test('goes up and down on a real machine, and shows what a command did meanwhile', async () => {
    // The browser is a program of that machine: it sees the page on its own loopback.
    const there = join(lab.folder, 'chromium-there')
    writeFileSync(there, `#!/bin/sh\nexec ${lab.pc.wrapper.map((word) => `'${word}'`).join(' ')} '${chromiumPath()}' "$@"\n`)
    chmodSync(there, 0o755)
    const browser = await chromium.launch({ executablePath: there, args: ['--no-sandbox'] })
    try {
      const link = async (): Promise<string> => (await vpn.node.control.ask<{ url: string }>('POST', '/v1/dashboard-link', {})).url
      const { page, errors } = await openPage(browser, { link, origin: new URL(await link()).origin })
      const card = page.locator('.card', { has: page.getByRole('heading', { name: 'Whole machine (VPN)' }) })
      await card.getByText('Off', { exact: true }).waitFor()

      await card.getByRole('button', { name: 'Turn on' }).click()
      await card.getByText('On', { exact: true }).waitFor({ timeout: 90_000 })
      expect((await vpn.facts()).state).toBe('up')
      // A program that knows nothing of the proxy.
      await lab.pc.runOk('curl', ['-sS', '-o', '/dev/null', '-m', '30', `http://${lab.servers.web.address}/`])
      await expect.poll(() => card.locator('dd').allTextContents(), { timeout: 30_000 }).toContain('shallot0')
      await expect.poll(async () => (await vpn.facts()).counts!.bytesIn, { timeout: 30_000 }).toBeGreaterThan(0)

      await card.getByRole('button', { name: 'Turn off' }).click()
      await card.getByText('Off', { exact: true }).waitFor({ timeout: 60_000 })
      expect((await vpn.facts()).state).toBe('down')

      const up = await vpn.up()
      expect(up.code, up.log).toBe(0)
      await card.getByText('On', { exact: true }).waitFor({ timeout: 60_000 })
      const down = await vpn.down()
      expect(down.code, down.log).toBe(0)
      await card.getByText('Off', { exact: true }).waitFor({ timeout: 60_000 })
      expect(errors).toEqual([])
    } finally {
      await browser.close()
    }
  }, 240_000)
})
