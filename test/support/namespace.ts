import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Program, run, temporaryFolder } from './processes.ts'

/**
 * A network namespace that has nothing but a loopback, with one more address on it that is not a loopback one, and, for those that enter it
 * whole, a hosts file of its own. Nothing that runs inside can reach another machine. Root.
 */
export class Namespace {
  readonly #holder: Program
  readonly #remove: () => void
  /** Not a loopback address: some programs refuse to reach those through a proxy. */
  readonly address = '11.0.0.2'

  private constructor(holder: Program, remove: () => void) {
    this.#holder = holder
    this.#remove = remove
  }

  /** @param names names that mean `address`, but only for programs that enter by `inside` */
  static async create(names: readonly string[]): Promise<Namespace> {
    const folder = temporaryFolder('namespace')
    const hosts = join(folder.path, 'hosts')
    writeFileSync(hosts, `127.0.0.1 localhost\n11.0.0.2 ${names.join(' ')}\n`)
    const setUp = `ip link set lo up && ip address add 11.0.0.2/32 dev lo && mount --bind '${hosts}' /etc/hosts && echo up && exec sleep infinity`
    const holder = Program.start('unshare', ['--net', '--mount', 'sh', '-c', setUp])
    await holder.waitFor(/^up$/m, 10_000)
    return new Namespace(holder, folder.remove)
  }

  /** Whether namespaces can be made here, or why not. */
  static async reasonAgainst(): Promise<string | null> {
    if (process.getuid?.() !== 0) return 'needs root'
    const tried = await run('unshare', ['--net', '--mount', 'ip', 'link', 'set', 'lo', 'up']).catch(() => null)
    return tried?.code === 0 ? null : 'network namespaces cannot be made here (unshare, ip)'
  }

  /** Wrapper for programs of this namespace that know its names: the nodes. */
  get inside(): readonly string[] {
    return ['nsenter', `--net=/proc/${this.#holder.pid}/ns/net`, `--mount=/proc/${this.#holder.pid}/ns/mnt`, '--']
  }

  /** Wrapper for programs that see its network but not its names: those that have to leave names to the mesh. */
  get outside(): readonly string[] {
    return ['nsenter', `--net=/proc/${this.#holder.pid}/ns/net`, '--']
  }

  async remove(): Promise<void> {
    await this.#holder.stop('SIGKILL')
    this.#remove()
  }
}
