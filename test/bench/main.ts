import { cpus, loadavg, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { run } from '../support/processes.ts'
import { defaultHeldBytes } from './delay-proxy.ts'
import { type DelayedResult, measureDelayed } from './delayed.ts'
import { type MeasureOptions, measureNetwork, type NetworkResult, networkSections } from './measure.ts'
import { type MicroResult, measureMicro } from './micro.ts'
import { chainNetwork, meshNetwork, positions } from './network.ts'
import { type Origin, startOrigin } from './origin.ts'
import { limitTable, type Row, table } from './report.ts'
import { compareWithTor, type Limit, limit, type MeshFigures, runTor, type TorFigures, torVariants } from './tor.ts'
import { type DeviceResult, deviceLimits, deviceSections, deviceTables, measureDevices } from './tun/section.ts'

const help = `npm run bench -- [options]     measures a mesh of separate processes on this machine

  --sections LIST   of micro,${networkSections.join(',')},delay,${deviceSections.join(',')} (default: all; the last ${deviceSections.length} need root)
  --runs N          medians of so many runs (5)
  --seconds S       about how long one transfer or load takes (2)
  --builds N        circuits built one after another (100)
  --circuits N      circuits held open for the memory figures (1000)
  --relays N, --exits N   of the testnet (3, 1)
  --network NAME    mesh, or chain: a SOCKS front and three plain TLS proxies in its place (mesh)
  --delay MS        each way, on every link, in the section delay (25)
  --held MIB        most bytes under way in each direction of a delayed link (${defaultHeldBytes / 2 ** 20})
  --affinity LIST   cores of the processes during transfers, such as client=0,guard=0,middle=1,exit=1
  --tor DIR         runs the runner for a private Tor network in DIR in turn with the mesh, and prints the ratios (root)
  --variants LIST   of the settings of Tor: ${torVariants.join(',')} (all). bulk alone is the quick way to the ratio of downloads
  --sink COMMAND    an upload sink in place of our own; it gets HOST and PORT as arguments
  --json            one JSON line in place of the tables
`

const { values } = parseArgs({
  options: {
    sections: { type: 'string', default: ['micro', ...networkSections, 'delay', ...deviceSections].join(',') },
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    builds: { type: 'string', default: '100' },
    circuits: { type: 'string', default: '1000' },
    relays: { type: 'string', default: '3' },
    exits: { type: 'string', default: '1' },
    network: { type: 'string', default: 'mesh' },
    delay: { type: 'string', default: '25' },
    held: { type: 'string', default: String(defaultHeldBytes / 2 ** 20) },
    affinity: { type: 'string', default: '' },
    tor: { type: 'string' },
    variants: { type: 'string', default: torVariants.join(',') },
    sink: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

interface Report {
  readonly at: string
  readonly machine: {
    readonly cores: number
    readonly cpu: string
    readonly load: number
    readonly node: string
    readonly platform: string
  }
  readonly micro: readonly MicroResult[] | null
  readonly result: NetworkResult | null
  readonly delayed: DelayedResult | null
  readonly devices: DeviceResult | null
  readonly tor: readonly TorFigures[]
  /** One for each run of Tor: the mesh as it was measured just before it. */
  readonly beside: readonly MeshFigures[]
  readonly limits: readonly Limit[]
}

const say = (text: string): void => {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`)
}
const sections = values.sections.split(',').filter((section) => section !== '')
const known: readonly string[] = ['micro', 'delay', ...networkSections, ...deviceSections]
const unknown = sections.filter((section) => !known.includes(section))

if (values.help || unknown.length > 0) {
  if (unknown.length > 0) console.error(`there is no section ${unknown.join(', ')}`)
  console[values.help ? 'log' : 'error'](help)
  process.exit(values.help ? 0 : 2)
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1)) // what was started is ended at exit

const options: MeasureOptions = {
  sections,
  runs: Number(values.runs),
  seconds: Number(values.seconds),
  builds: Number(values.builds),
  circuits: Number(values.circuits),
  affinity: Object.fromEntries(
    values.affinity.split(',').flatMap((item) => (item ? [[item.split('=')[0], Number(item.split('=')[1])]] : [])),
  ),
}
const report = values.tor === undefined ? await measureHere() : await measureBesideTor(resolve(values.tor))
if (values.json) console.log(JSON.stringify(report))
else print(report)

async function measureHere(): Promise<Report> {
  const micro = sections.includes('micro') ? measureMicro(options.runs) : null
  const origin = await startOrigin(join(tmpdir(), 'shallot-bench'), values.sink?.split(' ') ?? null)
  try {
    const result = networkSections.some((section) => sections.includes(section)) ? await measureOne(origin) : null
    const delayed = sections.includes('delay')
      ? await measureDelayed(origin, { delayMs: Number(values.delay), heldBytes: Number(values.held) * 2 ** 20, runs: options.runs }, say)
      : null
    const devices = await measureDevices(sections, { runs: options.runs, seconds: options.seconds }, say)
    const limits: Limit[] = []
    if (result?.network === 'mesh' && result.memory) {
      limits.push(limit('idle relay, MB', result.memory.idleRelayMb, { atMost: 130 }))
      limits.push(limit('1000 circuits add, MB', (result.memory.addedMb.middle * 1000) / result.memory.circuits, { atMost: 60 }))
    }
    if (delayed) limits.push(limit('delayed download / plain TLS chain', delayed.mesh.down / delayed.chain.down, { atLeast: 0.8 }))
    if (devices) limits.push(...deviceLimits(devices))
    return { ...about(), micro, result, delayed, devices, tor: [], beside: [], limits }
  } finally {
    await origin.stop()
  }
}

async function measureOne(origin: Origin): Promise<NetworkResult> {
  say(`starting the ${values.network}`)
  const network =
    values.network === 'chain' ? await chainNetwork() : await meshNetwork({ relays: Number(values.relays), exits: Number(values.exits) })
  try {
    return await measureNetwork(network, origin, options, say)
  } finally {
    await network.stop()
  }
}

/** The mesh and each variant of Tor in turn, each in a network namespace that has nothing but a loopback of the same settings. */
async function measureBesideTor(folder: string): Promise<Report> {
  const tor: TorFigures[] = []
  const beside: MeshFigures[] = []
  for (let round = 1; round <= options.runs; round++) {
    for (const variant of torVariants.filter((one) => values.variants.split(',').includes(one))) {
      say(`round ${round}: mesh`)
      beside.push(await meshInNamespace(folder))
      say(`round ${round}: Tor, ${variant}`)
      const figures = await runTor(folder, variant, options.seconds)
      say(`  mesh ${JSON.stringify(beside.at(-1))}\n  ${JSON.stringify(figures)}`)
      tor.push(figures)
    }
  }
  return { ...about(), micro: null, result: null, delayed: null, devices: null, tor, beside, limits: compareWithTor(beside, tor) }
}

async function meshInNamespace(folder: string): Promise<MeshFigures> {
  const setUp = 'ip link set lo mtu 65536 up && echo cubic >/proc/sys/net/ipv4/tcp_congestion_control; exec "$@"'
  const inner = [
    '--sections',
    values.variants === 'bulk' ? 'bulk' : 'bulk,circuits,small',
    '--json',
    '--runs',
    '3',
    '--seconds',
    values.seconds,
    '--builds',
    values.builds,
  ]
  inner.push('--network', values.network, '--relays', values.relays, '--exits', values.exits, '--affinity', values.affinity)
  inner.push('--sink', `python3 ${join(folder, 'sink.py')}`)
  const finished = await run('unshare', ['--net', 'sh', '-c', setUp, 'sh', process.execPath, import.meta.filename, ...inner], {
    timeoutMs: 1200_000,
  })
  if (finished.code !== 0) throw new Error(`the measurement in a namespace failed:\n${finished.log.slice(-4000)}`)
  const { result } = JSON.parse(finished.stdout.trim().split('\n').at(-1)!) as Report
  return {
    downMbPerSecond: result!.transfers.down!.mbPerSecond.median,
    middleCpuSecondsPerGb: result!.transfers.down!.cpuSecondsPerGb.middle!,
    buildP50Ms: result!.builds?.p50Ms ?? Number.NaN,
    firstByteP50Ms: result!.small[0]?.firstByteMs.p50 ?? Number.NaN,
  }
}

function about(): Pick<Report, 'at' | 'machine'> {
  const machine = {
    cores: cpus().length,
    cpu: cpus()[0]?.model ?? '',
    load: loadavg()[0]!,
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
  }
  return { at: new Date().toISOString(), machine }
}

function print(report: Report): void {
  const { machine } = report
  console.log(`\n${machine.cores} cores, ${machine.cpu}, Node ${machine.node}, load ${machine.load.toFixed(1)}, ${report.at}\n`)
  if (report.micro) {
    const cell = (name: string, pick: (one: MicroResult) => number): Row => [name, ...report.micro!.map(pick)]
    console.log(
      table(
        'Microseconds (a cell is 1536 bytes)',
        ['', 'native', 'portable'],
        [
          cell('relay, a layer off, batches', (one) => one.batched.relayForward),
          cell('relay, a layer on, batches', (one) => one.batched.relayBackward),
          cell('client, three layers on, batches', (one) => one.batched.clientForward),
          cell('client, three layers off, batches', (one) => one.batched.clientBackward),
          cell('relay, a layer off, single cells', (one) => one.oneAtATime.relayForward),
          cell('handshake: client begins', (one) => one.handshake.begin),
          cell('handshake: relay answers', (one) => one.handshake.answer),
          cell('handshake: client finishes', (one) => one.handshake.finish),
        ],
      ),
    )
  }
  if (report.result) printNetwork(report.result)
  if (report.delayed) {
    const { delayMs, heldBytes, mesh, chain } = report.delayed
    const title = `One stream with ${delayMs} ms each way on every link (at most ${heldBytes / 2 ** 20} MiB under way in each direction)`
    const row = (name: string, one: typeof chain): Row => [name, one.down, one.downWhole, one.up, one.firstByteMs]
    const head: Row = ['', 'down MB/s', 'with set-up', 'up MB/s', 'first byte ms']
    console.log(table(title, head, [row('mesh', mesh), row('plain TLS chain', chain)]))
  }
  if (report.devices) for (const text of deviceTables(report.devices)) console.log(text)
  if (report.tor.length > 0) {
    const rows = report.tor.map((figures, i): Row => {
      const mesh = report.beside[i]!
      const tor = [figures.downMbPerSecond, figures.middleCpuSecondsPerGb, figures.buildP50Ms, figures.firstByteP50Ms]
      return [figures.variant, ...tor, mesh.downMbPerSecond, mesh.middleCpuSecondsPerGb, mesh.buildP50Ms, mesh.firstByteP50Ms]
    })
    const head: Row = [
      'Tor, then the mesh just before it',
      ...Array(2).fill(['down MB/s', 'middle s/GB', 'build ms', 'first byte ms']).flat(),
    ]
    console.log(table(report.tor[0]!.version, head, rows))
  }
  if (report.limits.length > 0) console.log(limitTable(report.limits))
}

function printNetwork(result: NetworkResult): void {
  const entries = Object.entries(result.transfers)
  if (entries.length > 0) {
    const head: Row = ['', 'MB/s', 'min', 'max', ...positions, 'relays', 'server']
    const rows = entries.map(([name, one]): Row => {
      const cpu = one.cpuSecondsPerGb
      const { median, min, max } = one.mbPerSecond
      return [name, median, min, max, ...positions.map((position) => cpu[position] ?? '-'), cpu.relaysTogether ?? '-', cpu.server ?? '-']
    })
    console.log(table(`Three hops through the ${result.network} (${result.origin}): MB/s, and CPU seconds per GB`, head, rows))
  }
  if (result.builds) {
    const { n, failed, p50Ms, p95Ms, minMs, clock } = result.builds
    console.log(
      table(
        `Circuit builds, one after another (${clock} clock)`,
        ['n', 'failed', 'p50 ms', 'p95 ms', 'least ms'],
        [[String(n), failed, p50Ms, p95Ms, minMs]],
      ),
    )
  }
  if (result.small.length > 0) {
    const head: Row = ['1 KB fetches at once', 'first byte p50 ms', 'p95 ms', 'a second', 'errors']
    const rows = result.small.map((one): Row => [String(one.atOnce), one.firstByteMs.p50, one.firstByteMs.p95, one.perSecond, one.errors])
    console.log(table('Small fetches', head, rows))
  }
  if (result.memory) {
    const { memory } = result
    const rows: Row[] = [
      ['idle', ...positions.map((position) => memory.idleMb[position])],
      [`${memory.circuits} circuits add`, ...positions.map((position) => memory.addedMb[position])],
    ]
    console.log(
      table(
        `Resident memory, MB (an idle relay: ${memory.idleRelayMb}; ${memory.openedPerSecond} circuits opened a second)`,
        ['', ...positions],
        rows,
      ),
    )
  }
}
