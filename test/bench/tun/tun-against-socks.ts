import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { enterOwnNetwork, shellOk } from '../../support/own-network.ts'
import { cpuSeconds } from '../../support/proc.ts'
import { Program, startTestnet, temporaryFolder, writeClientConfig } from '../../support/processes.ts'
import { fileSizesMb, type Origin, startOrigin } from '../origin.ts'
import { median, round } from '../stats.ts'

/** MB/s of one TCP stream through three hops by curl, and CPU seconds of the client per GB. */
export interface TunAgainstSocks {
  readonly rows: readonly {
    readonly way: 'down' | 'up'
    readonly mb: number
    readonly socks: number
    readonly tun: number
    readonly socksClientCpu: number
    readonly tunClientCpu: number
    /** Of the medians of runs beside each other. */
    readonly ratio: number
  }[]
}

/** Where the server is: an address that a TUN can be asked for, and that the exit reaches. */
const SERVER = '11.0.0.1'

/**
 * One TCP stream by a client's TUN and by its SOCKS port, in turn, through the same mesh. Needs root; everything runs in network namespaces of its own:
 * `node test/bench/tun/tun-against-socks.ts [--runs N] [--seconds S]` prints one JSON line.
 */
async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '2' },
      mtu: { type: 'string', default: '1420' },
    },
  })
  const reason = enterOwnNetwork()
  if (reason !== null) throw new Error(reason)
  shellOk(`ip address add ${SERVER}/32 dev lo`)
  const folder = temporaryFolder('bench-tun')
  const testnet = await startTestnet({ relays: 3, exits: 1 })
  const origin = await startOrigin(join(folder.path, 'origin'), null, SERVER)
  const inside = Program.start('unshare', ['--net', 'sh', '-c', 'ip link set lo up; echo ready; exec sleep infinity'])
  await inside.waitFor(/ready/, 5000)
  const config = writeClientConfig(testnet, join(folder.path, 'client'))
  const client = Program.node(join(import.meta.dirname, 'client.ts'), [
    '--config',
    config,
    '--namespace',
    String(inside.pid),
    '--mtu',
    values.mtu,
  ])
  try {
    const [line] = await client.waitFor(/^\{.*\}$/m, 60_000)
    const { socks } = JSON.parse(line) as { socks: string }
    const ways = {
      socks: (way: 'down' | 'up', mb: number) => transfer(way, mb, origin, ['-x', `socks5h://${socks}`], []),
      tun: (way: 'down' | 'up', mb: number) => transfer(way, mb, origin, [], ['nsenter', `--net=/proc/${inside.pid}/ns/net`]),
    }
    const rows: TunAgainstSocks['rows'][number][] = []
    for (const way of ['down', 'up'] as const) {
      // What V8 compiles it compiles before the counted runs.
      for (let i = 0; i < 3; i++) await Promise.all([ways.socks(way, 20), ways.tun(way, 20)])
      const rate = await ways.tun(way, 20)
      const mb = fileSizesMb.findLast((size) => size <= rate * Number(values.seconds)) ?? fileSizesMb[0]
      const rates = { socks: [] as number[], tun: [] as number[] }
      const cpu = { socks: [] as number[], tun: [] as number[] }
      for (let run = 0; run < Number(values.runs); run++) {
        for (const name of ['socks', 'tun'] as const) {
          const before = cpuSeconds(client.pid)
          rates[name].push(await ways[name](way, mb))
          cpu[name].push(((cpuSeconds(client.pid) - before) * 1000) / mb)
        }
      }
      const [socksRate, tunRate] = [median(rates.socks), median(rates.tun)]
      rows.push({
        way,
        mb,
        socks: round(socksRate),
        tun: round(tunRate),
        socksClientCpu: round(median(cpu.socks)),
        tunClientCpu: round(median(cpu.tun)),
        ratio: round(tunRate / socksRate),
      })
    }
    const result: TunAgainstSocks = { rows }
    console.log(JSON.stringify(result))
  } finally {
    await client.stop('SIGKILL')
    await inside.stop('SIGKILL')
    await origin.stop()
    await testnet.stop()
    folder.remove()
  }
  process.exit(0)
}

/** MB/s by curl's own clock. */
async function transfer(
  way: 'down' | 'up',
  mb: number,
  origin: Origin,
  more: readonly string[],
  wrapper: readonly string[],
): Promise<number> {
  const args = ['-sS', '-o', '/dev/null', '--max-time', '120', '-w', '%{http_code} %{time_total}', ...more]
  args.push(...(way === 'up' ? ['-T', origin.file(mb), '-H', 'Expect:', `http://${origin.sink}/up`] : [`http://${origin.web}/${mb}m`]))
  const curl = Program.start('curl', args, { wrapper })
  const { code } = await curl.waitForExit(130_000)
  if (code !== 0 || !curl.stdout.startsWith('200 ')) throw new Error(`curl failed: ${code} ${curl.tail(500)}`)
  return mb / Number(curl.stdout.split(' ')[1])
}

if (import.meta.main) await main()
