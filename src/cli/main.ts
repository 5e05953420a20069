import { enableCompileCache } from 'node:module'
import { join } from 'node:path'

// Before anything else is loaded: the compiled form of the program is kept between runs (bin/setup.sh names the same place).
enableCompileCache(process.env.NODE_COMPILE_CACHE ?? join(import.meta.dirname, '../../node_modules/.cache/shallot'))

const { runCommandLine } = await import('./program.ts')

// Nobody reads on (`| head`): what is done goes on being done, unsaid. Anything else, a full disk say, has lost what was asked for.
let lost: NodeJS.ErrnoException | null = null
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') lost ??= error
})
process.stderr.on('error', () => {})

const result = await runCommandLine(process.argv.slice(2))
// What was written is let out first; then nothing that lingers keeps the process.
process.stdout.write('', () => {
  setImmediate(() => {
    if (lost !== null) process.stderr.write(`shallot: standard output cannot be written: ${lost.message}\n`)
    process.stderr.write('', () => process.exit(lost !== null && result === 0 ? 1 : result))
  })
})
