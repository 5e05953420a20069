import { type ChildProcess, spawn } from 'node:child_process'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { ShallotError } from '../../base/index.ts'
import { ControlClient, TOKEN_FILE } from '../../control/index.ts'
import type { PlannedNode } from './plan.ts'
import type { NodeStarter } from './running-node.ts'

/** A node that has not ended this long after it was asked to is killed. */
const STOP_LIMIT_MS = 8_000
/** How much of a node's log is shown when it fails. */
const LOG_TAIL_LINES = 12

const program = join(import.meta.dirname, '../main.ts')

/** What `shallot run --json` says. */
interface RunLine {
  readonly started?: true
  readonly ready?: true
  readonly id: string
  readonly socks: string | null
  readonly http: string | null
  readonly control: string | null
  readonly dashboard: string | null
}

/**
 * Nodes in processes of their own. Each holds the reading end of a pipe from here as its standard input and stops when that closes: so none
 * outlives this process, even when it is killed. Each logs to `log` in its folder.
 */
export const startInOwnProcess: NodeStarter = async (plan) => {
  const log = await open(join(plan.dir, 'log'), 'w', 0o600)
  const child = spawn(process.execPath, [...process.execArgv, program, 'run', '--config', plan.config, '--json', '--until-stdin-ends'], {
    stdio: ['pipe', 'pipe', log.fd],
    windowsHide: true,
  })
  await log.close()
  child.stdin!.on('error', () => {})
  let stopping = false
  const exited = new Promise<string>((done) => {
    child.once('error', (error) => done(error.message))
    child.once('exit', (code, signal) => done(signal === null ? `exit code ${code}` : `killed by ${signal}`))
  })
  const lines = new RunLines(child)
  const dead = exited.then(async (how) => {
    throw new ShallotError('node-died', `${plan.name} ended while it was starting (${how}); the end of its log:\n${await tail(plan)}`, {
      kind: 'process',
      retry: 'later',
    })
  })
  dead.catch(() => {})
  const started = await Promise.race([lines.started, dead])
  return {
    plan,
    id: started.id,
    pid: child.pid!,
    socks: started.socks,
    http: started.http,
    control: started.control,
    dashboard: started.dashboard,
    ready: async () => void (await Promise.race([lines.ready, dead])),
    circuits: async () => (started.control === null ? [] : new ControlClient(started.control, join(plan.dir, TOKEN_FILE)).circuits(true)),
    ended: exited.then((how) => (stopping ? null : how)),
    async stop() {
      stopping = true
      const killer = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS)
      child.kill('SIGTERM')
      await exited
      clearTimeout(killer)
    },
  }
}

/** The lines of a child's standard output that matter. */
class RunLines {
  readonly started: Promise<RunLine>
  readonly ready: Promise<RunLine>

  constructor(child: ChildProcess) {
    const started = Promise.withResolvers<RunLine>()
    const ready = Promise.withResolvers<RunLine>()
    this.started = started.promise
    this.ready = ready.promise
    createInterface({ input: child.stdout! }).on('line', (text) => {
      const line = JSON.parse(text) as RunLine
      if (line.started) started.resolve(line)
      if (line.ready) ready.resolve(line)
    })
  }
}

async function tail(plan: PlannedNode): Promise<string> {
  const text = await readFile(join(plan.dir, 'log'), 'utf8').catch(() => '')
  return text
    .trimEnd()
    .split('\n')
    .slice(-LOG_TAIL_LINES)
    .map((line) => `  ${line}`)
    .join('\n')
}
