import { readFileSync } from 'node:fs'
import { type IpAddress, networkContains, parseIp, parseNetwork } from '../base/index.ts'
import type { Api } from '../control/index.ts'
import { localNetworks } from '../vpn/index.ts'

/** Processes that are looked at on the way up: sudo and su take the variable away from what they start, not from themselves. */
const MOST_ANCESTORS = 32

/**
 * The address that somebody types from, when this command runs in an SSH session (sshd sets SSH_CONNECTION, ssh(1)); null otherwise.
 * @param proc where the kernel's /proc is
 */
export function sshPeer(env: Readonly<Record<string, string | undefined>> = process.env, pid = process.pid, proc = '/proc'): string | null {
  let connection = env.SSH_CONNECTION
  for (let i = 0; connection === undefined && pid > 1 && i < MOST_ANCESTORS; i++) {
    try {
      // The name may hold anything, brackets too; the state and the parent's number follow the last one.
      const stat = readFileSync(`${proc}/${pid}/stat`, 'utf8')
      pid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
      const variables = readFileSync(`${proc}/${pid}/environ`, 'utf8').split('\0')
      connection = variables.find((text) => text.startsWith('SSH_CONNECTION='))?.slice('SSH_CONNECTION='.length)
    } catch {
      // Another user's process, or none: what is above it can still be ours only by root, who may read all.
      return null
    }
  }
  return connection?.split(' ')[0]?.replace(/%.*$/, '') || null
}

/** Whether what is sent to that address goes through the mesh while the VPN is up, which ends connections that came from there. */
export function isCutOff(peer: string, { bypass, localNetwork }: Pick<Api.VpnFacts, 'bypass' | 'localNetwork'>): boolean {
  let address: IpAddress
  try {
    address = parseIp(peer)
  } catch {
    return false
  }
  const around = ['127.0.0.0/8', '::1/128', ...bypass, ...(localNetwork ? [...localNetworks[4], ...localNetworks[6]] : [])]
  return !around.some((network) => networkContains(parseNetwork(network), address))
}
