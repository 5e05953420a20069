import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { enterOwnNetwork, shellOk } from '../../support/own-network.ts'
import { cpuSeconds } from '../../support/proc.ts'
import { Program, startTestnet, temporaryFolder, writeClientConfig } from '../../support/processes.ts'
import { fileSizesMb, type Origin, startOrigin } from '../origin.ts'
import { median, round } from '../stats.ts'

/** MB/s of one TCP connection through three hops, and CPU seconds of the exit per GB. */
export interface PacketsAgainstSocks {
  readonly rows: readonly {
    readonly way: 'down' | 'up'
    readonly mb: number
    /** By streams and the exit's kernel sockets. */
    readonly socks: number
    /** By raw packets and the exit's netstack. */
    readonly packets: number
    readonly socksExitCpu: number
    readonly packetsExitCpu: number
    /** Of the medians of runs beside each other. */
    readonly ratio: number
  }[]
}

/** An address that a packet may go to (a loopback one may not), and that the exit reaches. */
const SERVER = '11.0.0.1'

/**
 * One TCP connection by raw packets that the exit's netstack ends, and one by SOCKS and the exit's kernel sockets, in turn, through the same mesh and to the
 * same server. Needs root, for a network namespace of its own: `node test/bench/packets/packets-against-socks.ts [--runs N] [--seconds S]` prints one JSON line.
 */
async function main(): Promise<void> {
  const { values } = parseArgs({ options: { runs: { type: 'string', default: '5' }, seconds: { type: 'string', default: '2' } } })
  const reason = enterOwnNetwork()
  if (reason !== null) throw new Error(reason)
  shellOk(`ip address add ${SERVER}/32 dev lo`)
  const folder = temporaryFolder('bench-packets')
  const testnet = await startTestnet({ relays: 3, exits: 1 })
  const origin = await startOrigin(join(folder.path, 'origin'), null, SERVER)
  const client = startClient(writeClientConfig(testnet, join(folder.path, 'client')))
  try {
    const { socks } = JSON.parse(await client.line()) as { socks: string }
    const exit = testnet.ready.nodes.find((node) => node.roles.includes('exit'))!.pid
    const ways = {
      socks: (way: 'down' | 'up', mb: number) => bySocks(way, mb, origin, socks),
      packets: async (way: 'down' | 'up', mb: number) => {
        const [host, port] = (way === 'down' ? origin.web : origin.sink).split(':')
        return Number(await client.ask(`${way} ${host} ${port} ${mb}`))
      },
    }
    const rows: PacketsAgainstSocks['rows'][number][] = []
    for (const way of ['down', 'up'] as const) {
      // What V8 compiles it compiles before the counted runs.
      for (let i = 0; i < 4; i++) {
        await ways.socks(way, 20)
        await ways.packets(way, 20)
      }
      const rate = await ways.packets(way, 20)
      const mb = fileSizesMb.findLast((size) => size <= rate * Number(values.seconds)) ?? fileSizesMb[0]
      const rates = { socks: [] as number[], packets: [] as number[] }
      const cpu = { socks: [] as number[], packets: [] as number[] }
      for (let run = 0; run < Number(values.runs); run++) {
        for (const name of ['socks', 'packets'] as const) {
          const before = cpuSeconds(exit)
          rates[name].push(await ways[name](way, mb))
          cpu[name].push(((cpuSeconds(exit) - before) * 1000) / mb)
        }
      }
      const [socksRate, packetsRate] = [median(rates.socks), median(rates.packets)]
      rows.push({
        way,
        mb,
        socks: round(socksRate),
        packets: round(packetsRate),
        socksExitCpu: round(median(cpu.socks)),
        packetsExitCpu: round(median(cpu.packets)),
        ratio: round(packetsRate / socksRate),
      })
    }
    const result: PacketsAgainstSocks = { rows }
    console.log(JSON.stringify(result))
  } finally {
    client.stop()
    await origin.stop()
    await testnet.stop()
    folder.remove()
  }
  process.exit(0)
}

/** The client's process, a line of an answer for a line of a question. */
function startClient(config: string) {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'client.ts'), '--config', config], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  process.once('exit', () => child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const line = async (): Promise<string> => {
    const { value, done } = await lines.next()
    if (done) throw new Error('the client has ended')
    return value
  }
  return {
    line,
    ask(question: string): Promise<string> {
      child.stdin.write(`${question}\n`)
      return line()
    },
    stop: () => child.kill('SIGKILL'),
  }
}

/** MB/s by curl's own clock. */
async function bySocks(way: 'down' | 'up', mb: number, origin: Origin, socks: string): Promise<number> {
  const args = ['-sS', '-o', '/dev/null', '--max-time', '120', '-w', '%{http_code} %{time_total}', '-x', `socks5h://${socks}`]
  args.push(...(way === 'up' ? ['-T', origin.file(mb), '-H', 'Expect:', `http://${origin.sink}/up`] : [`http://${origin.web}/${mb}m`]))
  const curl = Program.start('curl', args)
  const { code } = await curl.waitForExit(130_000)
  if (code !== 0 || !curl.stdout.startsWith('200 ')) throw new Error(`curl failed: ${code} ${curl.tail(500)}`)
  return mb / Number(curl.stdout.split(' ')[1])
}

if (import.meta.main) await main()
