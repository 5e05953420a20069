import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { commandLine, descendantsOf, isAlive } from './proc.ts'

/** The root of this clone. */
export const projectRoot = join(dirname(fileURLToPath(import.meta.url)), '..', '..')

/** How much of a program's output is kept for a failure's message, in characters. */
const keptOutputChars = 200_000

/** How long after a program's end its outputs may stay open. */
const outputGraceMs = 500

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface StartOptions {
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
  readonly cwd?: string
  readonly input?: string | Uint8Array
  /** Put before the command, such as `['nsenter', '--net=…']` or `['strace', …]`. */
  readonly wrapper?: readonly string[] | undefined
}

const running = new Set<Program>()
// Whatever happens to a test run, nothing that it started stays.
process.on('exit', () => {
  for (const program of running) program.killNow()
})

/** A program that a test started: its output is kept, it is waited for, and it is ended by its pid. */
export class Program {
  readonly name: string
  readonly pid: number
  readonly exited: Promise<Exit>
  #exit: Exit | null = null
  readonly #child: ChildProcess
  #out = ''
  #all = ''
  readonly #watchers = new Set<() => void>()

  static start(command: string, args: readonly string[], options: StartOptions = {}): Program {
    const [first, ...rest] = [...(options.wrapper ?? []), command, ...args]
    return new Program(first!, rest, options)
  }

  /** A TypeScript or JavaScript file with the Node that runs the tests. */
  static node(file: string, args: readonly string[] = [], options: StartOptions = {}): Program {
    return Program.start(process.execPath, [file, ...args], options)
  }

  private constructor(command: string, args: readonly string[], options: StartOptions) {
    this.name = [command, ...args].join(' ')
    const spawnOptions: SpawnOptions = {
      cwd: options.cwd ?? projectRoot,
      env: cleanEnvironment(options.env),
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    }
    this.#child = spawn(command, args, spawnOptions)
    this.pid = this.#child.pid ?? 0
    running.add(this)
    this.exited = new Promise((resolve) => {
      const ended = (exit: Exit): void => {
        if (this.#exit) return
        this.#exit = exit
        running.delete(this)
        resolve(exit)
        this.#wake()
      }
      this.#child.once('error', (error) => {
        this.#all += `${error.message}\n`
        if (this.pid === 0) ended({ code: 127, signal: null })
      })
      // 'close' waits for the outputs, which a grandchild may hold open: it gets a moment for what is still in the pipes.
      this.#child.once('exit', (code, signal) => setTimeout(() => ended({ code, signal }), outputGraceMs).unref())
      this.#child.once('close', (code, signal) => ended({ code, signal }))
    })
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#out = (this.#out + text).slice(-keptOutputChars)
      this.#keep(text)
    })
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => this.#keep(text))
    if (options.input !== undefined) {
      this.#child.stdin!.on('error', () => {})
      this.#child.stdin!.end(options.input)
    }
  }

  /** What it has written to standard output, the last 200,000 characters. */
  get stdout(): string {
    return this.#out
  }

  /** What it has written to both outputs. */
  get log(): string {
    return this.#all
  }

  /** Null while it runs. */
  get exit(): Exit | null {
    return this.#exit
  }

  /** The first match on standard output. Fails when the program ends first, or after `timeoutMs`, with what it said. */
  async waitFor(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const match = pattern.exec(this.#out)
      if (match) return match
      if (this.#exit) throw new Error(`${this.name} ended (${describeExit(this.#exit)}) before it said ${pattern}:\n${this.tail()}`)
      const left = deadline - performance.now()
      if (left <= 0) throw new Error(`${this.name} has not said ${pattern} in ${timeoutMs} ms:\n${this.tail()}`)
      await this.#somethingHappens(left)
    }
  }

  /** Waits for its end; fails after `timeoutMs`, having killed it. */
  async waitForExit(timeoutMs: number): Promise<Exit> {
    const exit = await Promise.race([this.exited, delay(timeoutMs)])
    if (exit) return exit
    this.killNow()
    throw new Error(`${this.name} was still running after ${timeoutMs} ms:\n${this.tail()}`)
  }

  /** Sends the signal and waits for the end. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', timeoutMs = 15_000): Promise<Exit> {
    if (this.#exit) return this.#exit
    this.#child.kill(signal)
    return this.waitForExit(timeoutMs)
  }

  signal(signal: NodeJS.Signals): void {
    if (!this.#exit) this.#child.kill(signal)
  }

  killNow(): void {
    if (!this.#exit && this.pid !== 0) killPid(this.pid, 'SIGKILL')
  }

  /** The end of its output, for a failure's message. */
  tail(chars = 4000): string {
    return this.#all.slice(-chars)
  }

  #keep(text: string): void {
    this.#all = (this.#all + text).slice(-keptOutputChars)
    this.#wake()
  }

  #wake(): void {
    for (const watcher of [...this.#watchers]) watcher()
  }

  #somethingHappens(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        this.#watchers.delete(done)
        resolve()
      }
      const timer = setTimeout(done, timeoutMs)
      this.#watchers.add(done)
    })
  }
}

export interface Finished extends Exit {
  readonly stdout: string
  readonly log: string
}

/** Runs a program to its end. Fails on a time-out; the exit code is the caller's to look at. */
export async function run(
  command: string,
  args: readonly string[],
  options: StartOptions & { readonly timeoutMs?: number } = {},
): Promise<Finished> {
  const program = Program.start(command, args, options)
  const exit = await program.waitForExit(options.timeoutMs ?? 60_000)
  return { ...exit, stdout: program.stdout, log: program.log }
}

/** Runs a program that has to succeed, and gives what it wrote to standard output. */
export async function runOk(
  command: string,
  args: readonly string[],
  options: StartOptions & { readonly timeoutMs?: number } = {},
): Promise<string> {
  const finished = await run(command, args, options)
  if (finished.code !== 0) throw new Error(`${command} ${args.join(' ')}: ${describeExit(finished)}\n${finished.log.slice(-4000)}`)
  return finished.stdout
}

/** Whether a command is on the PATH or in the system folders. */
export async function hasCommand(name: string): Promise<boolean> {
  return (await run('sh', ['-c', 'command -v "$1" >/dev/null', 'sh', name])).code === 0
}

export function describeExit(exit: Exit): string {
  return exit.signal ? `killed by ${exit.signal}` : `exit code ${exit.code}`
}

/** Sends a signal to one process; a process that is gone already is none of our business. */
export function killPid(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It is gone.
  }
}

/** Resolves with undefined, so that it can lose a race. Does not keep the process alive. */
export function delay(ms: number): Promise<undefined> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(undefined), ms).unref()
  })
}

/** Asks until the answer is there; fails after `timeoutMs` with `what` and the last error. */
export async function until<T>(
  what: string,
  timeoutMs: number,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  everyMs = 50,
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  let last: unknown
  for (;;) {
    try {
      const answer = await ask()
      if (answer !== undefined && answer !== false) return answer
    } catch (error) {
      last = error
    }
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause: last })
    await new Promise((resolve) => setTimeout(resolve, everyMs))
  }
}

/** A folder of its own under the system's temporary folder, and how to remove it. */
export function temporaryFolder(name: string): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), `shallot-${name}-`))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

// --- the mesh -------------------------------------------------------------------------------------------------------------------

/** What `shallot testnet --json` prints when it can carry traffic. */
export interface ReadyLine {
  readonly ready: true
  readonly socks: string
  readonly http: string
  readonly control: string
  /** The client last. */
  readonly nodes: readonly TestnetNode[]
}

export interface TestnetNode {
  readonly id: string
  readonly roles: readonly string[]
  readonly address: string | null
  /** Null without `--countries`. */
  readonly country: string | null
  readonly pid: number
  /** Such as relay1, exit1, bootstrap, client. */
  readonly name: string
  readonly dir: string
}

export interface TestnetOptions {
  /** Relays in all, exits included. */
  readonly relays?: number
  readonly exits?: number
  /** Default true: an OS process for every node. */
  readonly processes?: boolean
  /** The folder of its state; a temporary one, removed at the end, when not given. */
  readonly dir?: string
  readonly more?: readonly string[]
  readonly env?: StartOptions['env']
  readonly wrapper?: readonly string[] | undefined
  readonly readyWithinMs?: number
}

/** A running `shallot testnet`, and what it said when it was ready. */
export class Testnet {
  readonly program: Program
  readonly ready: ReadyLine
  readonly dir: string
  readonly #cleanUp: () => void

  constructor(program: Program, ready: ReadyLine, dir: string, cleanUp: () => void) {
    this.program = program
    this.ready = ready
    this.dir = dir
    this.#cleanUp = cleanUp
  }

  get client(): TestnetNode {
    return this.ready.nodes.at(-1)!
  }

  nodes(role: string): readonly TestnetNode[] {
    return this.ready.nodes.filter((node) => node.roles.includes(role))
  }

  node(id: string): TestnetNode {
    const found = this.ready.nodes.find((node) => node.id === id)
    if (!found) throw new Error(`no node ${id} in this testnet`)
    return found
  }

  /** Which of its processes are alive, by pid. */
  alive(): readonly number[] {
    return [this.program.pid, ...this.ready.nodes.map((node) => node.pid)].filter((pid, i, all) => all.indexOf(pid) === i && isAlive(pid))
  }

  /** Stops it with the signal. Afterwards no process of it lives: `leftOver` holds those that had to be killed. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<{ exit: Exit; leftOver: readonly number[] }> {
    try {
      const exit = await this.program.stop(signal)
      return { exit, leftOver: await this.#killRest() }
    } finally {
      await this.#killRest()
      this.#cleanUp()
    }
  }

  async #killRest(): Promise<readonly number[]> {
    await delayReferenced(this.alive().length > 0 ? 200 : 0)
    const left = this.alive().filter(isOurs)
    for (const pid of left) killPid(pid, 'SIGKILL')
    return left
  }
}

/** Starts a whole mesh of this clone and waits until it says that it can carry traffic. On failure nothing of it stays. */
export async function startTestnet(options: TestnetOptions = {}): Promise<Testnet> {
  const temporary = options.dir === undefined ? temporaryFolder('testnet') : null
  const dir = options.dir ?? temporary!.path
  const args = ['testnet', '--json', '--dir', dir, '--relays', String(options.relays ?? 6), '--exits', String(options.exits ?? 2)]
  // Addresses with port 0, so that testnets of several test files never meet.
  args.push('--socks', '127.0.0.1:0', '--http', '127.0.0.1:0', '--dns', '127.0.0.1:0', '--control', '127.0.0.1:0')
  if (options.processes ?? true) args.push('--processes')
  args.push(...(options.more ?? []))
  const program = startShallot(args, options)
  try {
    const [line] = await program.waitFor(/^\{"ready":true.*\}$/m, options.readyWithinMs ?? 60_000)
    return new Testnet(program, JSON.parse(line) as ReadyLine, dir, () => temporary?.remove())
  } catch (error) {
    const children = descendantsOf(program.pid)
    program.killNow()
    for (const pid of children) if (isOurs(pid)) killPid(pid, 'SIGKILL')
    temporary?.remove()
    throw error
  }
}

/** What `shallot run --json` prints when the node does what its roles say. */
export interface RunLine {
  readonly ready: true
  readonly id: string
  readonly pid: number
  readonly socks: string | null
  readonly http: string | null
  readonly control: string | null
}

/** A node of its own, started by `shallot run`. */
export class ExtraNode {
  readonly program: Program
  readonly ready: RunLine
  readonly dir: string
  /** The node itself: `program` may be a tracer around it. */
  readonly pid: number

  constructor(program: Program, ready: RunLine, dir: string) {
    this.program = program
    this.ready = ready
    this.dir = dir
    this.pid = ready.pid
  }

  /** Signals the node, not its tracer, and waits until both have ended. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Exit> {
    killPid(this.pid, signal)
    return this.program.waitForExit(20_000)
  }
}

/** The configuration of one more client of a testnet; every port is a free one. @param more further sections, in TOML */
export function writeClientConfig(testnet: Pick<Testnet, 'dir'>, dir: string, more: readonly string[] = []): string {
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const file = join(dir, 'shallot.toml')
  const lines = ['[node]', 'roles = ["client"]', `network = ${JSON.stringify(join(testnet.dir, 'network.toml'))}`]
  lines.push(
    '[ingress.socks]',
    'listen = ["127.0.0.1:0"]',
    '[ingress.http]',
    'listen = ["127.0.0.1:0"]',
    '[ingress.dns]',
    'listen = ["127.0.0.1:0"]',
    '[control]',
    'listen = "127.0.0.1:0"',
    '[dashboard]',
    'listen = "127.0.0.1:0"',
    ...more,
  )
  writeFileSync(file, `${lines.join('\n')}\n`)
  return file
}

/** Runs a node by its configuration file and waits until it is ready. On failure nothing of it stays. */
export async function startNode(config: string, options: StartOptions & { readonly readyWithinMs?: number } = {}): Promise<ExtraNode> {
  const program = startShallot(['run', '--json', '--config', config], options)
  try {
    const [line] = await program.waitFor(/^\{"ready":true.*\}$/m, options.readyWithinMs ?? 60_000)
    return new ExtraNode(program, JSON.parse(line) as RunLine, dirname(config))
  } catch (error) {
    for (const pid of descendantsOf(program.pid)) killPid(pid, 'SIGKILL')
    program.killNow()
    throw error
  }
}

/** The `shallot` command of this clone. */
export function startShallot(args: readonly string[], options: StartOptions = {}): Program {
  return Program.start('sh', [join(projectRoot, 'bin', 'shallot'), ...args], options)
}

export function shallot(args: readonly string[], options: StartOptions & { readonly timeoutMs?: number } = {}): Promise<Finished> {
  return run('sh', [join(projectRoot, 'bin', 'shallot'), ...args], options)
}

/** Whether a pid still is a process of this clone: pids are used again. */
function isOurs(pid: number): boolean {
  return commandLine(pid).some((argument) => argument.includes(projectRoot))
}

/** The environment without what the test runner put into it, so that programs run as they would from a shell. */
function cleanEnvironment(more: StartOptions['env']): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {}
  for (const [name, value] of Object.entries(process.env)) {
    if (/^(VITEST|NODE_OPTIONS$|NODE_ENV$|TEST$|DEV$|PROD$|MODE$|SSR$|BASE_URL$|https?_proxy$|all_proxy$|no_proxy$)/i.test(name)) continue
    env[name] = value
  }
  env.PATH = [...new Set([...(env.PATH ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin'])].join(delimiter)
  for (const [name, value] of Object.entries(more ?? {})) {
    if (value === undefined) delete env[name]
    else env[name] = value
  }
  return env
}

function delayReferenced(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
