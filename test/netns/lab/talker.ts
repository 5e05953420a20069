import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

/** A program that is talked to by lines on its standard input and output, in turns. */
export class Talker {
  readonly #program: ChildProcessWithoutNullStreams
  readonly #said: string[] = []
  readonly #waiting: ((line: string | null) => void)[] = []
  #errors = ''
  #ended = false

  constructor(command: readonly string[]) {
    const [first, ...rest] = command
    this.#program = spawn(first!, rest)
    this.#program.stdin.on('error', () => {})
    this.#program.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(-4000)
    })
    this.#program.once('error', (error) => this.#end(error.message))
    this.#program.once('close', () => this.#end(''))
    createInterface(this.#program.stdout).on('line', (line) => {
      const waiting = this.#waiting.shift()
      if (waiting) waiting(line)
      else this.#said.push(line)
    })
  }

  say(line: string): void {
    if (!this.#ended) this.#program.stdin.write(`${line}\n`)
  }

  /** Its next line. Fails when it has ended, with what it wrote to standard error. */
  async hear(): Promise<string> {
    const said = this.#said.shift()
    if (said !== undefined) return said
    const line = this.#ended ? null : await new Promise<string | null>((resolve) => this.#waiting.push(resolve))
    if (line === null) throw new Error(`${this.#program.spawnargs.join(' ')} has ended: ${this.#errors}`)
    return line
  }

  async stop(): Promise<void> {
    if (this.#ended) return
    await new Promise((resolve) => {
      this.#program.once('close', resolve)
      this.#program.kill('SIGKILL')
    })
  }

  #end(error: string): void {
    this.#errors += error
    this.#ended = true
    for (const waiting of this.#waiting.splice(0)) waiting(null)
  }
}
