import { parseArgs } from 'node:util'
import { enterOwnNetwork } from '../../support/own-network.ts'
import { shortPhases, soakPhases } from './phases.ts'
import { type Phase, type PhaseResult, Soak } from './soak.ts'

const usage = `npm run soak -- [--gb N] [--flow-mb N] [--connections N] [--seed N] [--json]
Our netstack against the kernel's TCP over a TUN in a network namespace of its own (root): N gigabytes (default 10), both ways together, over paths
from clean to 5 % loss with reordering, duplication and delay; then N short connections (default 10000). What arrives has to be what was sent.`

/** By how much the memory may grow over all short connections. */
const MOST_GROWTH_MEGABYTES = 12

/** Prints what was moved; 1 when something went wrong, 2 when it could not be tried. */
async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      gb: { type: 'string', default: '10' },
      'flow-mb': { type: 'string', default: '100' },
      connections: { type: 'string', default: '10000' },
      seed: { type: 'string', default: String(Date.now() % 100_000) },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const [bytes, flowBytes] = [Number(values.gb) * 1e9, Number(values['flow-mb']) * 1e6]
  const [connections, seed] = [Number(values.connections), Number(values.seed)]
  if (values.help || !(bytes >= 0 && flowBytes >= 1e4 && connections >= 0 && Number.isSafeInteger(seed))) {
    console.error(usage)
    return values.help ? 0 : 2
  }
  const reason = enterOwnNetwork()
  if (reason !== null) {
    console.error(`soak: ${reason}`)
    return 2
  }
  const phases = [...(bytes > 0 ? soakPhases(bytes, flowBytes) : []), ...(connections > 0 ? shortPhases(connections) : [])]
  const say = (text: string): void => (values.json ? console.error(text) : console.log(text))
  say(`seed ${seed}, ${Number(values.gb)} GB, then ${connections} short connections`)
  const soak = await Soak.start(seed)
  const results: PhaseResult[] = []
  const faults: string[] = []
  try {
    for (const phase of warmedUp(phases)) {
      const result = await soak.run(phase, (text) => console.error(text))
      // It takes a while until the last TIME-WAIT is over: once after the bulk, and after each kind of short ones.
      const left = phase.isLast ? await soak.leftovers() : null
      if (left !== null) faults.push(`${phase.name}: left behind: ${left}`)
      faults.push(...result.faults.map((fault) => `${phase.name}: ${fault}`))
      if (phase.name === WARM_UP && result.faults.length === 0) continue
      results.push(result)
      say(line(result))
      if (result.faults.length > 0) break
    }
  } finally {
    soak.stop()
  }
  const shorts = results.filter(({ name }) => name.startsWith('short'))
  const growth = shorts.length < 2 ? 0 : shorts.at(-1)!.heapMegabytes - shorts[0]!.heapMegabytes
  if (growth > MOST_GROWTH_MEGABYTES) faults.push(`memory has grown by ${growth.toFixed(1)} MB over the short connections`)
  const megabytes = results.reduce((sum, result) => sum + result.megabytes, 0)
  const seconds = results.reduce((sum, result) => sum + result.seconds, 0)
  const rss = Math.round(process.resourceUsage().maxRSS / 1000)
  say(
    `in all ${megabytes.toFixed(0)} MB in ${seconds.toFixed(0)} s, at most ${rss} MB resident: ${faults.length === 0 ? 'all of it whole' : 'FAILED'}`,
  )
  for (const fault of faults.slice(0, 20)) say(`- ${fault}`)
  if (values.json) console.log(JSON.stringify({ seed, faults, results, megabytes, seconds, growth, rss }))
  return faults.length === 0 ? 0 : 1
}

const WARM_UP = 'warm-up'

/** Before the memory of short connections is compared, some have been. */
function warmedUp(phases: readonly Phase[]): readonly Phase[] {
  const first = phases.findIndex(({ name }) => name.startsWith('short'))
  if (first < 0) return phases
  return [...phases.slice(0, first), { ...phases[first]!, name: WARM_UP, flows: 400 }, ...phases.slice(first)]
}

function line({ name, megabytes, flows, seconds, lost, retransmissions, heapMegabytes }: PhaseResult): string {
  const rate = `${(megabytes / seconds).toFixed(0)} MB/s`
  const tail = `${lost} packets lost, ${retransmissions} sent again by us, ${heapMegabytes.toFixed(0)} MB in use`
  return `${name}: ${flows} flows, ${megabytes.toFixed(0)} MB in ${seconds.toFixed(1)} s (${rate}), ${tail}`
}

process.exitCode = await main()
