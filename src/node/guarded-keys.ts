import { isLoopback, parseIpPort } from './multiaddr.ts'

/** Keys, as the file spells them, that decide over files of this machine, the root of trust, or who may use the node. */
const GUARDED: ReadonlySet<string> = new Set([
  'node.data_dir',
  'node.network',
  'node.network_publisher',
  'node.bootstrap',
  'node.bootstrap_files',
  'geo.countries_file',
  'ingress.tun.pcap',
  'ingress.socks.credentials',
  'ingress.socks.require_credentials',
  'ingress.http.credentials',
  'ingress.http.require_credentials',
  'ingress.dns.allow_others',
  'control.enabled',
  'control.listen',
])

/** Keys of listeners: on the loopback they are anybody's to move who may use the page, and beyond it they let others in. */
const LISTENERS: ReadonlySet<string> = new Set(['ingress.socks.listen', 'ingress.http.listen', 'ingress.dns.listen', 'metrics.listen'])

/** Whether a key is changed with the node's own token alone: a page in a browser may be somebody else's for a while, and its session is not enough. */
export function isGuardedKey(key: string): boolean {
  return GUARDED.has(key)
}

/** Which of these values a session may not set, and why. @param set by key as the file spells it; null: the default */
export function guardedProblems(set: Readonly<Record<string, unknown>>): { readonly key: string; readonly message: string }[] {
  return Object.entries(set).flatMap(([key, value]) => {
    if (GUARDED.has(key))
      return [{ key, message: `${key} decides over files, trust or who may use the node: change it in the file, or on the control socket` }]
    if (LISTENERS.has(key) && !isForThisMachine(value))
      return [
        {
          key,
          message: `${key} may be set to the loopback here (127.0.0.1:PORT); what lets other machines in is changed in the file, or on the control socket`,
        },
      ]
    return []
  })
}

/** What is no list of addresses at all is for the schema to refuse. */
function isForThisMachine(value: unknown): boolean {
  if (!Array.isArray(value)) return true
  return value.every((one) => {
    const at = typeof one === 'string' ? parseIpPort(one) : null
    return at === null || isLoopback(at.host)
  })
}
