import { parseArgs } from 'node:util'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { messageOf } from '../src/base/index.ts'
import { chooseSuite } from '../src/crypto/index.ts'
import { formatReport } from './report.ts'
import { SCENARIOS, scenarioOf } from './scenarios.ts'
import { DEFAULTS, Simulation, type SimulationOptions } from './simulation.ts'

const HELP = `npm run simulate -- [options]

Runs a whole network in virtual time: the real views, pull protocol, path choice, guards and relay health of up to thousands of nodes,
and for a share of the builds the real circuit machines with real handshakes. The same seed gives the same table.

  --scenario NAME      one of the scenarios below, or "all" (default: steady)
  --nodes N            relays and clients together, 20 to 5000 (default: ${DEFAULTS.nodes})
  --relays SHARE       share of the nodes that are relays, 0.1 to 0.9 (default: ${DEFAULTS.relayShare})
  --hours H            virtual time, 0.5 to 1000 (default: ${DEFAULTS.hours})
  --requests MINUTES   mean pause between the requests of a client (default: ${DEFAULTS.requestMinutes})
  --machines SHARE     share of the builds that run the real machines, 0 to 1 (default: ${DEFAULTS.machineShare})
  --seed N             0 to 4294967295 (default: ${DEFAULTS.seed})
  --json               the report as one line of JSON, for each scenario
  --help               this text

Scenarios
${SCENARIOS.map(({ name, asks }) => `  ${name.padEnd(13)}${asks}`).join('\n')}

A view costs about 1.6 KB a relay and node: 1000 nodes with 400 relays need about 1 GB. What the tables mean: simulations/README.md

Examples
  npm run simulate -- --scenario churn --seed 7
  npm run simulate -- --scenario sybil --nodes 300 --json
`

/** The command was used wrongly: exit code 2. */
class UsageError extends Error {}

function number(name: string, text: string | undefined, normal: number, least: number, most: number, whole: boolean): number {
  if (text === undefined) return normal
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value) || value < least || value > most || (whole && !Number.isInteger(value))) {
    throw new UsageError(`--${name} is ${JSON.stringify(text)}; it should be a ${whole ? 'whole ' : ''}number from ${least} to ${most}`)
  }
  return value
}

function readCommand(argv: readonly string[]): { options: SimulationOptions[]; json: boolean } | null {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean', default: false } as const
  let values: Partial<Record<'scenario' | 'nodes' | 'relays' | 'hours' | 'requests' | 'machines' | 'seed', string>> & {
    json: boolean
    help: boolean
  }
  try {
    const options = {
      scenario: text,
      nodes: text,
      relays: text,
      hours: text,
      requests: text,
      machines: text,
      seed: text,
      json: flag,
      help: flag,
    }
    values = parseArgs({ args: [...argv], options, strict: true, allowPositionals: false }).values
  } catch (error) {
    throw new UsageError(messageOf(error))
  }
  if (values.help) return null
  const common = {
    seed: number('seed', values.seed, DEFAULTS.seed, 0, 2 ** 32 - 1, true),
    nodes: number('nodes', values.nodes, DEFAULTS.nodes, 20, 5000, true),
    hours: number('hours', values.hours, DEFAULTS.hours, 0.5, 1000, false),
    relayShare: number('relays', values.relays, DEFAULTS.relayShare, 0.1, 0.9, false),
    requestMinutes: number('requests', values.requests, DEFAULTS.requestMinutes, 0.1, 10_000, false),
    monthClients: DEFAULTS.monthClients,
    machineShare: number('machines', values.machines, DEFAULTS.machineShare, 0, 1, false),
  }
  const name = values.scenario ?? 'steady'
  const scenarios = name === 'all' ? SCENARIOS : [scenarioOf(name)]
  const options = scenarios.map((scenario) => {
    if (!scenario)
      throw new UsageError(`--scenario is ${JSON.stringify(name)}; it should be one of all, ${SCENARIOS.map((one) => one.name).join(', ')}`)
    return { ...common, scenario }
  })
  return { options, json: values.json }
}

/** Room for a large network: 5000 nodes with 2000 relays need 16 GB. A larger young generation spares a third of the time. */
const HEAP = { maxOldGenerationSizeMb: 20_000, maxYoungGenerationSizeMb: 128 } as const

interface Task {
  readonly argv: readonly string[]
  readonly showsProgress: boolean
}

function run(options: SimulationOptions, json: boolean, showsProgress: boolean): void {
  const { suite } = chooseSuite()
  const simulation = new Simulation(options, suite)
  const progress = (done: number): void => {
    if (showsProgress) process.stderr.write(`\r${options.scenario.name}: ${Math.round(done * 100)} %\x1b[K${done === 1 ? '\r\x1b[K' : ''}`)
  }
  const report = simulation.run(progress)
  process.stdout.write(json ? `${JSON.stringify(report)}\n` : `${formatReport(report, options.scenario)}\n`)
}

function main(argv: readonly string[]): void {
  const command = readCommand(argv)
  if (!command) {
    process.stdout.write(HELP)
    return
  }
  const startedAt = performance.now()
  const task: Task = { argv, showsProgress: process.stderr.isTTY === true }
  const worker = new Worker(new URL(import.meta.url), { workerData: task, resourceLimits: HEAP })
  worker.on('error', (error) => {
    process.stderr.write(`${messageOf(error)}\n`)
    process.exitCode = 1
  })
  worker.on('exit', () => process.stderr.write(`took ${((performance.now() - startedAt) / 1000).toFixed(1)} s\n`))
}

if (isMainThread) {
  try {
    main(process.argv.slice(2))
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    process.stderr.write(`${error.message}\nTry: npm run simulate -- --help\n`)
    process.exitCode = 2
  }
} else {
  const { argv, showsProgress } = workerData as Task
  const command = readCommand(argv)
  for (const options of command?.options ?? []) run(options, command!.json, showsProgress)
}
