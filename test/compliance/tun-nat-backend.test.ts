import { afterAll, beforeAll, describe, it } from 'vitest'
import { Namespace } from '../support/namespace.ts'
import { enterOwnNetwork } from '../support/own-network.ts'
import type { Program } from '../support/processes.ts'
import { startBeyond, tunNatWorld } from '../support/tun-nat-world.ts'
import { packetBackendCompliance } from './packet-backend.ts'

const reason = (await Namespace.reasonAgainst()) ?? enterOwnNetwork()
if (reason !== null) describe.skip(`packet backend: tun (${reason})`, () => it('is skipped'))
else {
  let beyond: Program
  beforeAll(async () => {
    beyond = await startBeyond()
  })
  afterAll(async () => {
    await beyond.stop('SIGKILL')
  })

  packetBackendCompliance('tun', () => tunNatWorld())
}
