import { readdirSync, readFileSync } from 'node:fs'

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return null
  }
}

/** Whether new devices of this network namespace may have IPv6 addresses. @param root of the sysctl files */
export function hasIpv6(root = '/proc/sys'): boolean {
  return read(`${root}/net/ipv6/conf/default/disable_ipv6`) === '0' && read(`${root}/net/ipv6/conf/all/disable_ipv6`) === '0'
}

/**
 * Devices whose reverse-path filter is strict (RFC 3704 §2.2): what answers the allowed places gets in, since their routes are asked with protocol
 * and port, but a router's message about the path (RFC 1191) does not.
 */
export function strictDevices(own: string, root = '/proc/sys'): readonly string[] {
  const folder = `${root}/net/ipv4/conf`
  const value = (device: string): number => Number(read(`${folder}/${device}/rp_filter`) ?? 0)
  let names: string[]
  try {
    names = readdirSync(folder)
  } catch {
    return []
  }
  const all = value('all')
  // The larger of the two counts (Documentation/networking/ip-sysctl.rst).
  return names.filter((name) => !['all', 'default', 'lo', own].includes(name) && Math.max(all, value(name)) === 1).sort()
}
