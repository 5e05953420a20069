import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * Put into a process by `NODE_OPTIONS=--import=…`: on SIGUSR2 it collects garbage and writes what is left, as
 * JSON of process.memoryUsage(), to PID.json in the folder of SHALLOT_MEMORY_PROBE.
 */
setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

process.on('SIGUSR2', () => {
  // What finalisers free is gone after the second; the turn between lets them run.
  collect()
  setImmediate(() => {
    collect()
    writeFileSync(join(process.env.SHALLOT_MEMORY_PROBE!, `${process.pid}.json`), JSON.stringify(process.memoryUsage()))
  })
})
