import { messageOf, ShallotError } from '../../../src/base/index.ts'
import { labBackend, labConfig, openUse } from './exit-tun-lab.ts'

/**
 * An exit's TUN backend as a program of its own: `exit-tun-program.ts [JSON of the keys of [exit]]`. It opens two leases, says {"leases": [addresses]}, and
 * stops in order at SIGTERM. What refuses it says {"code", "message"}.
 */
try {
  const backend = labBackend(labConfig(JSON.parse(process.argv[2] ?? '{}') as Record<string, unknown>))
  await backend.start()
  const leases: string[] = []
  for (let i = 0; i < 2; i++) {
    const { address4 } = await backend.open(openUse(), 1420, new AbortController().signal)
    leases.push(address4!.bytes.join('.'))
  }
  const alive = setInterval(() => {}, 1000)
  process.once('SIGTERM', () => {
    clearInterval(alive)
    void backend.stop().then(() => console.log(JSON.stringify({ stopped: true })))
  })
  console.log(JSON.stringify({ leases, uid: process.getuid?.() }))
} catch (error) {
  console.log(JSON.stringify({ code: error instanceof ShallotError ? error.code : null, message: messageOf(error) }))
}
