import { dirname, isAbsolute, relative, resolve, sep } from 'node:path'
import type { ConfigSections } from './config.ts'
import { isLoopback, isWildcard, parseIpPort, parseNodeAddress } from './multiaddr.ts'
import { rolesOfSection } from './roles.ts'
import type { ConfigProblem, LoadedToml } from './toml-load.ts'

/** Where a node's directory holds its keys. */
const KEYS_FOLDER = 'keys'

/** A rule gives the key and the message when it is broken. */
type Rule = (
  config: ConfigSections,
  isSet: LoadedToml<ConfigSections>['isSet'],
  file: string,
) => { readonly key: readonly PropertyKey[]; readonly message: string } | null

/** Values that are right each by itself and impossible together. @param file the configuration's, absolute */
export function crossCheck(loaded: LoadedToml<ConfigSections>, file: string): ConfigProblem[] {
  const broken = rules.map((rule) => rule(loaded.value, loaded.isSet, file)).filter((result) => result !== null)
  return broken.map(({ key, message }) => loaded.problem(key, message))
}

/** Roles that others connect to. */
function serving(config: ConfigSections): string | undefined {
  return config.node.roles.find((role) => role !== 'client')
}

const rules: readonly Rule[] = [
  (config) => {
    const role = serving(config)
    if (role === undefined || config.link.listen.length > 0) return null
    const message = `node.roles holds ${quote(role)}, which other nodes connect to, but link.listen is empty; add an address such as "/ip4/0.0.0.0/tcp/4460"`
    return { key: ['node', 'roles'], message }
  },
  (config) => {
    if (serving(config) !== undefined || config.link.listen.length === 0) return null
    const message =
      'link.listen is set, but node.roles is only ["client"]: a client listens on nothing, so that nobody can find it; remove link.listen or add a serving role'
    return { key: ['link', 'listen'], message }
  },
  (config) => {
    if (serving(config) !== undefined || config.node.advertise.length === 0) return null
    return {
      key: ['node', 'advertise'],
      message: 'node.advertise is set, but node.roles is only ["client"], which tells nobody an address; remove it or add a serving role',
    }
  },
  ({ link }) => {
    const at = link.listen.findIndex((text) => parseNodeAddress(text)?.id !== null)
    if (at < 0) return null
    const message = `link.listen[${at}] is ${quote(link.listen[at])}; it must be /ip4/A.B.C.D/tcp/PORT or /ip6/X::Y/tcp/PORT (port 0: any free one)`
    return { key: ['link', 'listen', at], message }
  },
  ({ node, link, nat }) => {
    const wildcard = link.listen.find((text) => isWildcard(parseNodeAddress(text)?.host ?? ''))
    if (wildcard === undefined || node.advertise.length > 0 || nat.enabled) return null
    const message = `link.listen holds ${quote(wildcard)}, which others cannot connect to as it stands, and nat.enabled is false; name the public addresses in node.advertise`
    return { key: ['link', 'listen'], message }
  },
  ({ node }) => {
    const wildcard = node.advertise.find((text) => isWildcard(parseNodeAddress(text)?.host ?? ''))
    return wildcard === undefined
      ? null
      : { key: ['node', 'advertise'], message: `node.advertise holds ${quote(wildcard)}; others need an address of this machine` }
  },
  ...(['client', 'path', 'ingress', 'nat', 'relay', 'relaying', 'exit'] as const).map<Rule>((section) => (config, isSet) => {
    const roles = rolesOfSection(section)
    if (roles === null || !isSet([section]) || roles.some((role) => config.node.roles.includes(role))) return null
    const wanted = roles.map(quote).join(', ')
    const message = `[${section}] is set, but it only matters to the role${roles.length > 1 ? 's' : ''} ${wanted} and node.roles is ${JSON.stringify(config.node.roles)}; add ${roles.length > 1 ? 'one of them' : 'it'}, or remove the section`
    return { key: [section], message }
  }),
  ({ control }) => {
    const address = parseIpPort(control.listen)
    if (address === null || isLoopback(address.host)) return null
    const message = `control.listen is ${quote(control.listen)}; only this machine may control the node: use unix:PATH, 127.0.0.1:PORT or [::1]:PORT`
    return { key: ['control', 'listen'], message }
  },
  ({ control, node }, _, file) => {
    if (!control.listen.startsWith('unix:')) return null
    const base = dirname(file)
    const dir = resolve(base, node.dataDir)
    const path = resolve(dir, control.listen.slice('unix:'.length))
    const taken = [file, ...[node.network, ...node.bootstrapFiles].map((name) => resolve(base, name))]
    const inside = relative(dir, path)
    const isElsewhere = isAbsolute(inside) || inside.split(sep)[0] === '..'
    if (!taken.includes(path) && (isElsewhere || (/\.(sock|socket)$/.test(inside) && inside.split(sep)[0] !== KEYS_FOLDER))) return null
    const message = `control.listen is ${quote(control.listen)}, which is a place for the node's own files; name a socket such as unix:control.sock`
    return { key: ['control', 'listen'], message }
  },
  ({ dashboard }) => {
    const address = parseIpPort(dashboard.listen)
    if (address === null || isLoopback(address.host)) return null
    const message = `dashboard.listen is ${quote(dashboard.listen)}; only this machine may see the node's pages: use 127.0.0.1:PORT or [::1]:PORT, and from elsewhere a tunnel such as ssh -L`
    return { key: ['dashboard', 'listen'], message }
  },
  ({ dashboard, control }) => {
    if (dashboard.enabled !== true || control.enabled) return null
    const message = 'dashboard.enabled is true, but control.enabled is false, and the pages show what the control API tells; enable both'
    return { key: ['dashboard', 'enabled'], message }
  },
  (config) => {
    const taken = new Map<string, string>()
    const client = config.node.roles.includes('client')
    const places: [string, readonly PropertyKey[], string][] = []
    for (const section of client ? (['socks', 'http', 'dns'] as const) : []) {
      for (const [i, text] of config.ingress[section].listen.entries())
        places.push([text, ['ingress', section, 'listen', i], `ingress.${section}.listen`])
    }
    if (config.control.enabled) places.push([config.control.listen, ['control', 'listen'], 'control.listen'])
    if (config.dashboard.enabled === true) places.push([config.dashboard.listen, ['dashboard', 'listen'], 'dashboard.listen'])
    for (const [address, key, name] of places) {
      const other = taken.get(address)
      if (other !== undefined && !address.endsWith(':0'))
        return { key, message: `${name} and ${other} are both ${quote(address)}; give one of them another port` }
      taken.set(address, name)
    }
    return null
  },
  ({ path }) => {
    const both = path.exitNodes.find((id) => path.excludeNodes.includes(id))
    return both === undefined
      ? null
      : { key: ['path', 'exitNodes'], message: `path.exit_nodes and path.exclude_nodes both hold ${both}; remove it from one of them` }
  },
  ({ path }) => {
    const both = path.exitCountries.find((code) => path.excludeCountries.includes(code))
    return both === undefined
      ? null
      : {
          key: ['path', 'exitCountries'],
          message: `path.exit_countries and path.exclude_countries both hold ${quote(both)}; remove it from one of them`,
        }
  },
  ({ path }) =>
    path.guardsInUse <= path.guardsPrimary
      ? null
      : tooMuch(['path', 'guardsInUse'], 'path.guards_in_use', path.guardsInUse, 'path.guards_primary', path.guardsPrimary),
  ({ path }) =>
    path.guardsPrimary <= path.guardSampleSize
      ? null
      : tooMuch(['path', 'guardsPrimary'], 'path.guards_primary', path.guardsPrimary, 'path.guard_sample_size', path.guardSampleSize),
  ({ relaying }) =>
    relaying.pressedStallTimeoutMs <= relaying.stallTimeoutMs
      ? null
      : tooMuch(
          ['relaying', 'pressedStallTimeoutMs'],
          'relaying.pressed_stall_timeout_ms',
          relaying.pressedStallTimeoutMs,
          'relaying.stall_timeout_ms',
          relaying.stallTimeoutMs,
        ),
]

function tooMuch(
  key: readonly PropertyKey[],
  name: string,
  value: number,
  limitName: string,
  limit: number,
): { key: readonly PropertyKey[]; message: string } {
  return { key, message: `${name} is ${value}, more than ${limitName} (${limit}); it must be at most that` }
}

function quote(value: unknown): string {
  return JSON.stringify(value)
}
