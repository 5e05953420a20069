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
  #wrapper: readonly string[]
  readonly #ipv4: readonly string[]
  readonly ipv6: string | null

  constructor(namespaces: Namespaces, place: string, addresses: MachineAddresses) {
    this.place = place
    this.#wrapper = namespaces.wrapper(place)
    this.#ipv4 = addresses.ipv4
    this.ipv6 = addresses.ipv6
  }

  /** Put before a command, makes it run here. */
  get wrapper(): readonly string[] {
    return this.#wrapper
  }

  /**
   * Gives the machine an /etc of its own (a copy) and a /sys that shows its own devices, for all that is started from now on. Whoever writes
   * `resolv.conf` there writes only this machine's, and may replace it by a rename; over the bind mount of `ip netns exec` that is EBUSY.
   * @param files contents by the names in /etc that are to differ
   */
  async takeOwnEtc(files: Readonly<Record<string, string>> = {}): Promise<void> {
    const writes = Object.entries(files).map(([name, text]) => `rm -f '/etc/${name}'\ncat > '/etc/${name}' <<'END'\n${text}END`)
    const script = `mount -t tmpfs none /mnt
cp -a /etc /mnt/etc
mount --bind /mnt/etc /etc
umount --lazy /mnt
mount -t sysfs none /sys
${writes.join('\n')}
echo own
exec sleep infinity`
    // Every file of the lab's namespaces goes with its holder, and the holder with the lab.
    const holder = this.start('unshare', ['--mount', '--propagation', 'private', 'sh', '-ec', script])
    await holder.waitFor(/^own$/m, 10_000)
    const [nsenter, ...rest] = this.#wrapper
    this.#wrapper = [nsenter!, `--mount=/proc/${holder.pid}/ns/mnt`, ...rest]
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
