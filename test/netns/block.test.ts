import { spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { ShallotError } from '../../src/base/index.ts'
import { batchOfPackets, type PacketPort } from '../../src/packet/index.ts'
import { openTun } from '../../src/tun/index.ts'
import { type AllowedPeer, ResolvConf, repair, type Vpn, type VpnConfig, type VpnModules } from '../../src/vpn/index.ts'
import { echoPacket, seePacket, tcpPacket, udpPacket } from '../support/ip-packets.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { BlockNetwork, places } from './support/block-network.ts'
import { guards, makeVpn, sink } from './support/block-program.ts'

const reason = enterOwnNetwork()

/** Whether a TCP connection is made, from this machine, as the user. What is dropped has two tries: a SYN is sent again after a second. */
function connects(address: string, port: number, uid = 0, seconds = 5): boolean {
  const script = `import socket,sys,os
os.setgid(${uid}); os.setuid(${uid})
s=socket.socket(socket.AF_INET6 if ':' in '${address}' else socket.AF_INET); s.settimeout(${seconds})
sys.exit(0 if s.connect_ex(('${address}', ${port}))==0 else 1)`
  return spawnSync('python3', ['-c', script]).status === 0
}

const isShut = (address: string, port: number, uid = 0): boolean => !connects(address, port, uid, 2.5)

describe.skipIf(reason !== null)(`the VPN in the kernel${reason === null ? '' : ` (${reason})`}`, () => {
  let network: BlockNetwork
  const made: Vpn[] = []

  const vpnWith = (config: Partial<VpnConfig> = {}, more: Partial<VpnModules> = {}): Vpn => {
    const vpn = makeVpn(network.dir, network.resolvConf, config, more)
    made.push(vpn)
    return vpn
  }

  beforeAll(async () => {
    network = await BlockNetwork.create()
    const server = `import socket,threading
def serve(port):
  s=socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('::', port)); s.listen(64)
  while True: s.accept()[0].close()
for port in (${places.guardPort}, ${places.otherPort}, 80, 53): threading.Thread(target=serve, args=(port,)).start()
print('up', flush=True)`
    await network.start('python3', ['-c', server], network.routerWrapper).waitFor(/up/, 10_000)
  })
  afterEach(async () => {
    for (const vpn of made.splice(0)) {
      await vpn.down().catch(() => {})
      await vpn.stop()
    }
    await repair(network.dir, { force: true, resolvConf: new ResolvConf(network.resolvConf) }).catch(() => {})
  })
  afterAll(() => network?.remove())

  test('up and down leave no trace, and up again does the same', async () => {
    const before = network.snapshot()
    const vpn = vpnWith({ bypass: [places.bypass4, '2001:dbc::/32'], localNetwork: true })
    for (let round = 0; round < 2; round++) {
      const facts = await vpn.up()
      expect(facts).toMatchObject({
        state: 'up',
        device: { name: 'shallot0', mtu: 1420 },
        allowed: guards,
        dns: { how: 'resolv.conf', servers: ['10.83.104.1', 'fd73:6861:6c6c:6f74::1'] },
        problems: [],
      })
      expect(network.snapshot()).not.toBe(before)
      expect(readFileSync(network.resolvConf, 'utf8')).toContain('nameserver 10.83.104.1')
      expect((await vpn.down()).state).toBe('down')
      expect(network.snapshot()).toBe(before)
    }
  })

  test('the rules stand before the machine’s own, in their order', async () => {
    await vpnWith({ bypass: [places.bypass4], localNetwork: true }, { serving: () => [{ protocol: 'tcp', port: 4460 }] }).up()
    expect(
      shellOk('ip -4 rule')
        .trim()
        .split('\n')
        .map((line) => line.replace(/\s+/g, ' ').trim()),
    ).toEqual([
      '0: from all lookup local',
      '610: from all iif shallot0 lookup main proto 158',
      '610: from all ipproto udp sport 68 dport 67 lookup main proto 158',
      '611: from all to 12.0.0.1 ipproto tcp dport 4460 lookup main proto 158',
      '612: from all ipproto tcp sport 4460 lookup main proto 158',
      ...['tcp', 'udp'].flatMap((protocol) =>
        [53, 853].map((port) => `613: from all ipproto ${protocol} dport ${port} lookup 5158 proto 158`),
      ),
      '614: from all fwmark 0x53484c00 lookup main proto 158',
      '614: from all to 14.0.0.0/8 lookup main proto 158',
      ...['10.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.168.0.0/16', '224.0.0.0/24', '239.0.0.0/8', '255.255.255.255'].map(
        (net) => `615: from all to ${net} lookup main suppress_prefixlength 0 proto 158`,
      ),
      '616: from all lookup 5158 proto 158',
      '32766: from all lookup main',
      '32767: from all lookup default',
    ])
    expect(shellOk('ip -4 route show table 5158')).toMatch(/^default dev shallot0 .*metric 1 *\nunreachable default .*metric 4294967295/)
    expect(shellOk('ip -6 route show table 5158')).toMatch(/^default dev shallot0 .*metric 1 .*\nunreachable default .*metric 4294967295/)
  })

  test('who may be reached and who not: the guard’s port by the node’s user, nothing else of it, nobody else', async () => {
    for (const [guard, server] of [
      [places.guard4, places.server4],
      [places.guard6, places.server6],
    ] as const) {
      expect(connects(guard, places.guardPort)).toBe(true)
      expect(connects(server, 80)).toBe(true)
    }
    await vpnWith().up()
    for (const [guard, server, lan] of [
      [places.guard4, places.server4, places.lan4],
      [places.guard6, places.server6, places.lan6],
    ] as const) {
      expect(connects(guard, places.guardPort)).toBe(true)
      expect(isShut(guard, places.guardPort, 65_534)).toBe(true)
      expect(isShut(guard, places.otherPort)).toBe(true)
      expect(isShut(server, 80)).toBe(true)
      expect(isShut(lan, 80)).toBe(true)
    }
  })

  test('nothing opens to this machine through the tunnel, whatever is handed to the device; what answers comes in', async () => {
    const device: PacketPort[] = []
    const seen: string[] = []
    const strangers: readonly string[] = [places.server4, places.server6]
    const attach: VpnModules['attach'] = async (port) => {
      device.push(port)
      return sink(port, (batch) => {
        for (let i = 0; i < batch.count; i++) {
          const { from, to, protocol, icmp } = seePacket(batch.packet(i).slice())
          if (strangers.includes(to)) seen.push(`${icmp?.kind ?? protocol} from ${from} to ${to}`)
        }
      })
    }
    const listener = createServer((socket) => socket.destroy()).listen(80, '::')
    await once(listener, 'listening')
    await vpnWith({}, { attach }).up()
    for (const [from, to] of [
      [places.server4, '10.83.104.2'],
      [places.server6, 'fd73:6861:6c6c:6f74::2'],
    ] as const) {
      const local = createSocket(from.includes(':') ? 'udp6' : 'udp4')
      const heard = new Promise<number>((resolve) => local.on('message', (_, { port }) => resolve(port)))
      await new Promise<void>((resolve) => local.bind(5000, to, resolve))
      device[0]!.send(
        batchOfPackets([
          tcpPacket({ from, to, fromPort: 1000, toPort: 80, flags: 2 }),
          echoPacket({ from, to }),
          udpPacket({ from, to, fromPort: 1001, toPort: 5000, data: new Uint8Array(8) }),
        ]),
      )
      // It came after the others.
      expect(await heard).toBe(1001)
      local.close()
    }
    expect(seen).toEqual([])
    listener.close()
  })

  test('strict reverse-path filters let in what answers, and are pointed out', async () => {
    shellOk(`sysctl -qw net.ipv4.conf.${places.device}.rp_filter=1`)
    try {
      const vpn = vpnWith({}, { serving: () => [{ protocol: 'tcp', port: 4460 }] })
      await vpn.up()
      expect(connects(places.guard4, places.guardPort)).toBe(true)
      vpn.networkChanged()
      await expect.poll(() => vpn.facts().problems, { timeout: 5_000 }).toEqual([expect.stringMatching(/uplink0 is strict/)])
    } finally {
      shellOk(`sysctl -qw net.ipv4.conf.${places.device}.rp_filter=0`)
    }
  })

  test('a firewall that asks for the route back, as firewalld does, lets in what answers', async () => {
    const chain = 'inet firewall prerouting'
    const filter = ['ipv4', 'ipv6'].map((family) => `nft add rule ${chain} meta nfproto ${family} fib saddr . mark . iif oif missing drop`)
    shellOk(`nft add table inet firewall
      nft 'add chain ${chain} { type filter hook prerouting priority raw + 10; }'
      nft add rule ${chain} icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
      ${filter.join('\n')}`)
    try {
      await vpnWith({ bypass: [places.bypass4] }, { serving: () => [{ protocol: 'tcp', port: 4460 }] }).up()
      expect(connects(places.guard4, places.guardPort)).toBe(true)
      expect(connects(places.guard6, places.guardPort)).toBe(true)
      expect(connects(places.inBypass4, 80)).toBe(true)
      const listener = network.start('nc', ['-l', '-k', '-p', '4460'])
      const dial = () => network.onRouter(`nc -z -w 1 -s ${places.server4} ${places.machine4} 4460 && echo connected`)
      await expect.poll(() => dial().trim(), { timeout: 10_000 }).toBe('connected')
      await listener.stop('SIGKILL')
    } finally {
      shellOk('nft delete table inet firewall')
    }
  })

  test('the local network and networks around it, where asked for; names never', async () => {
    await vpnWith({ localNetwork: true, bypass: [places.bypass4] }).up()
    expect(connects(places.lan4, 80)).toBe(true)
    expect(connects(places.lan6, 80)).toBe(true)
    expect(connects(places.inBypass4, 80)).toBe(true)
    expect(isShut(places.lan4, 53)).toBe(true)
    expect(isShut(places.lan6, 53)).toBe(true)
    expect(isShut(places.inBypass4, 53)).toBe(true)
    // A network of public addresses on the link is none.
    expect(isShut(places.router4, 80)).toBe(true)
    expect(isShut(places.router6, 80)).toBe(true)
  })

  test('five hundred places and more come and go, and the list stays bounded', async () => {
    let named: readonly AllowedPeer[] = guards
    let changed = (): void => {}
    const vpn = vpnWith(
      {},
      {
        allowed: () => named,
        onNeedsChange: (listener) => {
          changed = listener
          return () => {}
        },
      },
    )
    await vpn.up()
    const many = (net: string, count: number): AllowedPeer[] =>
      Array.from({ length: count }, (_, i) => ({ ip: `${net}.${i >> 8}.${i & 255}`, protocol: 'tcp', port: 4460, why: 'peer' }))
    named = [...guards, ...many('12.1', 600)]
    changed()
    await vpn.ensureAllowed([])
    expect(vpn.facts().allowed).toHaveLength(448)
    expect(vpn.facts().problems).toEqual([expect.stringMatching(/^154 places .* no room/)])
    // What is about to be dialled has room of its own, and the oldest of it gives way.
    await Promise.all(many('12.9', 200).map((peer) => vpn.ensureAllowed([peer])))
    expect(vpn.facts().allowed).toHaveLength(512)
    expect(shellOk('ip -4 rule').match(/^611:.*dport/gm)).toHaveLength(511)
    expect(connects('12.9.0.199', places.guardPort)).toBe(true)
    expect(isShut('12.9.0.0', places.guardPort)).toBe(true)
    expect(connects('12.1.0.5', places.guardPort)).toBe(true)
    named = guards
    changed()
    await vpn.ensureAllowed([])
    expect(isShut('12.1.0.5', places.guardPort)).toBe(true)
  })

  test('a place is open before ensureAllowed resolves, many at once', async () => {
    const vpn = vpnWith()
    await vpn.up()
    await Promise.all(
      Array.from({ length: 8 }, async (_, i) => {
        await vpn.ensureAllowed([{ ip: `12.5.0.${i}`, protocol: 'tcp', port: places.guardPort, why: 'peer' }])
        expect(connects(`12.5.0.${i}`, places.guardPort)).toBe(true)
      }),
    )
  })

  test('a firewall that is loaded anew takes nothing away for long, and is named', async () => {
    const vpn = vpnWith()
    await vpn.up()
    shellOk('nft flush ruleset; ip rule flush protocol 158; ip -6 rule flush protocol 158')
    vpn.networkChanged()
    await expect
      .poll(() => vpn.facts().problems, { timeout: 5_000 })
      .toEqual([expect.stringMatching(/another program removed the VPN's kill switch/)])
    expect(isShut(places.server4, 80)).toBe(true)
    shellOk('ip -6 rule flush protocol 158')
    vpn.networkChanged()
    await expect.poll(() => vpn.facts().problems, { timeout: 5_000 }).toEqual([expect.stringMatching(/removed the VPN's routing rules/)])
    expect(shellOk('ip -6 rule')).toContain('616:')
  })

  test('rules of others that come before ours are pointed out; a table or priorities that are taken are refused', async () => {
    shellOk('ip rule add priority 100 to 13.0.0.0/8 lookup main')
    const vpn = vpnWith()
    await vpn.up()
    vpn.networkChanged()
    await expect.poll(() => vpn.facts().problems, { timeout: 5_000 }).toEqual([expect.stringMatching(/other programs .* \(priority 100\)/)])
    expect(isShut(places.server4, 80)).toBe(true)
    await vpn.down()
    shellOk('ip rule del priority 100; ip route add 15.0.0.0/8 dev lo table 5158')
    const before = network.snapshot()
    await expect(vpn.up()).rejects.toMatchObject({ code: 'vpn-in-use', message: expect.stringContaining('routing_table') })
    expect(network.snapshot()).toBe(before)
    shellOk('ip route flush table 5158; ip rule add priority 614 lookup main')
    await expect(vpn.up()).rejects.toMatchObject({ code: 'vpn-in-use', message: expect.stringContaining('rule_priority') })
    shellOk('ip rule del priority 614')
  })

  test('another node’s VPN is left alone', async () => {
    const first = vpnWith()
    await first.up()
    const before = network.snapshot()
    const second = makeVpn(`${network.dir}/..`, network.resolvConf)
    await expect(second.up()).rejects.toMatchObject({ code: 'vpn-in-use' })
    await expect(repair(`${network.dir}/..`)).rejects.toMatchObject({ code: 'vpn-in-use' })
    expect(network.snapshot()).toBe(before)
  })

  test.each([
    ['opening the device', { openDevice: () => Promise.reject(new Error('no device')) }],
    ['the data path', { attach: () => Promise.reject(new Error('no path')) }],
  ] as const)('a failure of %s undoes everything', async (_name, more) => {
    const before = network.snapshot()
    await expect(vpnWith({}, more).up()).rejects.toThrow(/no (device|path)/)
    expect(network.snapshot()).toBe(before)
    await expect(repair(network.dir)).rejects.toMatchObject({ code: 'vpn-nothing-to-undo' })
  })

  test('a start whose device is not to be had keeps the block, says why, and goes up once it is', async () => {
    const before = network.snapshot()
    let busy = 2
    const vpn = vpnWith(
      { up: true },
      {
        openDevice: async (options) => {
          if (busy-- > 0) throw new ShallotError('tun-unavailable', 'the device is in use', { kind: 'host', retry: 'later' })
          return openTun(options)
        },
      },
    )
    await vpn.protect()
    expect(vpn.facts()).toMatchObject({ state: 'blocked', allowed: guards, device: null })
    await vpn.start()
    expect(vpn.facts()).toMatchObject({ state: 'blocked', problems: ['the device is in use'] })
    await expect(vpn.up()).rejects.toMatchObject({ code: 'tun-unavailable' })
    expect(isShut(places.server4, 80)).toBe(true)
    expect(connects(places.guard4, places.guardPort)).toBe(true)
    await expect.poll(() => vpn.facts().state, { timeout: 10_000 }).toBe('up')
    expect(vpn.facts().problems).toEqual([])
    await vpn.down()
    expect(network.snapshot()).toBe(before)
  })

  test('a mesh that carries nothing is blocked, and up once it does', async () => {
    let carries = false
    const vpn = vpnWith({}, { canCarry: () => carries, whenReady: () => Promise.reject(new Error('not within the time')) })
    expect(await vpn.up()).toMatchObject({
      state: 'blocked',
      problems: [expect.stringMatching(/no circuit/)],
      device: { name: 'shallot0' },
    })
    carries = true
    expect(vpn.facts()).toMatchObject({ state: 'up', problems: [] })
  })

  test('where IPv6 is switched off the rest goes up, and IPv6 that comes later is blocked', async () => {
    shellOk('sysctl -qw net.ipv6.conf.default.disable_ipv6=1')
    try {
      const facts = await vpnWith().up()
      expect(facts).toMatchObject({ state: 'up', device: { addresses: ['10.83.104.2/30'] }, dns: { servers: ['10.83.104.1'] } })
      expect(isShut(places.server6, 80)).toBe(true)
      expect(connects(places.guard6, places.guardPort)).toBe(true)
    } finally {
      shellOk('sysctl -qw net.ipv6.conf.default.disable_ipv6=0')
    }
  })

  test('a device that is removed from outside is made again, and nothing gets out meanwhile', async () => {
    const vpn = vpnWith()
    await vpn.up()
    shellOk('ip link del shallot0')
    expect(isShut(places.server4, 80)).toBe(true)
    await expect.poll(() => vpn.facts().state, { timeout: 10_000 }).toBe('blocked')
    await expect.poll(() => vpn.facts().state, { timeout: 10_000 }).toBe('up')
    expect(vpn.facts().problems).toEqual([])
    expect(shellOk('ip -6 route show table 5158')).toContain('default dev shallot0')
  })

  test('resolv.conf as a link, missing, and written by another program meanwhile', async () => {
    const original = readFileSync(network.resolvConf, 'utf8')
    const vpn = vpnWith()
    for (const prepare of [
      () => symlinkSync('../run/resolv.conf', network.resolvConf),
      () => {},
      () => writeFileSync(network.resolvConf, 'nameserver 1.2.3.4\n', { mode: 0o600 }),
    ]) {
      rmSync(network.resolvConf, { force: true })
      prepare()
      const before = network.snapshot()
      await vpn.up()
      expect(readFileSync(network.resolvConf, 'utf8')).toContain('nameserver 10.83.104.1')
      await vpn.down()
      expect(network.snapshot()).toBe(before)
    }
    await vpn.up()
    writeFileSync(network.resolvConf, original)
    vpn.networkChanged()
    await expect.poll(() => readFileSync(network.resolvConf, 'utf8'), { timeout: 5_000 }).toContain('nameserver 10.83.104.1')
    await vpn.down()
    expect(readFileSync(network.resolvConf, 'utf8')).toBe(original)
  })

  test('a resolv.conf that can’t be changed is left, and that is said, or it is an error where it was asked for', async () => {
    const original = readFileSync(network.resolvConf, 'utf8')
    const vpn = vpnWith({ dns: 'auto' }, { resolvConf: new ResolvConf('/proc/version') })
    const facts = await vpn.up()
    expect(facts).toMatchObject({ state: 'up', dns: { how: 'none' }, problems: [expect.stringMatching(/can't be changed/)] })
    await vpn.down()
    await expect(vpnWith({ dns: 'resolv.conf' }, { resolvConf: new ResolvConf('/proc/version') }).up()).rejects.toMatchObject({
      code: 'vpn-dns-not-taken',
    })
    expect(readFileSync(network.resolvConf, 'utf8')).toBe(original)
  })
})
