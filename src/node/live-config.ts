import type { ConfigSections, NodeConfig } from './config.ts'
import { tomlKey } from './toml-schema.ts'

/**
 * Keys that count at once when they change, by section: the parts that use them look at each use, or are told. What is not here is looked at when
 * the node starts: listeners, devices, identities, and what sizes a table.
 */
const LIVE_KEYS: { readonly [S in keyof ConfigSections]?: 'all' | readonly (keyof ConfigSections[S])[] } = {
  path: 'all',
  client: 'all',
  log: ['level', 'subsystems'],
  relaying: [
    'maxCircuits',
    'maxCircuitsPerRelay',
    'maxCircuitsPerClient',
    'maxCircuitsPerAddress',
    'queueBudgetBytes',
    'stallTimeoutMs',
    'pressedStallTimeoutMs',
    'extendTimeoutMs',
  ],
  exit: [
    'policy',
    'maxStreams',
    'maxStreamsPerCircuit',
    'maxAssociations',
    'maxAssociationsPerCircuit',
    'rateBytesPerSecond',
    'rateBytesPerSecondPerCircuit',
    'connectsPerSecond',
    'connectBurst',
    'connectTimeoutMs',
    'attemptTimeoutMs',
    'attemptDelayMs',
    'maxAddresses',
    'streamIdleTimeoutMs',
    'udpIdleTimeoutMs',
    'maxUdpPeers',
    'maxPacketLeases',
    'maxPacketLeasesPerCircuit',
    'resolveTimeoutMs',
    'maxResolvesPerCircuit',
  ],
}

/** Whether a key of a section counts at once. Where a kernel's rules are made of it, the exit's policy does not. */
export function isLiveKey(config: ConfigSections, section: string, key: string): boolean {
  const keys: 'all' | readonly PropertyKey[] | undefined = LIVE_KEYS[section as keyof ConfigSections]
  if (keys === undefined || (keys !== 'all' && !keys.includes(key))) return false
  return !(section === 'exit' && key === 'policy' && config.exit.packets === 'tun')
}

/** What is told that keys of its section have other values now. */
export type Reconfigure = () => void

/** The configuration in force: what the node was started with, and what was changed since. */
export class LiveConfig {
  #current: NodeConfig
  readonly #told = new Map<keyof ConfigSections, Reconfigure[]>()

  constructor(config: NodeConfig) {
    this.#current = config
  }

  get current(): NodeConfig {
    return this.#current
  }

  /** A section whose values are always those in force, for parts that look at each use. */
  section<S extends keyof ConfigSections>(name: S): ConfigSections[S] {
    const keys = Object.keys(this.#current[name]) as (keyof ConfigSections[S])[]
    const current = (): ConfigSections[S] => this.#current[name]
    return Object.defineProperties(
      {},
      Object.fromEntries(keys.map((key) => [key, { enumerable: true, get: () => current()[key] }])),
    ) as ConfigSections[S]
  }

  /** Calls back when keys of the section have changed. */
  onChange(section: keyof ConfigSections, tell: Reconfigure): void {
    this.#told.set(section, [...(this.#told.get(section) ?? []), tell])
  }

  /** Puts the live ones of the keys in force with their values in `next`. @param keys as TOML spells them */
  apply(next: NodeConfig, keys: readonly string[]): void {
    const changed = new Set<keyof ConfigSections>()
    const sections: Record<string, unknown> = { ...this.#current }
    for (const [name, section] of Object.entries(next) as [keyof ConfigSections, ConfigSections[keyof ConfigSections]][]) {
      if (LIVE_KEYS[name] === undefined) continue
      for (const [key, value] of Object.entries(section)) {
        if (!keys.includes(`${tomlKey(name)}.${tomlKey(key)}`) || !isLiveKey(this.#current, name, key)) continue
        sections[name] = Object.freeze({ ...(sections[name] as object), [key]: value })
        changed.add(name)
      }
    }
    this.#current = Object.freeze(sections) as unknown as NodeConfig
    for (const name of changed) for (const tell of this.#told.get(name) ?? []) tell()
  }
}
