import { parseArgs } from 'node:util'
import { parseIp, SeededRandom } from '../../src/base/index.ts'
import type { Endpoint } from '../../src/nat/behaviour.ts'
import { defaultStunProbeTiming, formatEndpoint, parseEndpoint, probeNat } from '../../src/nat/stun/index.ts'

const usage = 'stun-probe.ts [--from IP] [--port N] [--depth address|behaviour|lifetime] [--max-ms N] ADDRESS:PORT...'

/** Asks the STUN servers at these addresses and prints what was found out, as JSON: for tests in network namespaces. */
async function main(): Promise<number> {
  const options = { from: { type: 'string' }, port: { type: 'string' }, depth: { type: 'string' }, 'max-ms': { type: 'string' } } as const
  const { values, positionals } = parseArgs({ options, allowPositionals: true })
  if (positionals.length === 0) {
    console.error(usage)
    return 2
  }
  const servers = positionals.map(parseEndpoint).map((endpoint) => ({ ...endpoint, alternatePort: endpoint.port + 1 }))
  const report = await probeNat({
    servers,
    random: new SeededRandom(Date.now() % 0x1_0000_0000),
    depth: (values.depth ?? 'behaviour') as 'address' | 'behaviour' | 'lifetime',
    ...(values.from === undefined ? {} : { localAddresses: [parseIp(values.from)] }),
    ...(values.port === undefined ? {} : { localPort: Number(values.port) }),
    timing: { ...defaultStunProbeTiming, maxLifetimeMs: Number(values['max-ms'] ?? defaultStunProbeTiming.maxLifetimeMs) },
  })
  const isEndpoint = (key: string, value: unknown): value is Endpoint => (key === 'publicEndpoint' || key === 'local') && value !== null
  console.log(JSON.stringify(report, (key, value) => (isEndpoint(key, value) ? formatEndpoint(value) : value), 2))
  return 0
}

process.exitCode = await main()
