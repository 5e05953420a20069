import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Finished, Program, run, type StartOptions, temporaryFolder } from '../../support/processes.ts'
import { anchors, debianTarball, fetching, npmCache } from './root.ts'

export interface RunOptions extends StartOptions {
  readonly timeoutMs?: number
  /** Whether the script reaches what this machine reaches. Default: only what the namespace that it starts in reaches. */
  readonly fetches?: boolean
  /** Folders of this machine to be seen in the root: from path to path, read-only. */
  readonly binds?: Readonly<Record<string, string>>
  /** Put on the root after it stands and before the script: lines of shell, `$root` is where it is. */
  readonly before?: string
}

/** The root of a Debian as a stack of folders: what is written goes to the upper one, what lies below is shared and stays as it is. */
export class Layer {
  /** Of a fresh Debian 12. @throws Error with what debootstrap or apt said */
  static async fresh(): Promise<Layer> {
    const tarball = await debianTarball()
    const folder = temporaryFolder('debian')
    const layer = new Layer(folder.path, [], folder.remove)
    const { code, log } = await run('tar', ['-C', layer.upper, '-xf', tarball])
    if (code !== 0) throw new Error(`the root could not be unpacked: ${log}`)
    return layer
  }

  readonly #folder: string
  readonly #below: readonly string[]
  readonly #remove: () => void
  #children = 0

  private constructor(folder: string, below: readonly string[], remove: () => void) {
    this.#folder = folder
    this.#below = below
    this.#remove = remove
    for (const name of ['upper', 'work', 'root']) mkdirSync(join(folder, name), { recursive: true })
  }

  /** What was written in this layer. */
  get upper(): string {
    return join(this.#folder, 'upper')
  }

  /** A root that begins as this one is now; this one may not be written to from then on. */
  child(): Layer {
    const folder = join(this.#folder, `child-${this.#children++}`)
    return new Layer(folder, [this.upper, ...this.#below], () => rmSync(folder, { recursive: true, force: true }))
  }

  /** A shell script that mounts the root at `$root`, in a mount namespace of its own. */
  get mounting(): string {
    const below = this.#below.length === 0 ? '' : this.#below.join(':')
    const root = join(this.#folder, 'root')
    const overlay =
      below === ''
        ? `mount --bind '${this.upper}' "$root"`
        : `mount -t overlay overlay -o 'lowerdir=${below},upperdir=${this.upper},workdir=${join(this.#folder, 'work')}' "$root"`
    return `root='${root}'
mount --make-rprivate /
${overlay}`
  }

  /** Runs a shell script as root in the root, to its end. */
  async run(script: string, options: RunOptions = {}): Promise<Finished> {
    const { command, args, env } = await this.#command(script, options)
    return run(command, args, { timeoutMs: 300_000, ...options, env })
  }

  async runOk(script: string, options: RunOptions = {}): Promise<string> {
    const { code, stdout, log } = await this.run(script, options)
    if (code !== 0) throw new Error(`exit code ${code} of\n${script}\n${log.slice(-6000)}`)
    return stdout
  }

  /** Starts a shell script as root in the root. */
  async start(script: string, options: RunOptions = {}): Promise<Program> {
    const { command, args, env } = await this.#command(script, options)
    return Program.start(command, args, { ...options, env })
  }

  remove(): void {
    this.#remove()
  }

  async #command(script: string, options: RunOptions) {
    const binds = Object.entries(options.binds ?? {}).map(
      ([from, to]) => `mkdir -p "$root${to}"; mount --bind '${from}' "$root${to}"; mount -o remount,bind,ro "$root${to}"`,
    )
    const net = options.fetches
      ? [
          `mkdir -p "$root/npm-cache"; mount --bind '${npmCache()}' "$root/npm-cache"`,
          'rm -f "$root/etc/resolv.conf"; cp /etc/resolv.conf "$root/etc/resolv.conf"',
          `cp ${anchors} "$root${anchors}"`,
        ]
      : []
    const outer = `${this.mounting}
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 none "$root/dev"
for device in null zero full random urandom tty; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"; mount -t tmpfs -o mode=1777 none "$root/dev/shm"
${[...binds, ...net].join('\n')}
${options.before ?? ''}
exec chroot "$root" /bin/sh -ec "$1"`
    const env = {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/root',
      ...(options.fetches ? await fetching() : {}),
      ...options.env,
    }
    const clean = ['-i', ...Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]))]
    const kept = ['sh', '-ec', outer, 'sh', script]
    return { command: 'unshare', args: ['--mount', '--pid', '--fork', '--kill-child', 'env', ...clean, ...kept], env: undefined }
  }
}

/** The first process that a program has started: process 1 of the namespaces that an `unshare --fork` has made. */
export function firstChildOf(pid: number): number | undefined {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')
  return child ? Number(child) : undefined
}
