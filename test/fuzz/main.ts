import { parseArgs } from 'node:util'
import { messageOf, toHex } from '../../src/base/index.ts'
import { fuzz } from './fuzzer.ts'
import { targets } from './targets.ts'

/** Inputs of a target that does not say how many are worth it. */
const DEFAULT_RUNS = 100_000

/** `npm run fuzz -- [--iterations N] [--seed N] [--only NAME]`: exit code 1 when a decoder threw what is not its refusal. */
function main(): number {
  const { values } = parseArgs({ options: { iterations: { type: 'string' }, seed: { type: 'string' }, only: { type: 'string' } } })
  const asked = values.iterations === undefined ? null : Number(values.iterations)
  const seed = Number(values.seed ?? Date.now() % 0x1_0000_0000)
  if ((asked !== null && !(Number.isSafeInteger(asked) && asked > 0)) || !Number.isSafeInteger(seed) || seed < 0) {
    console.error('--iterations is a number from 1, --seed a number from 0')
    return 2
  }
  const chosen = targets.filter(({ name }) => values.only === undefined || name.includes(values.only))
  if (chosen.length === 0) {
    console.error(`no target has "${values.only}" in its name; there are: ${targets.map(({ name }) => name).join(', ')}`)
    return 2
  }
  console.log(`seed ${seed}${asked === null ? '' : `, ${asked} iterations a target`}`)
  let failures = 0
  for (const target of chosen) {
    const started = performance.now()
    // A number that is asked for is divided as the targets' shares have it; their own numbers are whole.
    const { failure, iterations: ran, refused } = fuzz(target, asked ?? (target.runs ?? DEFAULT_RUNS) / (target.share ?? 1), seed)
    const took = `${((performance.now() - started) / 1000).toFixed(1)} s`
    if (!failure) {
      console.log(`ok    ${target.name}: ${ran} inputs, ${refused} refused, ${took}`)
      continue
    }
    failures++
    const stack = failure.thrown instanceof Error ? failure.thrown.stack : messageOf(failure.thrown)
    console.log(`FAIL  ${target.name}: input ${failure.iteration} threw\n${stack}\ninput: ${toHex(failure.input)}`)
  }
  return failures > 0 ? 1 : 0
}

process.exitCode = main()
