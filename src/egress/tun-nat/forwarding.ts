import fs from 'node:fs'
import { tunNatError } from './errors.ts'

/** Kernel settings by their sysctl names: read and, where it may, written. */
export interface Sysctls {
  /** Null: there is none of that name. */
  read(name: string): string | null
  /** @throws Error of the file system */
  write(name: string, value: string): void
  /** Interfaces with an IPv6 default route. */
  defaultRouteInterfaces6(): readonly string[]
}

/** Those of this process's network namespace. */
export const systemSysctls: Sysctls = {
  read(name) {
    try {
      return fs.readFileSync(pathOf(name), 'utf8').trim()
    } catch {
      return null
    }
  },
  write(name, value) {
    fs.writeFileSync(pathOf(name), `${value}\n`)
  },
  defaultRouteInterfaces6() {
    try {
      // Destination, its prefix length in hex, …, and the interface last (net/ipv6/route.c, rt6_info_route).
      const lines = fs.readFileSync('/proc/net/ipv6_route', 'utf8').split('\n')
      const names = lines.filter((line) => /^0{32} 00 /.test(line)).map((line) => line.trim().split(/\s+/).at(-1)!)
      return [...new Set(names)].filter((name) => name !== 'lo')
    } catch {
      return []
    }
  },
}

/** Dots separate, and a dot within an interface's name is written as a slash, as sysctl(8) has it. */
function pathOf(name: string): string {
  return `/proc/sys/${name.replace(/[./]/g, (sign) => (sign === '.' ? '/' : '.'))}`
}

const forwardingOf = { 4: 'net.ipv4.ip_forward', 6: 'net.ipv6.conf.all.forwarding' } as const

/**
 * Sees to it that the kernel forwards packets of these families: looks, and switches it on only where the operator allows that.
 * @returns what was switched on, for the log
 * @throws ShallotError 'exit-tun-forwarding-off', which says what to set
 */
export function ensureForwarding(families: readonly (4 | 6)[], maySet: boolean, sysctls: Sysctls = systemSysctls): readonly string[] {
  const wanted: { readonly name: string; readonly value: string }[] = []
  if (families.includes(6) && !isOn(sysctls.read(forwardingOf[6]))) {
    // A forwarding host takes no router advertisements unless told so, and would lose its own default route.
    for (const name of sysctls.defaultRouteInterfaces6()) {
      const key = `net.ipv6.conf.${name.replaceAll('.', '/')}.accept_ra`
      if (sysctls.read(key) === '1') wanted.push({ name: key, value: '2' })
    }
    wanted.push({ name: forwardingOf[6], value: '1' })
  }
  if (families.includes(4) && !isOn(sysctls.read(forwardingOf[4]))) wanted.push({ name: forwardingOf[4], value: '1' })
  if (wanted.length === 0) return []
  const commands = wanted.map(({ name, value }) => `sysctl -w ${name}=${value}`).join('; ')
  if (!maySet)
    throw tunNatError(
      'exit-tun-forwarding-off',
      `this machine does not forward packets. As root: ${commands} (for good: exit/90-shallot-exit.conf in /etc/sysctl.d), or let the exit do it with exit.tun.set_sysctls = true`,
    )
  try {
    for (const { name, value } of wanted) sysctls.write(name, value)
  } catch (error) {
    throw tunNatError(
      'exit-tun-forwarding-off',
      `forwarding can't be switched on (${(error as NodeJS.ErrnoException).code ?? 'it failed'}). As root: ${commands}`,
      'never',
      error,
    )
  }
  return wanted.map(({ name, value }) => `${name}=${value}`)
}

/** 1 and above: net.ipv6.conf.all.forwarding may be 2. */
function isOn(value: string | null): boolean {
  return value !== null && Number(value) >= 1
}
