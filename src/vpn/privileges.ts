import { readFile } from 'node:fs/promises'
import { vpnError } from './errors.ts'
import { notPermitted } from './programs.ts'

const CAP_NET_ADMIN = 12n

/**
 * That this process and the programs it starts may set up networks.
 * @throws ShallotError 'vpn-not-on-this-platform' | 'vpn-not-permitted'
 */
export async function checkPrivileges(platform: string = process.platform, statusFile = '/proc/self/status'): Promise<void> {
  if (platform !== 'linux') throw vpnError('vpn-not-on-this-platform', `the VPN is not built for ${platform} yet; it works on Linux`)
  const status = await readFile(statusFile, 'utf8').catch(() => null)
  if (status !== null && !mayAdministerNetwork(status)) throw notPermitted('the VPN is not set up')
}

/** @param status text of /proc/PID/status (proc_pid_status(5)) */
export function mayAdministerNetwork(status: string): boolean {
  const set = (name: string): bigint => BigInt(`0x${new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? '0'}`)
  const has = (name: string): boolean => ((set(name) >> CAP_NET_ADMIN) & 1n) === 1n
  const euid = /^Uid:\s*\d+\s+(\d+)/m.exec(status)?.[1]
  // Programs that root starts get what root may have; those of another user only what is ambient (capabilities(7)).
  return has('CapEff') && (euid === '0' ? has('CapBnd') : has('CapAmb'))
}
