import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** What Linux's /proc says of a process. Every function throws when the process is gone, unless it says otherwise. */

const ticksPerSecond = 100 // USER_HZ, the same on every Linux architecture Node runs on

/**
 * CPU time the process has used so far, all threads that are still alive, in seconds.
 * From schedstat (nanoseconds); utime + stime (10 ms) where the kernel keeps none.
 */
export function cpuSeconds(pid: number): number {
  let ns = 0
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      try {
        ns += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0])
      } catch {
        // The thread ended meanwhile.
      }
    }
  } catch {
    ns = 0
  }
  if (ns > 0) return ns / 1e9
  const fields = statFields(pid)
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** Resident memory and its anonymous part, in bytes. */
export function memoryOf(pid: number): { rssBytes: number; anonymousBytes: number; peakBytes: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * 1024
  return { rssBytes: field('VmRSS'), anonymousBytes: field('RssAnon'), peakBytes: field('VmHWM') }
}

/** Whether the process exists and is no zombie. Never throws. */
export function isAlive(pid: number): boolean {
  try {
    return statFields(pid)[0] !== 'Z'
  } catch {
    return false
  }
}

/** The arguments a process was started with; empty when it is gone. */
export function commandLine(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
  } catch {
    return []
  }
}

/** All living descendants of a process, children before grandchildren. */
export function descendantsOf(pid: number): readonly number[] {
  const childrenOf = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      const parent = Number(statFields(Number(name))[1])
      const siblings = childrenOf.get(parent)
      if (siblings) siblings.push(Number(name))
      else childrenOf.set(parent, [Number(name)])
    } catch {
      // It ended meanwhile.
    }
  }
  const found: number[] = []
  const walk = (parent: number): void => {
    for (const child of childrenOf.get(parent) ?? []) {
      found.push(child)
      walk(child)
    }
  }
  walk(pid)
  return found
}

/** How many file descriptors a process holds, and how many of them are sockets. */
export function descriptorsOf(pid: number): { all: number; sockets: number } {
  const names = readdirSync(`/proc/${pid}/fd`)
  let sockets = 0
  for (const name of names) {
    try {
      if (readlinkSync(`/proc/${pid}/fd/${name}`).startsWith('socket:')) sockets++
    } catch {
      // Closed meanwhile.
    }
  }
  return { all: names.length, sockets }
}

/** The fields of /proc/PID/stat after the command's closing parenthesis: state, ppid, …; proc(5) numbers them from 3. */
function statFields(pid: number): readonly string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}
