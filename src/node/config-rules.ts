import type { ConfigSections } from './config.ts'
import { isLoopback, isWildcard, parseHostPort, parseNodeAddress } from './multiaddr.ts'
import type { ConfigProblem, LoadedToml } from './toml-load.ts'

type Rule = (config: ConfigSections, loaded: LoadedToml<ConfigSections>) => ConfigProblem | null

/** Values that are right each by itself and impossible together. */
export function crossCheck(loaded: LoadedToml<ConfigSections>): ConfigProblem[] {
  return rules.map((rule) => rule(loaded.value, loaded)).filter((problem) => problem !== null)
}

const rules: readonly Rule[] = [
  ({ node }, { problem }) => {
    const serving = node.roles.find((role) => role !== 'client')
    if (serving === undefined || node.listen.length > 0) return null
    return problem(
      ['node', 'roles'],
      `node.roles holds ${JSON.stringify(serving)}, which other nodes connect to, but node.listen is empty; add addresses such as "/ip4/0.0.0.0/tcp/4460" and "/ip4/0.0.0.0/tcp/4461/tls"`,
    )
  },
  ({ node }, { problem }) => {
    if (node.roles.some((role) => role !== 'client') || (node.listen.length === 0 && node.advertise.length === 0)) return null
    const key = node.listen.length > 0 ? 'listen' : 'advertise'
    return problem(
      ['node', key],
      `node.${key} is set, but node.roles is only ["client"]: a client listens on nothing, so that nobody can find it; remove node.${key} or add a serving role`,
    )
  },
  ({ node }, { problem }) => {
    const circuits = node.roles.some(
      (role) => role === 'guard' || role === 'middle' || role === 'exit' || role === 'bootstrap' || role === 'relay',
    )
    if (!circuits || node.listen.length === 0 || node.listen.some((text) => parseNodeAddress(text)?.tls === false)) return null
    return problem(['node', 'listen'], 'node.listen has only addresses for direct links (/tls); peers need one without: "/ip4/…/tcp/PORT"')
  },
  ({ node }, { problem }) => {
    const wildcard = node.listen.find((text) => isWildcard(parseNodeAddress(text)?.host ?? ''))
    if (wildcard === undefined || node.advertise.length > 0) return null
    return problem(
      ['node', 'listen'],
      `node.listen holds ${JSON.stringify(wildcard)}, which others cannot connect to as it stands; name the public addresses in node.advertise`,
    )
  },
  ({ node }, { problem }) => {
    const wildcard = node.advertise.find((text) => isWildcard(parseNodeAddress(text)?.host ?? ''))
    return wildcard === undefined
      ? null
      : problem(['node', 'advertise'], `node.advertise holds ${JSON.stringify(wildcard)}; others need an address of this machine`)
  },
  ({ control }, { problem }) => {
    const address = parseHostPort(control.listen)
    if (address === null || isLoopback(address.host)) return null
    return problem(
      ['control', 'listen'],
      `control.listen is ${JSON.stringify(control.listen)}; only this machine may control the node: use 127.0.0.1:PORT, [::1]:PORT or unix:PATH`,
    )
  },
  ({ path }, { problem }) => {
    const both = path.exitNodes.find((id) => path.excludeNodes.includes(id))
    return both === undefined
      ? null
      : problem(['path', 'exitNodes'], `path.exit_nodes and path.exclude_nodes both hold ${both}; remove it from one of them`)
  },
  ({ path }, { problem }) =>
    path.guardsInUse <= path.guardsPrimary
      ? null
      : problem(
          ['path', 'guardsInUse'],
          `path.guards_in_use is ${path.guardsInUse}, more than path.guards_primary (${path.guardsPrimary}); make it at most that`,
        ),
  ({ path }, { problem }) =>
    path.guardsPrimary <= path.guardSampleSize
      ? null
      : problem(
          ['path', 'guardsPrimary'],
          `path.guards_primary is ${path.guardsPrimary}, more than path.guard_sample_size (${path.guardSampleSize}); make it at most that`,
        ),
  ({ relaying }, { problem }) =>
    relaying.pressedStallTimeoutMs <= relaying.stallTimeoutMs
      ? null
      : problem(
          ['relaying', 'pressedStallTimeoutMs'],
          `relaying.pressed_stall_timeout_ms is ${relaying.pressedStallTimeoutMs}, longer than relaying.stall_timeout_ms (${relaying.stallTimeoutMs}); under pressure it must be shorter`,
        ),
]
