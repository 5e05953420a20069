import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { hasCommand, run, runOk } from '../../support/processes.ts'

/** What stands on a fresh Debian 12 of this test beyond the base system: an old Node and its npm as Debian has them, and what kits and tests call. */
const packages = ['ca-certificates', 'curl', 'dbus', 'iproute2', 'iputils-ping', 'nftables', 'npm', 'procps', 'systemd', 'systemd-sysv']
const suite = 'bookworm'
/** Counted up when a root is made otherwise than before. */
const recipe = 1
const makeWithinMs = 15 * 60_000

const cacheFolder = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'shallot-tests')

/** The machine's own trust anchors, which may hold more than Debian's: what is fetched in a root is fetched with them. */
export const anchors = '/etc/ssl/certs/ca-certificates.crt'

/** Why no Debian can be made here, one sentence; null when it can. */
export async function reasonAgainstDebian(): Promise<string | null> {
  if (process.getuid?.() !== 0) return 'making a Debian needs root'
  if (!(await hasCommand('debootstrap'))) return 'the Debian package debootstrap is missing (test/packages.txt)'
  const mirror = mirrorOfThisMachine()
  if (mirror === null) return "this machine's apt names no source of Debian bookworm"
  if (cgroupFolder() === null) return 'no cgroup of version 2 is mounted'
  const tried = await run('unshare', ['--mount', '--pid', '--fork', '--cgroup', '--uts', 'sh', '-ec', overlayTrial])
  if (tried.code !== 0) return `namespaces with an overlay cannot be made here: ${tried.log.trim().split('\n')[0] ?? ''}`
  if (existsSync(tarballPath())) return null
  const asked = await run('curl', ['-q', '-sSfIL', '-m', '30', `${mirror}/dists/${suite}/InRelease`], { env: proxies() })
  return asked.code === 0 ? null : "the mirror of this machine's apt does not answer"
}

const overlayTrial = `mount -t tmpfs none /mnt; mkdir /mnt/a /mnt/b /mnt/c /mnt/d
mount -t overlay overlay -o lowerdir=/mnt/a,upperdir=/mnt/b,workdir=/mnt/c /mnt/d`

/**
 * A tarball with the root of a fresh Debian 12: debootstrap's, and what apt adds. Made from this machine's own apt sources, a minute or two the first
 * time, and kept.
 */
export async function debianTarball(): Promise<string> {
  const tarball = tarballPath()
  if (existsSync(tarball)) return tarball
  mkdirSync(cacheFolder, { recursive: true })
  const making = join(cacheFolder, `making-${process.pid}`)
  try {
    await runOk('debootstrap', ['--variant=minbase', '--include=ca-certificates', suite, making, mirrorOfThisMachine()!], {
      timeoutMs: makeWithinMs,
      env: proxies(),
    })
    await copySources(making)
    // Of npm's 300 packages some are chosen by "provides", which debootstrap does not follow and apt does.
    await runOk('chroot', [making, 'sh', '-ec', installing], { timeoutMs: makeWithinMs, env: proxies() })
    await runOk('tar', ['-C', making, '--one-file-system', '-cf', `${making}.tar`, '.'])
    renameSync(`${making}.tar`, tarball)
  } finally {
    rmSync(making, { recursive: true, force: true })
    rmSync(`${making}.tar`, { force: true })
  }
  return tarball
}

function tarballPath(): string {
  const key = createHash('sha256').update(JSON.stringify([suite, recipe, process.arch, packages]))
  return join(cacheFolder, `debian-${suite}-${key.digest('hex').slice(0, 12)}.tar`)
}

// Nothing may start a service of the machine around it; the settings of the kernel that Debian's systemd brings are the machine's own affair.
const installing = `printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ${packages.join(' ')} >/dev/null
rm -rf /usr/sbin/policy-rc.d /var/cache/apt/archives /usr/lib/sysctl.d/*.conf /etc/resolv.conf
apt-get clean`

/** npm's own cache for what is fetched in the roots: kept, so that a second run asks for little. */
export function npmCache(): string {
  const folder = join(cacheFolder, 'npm')
  mkdirSync(folder, { recursive: true })
  return folder
}

/** The environment that lets a program in a root fetch as this machine does. */
export async function fetching(): Promise<Record<string, string>> {
  const registry = (await runOk('npm', ['config', 'get', 'registry'], { cwd: '/' })).trim()
  return {
    ...proxies(),
    npm_config_registry: registry,
    npm_config_cafile: anchors,
    npm_config_cache: '/npm-cache',
    npm_config_prefer_offline: 'true',
    npm_config_update_notifier: 'false',
  }
}

/** The folder of the cgroups of version 2 in which this process is; null where there is none that can be written to. */
export function cgroupFolder(): string | null {
  const mount = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .find(([, , type]) => type === 'cgroup2')?.[1]
  const own = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1]
  return mount === undefined || own === undefined ? null : join(mount, own)
}

function proxies(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) => (/^(https?|all|no)_proxy$/i.test(name) && value ? [[name, value]] : [])),
  )
}

/** The sources of apt here that are Debian's: old lists of one line a source, and the newer form. */
function sourceLists(): readonly string[] {
  const files = ['/etc/apt/sources.list', '/etc/apt/sources.list.d/debian.sources'].filter((file) => existsSync(file))
  return files.filter((file) => readFileSync(file, 'utf8').includes(suite))
}

function mirrorOfThisMachine(): string | null {
  for (const file of sourceLists()) {
    const text = readFileSync(file, 'utf8')
    const found =
      /^URIs:\s*(\S+)/m.exec(text)?.[1] ?? new RegExp(`^deb\\s+(?:\\[[^\\]]*\\]\\s+)?(\\S+)\\s+${suite}\\s`, 'm').exec(text)?.[1]
    if (found !== undefined) return found
  }
  return null
}

async function copySources(root: string): Promise<void> {
  writeFileSync(join(root, 'etc/apt/sources.list'), '')
  for (const file of sourceLists()) await runOk('cp', [file, join(root, file)])
  await runOk('sh', ['-ec', `cp /etc/resolv.conf '${root}/etc/resolv.conf'; cp ${anchors} '${root}${anchors}'`])
}
