import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import koffi from 'koffi'

const CLONE_NEWNET = 0x4000_0000

/**
 * Moves this process's main thread, and what it starts, into a network namespace of its own, which goes with the process: for test files that
 * open devices themselves. Only the loopback is there, and it is up.
 * @returns why that can't be done here; null when it is done
 */
export function enterOwnNetwork(): string | null {
  if (process.platform !== 'linux') return 'network namespaces need Linux'
  if (process.getuid?.() !== 0) return 'needs root'
  if (!existsSync('/dev/net/tun')) return 'there is no /dev/net/tun'
  const libc = koffi.load(null)
  if (libc.func('int unshare(int)')(CLONE_NEWNET) !== 0) return 'network namespaces cannot be made here'
  try {
    shellOk('ip link set lo up')
  } catch {
    return 'the program ip is missing (iproute2)'
  }
  return null
}

/** Runs a script in the namespace, and gives what it wrote. */
export function shellOk(script: string): string {
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }
  const { status, stdout, stderr } = spawnSync('sh', ['-ec', script], { encoding: 'utf8', env })
  if (status !== 0) throw new Error(`${script}: ${stderr}`)
  return stdout
}
