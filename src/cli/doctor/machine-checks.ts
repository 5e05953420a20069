import type { NodeConfig } from '../../node/index.ts'
import { roleProfiles } from '../../node/index.ts'
import { bytesText, durationText } from '../output.ts'
import { type Finding, fail, note, ok, warn } from './finding.ts'
import type { DirectoryFacts, MachineFacts } from './machine.ts'

/** What the facts of a machine mean for a node of this configuration. Pure. */

const MB = 1_000_000
/** A node at rest. docs/decisions/2026-11-20-memory-of-a-node.md */
const IDLE_BYTES = 130 * MB
/** Descriptors that a node needs at least: a client's, and one that serves many. */
const FILES = { client: 1_024, serving: 16_384 } as const
/** The view, the logs of a day, and a rewrite of each. */
const DISK = { fail: 20 * MB, warn: 200 * MB } as const
/** A replaced file is two for a moment. */
const FREE_FILES = 100
const CAP_NET_ADMIN = 1n << 12n

export function machineFindings(facts: MachineFacts, config: NodeConfig | null): Finding[] {
  const serves = config?.node.roles.some((role) => roleProfiles[role].serves) ?? false
  return [openFiles(facts, serves), memory(facts, config, serves), ...privileges(facts, config), ipv6(facts, config)]
}

/**
 * Whether the node runs, and whose rights and limits are looked at.
 * @param running null when it does not, @param uid of whoever asks; null where there are no users, @param ownerUid of the directory's
 */
export function nodeFindings(
  running: { readonly pid: number; readonly uptimeMs: number } | null,
  dir: string,
  uid: number | null,
  ownerUid: number | null,
): Finding[] {
  if (running !== null) return [ok('node', `it runs as process ${running.pid}, for ${durationText(running.uptimeMs)}`)]
  const found = [
    note('node', 'it does not run; what is known without it follows', `start it: shallot run --dir ${dir}, or systemctl start shallot`),
  ]
  if (uid === 0 && ownerUid !== null && ownerUid !== 0)
    found.push(
      note(
        'user',
        `you are root, and the node is that of user ${ownerUid}: limits and rights below are yours, not the node's`,
        `ask as that user: setpriv --reuid ${ownerUid} --clear-groups shallot doctor --dir ${dir}; or start the node first`,
      ),
    )
  return found
}

export function directoryFindings(dir: string, facts: DirectoryFacts): Finding[] {
  if (!facts.exists)
    return [fail('directory', `there is no directory ${dir}`, `make the node with \`shallot init --dir ${dir}\`, or name another`)]
  const found: Finding[] = []
  if (facts.ownedByOther) found.push(note('directory', `${dir} belongs to another user; only its owner can say whether it can be written`))
  else if (!facts.isWritable)
    found.push(fail('directory', `${dir} can't be written`, `give it to the user that runs the node: chown -R USER ${dir}`))
  if (facts.open.length > 0)
    found.push(
      fail(
        'directory',
        `others on this machine may read ${facts.open.join(', ')} in ${dir}`,
        `chmod -R go= ${dir}, and consider the keys known to them`,
      ),
    )
  if (facts.damaged.length > 0)
    found.push(
      warn(
        'directory',
        `files were damaged and set aside: ${facts.damaged.join(', ')}`,
        'look at the disk (dmesg, smartctl); then remove them',
      ),
    )
  if (found.length === 0) found.push(ok('directory', `${dir} is the owner's alone and can be written`))
  return [...found, disk(facts)]
}

function disk({ freeBytes, freeFiles }: DirectoryFacts): Finding {
  if (freeBytes === null) return note('disk', 'how much room the disk has is not known')
  const advice = 'make room; without it neither keys nor the view are kept'
  if (freeBytes < DISK.fail) return fail('disk', `the disk is full: ${bytesText(freeBytes)} are left`, advice)
  if (freeFiles !== null && freeFiles < FREE_FILES)
    return fail('disk', `the disk has room for ${freeFiles} more files only (df -i), though ${bytesText(freeBytes)} are left`, advice)
  if (freeBytes < DISK.warn) return warn('disk', `only ${bytesText(freeBytes)} are left on the disk`, 'make room, or move the directory')
  return ok('disk', `${bytesText(freeBytes)} are left on the disk`)
}

function openFiles({ openFilesLimit: limit, openFiles: used }: MachineFacts, serves: boolean): Finding {
  if (limit === null) return note('open-files', 'the limit of open files is not known')
  const wanted = serves ? FILES.serving : FILES.client
  const advice = 'systemd: LimitNOFILE=65536 in the unit; a shell: ulimit -n 65536; Docker: --ulimit nofile=65536'
  if (used !== null && used > limit * 0.9)
    return fail('open-files', `${used} of ${limit} files are open already: further connections fail`, advice)
  if (limit < wanted)
    return warn('open-files', `the process may have ${limit} files open; every connection is one, and ${wanted} are wanted`, advice)
  return ok('open-files', `the process may have ${limit > 1e9 ? 'any number of' : limit} files open`)
}

function memory({ availableBytes, memoryLimitBytes }: MachineFacts, config: NodeConfig | null, serves: boolean): Finding {
  const wanted = IDLE_BYTES + (serves ? (config?.relaying.queueBudgetBytes ?? 0) : 0)
  if (memoryLimitBytes !== null && memoryLimitBytes < IDLE_BYTES)
    return fail(
      'memory',
      `the control group allows ${bytesText(memoryLimitBytes)}; a node at rest takes ${bytesText(IDLE_BYTES)}`,
      'raise MemoryMax=',
    )
  if (memoryLimitBytes !== null && memoryLimitBytes < wanted)
    return warn(
      'memory',
      `the control group allows ${bytesText(memoryLimitBytes)}; under load the node may take ${bytesText(wanted)}`,
      serves ? 'raise MemoryMax=, or lower relaying.queue_budget_bytes' : 'raise MemoryMax=',
    )
  if (availableBytes < IDLE_BYTES / 2)
    return warn(
      'memory',
      `only ${bytesText(availableBytes)} of memory are free on this machine`,
      'end something else, or add memory or swap',
    )
  const limit = memoryLimitBytes === null ? '' : `, and the control group allows ${bytesText(memoryLimitBytes)}`
  return ok('memory', `${bytesText(availableBytes)} of memory are free on this machine${limit}`)
}

function privileges({ platform, capabilities, tunDevice, userNamespaces }: MachineFacts, config: NodeConfig | null): Finding[] {
  if (platform !== 'linux') return [note('privileges', 'whole machines and single programs are carried on Linux only; proxies work here')]
  const found: Finding[] = []
  const isAdmin = capabilities !== null && (capabilities & CAP_NET_ADMIN) !== 0n
  const isExit = config?.node.roles.includes('exit') && config.exit.packets === 'tun'
  if (isExit && (!isAdmin || tunDevice !== 'usable'))
    found.push(
      fail(
        'tun',
        tunDevice === 'missing'
          ? 'exit.packets is "tun" and there is no /dev/net/tun'
          : isAdmin
            ? 'exit.packets is "tun" and /dev/net/tun can\'t be opened'
            : 'exit.packets is "tun" and the process has no CAP_NET_ADMIN',
        'install exit/shallot-exit-tun.conf beside the unit, or set exit.packets = "netstack"',
      ),
    )
  if (config?.node.roles.includes('client')) {
    if (!isAdmin || tunDevice === 'missing')
      found.push(
        note(
          'tun',
          tunDevice === 'missing'
            ? "there is no /dev/net/tun: `shallot vpn up` can't work"
            : '`shallot vpn up` needs CAP_NET_ADMIN, which the process does not have',
          'docs/vpn.md says how to give it; proxies and `shallot vpn exec` do without',
        ),
      )
    if (userNamespaces === false)
      found.push(
        warn(
          'namespaces',
          'ordinary users may not make namespaces here: `shallot vpn exec` works for root only',
          'sysctl kernel.unprivileged_userns_clone=1 (Debian) or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)',
        ),
      )
  }
  return found.length > 0 ? found : [ok('privileges', 'the process has the rights that the configuration needs')]
}

function ipv6({ globalIpv6 }: MachineFacts, config: NodeConfig | null): Finding {
  const listens = config?.link.listen.some((address) => address.startsWith('/ip6/')) ?? false
  if (listens && !globalIpv6)
    return warn(
      'ipv6',
      'the configuration listens on IPv6, and this machine has no global IPv6 address',
      'ask the provider for one, or remove the address from link.listen',
    )
  if (!listens && globalIpv6 && (config?.link.listen.length ?? 0) > 0)
    return note(
      'ipv6',
      'this machine has IPv6 and the node does not listen there',
      'add "/ip6/::/tcp/PORT" to link.listen: more can reach it',
    )
  return ok('ipv6', globalIpv6 ? 'this machine has IPv6' : 'this machine has no IPv6, and nothing asks for it')
}
