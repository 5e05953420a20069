import type { ConfigSections, NodeConfig } from './config.ts'
import { tomlKey } from './toml-schema.ts'

/** Keys of a section: all of them, or those that are named. */
type LiveKeys<T> = 'all' | { readonly [K in keyof T]?: LiveKeys<T[K]> }

/** A proxy's: its listener and the sizes of its buffers are made once. */
const PROXY_KEYS = {
  credentials: 'all',
  requireCredentials: 'all',
  isolateBy: 'all',
  maxConnections: 'all',
  connectTimeoutMs: 'all',
} as const

/**
 * Keys that count at once when they change: the parts that use them look at each use, or are told. What is not here is looked at when the node starts:
 * listeners, devices, identities, and what sizes a table.
 */
const LIVE_KEYS: LiveKeys<ConfigSections> = {
  node: { bandwidthBytesPerSecond: 'all', family: 'all' },
  link: {
    limits: {
      maxLinks: 'all',
      maxInboundPerAddress: 'all',
      maxLinksPerPeer: 'all',
      maxChannelsPerLink: 'all',
      maxPunches: 'all',
      dialStaggerMs: 'all',
      closeTimeoutMs: 'all',
      idleLinkMs: 'all',
      keepIdleLinks: 'all',
      pingTimeoutMs: 'all',
      probeAfterMs: 'all',
      probeTimeoutMs: 'all',
      writeStallMs: 'all',
    },
  },
  client: 'all',
  ingress: {
    socks: { ...PROXY_KEYS, maxAssociations: 'all', handshakeTimeoutMs: 'all' },
    http: { ...PROXY_KEYS, maxBodyBytes: 'all' },
    dns: {
      timeoutMs: 'all',
      maxQuestions: 'all',
      maxQuestionsPerOrigin: 'all',
      maxDatagramBytes: 'all',
      maxConnections: 'all',
      idleTimeoutMs: 'all',
      maxStreams: 'all',
      streamIdleTimeoutMs: 'all',
      streamMaxAgeMs: 'all',
    },
  },
  path: 'all',
  relay: {
    maxReservations: 'all',
    maxStrangerReservations: 'all',
    reservationsPerAddress: 'all',
    reservationsPerNetwork: 'all',
    reservationMs: 'all',
    strangerGraceMs: 'all',
    maxConnections: 'all',
    connectionsPerReservation: 'all',
    connectionsPerPair: 'all',
    connectionBytes: 'all',
    connectionMs: 'all',
    connectionBytesPerSecond: 'all',
    bytesPerSecond: 'all',
    connectionBufferBytes: 'all',
    bufferBytes: 'all',
    stallMs: 'all',
    idleMs: 'all',
    maxHandshakes: 'all',
    handshakeTimeoutMs: 'all',
    requestsPerSecondPerPeer: 'all',
    requestsPerSecondPerAddress: 'all',
  },
  relaying: 'all',
  exit: {
    policy: 'all',
    maxStreams: 'all',
    maxStreamsPerCircuit: 'all',
    maxAssociations: 'all',
    maxAssociationsPerCircuit: 'all',
    rateBytesPerSecond: 'all',
    rateBytesPerSecondPerCircuit: 'all',
    connectsPerSecond: 'all',
    connectBurst: 'all',
    connectTimeoutMs: 'all',
    attemptTimeoutMs: 'all',
    attemptDelayMs: 'all',
    maxAddresses: 'all',
    streamIdleTimeoutMs: 'all',
    udpIdleTimeoutMs: 'all',
    maxUdpPeers: 'all',
    maxPacketLeases: 'all',
    maxPacketLeasesPerCircuit: 'all',
    packetIdleTimeoutMs: 'all',
    packetBufferBytes: 'all',
    maxResolvesPerCircuit: 'all',
    dns: {
      maxQuestions: 'all',
      maxQuestionsPerStream: 'all',
      maxStreams: 'all',
      maxStreamsPerCircuit: 'all',
      maxUnreadBytes: 'all',
      idleTimeoutMs: 'all',
      questionsPerSecondPerCircuit: 'all',
      questionBurst: 'all',
    },
  },
  log: { level: 'all', subsystems: 'all' },
}

/** What the kernel's rules are made of where `exit.packets` is "tun": these keys of the exit count from the next start there. */
const IN_KERNEL_RULES = ['policy', 'connectTimeoutMs', 'streamIdleTimeoutMs', 'udpIdleTimeoutMs']

/** Whether a key counts at once, as a rule; null where it depends on `exit.packets`. @param path as the schema spells it */
export function liveByRule(path: readonly string[]): boolean | null {
  if (!isNamed(LIVE_KEYS, path)) return false
  return path[0] === 'exit' && IN_KERNEL_RULES.includes(path[1]!) ? null : true
}

/** Whether a key counts at once in a node of this configuration. @param path as the schema spells it */
export function isLiveKey({ exit }: ConfigSections, path: readonly string[]): boolean {
  return liveByRule(path) ?? exit.packets !== 'tun'
}

function isNamed(keys: LiveKeys<unknown> | undefined, [first, ...rest]: readonly string[]): boolean {
  if (keys === undefined || keys === 'all') return keys === 'all'
  return first !== undefined && isNamed((keys as Record<string, LiveKeys<unknown>>)[first], rest)
}

/** What is told that keys of its section have other values now. */
export type Reconfigure = () => void

type Table = Record<string, unknown>

/** The configuration in force: what the node was started with, and what was changed since. */
export class LiveConfig {
  #current: NodeConfig
  readonly #told = new Map<keyof ConfigSections, Reconfigure[]>()
  /** Sections that parts hold: each is kept to what is in force. */
  readonly #held = new Map<string, { readonly path: readonly string[]; readonly values: Table }>()

  constructor(config: NodeConfig) {
    this.#current = config
  }

  get current(): NodeConfig {
    return this.#current
  }

  /** A section whose values are always those in force, for parts that look at each use. */
  section<S extends keyof ConfigSections>(name: S): ConfigSections[S]
  section<S extends keyof ConfigSections, I extends keyof ConfigSections[S]>(name: S, inner: I): ConfigSections[S][I]
  section(...path: string[]): unknown {
    const name = path.join('.')
    const held = this.#held.get(name) ?? { path, values: { ...(valueAt(this.#current, path) as Table) } }
    this.#held.set(name, held)
    return held.values
  }

  /** Calls back when keys of the section have changed. */
  onChange(section: keyof ConfigSections, tell: Reconfigure): void {
    this.#told.set(section, [...(this.#told.get(section) ?? []), tell])
  }

  /** Puts the live ones of the keys in force with their values in `next`. @param keys as TOML spells them */
  apply(next: NodeConfig, keys: readonly string[]): void {
    const before = this.#current
    const changed = new Set<keyof ConfigSections>()
    const applied = (value: unknown, wanted: unknown, path: readonly string[]): unknown => {
      if (path.length > 0 && keys.includes(path.map(tomlKey).join('.'))) {
        if (!isLiveKey(before, path)) return value
        changed.add(path[0] as keyof ConfigSections)
        return wanted
      }
      if (!isTable(value) || !isTable(wanted) || !keys.some((key) => key.startsWith(`${path.map(tomlKey).join('.')}.`))) return value
      return Object.freeze(Object.fromEntries(Object.entries(value).map(([key, one]) => [key, applied(one, wanted[key], [...path, key])])))
    }
    const sections = Object.entries(before).map(([name, section]) => [name, applied(section, next[name as keyof NodeConfig], [name])])
    this.#current = Object.freeze(Object.fromEntries(sections)) as NodeConfig
    for (const { path, values } of this.#held.values()) Object.assign(values, valueAt(this.#current, path))
    for (const name of changed) for (const tell of this.#told.get(name) ?? []) tell()
  }
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function valueAt(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((at, step) => (at as Table)[step], value)
}
