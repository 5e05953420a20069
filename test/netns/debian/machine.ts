import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isAlive } from '../../support/proc.ts'
import { type Finished, type Program, run, until } from '../../support/processes.ts'
import type { Machine } from '../lab/index.ts'
import { firstChildOf, type Layer } from './layer.ts'
import { cgroupFolder, npmCache } from './root.ts'

/** Where an operator is who has logged in, and where scripts begin. */
export const operatorsHome = '/root'
const bootWithinMs = 60_000
const cgroupPrefix = 'shallot-test-'
let made = 0

/**
 * A Debian that has booted: its own systemd is process 1 in namespaces, so that units run as a service manager runs them. Its network is that of a
 * machine of the lab. It may not load modules or change settings of the kernel beyond its network's.
 */
export class DebianMachine {
  readonly layer: Layer
  readonly place: Machine
  readonly #program: Program
  readonly #init: number
  readonly #cgroup: string

  static async boot(layer: Layer, place: Machine): Promise<DebianMachine> {
    removeLeftOver()
    const cgroup = join(cgroupFolder()!, `${cgroupPrefix}${process.pid}-${made++}`)
    mkdirSync(cgroup)
    // The cgroup is entered before its namespace is made: it is the root of what systemd sees.
    const script = `echo $$ >'${cgroup}/cgroup.procs'
exec unshare --pid --fork --kill-child --mount --uts --ipc --cgroup sh -ec "$1"`
    const program = place.start('sh', ['-ec', script, 'sh', booting(layer)])
    const init = await until('process 1 of a Debian', 10_000, () => {
      if (program.exit) throw new Error(program.tail())
      return firstChildOf(program.pid)
    })
    const machine = new DebianMachine(layer, place, program, init, cgroup)
    await until(`the Debian of ${place.place} has booted`, bootWithinMs, async () => {
      if (program.exit) throw new Error(program.tail())
      return /^(running|degraded)$/m.test((await machine.run('systemctl is-system-running')).stdout)
    })
    return machine
  }

  private constructor(layer: Layer, place: Machine, program: Program, init: number, cgroup: string) {
    this.layer = layer
    this.place = place
    this.#program = program
    this.#init = init
    this.#cgroup = cgroup
  }

  /** Runs a shell script as root on the machine, to its end. */
  run(script: string, timeoutMs = 120_000): Promise<Finished> {
    const inside = ['--target', String(this.#init), '--mount', '--uts', '--ipc', '--net', '--pid', '--cgroup', '--root', '--wd']
    const env = ['env', '-i', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', `HOME=${operatorsHome}`, 'LANG=C.UTF-8']
    const offline = ['npm_config_cache=/npm-cache', 'npm_config_offline=true']
    return run('nsenter', [...inside, '--', ...env, ...offline, 'sh', '-ec', `cd ${operatorsHome}\n${script}`], { timeoutMs })
  }

  async runOk(script: string, timeoutMs?: number): Promise<string> {
    const { code, stdout, log } = await this.run(script, timeoutMs)
    if (code === 0) return stdout
    const journal = await this.run('journalctl --no-pager --unit shallot --lines 40 || true')
    throw new Error(`${this.place.place}: exit code ${code} of\n${script}\n${log.slice(-4000)}\n${journal.stdout.slice(-4000)}`)
  }

  /** A property of a unit, as `systemctl show` has it. */
  async property(unit: string, name: string): Promise<string> {
    return (await this.runOk(`systemctl show --value --property ${name} ${unit}`)).trim()
  }

  /** Where a path of the machine is seen from here. */
  path(path: string): string {
    return `/proc/${this.#init}/root${path}`
  }

  write(path: string, text: string): void {
    writeFileSync(this.path(path), text)
  }

  read(path: string): string {
    return readFileSync(this.path(path), 'utf8')
  }

  /** Pulls the plug. */
  async stop(): Promise<void> {
    await this.#program.stop('SIGKILL')
    await until('the cgroups are empty', 10_000, () => {
      removeFolders(this.#cgroup)
      return true
    })
  }
}

/** What makes a container of the namespaces, and becomes systemd. */
function booting(layer: Layer): string {
  return `${layer.mounting}
mkdir -p "$root/npm-cache"; mount --bind '${npmCache()}' "$root/npm-cache"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm"
for device in null zero full random urandom tty; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mknod -m 666 "$root/dev/net/tun" c 10 200
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/run/old"
cd "$root"
pivot_root . run/old
umount -l /run/old
exec env -i container=shallot-test PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv --bounding-set=-sys_module,-sys_boot,-sys_time,-mknod /lib/systemd/systemd </dev/null`
}

/** Removes the cgroups of runs that were killed: what ran in them ended with the namespaces of their lab. */
function removeLeftOver(): void {
  for (const name of readdirSync(cgroupFolder()!)) {
    const [, pid] = new RegExp(`^${cgroupPrefix}(\\d+)-`).exec(name) ?? []
    if (pid === undefined || isAlive(Number(pid))) continue
    try {
      removeFolders(join(cgroupFolder()!, name))
    } catch {
      // Something in it is still ending: the next run's affair.
    }
  }
}

function removeFolders(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) if (entry.isDirectory()) removeFolders(join(folder, entry.name))
  rmdirSync(folder)
}
