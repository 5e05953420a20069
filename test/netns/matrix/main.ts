import { parseArgs } from 'node:util'
import { reasonAgainstLab } from '../lab/index.ts'
import { type Attempt, attemptAll, ReachMatrix } from './matrix.ts'
import { allPairs, kinds, type Pair } from './places.ts'
import { faultOf, matrixTable, pairTable, resultsOf } from './report.ts'

const usage = `npm run nat-matrix -- [--tries N] [--pairs KIND:KIND,...] [--at-once N] [--no-punching]
Lets nodes behind every kind of NAT reach for each other in a network of namespaces (root), and prints how their links came about.
Kinds: ${kinds.join(', ')}`

/** Prints the matrix; 1 when a pair does not do what it has to, 2 when it could not be tried. */
async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      tries: { type: 'string', default: '1' },
      pairs: { type: 'string' },
      'at-once': { type: 'string', default: '2' },
      'no-punching': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log(usage)
    return 0
  }
  const [tries, atOnce] = [Number(values.tries), Number(values['at-once'])]
  const pairs = values.pairs === undefined ? allPairs : parsePairs(values.pairs)
  if (!(tries >= 1 && atOnce >= 1) || pairs === null) {
    console.error(usage)
    return 2
  }
  const reason = await reasonAgainstLab()
  if (reason !== null) {
    console.error(`nat-matrix: ${reason}`)
    return 2
  }
  const matrix = await ReachMatrix.start({ punching: !values['no-punching'] })
  const attempts: Attempt[] = []
  try {
    for (let n = 0; n < tries; n++) {
      if (n > 0) await matrix.renew()
      // Each pair is tried from both sides in turn.
      const turned = (_: Pair, index: number): boolean => (n + index) % 2 === 1
      await attemptAll(matrix, pairs, turned, atOnce, (attempt) => {
        attempts.push(attempt)
        const { seeker, sought, seen, family, reachedMs, upgradedMs } = attempt
        const fault = faultOf(attempt)
        console.error(
          `${n + 1}/${tries} ${seeker} to ${sought}: ${seen} v${family ?? '-'} ${reachedMs}/${upgradedMs} ms${fault ? `  FAULT ${fault}` : ''}`,
        )
      })
    }
  } finally {
    await matrix.stop()
  }
  const results = resultsOf(pairs, attempts)
  console.log(`${matrixTable(results)}\n\n${pairTable(results)}`)
  const faults = results.flatMap(({ faults }) => faults)
  if (faults.length > 0) console.log(`\n${faults.map((fault) => `- ${fault}`).join('\n')}`)
  return faults.length === 0 ? 0 : 1
}

function parsePairs(text: string): readonly Pair[] | null {
  const found = text.split(',').map((pair) => allPairs.find(({ a, b }) => pair === `${a}:${b}` || pair === `${b}:${a}`))
  return found.every((pair) => pair !== undefined) ? found : null
}

process.exitCode = await main()
