import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { type Finished, type Program, run } from '../../support/processes.ts'
import type { Machine } from '../lab/index.ts'
import { ignoredBy, parseDockerfile } from './dockerfile.ts'
import { firstChildOf, type Layer } from './layer.ts'

/** What a container is given by a compose file. */
export interface Container {
  /** A folder of this machine that is the volume; it begins with what the image has there. */
  readonly volume: string
  readonly place: Machine
}

/** The image of a Dockerfile, made by taking its steps one by one in a Debian of debootstrap. */
export class Image {
  readonly #layer: Layer
  readonly #env: Readonly<Record<string, string>>
  readonly user: string
  readonly volume: string
  readonly stopSignal: NodeJS.Signals
  readonly #entrypoint: readonly string[]
  readonly #cmd: readonly string[]
  readonly healthcheck: readonly string[]

  /** @param node a root that stands in for the image that the Dockerfile begins with, by its name */
  static async build(context: string, node: { readonly name: string; readonly layer: Layer }): Promise<Image> {
    const stages = new Map<string, Layer>()
    const ignored = ignoredBy(context)
    let layer = node.layer
    let state = { env: {} as Record<string, string>, user: 'root', workdir: '/', volume: '', signal: 'SIGTERM' }
    const lists: Record<'HEALTHCHECK' | 'ENTRYPOINT' | 'CMD', readonly string[]> = { HEALTHCHECK: [], ENTRYPOINT: [], CMD: [] }
    for (const step of parseDockerfile(readFileSync(join(context, 'Dockerfile'), 'utf8'))) {
      switch (step.kind) {
        case 'FROM':
          if (step.image !== node.name) throw new Error(`an image of another name than ${node.name}: ${step.image}`)
          layer = node.layer.child()
          state = { env: {}, user: 'root', workdir: '/', volume: '', signal: 'SIGTERM' }
          if (step.as !== null) stages.set(step.as, layer)
          break
        case 'WORKDIR':
          state.workdir = step.value
          await layer.runOk(`mkdir -p '${step.value}'`)
          break
        case 'USER':
          state.user = step.value
          break
        case 'VOLUME':
          state.volume = step.value
          break
        case 'STOPSIGNAL':
          state.signal = step.value
          break
        case 'ENV':
          Object.assign(state.env, step.values)
          break
        case 'RUN':
          await layer.runOk(`cd '${state.workdir}'\n${asUser(state.user)} sh -c "$SCRIPT"`, {
            fetches: true,
            env: { ...state.env, SCRIPT: step.script },
          })
          break
        case 'COPY': {
          const from = step.from === null ? context : stages.get(step.from)!.upper
          const into = step.to === '.' || step.to === './' ? `${state.workdir}/` : step.to
          for (const source of step.sources) {
            // A folder's content goes to where it is said; a file into the folder that ends with a slash.
            const target = join(layer.upper, into, into.endsWith('/') ? source : '')
            const allowed = (path: string): boolean => step.from !== null || !ignored(relative(context, path))
            cpSync(join(from, source), target, { recursive: true, verbatimSymlinks: true, filter: allowed })
          }
          break
        }
        default:
          lists[step.kind] = step.words
      }
    }
    return new Image(layer, state, lists)
  }

  private constructor(
    layer: Layer,
    state: { env: Record<string, string>; user: string; volume: string; signal: string },
    lists: Record<'HEALTHCHECK' | 'ENTRYPOINT' | 'CMD', readonly string[]>,
  ) {
    this.#layer = layer
    this.#env = state.env
    this.user = state.user
    this.volume = state.volume
    this.stopSignal = state.signal as NodeJS.Signals
    this.#entrypoint = lists.ENTRYPOINT
    this.#cmd = lists.CMD
    this.healthcheck = lists.HEALTHCHECK
  }

  /** The bytes that the image adds to the one it begins with. */
  async addedBytes(): Promise<number> {
    return Number((await run('du', ['-sb', this.#layer.upper])).stdout.split('\t')[0])
  }

  /** What it holds in some folders, as `find` names it; of packages only the first level. */
  async files(where: string): Promise<readonly string[]> {
    return (await this.#layer.runOk(`find ${where} -not -path '*/node_modules/*/*/*'`)).split('\n')
  }

  /** The volume as Docker makes a new one: with what the image has in its place. */
  async newVolume(volume: string): Promise<void> {
    cpSync(join(this.#layer.upper, this.volume), volume, { recursive: true })
    const { stdout } = await run('stat', ['-c', '%u:%g %a', join(this.#layer.upper, this.volume)])
    const [owner, mode] = stdout.trim().split(' ')
    await run('sh', ['-ec', `chown ${owner} '${volume}'; chmod ${mode} '${volume}'`])
  }

  /** `docker compose up`: entry point and command, or other words in the command's place. */
  start(container: Container, words: readonly string[] = this.#cmd): Promise<Program> {
    return this.#layer.start(this.#script(words), this.#options(container))
  }

  /** `docker compose run --rm shallot …`. */
  run(container: Container, words: readonly string[]): Promise<Finished> {
    return this.#layer.run(this.#script(words), this.#options(container))
  }

  /** What Docker asks every minute, in the running container. */
  health(running: Program): Promise<Finished> {
    const inside = ['--target', String(firstChildOf(running.pid)), '--mount', '--net', '--pid', '--root', '--wd']
    const env = Object.entries({ PATH: '/usr/local/bin:/usr/bin:/bin', HOME: '/', ...this.#env }).map(([name, value]) => `${name}=${value}`)
    return run('nsenter', [...inside, '--', 'env', '-i', ...env, '/bin/sh', '-ec', this.#command(this.healthcheck)])
  }

  #script(words: readonly string[]): string {
    return this.#command([...this.#entrypoint, ...words])
  }

  #command(words: readonly string[]): string {
    const quoted = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ')
    return `cd /\nulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"\nexec ${asUser(this.user)} ${quoted}`
  }

  /** As the kits' compose files say: nothing but the volume and /tmp can be written, no capability, no new privileges, the network of the machine. */
  #options({ volume, place }: Container) {
    const before = `mount --bind '${volume}' "$root${this.volume}"
mount -t tmpfs -o mode=1777,noexec,nosuid,nodev none "$root/tmp"
mount -o remount,bind,ro "$root" 2>/dev/null || mount -o remount,ro "$root"`
    return { env: this.#env, before, wrapper: place.wrapper }
  }
}

/** A user of the root, without a capability and a way to any. */
function asUser(user: string): string {
  return user === 'root'
    ? ''
    : `setpriv --reuid=${user} --regid=${user} --init-groups --inh-caps=-all --bounding-set=-all --no-new-privs --`
}

/** A root in the place of Node's official image: this Node, and Debian's npm on it. */
export function nodeImage(fresh: Layer): Layer {
  const layer = fresh.child()
  const bin = join(layer.upper, 'usr/local/bin')
  cpSync(process.execPath, join(bin, 'node'))
  writeFileSync(join(bin, 'npm'), '#!/bin/sh\nNODE_PATH=/usr/share/nodejs exec node /usr/share/nodejs/npm/bin/npm-cli.js "$@"\n', {
    mode: 0o755,
  })
  return layer
}
