import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { root } from '../support/repository.ts'
import { chromiumPath } from './browser.ts'
import { takeScreenshots } from './take-screenshots.ts'

/** `npm run screenshots`: every page in both themes and at phone width, into docs/screenshots, or the folder that is named. */
const path = chromiumPath()
if (path === null) {
  console.error('Chromium is needed: install it (Debian: apt-get install chromium), or name one in SHALLOT_CHROMIUM.')
  process.exit(1)
}
const into = process.argv[2] ?? join(root, 'docs/screenshots')
mkdirSync(into, { recursive: true })
const browser = await chromium.launch({ executablePath: path, args: ['--no-sandbox'] })
try {
  await takeScreenshots(browser, into, process.argv[3])
} finally {
  await browser.close()
}
