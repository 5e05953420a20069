import { existsSync } from 'node:fs'
import { run } from '../../support/processes.ts'

/** The commands that the lab itself cannot do without; each test names what it needs beyond them. */
const commands: Readonly<Record<string, string>> = {
  ip: 'iproute2',
  nft: 'nftables',
  conntrack: 'conntrack',
  tcpdump: 'tcpdump',
  nsenter: 'util-linux',
}

const folders = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin']

let answer: Promise<string | null> | null = null

/** Why no lab can be built here, one sentence for all tests of this folder; null when it can. Asked of the system once. */
export function reasonAgainstLab(): Promise<string | null> {
  answer ??= findReason()
  return answer
}

/** The path of a system's command: npm packages bring programs of the same names (such as `stun`). Fails when it is missing. */
export function debianCommand(name: string): string {
  const folder = folders.find((folder) => existsSync(`${folder}/${name}`))
  if (folder === undefined) throw new Error(`no command ${name} on this system`)
  return `${folder}/${name}`
}

/** Which Debian packages are missing for these commands: command to package. */
export function missingPackages(wanted: Readonly<Record<string, string>>): readonly string[] {
  const missing = Object.entries(wanted).filter(([command]) => !folders.some((folder) => existsSync(`${folder}/${command}`)))
  return [...new Set(missing.map(([, name]) => name))]
}

async function findReason(): Promise<string | null> {
  if (process.platform !== 'linux') return 'network namespaces need Linux'
  if (process.getuid?.() !== 0) return 'building networks in namespaces needs root'
  const missing = missingPackages(commands)
  if (missing.length > 0) return `the Debian packages ${missing.join(', ')} are missing (test/packages.txt)`
  // A container may be root and still not be let.
  const tries = ['ip link set lo up', 'nft add table ip t', 'nft add chain ip t c { type nat hook postrouting priority 100 \\; }']
  const tried = await run('unshare', ['--net', 'sh', '-ec', [...tries, 'nft add rule ip t c masquerade'].join('\n')])
  return tried.code === 0 ? null : `network namespaces with NAT cannot be made here: ${tried.log.trim().split('\n')[0] ?? ''}`
}
