import type { NodeId } from '../../src/base/index.ts'
import type { ServingRole } from '../../src/directory/index.ts'
import type { NatFacts } from '../../src/nat/index.ts'
import type { NetworkSummary, NodeStatus, RelayFacts } from '../../src/node/index.ts'

/** Made-up facts of a network and a relay, the same for the same seed. */

/** Numbers from 0 to 1 (mulberry32). */
export function numbers(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const COUNTRIES = ['DE', 'NL', 'FR', 'SE', 'CH', 'FI', 'US', 'CA', 'IS', 'RO', 'PL', 'AT', 'NO', 'JP'] as const
const VERSIONS = ['shallot 0.1.0', 'shallot 0.1.0', 'shallot 0.1.0', 'shallot 0.0.9', 'shallot 0.2.0-rc.1'] as const
const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'

/** So many relays, in order of their id. */
export function livelyRelays(count: number, random: () => number): RelayFacts[] {
  return Array.from({ length: count }, (_, i): RelayFacts => {
    const roles: ServingRole[] = ['middle']
    if (i % 2 === 0) roles.unshift('guard')
    if (i % 4 === 1) roles.push('exit')
    if (i % 9 === 0) roles.push('relay')
    if (i % 100 === 0) roles.push('bootstrap')
    const name = Array.from({ length: 44 }, () => ALPHABET[Math.floor(random() * ALPHABET.length)]).join('')
    // Squared: a few countries have most of them.
    const place = Math.floor(random() ** 2 * (COUNTRIES.length + 0.4))
    const eligible = random() < 0.92
    return {
      id: `12D3KooW${name}` as NodeId,
      roles,
      addresses: [`/ip4/198.51.${100 + (i % 100)}.${i % 250}/tcp/4460`],
      country: COUNTRIES[place] ?? null,
      reach: i % 11 === 0 ? 'punchable' : 'direct',
      eligible,
      notEligible: eligible ? [] : ['known for too short a time'],
      bandwidth: 2_000_000 + Math.floor(random() * 20_000_000),
      weight: 500_000 + Math.floor(random() ** 2 * 12_000_000),
      firstSeenAt: Date.now() - Math.floor(random() * 40 * 86_400_000),
      publishedAt: Date.now() - 1_800_000,
      expiresAt: Date.now() + 5_400_000,
      software: VERSIONS[Math.floor(random() * VERSIONS.length)]!,
      exitPorts: roles.includes('exit') ? '80, 443, 993' : null,
      family: [],
    }
  }).sort((a, b) => (a.id < b.id ? -1 : 1))
}

/** The relays in counts, with a day's growth. */
export function summaryOf(relays: readonly RelayFacts[]): NetworkSummary {
  const share = (keys: (relay: RelayFacts) => readonly string[]) => {
    const found = new Map<string, { key: string; known: number; eligible: number; exits: number }>()
    for (const relay of relays) {
      for (const key of keys(relay)) {
        const row = found.get(key) ?? { key, known: 0, eligible: 0, exits: 0 }
        row.known++
        if (relay.eligible) row.eligible++
        if (relay.eligible && relay.roles.includes('exit')) row.exits++
        found.set(key, row)
      }
    }
    return [...found.values()]
  }
  const now = Math.floor(Date.now() / 60_000) * 60_000
  const total = relays.length
  return {
    roles: share(({ roles }) => roles).map(({ exits: _, ...row }) => row),
    countries: share(({ country }) => [country ?? '??']),
    versions: share(({ software }) => [software]).map(({ exits: _, ...row }) => row),
    history: Array.from({ length: 480 }, (_, i) => {
      const known = Math.round(total * (1 - 0.7 * Math.exp(-i / 90)) + 3 * Math.sin(i / 11))
      return { at: now - (479 - i) * 60_000, known, eligible: Math.round(known * (0.92 - 0.3 * Math.exp(-i / 60))) }
    }),
  }
}

/** What a node of every role says of its work. */
export function servedFacts(seconds: number): Partial<NodeStatus> {
  const at = Date.now()
  return {
    roles: ['client', 'guard', 'middle', 'exit'],
    listening: ['/ip4/198.51.100.7/tcp/4460'],
    reachability: 'mapped',
    links: 84,
    relaying: {
      circuitsOpen: 431,
      circuitsLimit: 10_000,
      circuitsCreated: 18_204 + seconds,
      circuitsRefused: 37,
      circuitsShed: 4,
      cellsForwarded: 48_120_330 + seconds * 4800,
      bytesForwarded: 24_600_000_000 + seconds * 2_400_000,
      refused: { 'resource-limit': 21, overloaded: 12, 'not-allowed': 4 },
      closed: { finished: 15_120, requested: 2_310, 'channel-lost': 288, timeout: 51 },
      exitStreamsOpen: 122,
      exitStreamsRefused: 92,
      budget: { usedBytes: 7_340_032, limitBytes: 67_108_864 },
    },
    exit: {
      streamsOpen: 122,
      associationsOpen: 3,
      streamsOpened: 61_240 + seconds,
      refused: { policy: 71, 'resource-limit': 18, 'connect-failed': 3 },
      bytesFromServers: 18_200_000_000 + seconds * 2_000_000,
      bytesToServers: 1_400_000_000,
      packetLeasesOpen: 2,
      packets: {
        packetsFromClients: 91_000 + seconds * 200,
        packetsToClients: 122_000 + seconds * 300,
        bytesFromClients: 31_000_000,
        bytesToClients: 140_000_000,
        dropped: { policy: 12, rate: 40 },
        stack: { tcpConnections: 61, udpPorts: 9, echoes: 1, bufferBytes: 4_000_000, bufferLimitBytes: 268_435_456, retransmissions: 190 },
      },
      dns: { questions: 900, remembered: 610, refused: 3, failed: 8 },
      limits: { streams: 16_384, associations: 8192, packetLeases: 1024 },
    },
    stun: {
      requests: 5120 + seconds,
      answers: 5094 + seconds,
      refusals: 4,
      bytesReceived: 143_000,
      bytesSent: 224_000,
      droppedMalformed: 2,
      droppedOverRate: 20,
      droppedOverBytes: 0,
      droppedUnable: 0,
      sources: 41,
    },
    onionKey: { since: at - 3 * 86_400_000, rotatesAt: at + 4 * 86_400_000, previousUntil: at + 3_600_000 },
    memory: { rssBytes: 127_000_000, heapBytes: 38_000_000, externalBytes: 21_000_000, limitBytes: 536_870_912 },
  }
}

/** A relay behind a router that helps. */
export function livelyNat(relays: readonly RelayFacts[]): NatFacts {
  const since = Date.now() - 5_400_000
  return {
    state: 'mapped',
    reasons: [
      'The router maps port 4460 to this machine, and two witnesses connected through it.',
      'STUN servers agree on the public address.',
    ],
    since,
    ipv4: {
      local: ['192.168.1.20'],
      public: '198.51.100.7:4460',
      kind: 'A port-restricted NAT: only who was written to may answer.',
      mapping: 'endpoint-independent',
      filtering: 'address-and-port-dependent',
      portPreserved: true,
      hairpin: false,
      bindingLifetimeMs: 180_000,
      dialBack: true,
    },
    ipv6: null,
    listening: ['/ip4/0.0.0.0/tcp/4460'],
    announced: ['/ip4/198.51.100.7/tcp/4460'],
    mapping: { protocol: 'pcp', external: '198.51.100.7:4460', expiresAt: Date.now() + 3_000_000 },
    relays: [{ relay: relays[0]!.id, since, expiresAt: Date.now() + 900_000 }],
    stun: [
      { server: '198.51.100.40:4460', verdict: 'believed', said: '198.51.100.7:51022' },
      { server: '203.0.113.9:4460', verdict: 'believed', said: '198.51.100.7:51022' },
      { server: '203.0.113.77:4460', verdict: 'silent', said: null },
    ],
    serves: [
      { role: 'guard', possible: true, why: 'Clients can connect to it.' },
      { role: 'middle', possible: true, why: 'Relays can connect to it.' },
      { role: 'exit', possible: true, why: 'It may connect to servers.' },
      { role: 'relay', possible: false, why: 'A NAT relay needs an address of its own, and this one is mapped.' },
    ],
    advice: [
      'Forward port 4460 on the router for good: the mapping ends when the router forgets it.',
      'Ask the provider for IPv6: nodes with it need no mapping.',
    ],
    lost: [],
  }
}
