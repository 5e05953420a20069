import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { isAlive } from '../../support/proc.ts'
import { killPid, run } from '../../support/processes.ts'

/** Where `ip netns` keeps its namespaces, and the files that `ip netns exec` puts over those of /etc. */
const folder = '/run/netns'
const etcFolder = '/etc/netns'

/** The names of all labs begin like this: `shlab-PID-START-NUMBER-PLACE`, pid and start of the process that made it. */
const prefix = 'shlab'

let made = 0

/** The namespaces of one lab. */
export class Namespaces {
  readonly #prefix: string
  readonly #places: string[] = []

  constructor() {
    removeOfDeadOwners()
    this.#prefix = `${prefix}-${process.pid}-${startOf(process.pid)}-${made++}-`
  }

  /** The system's name for a place of this lab. @param place lower-case letters, digits and dashes */
  name(place: string): string {
    return `${this.#prefix}${place}`
  }

  /** Says that a place will be made: it is removed at the end. */
  add(place: string): string {
    if (this.#places.includes(place)) throw new Error(`the lab has two places named ${place}`)
    this.#places.push(place)
    return this.name(place)
  }

  /** Wrapper for programs that shall run there. */
  wrapper(place: string): readonly string[] {
    return ['nsenter', `--net=${folder}/${this.name(place)}`, '--']
  }

  /** Ends every process inside and removes the namespaces with all their interfaces. Synchronous, so that it works at exit too. */
  remove(): void {
    const names = this.#places.splice(0).map((place) => this.name(place))
    removeNow(names)
  }
}

/** Runs a shell script that has to succeed. */
export async function shell(script: string): Promise<string> {
  const finished = await run('sh', ['-e'], { input: script, timeoutMs: 30_000 })
  if (finished.code !== 0) throw new Error(`the lab could not be built or changed: ${finished.log.slice(-2000)}\n${script.slice(0, 4000)}`)
  return finished.stdout
}

/** Removes what a run that crashed has left: namespaces whose maker is gone. */
function removeOfDeadOwners(): void {
  const dead = namesIn(folder).filter((name) => {
    const [first, pid, start] = name.split('-')
    return first === prefix && !(isAlive(Number(pid)) && String(startOf(Number(pid))) === start)
  })
  removeNow(dead)
}

function removeNow(names: readonly string[]): void {
  if (names.length === 0) return
  const inodes = new Set(names.flatMap((name) => inodeOf(`${folder}/${name}`)))
  // Never the machine's own network, whatever lies in that folder.
  inodes.delete(readlinkSync('/proc/self/ns/net'))
  for (const pid of processesIn(inodes)) killPid(pid, 'SIGKILL')
  spawnSync('ip', ['-force', '-batch', '-'], { input: names.map((name) => `netns delete ${name}\n`).join('') })
  for (const name of names) rmSync(`${etcFolder}/${name}`, { recursive: true, force: true })
}

function processesIn(inodes: ReadonlySet<string>): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return pid !== process.pid && inodes.has(readlinkSync(`/proc/${pid}/ns/net`))
      } catch {
        return false
      }
    })
}

function inodeOf(path: string): readonly string[] {
  try {
    return [`net:[${statSync(path).ino}]`]
  } catch {
    return []
  }
}

function namesIn(path: string): readonly string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

/** Field 22 of /proc/PID/stat: when it started. A pid that is used again has another. */
function startOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19])
  } catch {
    return 0
  }
}
