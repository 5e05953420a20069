import { expect, test } from 'vitest'
import { PageWriter } from '../../../src/metrics/page.ts'
import type { NodeConfig } from '../../../src/node/index.ts'
import { busyNode, quietRuntime } from '../../support/metrics.ts'
import { openMetricsProblems } from '../../support/openmetrics.ts'

const config = { metrics: { listen: [] }, exit: { packets: 'netstack' } } as unknown as NodeConfig

const page = async () =>
  (
    await new PageWriter(
      () => ({ status: busyNode, config }),
      { facts: async () => quietRuntime },
      () => 0,
    ).page('openmetrics', true)
  ).text

test('a page is OpenMetrics to the letter', async () => {
  expect(openMetricsProblems(await page())).toEqual([])
})

test.each<[string, (text: string) => string, RegExp]>([
  ['an end that is missing', (text) => text.replace('# EOF\n', ''), /does not end with/],
  ['a line after the end', (text) => `${text}x 1\n`, /does not end with/],
  ['a counter without _total', (text) => text.replace('shallot_relay_cells_total', 'shallot_relay_cells'), /stands under/],
  ['a family called _total', (text) => text.replaceAll('shallot_relay_cells', 'shallot_relay_cells_total'), /has no _total/],
  ['a family without a type', (text) => text.replace(/^# TYPE shallot_links.*\n/m, ''), /shallot_links: no TYPE/],
  ['a family without a sample', (text) => text.replace(/^shallot_links .*\n/m, ''), /no sample/],
  ['a family that is torn apart', (text) => text.replace('# EOF', '# HELP shallot_links x\nshallot_links 1\n# EOF'), /torn apart/],
  ['a type after a sample', (text) => text.replace(/^(# TYPE shallot_links.*\n)(shallot_links .*\n)/m, '$2$1'), /TYPE after samples/],
  ['a sample twice', (text) => text.replace(/^(shallot_links .*\n)/m, '$1$1'), /twice/],
  ['a value that is no number', (text) => text.replace(/^shallot_links .*$/m, 'shallot_links nought'), /the value/],
  ['a label twice', (text) => text.replace('{version="0.1.0"', '{version="0.1.0",version="2"'), /a label twice/],
  ['a quantile', (text) => text.replace('{version=', '{quantile='), /the label quantile/],
  [
    'a unit that the name does not end with',
    (text) => text.replace('# TYPE shallot_links', '# UNIT shallot_links bytes\n# TYPE shallot_links'),
    /its unit/,
  ],
])('the check finds %s', async (_what, spoil, problem) => {
  const text = await page()
  const spoilt = spoil(text)
  expect(spoilt).not.toBe(text)
  expect(openMetricsProblems(spoilt).join('\n')).toMatch(problem)
})
