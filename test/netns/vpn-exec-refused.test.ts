import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { projectRoot, run } from '../support/processes.ts'

const program = join(projectRoot, 'test', 'netns', 'support', 'run-inside.ts')
/** A user namespace whose limit on network namespaces is none: as an administrator may have it, and for nobody but this program. */
const without = ['-Ur', 'sh', '-c', 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$0" "$1"', process.execPath, program]
const reason = (await run('unshare', ['-Ur', 'true'])).code === 0 ? null : 'this system lets nobody make user namespaces'

describe.skipIf(reason !== null)(`where namespaces are forbidden${reason === null ? '' : ` (${reason})`}`, () => {
  test('a program is not run, and it is said what to change', async () => {
    const { code, stdout } = await run('unshare', without)
    expect(code).toBe(0)
    expect(stdout).toMatch(
      /^namespaces-not-permitted: this system does not let this user make network namespaces .*unshare failed.*sysctl/s,
    )
  })
})
