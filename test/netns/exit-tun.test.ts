import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { TunNatBackend } from '../../src/egress/index.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { Program, until } from '../support/processes.ts'
import { addresses, ExitTunLab, type LabClient, labBackend, labConfig, openUse, policyUse } from './support/exit-tun-lab.ts'

const reason = enterOwnNetwork()
const families = [4, 6] as const
const host = (family: 4 | 6, address: string) => (family === 6 ? `[${address}]` : address)

describe.skipIf(reason !== null)(`raw packets through a TUN with NAT${reason === null ? '' : ` (${reason})`}`, () => {
  let lab: ExitTunLab
  let backend: TunNatBackend
  const clients: LabClient[] = []
  const others: TunNatBackend[] = []

  beforeAll(async () => {
    lab = await ExitTunLab.start()
    await lab.serve(null, '::', 8888)
    backend = labBackend()
    await backend.start()
  })
  afterAll(async () => {
    await backend.stop()
    await lab.stop()
  })
  afterEach(async () => {
    for (const client of clients.splice(0)) await client.remove()
    for (const one of others.splice(0)) await one.stop()
  })

  async function client(use = policyUse(labConfig()), on = backend): Promise<LabClient> {
    const one = await lab.client(on, use)
    clients.push(one)
    return one
  }

  const curl = (from: LabClient, family: 4 | 6, address: string, port = 80) =>
    from.place.run('curl', [
      '-sS',
      '--max-time',
      '5',
      '-o',
      '/dev/null',
      '-w',
      '%{http_code} %{time_total}',
      `http://${host(family, address)}:${port}/`,
    ])

  test.each(families)('curl reaches a server over IPv%i, from the exit address', async (family) => {
    const one = await client()
    const { stdout, log } = await curl(one, family, addresses.server[family])
    expect(stdout, log).toMatch(/^(200|404)/)
    const flows = shellOk(`conntrack -L -f ipv${family} 2>/dev/null`)
    expect(flows).toContain(`dst=${addresses.exit[family]}`)
  })

  test.each(families)('ping, with fragments too, and traceroute over IPv%i', async (family) => {
    const one = await client()
    const ping = await one.place.run('ping', ['-c', '3', '-i', '0.1', '-W', '3', addresses.server[family]])
    expect(ping.stdout, ping.log).toContain('3 received')
    const large = await one.place.run('ping', ['-c', '3', '-i', '0.1', '-W', '3', '-s', '4000', addresses.server[family]])
    // The first answer over IPv6 teaches the server the path's MTU (RFC 8201).
    expect(large.stdout, large.log).toMatch(family === 4 ? /3 received/ : /[23] received/)
    const trace = await one.place.run('traceroute', [`-${family}`, '-n', '-q', '1', '-w', '2', '-m', '5', addresses.server[family]])
    const hops = trace.stdout.split('\n').flatMap((line) => /^ *\d+ +(\S+)/.exec(line)?.[1] ?? [])
    expect(hops, trace.log).toEqual([
      family === 4 ? '100.89.0.1' : 'fd73:6861:6c6c:6578::1',
      addresses.router[family],
      addresses.server[family],
    ])
  })

  test.each(families)('iperf3 over IPv%i both ways, TCP and UDP', async (family) => {
    const one = await client()
    const server = lab.keep(Program.start('iperf3', ['-s', '--forceflush'], { wrapper: lab.server.inside }))
    await server.waitFor(/listening/, 10_000)
    const iperf = async (...more: string[]) => {
      const { stdout, log } = await one.place.run('iperf3', ['-c', addresses.server[family], '-t', '1', '-J', ...more])
      const { end } = JSON.parse(stdout) as {
        end?: Record<'sum_received' | 'sum', { bits_per_second: number; lost_percent?: number } | undefined>
      }
      const sum = end?.sum_received ?? end?.sum
      expect(sum, log).toBeDefined()
      return { mbit: Math.round(sum!.bits_per_second / 1e6), lost: end?.sum?.lost_percent }
    }
    const measured = { up: await iperf(), down: await iperf('-R'), udp: await iperf('-u', '-b', '10M') }
    await server.stop('SIGKILL')
    console.log(`exit TUN, IPv${family}, iperf3 Mbit/s:`, JSON.stringify(measured))
    expect(measured.up.mbit).toBeGreaterThan(50)
    expect(measured.down.mbit).toBeGreaterThan(50)
    expect(measured.udp.lost).toBeLessThan(20)
  })

  describe.each([
    ['userspace', () => policyUse(labConfig())],
    ["the kernel's rules, when userspace would let it through", openUse],
  ])('what %s refuses', (_wall, use) => {
    test.each(families)('over IPv%i: the mail port, private and metadata addresses, at once and with a reason', async (family) => {
      const one = await client(use())
      const targets = [
        [addresses.server[family], 25],
        [addresses.private[family], 80],
        [addresses.metadata[family], 80],
        [addresses.exit[family], 80],
      ] as const
      for (const [address, port] of targets) {
        const { stdout, log } = await curl(one, family, address, port)
        expect(stdout, `${address} ${port}: ${log}`).toMatch(/^000/)
        // An answer, not a time-out; what is this machine's own is not answered by the kernel.
        if (address !== addresses.exit[family]) expect(Number(stdout.split(' ')[1]), log).toBeLessThan(3)
      }
      const { stdout } = await one.place.run('ping', ['-c', '1', '-W', '1', addresses.private[family]])
      expect(stdout).toContain('0 received')
      // It is the port that was closed, not the server.
      expect((await curl(one, family, addresses.server[family])).stdout).toMatch(/^(200|404)/)
    })

    test.each(families)('over IPv%i: other leases and the exit machine itself', async (family) => {
      const [one, other] = [await client(use()), await client(use())]
      await lab.serve(other.place, '::', 80)
      const gateway = family === 4 ? '100.89.0.1' : 'fd73:6861:6c6c:6578::1'
      const address = (family === 4 ? other.lease.address4 : other.lease.address6)!
      const its = family === 4 ? address.bytes.join('.') : `fd73:6861:6c6c:6578::${address.bytes.at(-1)!.toString(16)}`
      for (const [target, port] of [
        [its, 80],
        [gateway, 8888],
        [addresses.exit[family], 8888],
      ] as const) {
        const { stdout, log } = await curl(one, family, target, port)
        expect(stdout, `${target}: ${log}`).toMatch(/^000/)
        expect((await one.place.run('ping', ['-c', '1', '-W', '1', target])).stdout).toContain('0 received')
      }
    })
  })

  test('what a server sends unasked, and what is sent to no lease, goes nowhere', async () => {
    const one = await client()
    const lease = one.lease.address4!.bytes.join('.')
    await lab.serve(one.place, '0.0.0.0', 8080)
    const { stdout } = await lab.server.run('curl', [
      '-s',
      '--max-time',
      '2',
      '-o',
      '/dev/null',
      '-w',
      '%{http_code}',
      `http://${lease}:8080/`,
    ])
    expect(stdout).toBe('000')
    expect((await lab.server.run('ping', ['-c', '1', '-W', '1', lease])).stdout).toContain('0 received')
    const { stdout: gateway } = await lab.server.run('ping', ['-c', '1', '-W', '1', '100.89.0.1'])
    expect(gateway).toContain('0 received')
  })

  test('a packet with another source is dropped and counted, also one with the source of another lease', async () => {
    const [one, other] = [await client(openUse()), await client(openUse())]
    const before = backend.counts.dropped.source ?? 0
    const its = other.lease.address4!.bytes.join('.')
    one.place.shell(`ip address add ${its}/32 dev lo; ip address add 192.0.2.99/32 dev lo`)
    for (const source of [its, '192.0.2.99']) {
      const { stdout } = await one.place.run('ping', ['-c', '2', '-i', '0.2', '-W', '1', '-I', source, addresses.server[4]])
      expect(stdout).toContain('0 received')
    }
    expect((backend.counts.dropped.source ?? 0) - before).toBeGreaterThanOrEqual(4)
  })

  test('a lease that is given back leaves no connection behind, and the next one with its address gets none of its packets', async () => {
    // A network with room for one lease more than are open now.
    const small = labBackend(labConfig({ tun: { name: 'small' }, packetNetworkIpv4: '100.90.0.0/24', packetNetworkIpv6: 'fd99::/112' }))
    others.push(small)
    await small.start()
    const one = await client(openUse(), small)
    const address = one.lease.address4!.bytes.join('.')
    await curl(one, 4, addresses.server[4])
    await one.place.run('ping', ['-c', '1', '-W', '1', addresses.server[6]])
    const flows = () =>
      shellOk('conntrack -L -f ipv4 2>/dev/null; conntrack -L -f ipv6 2>/dev/null')
        .split('\n')
        .filter((line) => line.includes(`src=${address} `) || line.includes('src=fd99:'))
    expect(flows().length).toBeGreaterThan(1)
    one.lease.port.close()
    await until('the flows are forgotten', 2000, () => flows().length === 0)
  })

  test('flows of one lease are bounded, and another one has its own share', async () => {
    const tight = labBackend(
      labConfig({
        tun: { name: 'tight', maxFlows: 5, newFlowsPerSecond: 1000 },
        packetNetworkIpv4: '100.91.0.0/24',
        packetNetworkIpv6: 'fd9a::/112',
      }),
    )
    others.push(tight)
    await tight.start()
    const [one, other] = [await client(openUse(), tight), await client(openUse(), tight)]
    const udp = (from: LabClient, count: number) =>
      from.place.run('python3', [
        '-c',
        `import socket\nfor i in range(${count}):\n s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.sendto(b"x",("${addresses.server[4]}",9000+i))`,
      ])
    const flowsOf = (from: LabClient) =>
      shellOk(`conntrack -L -f ipv4 2>/dev/null | grep -c 'src=${from.lease.address4!.bytes.join('.')} ' || true`).trim()
    await udp(one, 20)
    await udp(other, 3)
    expect(flowsOf(one)).toBe('5')
    expect(flowsOf(other)).toBe('3')
    expect(shellOk('nft list counter inet tight flow_limit')).toMatch(/packets 15 /)
  })

  test('a device that is removed from outside ends the leases with the reason; the next one has it anew', async () => {
    const one = await client()
    const ends: (string | undefined)[] = []
    const lease = await backend.open(openUse(), 1420, new AbortController().signal)
    lease.port.attach({ packets: () => {}, drained: () => {}, ended: (error) => ends.push(error?.code) })
    shellOk('ip link delete dev shallot-exit')
    await until('the end', 5000, () => ends.length > 0)
    expect(ends).toEqual(['tun-removed'])
    await one.remove()
    const next = await client()
    expect((await curl(next, 4, addresses.server[4])).stdout).toMatch(/^(200|404)/)
  })

  test('rules that another program flushed are made anew, and the connections go on', async () => {
    const one = await client()
    expect((await curl(one, 4, addresses.server[4])).stdout).toMatch(/^(200|404)/)
    shellOk('nft flush ruleset')
    await until('the rules are there again', 5000, () => shellOk('nft list tables').includes('shallot_exit'))
    await until('curl reaches the server', 5000, async () => /^(200|404)/.test((await curl(one, 4, addresses.server[4])).stdout))
    expect((await curl(one, 4, addresses.private[4])).stdout).toMatch(/^000/)
    expect((await curl(await client(openUse()), 4, addresses.exit[4], 8888)).stdout).toMatch(/^000/)
  })
})
