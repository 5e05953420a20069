import { type Finished, Program, run, runOk, type StartOptions } from '../../support/processes.ts'
import type { Namespaces } from './namespaces.ts'
import { Talker } from './talker.ts'

export interface MachineAddresses {
  /** Its own IPv4 addresses, the first one first; none when it has no IPv4. */
  readonly ipv4: readonly string[]
  readonly ipv6: string | null
}

/** A place of the lab where programs run: a host, a computer at home, a router, the internet. */
export class Machine {
  readonly place: string
  /** Put before a command, makes it run here. */
  readonly wrapper: readonly string[]
  readonly #ipv4: readonly string[]
  readonly ipv6: string | null

  constructor(namespaces: Namespaces, place: string, addresses: MachineAddresses) {
    this.place = place
    this.wrapper = namespaces.wrapper(place)
    this.#ipv4 = addresses.ipv4
    this.ipv6 = addresses.ipv6
  }

  /** Its first own IPv4 address: a private one at home. */
  get address(): string {
    const [first] = this.#ipv4
    if (first === undefined) throw new Error(`${this.place} has no IPv4 address`)
    return first
  }

  get addresses(): readonly string[] {
    return this.#ipv4
  }

  /** Starts a program here. It is ended with the lab at the latest. */
  start(command: string, args: readonly string[] = [], options: StartOptions = {}): Program {
    return Program.start(command, args, { ...options, wrapper: [...this.wrapper, ...(options.wrapper ?? [])] })
  }

  /** Starts a program here that is talked to by lines. */
  talkTo(command: string, args: readonly string[] = []): Talker {
    return new Talker([...this.wrapper, command, ...args])
  }

  /** A TypeScript or JavaScript file, with the Node that runs the tests. */
  startNode(file: string, args: readonly string[] = [], options: StartOptions = {}): Program {
    return this.start(process.execPath, [file, ...args], options)
  }

  /** Runs a program here to its end, whatever that is. */
  run(command: string, args: readonly string[] = [], options: StartOptions & { readonly timeoutMs?: number } = {}): Promise<Finished> {
    return run(command, args, { ...options, wrapper: [...this.wrapper, ...(options.wrapper ?? [])] })
  }

  /** Runs a program that has to succeed; its standard output. */
  runOk(command: string, args: readonly string[] = [], options: StartOptions & { readonly timeoutMs?: number } = {}): Promise<string> {
    return runOk(command, args, { ...options, wrapper: [...this.wrapper, ...(options.wrapper ?? [])] })
  }

  /** Runs a shell script that has to succeed; its standard output. */
  shell(script: string): Promise<string> {
    return this.runOk('sh', ['-e'], { input: script })
  }
}
