import { describe, expect, test } from 'vitest'
import { Namespace } from '../support/namespace.ts'
import { run } from '../support/processes.ts'

const reason = await Namespace.reasonAgainst()

/** Our netstack and the kernel's TCP over a TUN, opened from both sides, both directions at once. */
async function transfer(...options: string[]) {
  const script = new URL('support/netstack-kernel.ts', import.meta.url).pathname
  const { code, stdout, log } = await run('unshare', ['--net', process.execPath, script, ...options], { timeoutMs: 110_000 })
  expect(code, log).toBe(0)
  return JSON.parse(stdout) as Record<string, unknown>
}

describe.skipIf(reason !== null)(`netstack and the kernel's TCP${reason === null ? '' : ` (${reason})`}`, () => {
  test.each([
    ['a clean link, IPv4', ['--mb', '20']],
    ['a clean link, IPv6', ['--mb', '20', '--v6']],
    ['1 % loss', ['--mb', '8', '--loss', '0.01']],
    ['5 % loss, IPv6', ['--mb', '2', '--loss', '0.05', '--delay', '1', '--v6']],
    [
      'reordering, duplication, delay and loss',
      ['--mb', '3', '--loss', '0.02', '--reorder', '0.05', '--duplicate', '0.05', '--delay', '3'],
    ],
  ])('whole and in order over %s', async (_link, options) => {
    const seed = String(Date.now() % 100_000)
    const result = await transfer(...options, '--seed', seed)
    expect(result, `--seed ${seed}`).toMatchObject({ over: true, intact: [true, true], closed: ['done', 'done'] })
  })
})
