import { constants } from 'node:fs'
import { access, lstat, readdir, readFile, statfs } from 'node:fs/promises'
import { availableParallelism, freemem, networkInterfaces, totalmem } from 'node:os'
import { join } from 'node:path'

/** What the machine, and the node's process or this one, are like: read from the kernel, without asking anybody outside. */
export interface MachineFacts {
  readonly platform: string
  readonly cores: number
  /** Of the node's process where it runs, else of this one. */
  readonly openFilesLimit: number | null
  readonly openFiles: number | null
  readonly totalBytes: number
  readonly availableBytes: number
  /** Of the control group that the process is in; null without one. */
  readonly memoryLimitBytes: number | null
  readonly capabilities: bigint | null
  readonly tunDevice: 'usable' | 'denied' | 'missing'
  /** Whether ordinary users may make namespaces; null where that is not known. */
  readonly userNamespaces: boolean | null
  readonly globalIpv6: boolean
  /** Whether there is any address but those of the loopback. */
  readonly hasNetwork: boolean
}

/** @param pid the node's process, or this one */
export async function machineFacts(pid: number): Promise<MachineFacts> {
  const proc = `/proc/${pid}`
  const addresses = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).filter(({ internal }) => !internal))
  const meminfo = await text('/proc/meminfo')
  const available = /^MemAvailable:\s+(\d+) kB/m.exec(meminfo ?? '')?.[1]
  const limits = await text(`${proc}/limits`)
  const soft = /^Max open files\s+(\d+|unlimited)/m.exec(limits ?? '')?.[1]
  const status = await text(`${proc}/status`)
  const effective = /^CapEff:\s+([0-9a-f]+)/m.exec(status ?? '')?.[1]
  return {
    platform: process.platform,
    cores: availableParallelism(),
    openFilesLimit: soft === undefined ? null : soft === 'unlimited' ? Number.MAX_SAFE_INTEGER : Number(soft),
    openFiles: await readdir(`${proc}/fd`).then(
      (list) => list.length,
      () => null,
    ),
    totalBytes: totalmem(),
    availableBytes: available === undefined ? freemem() : Number(available) * 1024,
    memoryLimitBytes: await memoryLimit(proc),
    capabilities: effective === undefined ? null : BigInt(`0x${effective}`),
    tunDevice: await access('/dev/net/tun', constants.R_OK | constants.W_OK).then(
      () => 'usable' as const,
      (error: NodeJS.ErrnoException) => (error.code === 'ENOENT' ? ('missing' as const) : ('denied' as const)),
    ),
    userNamespaces: await userNamespaces(),
    globalIpv6: addresses.some(({ family, address }) => family === 'IPv6' && /^[23]/.test(address)),
    hasNetwork: addresses.some(({ address }) => !/^(fe80:|169\.254\.)/.test(address)),
  }
}

/** What the node's directory is like. */
export interface DirectoryFacts {
  readonly exists: boolean
  readonly isWritable: boolean
  readonly ownedByOther: boolean
  readonly ownerUid: number | null
  /** Files that group or others may read or write and should not; names in the directory. */
  readonly open: readonly string[]
  readonly damaged: readonly string[]
  readonly freeBytes: number | null
  readonly freeFiles: number | null
  /** When the newest of its files was written, wall-clock ms. */
  readonly newestAt: number | null
}

const SECRETS = ['keys/identity', 'keys/onion', 'publisher', 'control-token', 'guards']

export async function directoryFacts(dir: string): Promise<DirectoryFacts> {
  const own = await lstat(dir).catch(() => null)
  if (own === null || !own.isDirectory())
    return {
      exists: false,
      isWritable: false,
      ownedByOther: false,
      ownerUid: null,
      open: [],
      damaged: [],
      freeBytes: null,
      freeFiles: null,
      newestAt: null,
    }
  const open: string[] = []
  for (const name of SECRETS) {
    const file = await lstat(join(dir, name)).catch(() => null)
    if (file !== null && (file.mode & 0o077) !== 0) open.push(name)
  }
  const names = await readdir(dir).catch(() => [])
  const times = await Promise.all(
    names.map((name) =>
      lstat(join(dir, name)).then(
        ({ mtimeMs }) => mtimeMs,
        () => 0,
      ),
    ),
  )
  const space = await statfs(dir).catch(() => null)
  return {
    exists: true,
    isWritable: await access(dir, constants.W_OK | constants.X_OK).then(
      () => true,
      () => false,
    ),
    ownerUid: own.uid,
    ownedByOther: process.getuid !== undefined && process.getuid() !== 0 && own.uid !== process.getuid(),
    open,
    damaged: names.filter((name) => name.includes('.corrupt-')),
    freeBytes: space === null ? null : space.bavail * space.bsize,
    freeFiles: space === null || space.files === 0 ? null : space.ffree,
    newestAt: times.length === 0 ? null : Math.max(...times),
  }
}

/** cgroup v2 (memory.max); the smallest limit on the way to the root. */
async function memoryLimit(proc: string): Promise<number | null> {
  const path = /^0::(.*)$/m.exec((await text(`${proc}/cgroup`)) ?? '')?.[1]
  if (path === undefined) return null
  let least: number | null = null
  for (let at = path; ; at = at.slice(0, at.lastIndexOf('/'))) {
    const value = (await text(join('/sys/fs/cgroup', at, 'memory.max')))?.trim()
    if (value !== undefined && /^\d+$/.test(value)) least = Math.min(least ?? Number.POSITIVE_INFINITY, Number(value))
    if (at === '' || at === '/') return least
  }
}

/** The three switches by which distributions forbid user namespaces. */
async function userNamespaces(): Promise<boolean | null> {
  if (process.platform !== 'linux') return null
  const most = await text('/proc/sys/user/max_user_namespaces')
  if (most === null) return null
  const debian = (await text('/proc/sys/kernel/unprivileged_userns_clone'))?.trim()
  const ubuntu = (await text('/proc/sys/kernel/apparmor_restrict_unprivileged_userns'))?.trim()
  return Number(most) > 0 && debian !== '0' && ubuntu !== '1'
}

async function text(path: string): Promise<string | null> {
  return readFile(path, 'utf8').catch(() => null)
}
