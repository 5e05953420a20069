import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  formatIp,
  type IpAddress,
  type IpNetwork,
  ipFromBytes,
  networkContains,
  parseIp,
  parseNetwork,
  SeededRandom,
} from '../../src/base/index.ts'
import { ExitPolicy, type RulesetFacts } from '../../src/egress/index.ts'
import { rulesetText } from '../../src/egress/tun-nat/index.ts'
import {
  PacketBatch as Batch,
  type PacketBatch,
  Protocol,
  writeIcmp,
  writeIp,
  writeTransportChecksum,
  writeUdp,
} from '../../src/packet/index.ts'
import { openTun, type TunPort } from '../../src/tun/index.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { delay, run } from '../support/processes.ts'

const reason = enterOwnNetwork()
const DEVICE = 'shallot-exit'
const lease = { 4: parseIp('100.89.0.2'), 6: parseIp('fd73::2') } as const
const own = ['11.0.0.1', '2a11::1', '8.7.6.5', '2a22::1'].map(parseIp)
const MARK = 0x5a11_0700

/** Where a rule could go wrong: edges and insides of everything special, wrapped in every form. */
const places4 = [
  '0.1.2.3',
  '9.255.255.255',
  '10.0.0.0',
  '10.255.255.255',
  '11.0.0.1',
  '100.63.255.255',
  '100.64.0.0',
  '100.100.100.200',
  '100.127.255.255',
  '127.0.0.1',
  '168.63.129.16',
  '168.63.129.17',
  '169.253.255.255',
  '169.254.169.254',
  '172.15.255.255',
  '172.16.0.0',
  '172.31.255.255',
  '172.32.0.0',
  '192.0.0.8',
  '192.0.2.1',
  '192.88.99.1',
  '192.168.0.1',
  '198.17.255.255',
  '198.18.0.0',
  '198.19.255.255',
  '198.51.100.1',
  '203.0.113.1',
  '223.255.255.255',
  '224.0.0.1',
  '255.255.255.255',
  '8.7.6.5',
  '1.1.1.1',
  '5.5.5.5',
  '100.89.0.9',
].map(parseIp)
const places6 = [
  '1fff:ffff::1',
  '2000::',
  '2001::1',
  '2001:1ff:ffff::1',
  '2001:200::1',
  '2001:db8::1',
  '2002::1',
  '3ffe::1',
  '3fff::1',
  '3fff:fff::1',
  '3fff:1000::1',
  '3fff:ffff::1',
  '4000::',
  'fc00::1',
  'fd00:ec2::254',
  'fe80::1',
  'ff02::1',
  '64:ff9b::808:808',
  '64:ff9b:1::1',
  '2a22::1',
  '2606:4700::1',
  '::1',
  '100::1',
  'fd73::9',
  '2a11::1',
].map(parseIp)

function embedded(inner: Uint8Array, random: SeededRandom): IpAddress {
  const noise = random.bytes(16)
  const bytes = noise.slice()
  const put = (at: number, part: Uint8Array | number[]) => bytes.set(part, at)
  switch (random.int(4)) {
    case 0:
      put(0, parseIp('64:ff9b::').bytes)
      put(12, inner)
      break
    case 1:
      put(0, [0x20, 0x02])
      put(2, inner)
      break
    case 2:
      put(0, [0x20, 0x01, 0, 0])
      put(
        12,
        inner.map((byte) => byte ^ 0xff),
      )
      break
    default:
      put(0, [0x26, 0x06])
      put(8, [random.int(2) * 2, 0, 0x5e, 0xfe])
      put(12, inner)
  }
  return ipFromBytes(bytes)
}

function randomAddress(random: SeededRandom, mentioned: readonly IpNetwork[]): IpAddress {
  const pick = <T>(list: readonly T[]): T => list[random.int(list.length)]!
  const random4 = (): IpAddress =>
    random.int(3) === 0 ? parseIp(`${1 + random.int(222)}.${random.int(256)}.${random.int(256)}.${random.int(256)}`) : pick(places4)
  switch (random.int(6)) {
    case 0:
      return random4()
    case 1:
      return pick(places6)
    case 2:
      return embedded(random4().bytes, random)
    case 3:
      return ipFromBytes(Uint8Array.of(0x20 + random.int(32), ...random.bytes(15)))
    default: {
      if (mentioned.length === 0) return random4()
      const { address, bits } = pick(mentioned)
      const bytes = address.bytes.slice()
      for (let bit = bits; bit < bytes.length * 8; bit++) bytes[bit >> 3]! |= random.int(2) << (7 - (bit & 7))
      const found: IpAddress = { family: address.family, bytes }
      return found.family === 4 && random.int(2) === 0 ? embedded(found.bytes, random) : found
    }
  }
}

function randomPolicy(random: SeededRandom): string[] {
  const network4 = () => `${1 + random.int(223)}.${random.int(256)}.0.0/${[8, 12, 16, 24, 32, 0][random.int(6)]}`
  const network6 = () =>
    `[2${(0x600 + random.int(0x400)).toString(16)}:${random.int(65536).toString(16)}::]/${[12, 16, 32, 48, 64][random.int(5)]}`
  const ports = () => ['*', '25', '80', '80,443', '1-1023', '20-30,25-90,8000-9000', '1-65535', '65535'][random.int(8)]!
  const lines = Array.from({ length: random.int(8) }, () => {
    const accept = random.int(2) === 0 ? 'accept' : 'reject'
    switch (random.int(4)) {
      case 0:
        return `${accept} *:${ports()}`
      case 1:
        return `${accept}${random.int(2) === 0 ? 4 : 6} *:${ports()}`
      case 2:
        return `${accept} ${network4()}:${ports()}`
      default:
        return `${accept} ${network6()}:${ports()}`
    }
  })
  return random.int(3) === 0 ? lines : [...lines, 'accept *:*']
}

interface Probe {
  readonly to: IpAddress
  /** Null: an echo request. */
  readonly port: number | null
}

const payloadOf = (number: number): Uint8Array => {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setUint32(0, MARK)
  new DataView(bytes.buffer).setUint32(4, number)
  return bytes
}

function addProbe(batch: PacketBatch, { to, port }: Probe, number: number): void {
  const payload = payloadOf(number)
  const is4 = to.family === 4
  const length = (is4 ? 20 : 40) + 8 + payload.length
  const at = batch.reserve(length)
  const protocol = port !== null ? Protocol.udp : is4 ? Protocol.icmp : Protocol.icmp6
  const body = writeIp(
    batch.bytes,
    batch.view,
    at,
    { source: lease[to.family].bytes, destination: to.bytes, protocol, hopLimit: 9 },
    8 + payload.length,
  )
  batch.bytes.set(payload, body + 8)
  if (port === null) writeIcmp(batch.view, at, body, 'echo-request', number, payload.length)
  else {
    writeUdp(batch.view, body, 1024 + (number % 60_000), port, payload.length)
    writeTransportChecksum(batch.view, at, Protocol.udp, body, body + 8 + payload.length, body + 6)
  }
  batch.commit(length)
}

describe.skipIf(reason !== null)(`the policy in the kernel's rules${reason === null ? '' : ` (${reason})`}`, () => {
  let inside: TunPort
  let outside: TunPort
  const passed = new Set<number>()
  /** What came back to the leases, by its mark. */
  const returned = new Set<number>()

  beforeAll(async () => {
    shellOk(
      'sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0',
    )
    inside = await openTun({ name: DEVICE, addresses: ['100.89.0.1/16', 'fd73::1/64'], queuePackets: 10_000 })
    outside = await openTun({ name: 'out', addresses: ['11.0.0.1/24', '2a11::1/64'], queuePackets: 10_000 })
    shellOk(
      'ip address add 8.7.6.5/32 dev lo; ip -6 address add 2a22::1/128 dev lo nodad; ip route add default dev out; ip -6 route add default dev out',
    )
    const collect = (into: Set<number>) => ({
      packets: (batch: PacketBatch) => {
        for (let i = 0; i < batch.count; i++) {
          const end = batch.end(i)
          // An error quotes the packet, its mark at the end: only what is UDP still is the packet itself.
          const protocol = batch.bytes[batch.start(i) + (batch.bytes[batch.start(i)]! >> 4 === 4 ? 9 : 6)]
          const isOwn = into === passed || protocol === Protocol.udp
          if (isOwn && end - batch.start(i) >= 36 && batch.view.getUint32(end - 8) === MARK) into.add(batch.view.getUint32(end - 4))
        }
      },
      drained: () => {},
      ended: () => {},
    })
    inside.attach(collect(returned))
    outside.attach(collect(passed))
  })
  afterAll(() => {
    inside.close()
    outside.close()
  })

  async function load(facts: Partial<RulesetFacts>): Promise<void> {
    const text = rulesetText({
      device: DEVICE,
      mtu: 1420,
      network4: parseNetwork('100.89.0.0/16'),
      network6: parseNetwork('fd73::/64'),
      outboundInterface: null,
      outbound4: null,
      outbound6: null,
      protocols: [50, 132],
      maxFlows: 65_535,
      newFlowsPerSecond: 100_000,
      newFlowBurst: 65_000,
      timeouts: null,
      lines: ['accept *:*'],
      privateDestinations: [],
      ownAddresses: own,
      ...facts,
    })
    const { code, log } = await run('nft', ['-f', '-'], { input: text, timeoutMs: 20_000 })
    expect(code, log).toBe(0)
  }

  async function send(probes: readonly Probe[]): Promise<void> {
    passed.clear()
    for (let from = 0; from < probes.length; from += 200) {
      const batch = new Batch(200, 200 * 80)
      for (const [i, probe] of probes.slice(from, from + 200).entries()) addProbe(batch, probe, from + i)
      inside.send(batch)
      for (let before = -1; before !== passed.size; ) {
        before = passed.size
        await delay(25)
      }
    }
  }

  const seed = Date.now() % 0x1_0000_0000
  test.each(Array.from({ length: 12 }, (_, i) => [(seed + i) % 0x1_0000_0000]))(
    'is that of userspace, address by address and port by port (seed %i)',
    async (one) => {
      const random = new SeededRandom(one)
      const lines = randomPolicy(random)
      const privateDestinations = [
        [],
        ['10.1.0.0/16', 'fd00:ec2::/32'],
        ['2001:db8::/32', '192.168.0.0/16', '2002:a00::/24'],
        ['0.0.0.0/0'],
      ][random.int(4)]!
      const policy = new ExitPolicy({
        lines,
        privateDestinations,
        families: [4, 6],
        isOwnAddress: (ip) => own.some((address) => formatIp(address) === formatIp(ip)),
        isRelayAddress: () => false,
      })
      await load({ lines, privateDestinations })
      const mentioned = [
        ...lines.flatMap((line) => /[\d.]+\/\d+|\[.*\]\/\d+/.exec(line)?.[0].replace(/[[\]]/g, '') ?? []),
        ...privateDestinations,
      ].map(parseNetwork)
      const probes = Array.from({ length: 800 }, (): Probe => {
        const port = [null, 25, 80, 443, 1, 65_535, 8500, 1 + random.int(65_535)][random.int(8)]!
        return { to: randomAddress(random, mentioned), port }
      })
      await send(probes)
      const wrong = probes.flatMap(({ to, port }, i) => {
        const verdict = port === null ? policy.checkAnyPort(to) : policy.check(to, port)
        const expected = verdict.allowed && !neverForwarded(to)
        return expected === passed.has(i)
          ? []
          : [`${formatIp(to)} ${port}: ${expected ? 'refused' : 'let through'} by the kernel (${verdict.rule})`]
      })
      expect(wrong, `${JSON.stringify({ lines, privateDestinations })}`).toEqual([])
      expect(probes.length).toBeGreaterThan(passed.size)
    },
  )

  test('leases are kept apart by a rule of their own, also where every private network may be reached', async () => {
    await load({ privateDestinations: ['0.0.0.0/0', '::/0'] })
    returned.clear()
    await send(['100.89.0.9', 'fd73::9', '100.89.0.2', '1.1.1.1'].map((text) => ({ to: parseIp(text), port: 80 })))
    expect([[...passed], [...returned]]).toEqual([[3], []])
    expect(shellOk(`nft list counter inet ${DEVICE.replace('-', '_')} between_leases`)).toMatch(/packets [23] /)
  })

  test('both metadata forms, and private addresses in every form that wraps one, are refused by a policy that accepts everything', async () => {
    await load({})
    const texts = [
      '169.254.169.254',
      '100.100.100.200',
      '168.63.129.16',
      'fd00:ec2::254',
      '::ffff:169.254.169.254',
      '64:ff9b::a9fe:a9fe',
      '2002:a9fe:a9fe::1',
      '2001:0:1:2:3:4:5601:5601',
      '2606:4700::5efe:a9fe:a9fe',
      '2606:4700::200:5efe:a00:1',
      '64:ff9b::a00:1',
      '2002:c0a8:101::1',
      '64:ff9b:1::a00:1',
      '192.168.1.1',
    ]
    const refused = texts.map((text): Probe => ({ to: parseIp(text), port: 80 }))
    const open = ['1.1.1.1', '2606:4700::1111', '64:ff9b::101:101', '2002:101:101::1', '2606:4700::5efe:101:101'].map(
      (text): Probe => ({ to: parseIp(text), port: 80 }),
    )
    await send([...refused, ...open])
    expect([...passed].sort((a, b) => a - b)).toEqual(open.map((_, i) => refused.length + i))
  })
})

/** What the rules or the kernel do not route at all, whatever a policy says; and the leases themselves. */
function neverForwarded(ip: IpAddress): boolean {
  const never = [
    '0.0.0.0/8',
    '127.0.0.0/8',
    '224.0.0.0/3',
    '100.89.0.0/16',
    '11.0.0.0/24',
    '::/128',
    '::1/128',
    'ff00::/8',
    'fe80::/10',
    'fd73::/64',
    '2a11::/64',
  ]
  return never.map(parseNetwork).some((network) => networkContains(network, ip))
}
