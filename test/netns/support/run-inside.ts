/** Runs `true` as `shallot vpn exec` would, with a node that is never asked, and says how that was refused. */
import { ShallotError } from '../../../src/base/index.ts'
import { runInside } from '../../../src/cli/vpn-exec/outside.ts'
import type { ControlClient } from '../../../src/control/index.ts'

const nobody = {
  vpnSession: () => {
    throw new Error('the node was asked')
  },
} as unknown as ControlClient

try {
  await runInside(nobody, ['true'])
  process.stdout.write('ran\n')
} catch (error) {
  if (!(error instanceof ShallotError)) throw error
  process.stdout.write(`${error.code}: ${error.message}\n`)
}
