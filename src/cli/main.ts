import { enableCompileCache } from 'node:module'
import { join } from 'node:path'

// Before anything else is loaded: the compiled form of the program is kept between runs (bin/setup.sh names the same place).
enableCompileCache(process.env.NODE_COMPILE_CACHE ?? join(import.meta.dirname, '../../node_modules/.cache/shallot'))

const { runCommandLine } = await import('./program.ts')
const code = await runCommandLine(process.argv.slice(2))
// What was written is let out first; then nothing that lingers keeps the process.
process.stdout.write('', () => process.stderr.write('', () => process.exit(code)))
