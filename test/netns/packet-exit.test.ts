import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { formatIp } from '../../src/base/index.ts'
import { HeldPackets } from '../../src/drive/index.ts'
import type { PacketPort } from '../../src/packet/index.ts'
import type { ExitCircuit } from '../../src/relaying/index.ts'
import { openTun } from '../../src/tun/index.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { netstackExit } from '../support/packet-exit.ts'
import { packetPorts, startPacketServers } from '../support/packet-servers.ts'
import { Program, run, until } from '../support/processes.ts'
import { bytesOf, sha256OfBytes, startWebServer, type WebServer } from '../support/web-server.ts'

const reason = enterOwnNetwork()
const MTU = 1420
const near = { 4: '11.0.0.1', 6: '2a00:11::1' } as const
const far = { 4: '12.0.0.1', 6: '2a00:12::1' } as const
const router = { 4: '11.5.0.2', 6: '2a00:15::2' } as const
const never = new AbortController().signal
const rootless = new URL('support/rootless-exit.ts', import.meta.url).pathname
const connector = new URL('support/short-connections.ts', import.meta.url).pathname

/** A namespace with only a loopback, as long as the program lives. */
async function namespace(): Promise<Program> {
  const holder = Program.start('unshare', ['--net', 'sh', '-c', 'ip link set lo up && echo up && exec sleep infinity'])
  await holder.waitFor(/^up$/m, 10_000)
  return holder
}

const inside = (holder: Program): readonly string[] => ['nsenter', `--net=/proc/${holder.pid}/ns/net`, '--']
const shellIn = (holder: Program, script: string): string => shellOk(`${inside(holder).join(' ')} sh -ec '${script}'`)

/** Carries packets both ways between two ports, with the backpressure of both. */
function bridge(one: PacketPort, other: PacketPort): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    const held = new HeldPackets()
    from.attach({
      packets: (batch) => {
        const taken = held.isEmpty ? to.send(batch) : 0
        if (taken === batch.count) return
        held.add(batch, taken)
        from.pause()
      },
      drained: () => drains.get(from)?.(),
      ended: () => to.close(),
    })
    drains.set(to, () => {
      held.drain((batch, index) => to.send(batch, index))
      if (held.isEmpty) from.resume()
    })
  }
}
const drains = new Map<PacketPort, () => void>()

describe.skipIf(reason !== null)(`a kernel's traffic through the netstack exit${reason === null ? '' : ` (${reason})`}`, () => {
  const holders: Program[] = []
  const circuits: ExitCircuit[] = []
  let web: Record<4 | 6, WebServer>
  let stopServers: () => void
  let exit: Awaited<ReturnType<typeof netstackExit>>

  beforeAll(async () => {
    // This namespace is the exit's, and of the near servers; behind a router is a far one.
    const [routing, beyond] = [await namespace(), await namespace()]
    holders.push(routing, beyond)
    shellOk(`ip address add ${near[4]}/32 dev lo; ip address add ${near[6]}/128 dev lo nodad
      sysctl -qw net.ipv4.ping_group_range="0 2147483647"
      ip link add e-out type veth peer name e-in netns ${routing.pid}
      ip address add 11.5.0.1/24 dev e-out; ip address add 2a00:15::1/64 dev e-out nodad; ip link set e-out up
      ip route add default via ${router[4]}; ip route add default via ${router[6]}`)
    shellIn(
      routing,
      `ip address add ${router[4]}/24 dev e-in; ip address add ${router[6]}/64 dev e-in nodad; ip link set e-in up
      ip link add e-far type veth peer name e-end netns ${beyond.pid}
      ip address add 12.0.0.2/24 dev e-far; ip address add 2a00:12::2/64 dev e-far nodad; ip link set e-far up
      sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`,
    )
    shellIn(
      beyond,
      `ip address add ${far[4]}/24 dev e-end; ip address add ${far[6]}/64 dev e-end nodad; ip link set e-end up
      ip route add default via 12.0.0.2; ip route add default via 2a00:12::2`,
    )
    web = {
      4: await startWebServer({ listen: { host: near[4], port: 8080 } }),
      6: await startWebServer({ listen: { host: near[6], port: 8080 } }),
    }
    stopServers = await startPacketServers([near[4], near[6]])
    exit = await netstackExit()
  })

  afterEach(async () => {
    for (const circuit of circuits.splice(0)) circuit.close()
    for (const holder of holders.splice(2)) await holder.stop('SIGKILL')
  })

  afterAll(async () => {
    for (const holder of holders) await holder.stop('SIGKILL')
    stopServers()
    await Promise.all([web[4].close(), web[6].close(), exit.stop()])
  })

  /** A machine whose every packet goes through a TUN, as it is, to a lease at the exit. */
  async function machine(): Promise<{ run(command: string, args: string[], timeoutMs?: number): ReturnType<typeof run>; holder: Program }> {
    const circuit = exit.exit.openCircuit()
    circuits.push(circuit)
    const lease = await circuit.openPackets(MTU, never)
    const holder = await namespace()
    holders.push(holder)
    const tun = await openTun({ name: 'e-tun%d', mtu: MTU })
    shellOk(`ip link set ${tun.name} netns ${holder.pid}`)
    shellIn(
      holder,
      `ip link set ${tun.name} mtu ${MTU} txqueuelen 1000 up
      ip address add ${formatIp(lease.address4!)}/32 dev ${tun.name}; ip address add ${formatIp(lease.address6!)}/128 dev ${tun.name} nodad
      ip route add default dev ${tun.name}; ip -6 route add default dev ${tun.name}`,
    )
    bridge(tun, lease.port)
    return { holder, run: (command, args, timeoutMs = 30_000) => run(command, args, { wrapper: inside(holder), timeoutMs }) }
  }

  const url = (family: 4 | 6, path: string): string => (family === 4 ? `http://${near[4]}:8080${path}` : `http://[${near[6]}]:8080${path}`)

  for (const family of [4, 6] as const) {
    test(`curl fetches 100 MB over IPv${family}, hash equal`, async () => {
      const { holder } = await machine()
      const [command, ...args] = inside(holder)
      const curl = spawn(command!, [...args, 'curl', '-sS', '--max-time', '60', url(family, '/bytes/100000000')], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const hash = createHash('sha256')
      let bytes = 0
      for await (const piece of curl.stdout as AsyncIterable<Buffer>) {
        hash.update(piece)
        bytes += piece.length
      }
      expect([bytes, hash.digest('hex')]).toEqual([100_000_000, sha256OfBytes(100_000_000)])
    })

    test(`ping, short and in fragments, over IPv${family}`, async () => {
      const { run } = await machine()
      const short = await run('ping', ['-c', '3', '-i', '0.05', '-W', '3', far[family]])
      expect(short.stdout).toContain('3 received')
      // The far host's answer, two routers less: the real one, and the exit.
      expect(short.stdout).toContain('ttl=62')
      const long = await run('ping', ['-c', '3', '-i', '0.05', '-W', '3', '-s', '4000', far[family]])
      expect(long.stdout).toContain('3 received')
    })

    test(`traceroute shows the exit, the routers behind it and the end, over IPv${family}`, async () => {
      const { run } = await machine()
      const { stdout } = await run('traceroute', ['-I', '-n', '-q', '1', '-w', '2', '-m', '6', far[family]])
      const hops = stdout.split('\n').flatMap((line) => /^ *\d+ +(\S+)/.exec(line)?.[1] ?? [])
      expect(hops).toEqual([family === 4 ? '100.89.0.1' : 'fd73:6861:6c6c:6578::1', router[family], far[family]])
    })
  }

  test('curl sends 30 MB, hash equal', async () => {
    const { run } = await machine()
    const file = `/tmp/shallot-packet-exit-${process.pid}`
    fs.writeFileSync(file, Buffer.concat([...bytesOf(30_000_000)]))
    try {
      const { stdout } = await run('curl', ['-sS', '--max-time', '25', '-T', file, url(4, '/sink')])
      expect(JSON.parse(stdout)).toEqual({ bytes: 30_000_000, sha256: sha256OfBytes(30_000_000) })
    } finally {
      fs.rmSync(file)
    }
  })

  test('mtr names every hop', async () => {
    const { run } = await machine()
    const { stdout } = await run('mtr', ['-n', '-c', '2', '-i', '0.2', '--raw', far[4]])
    const hosts = stdout.split('\n').flatMap((line) => /^h \d+ (\S+)/.exec(line)?.[1] ?? [])
    expect([...new Set(hosts)]).toEqual(['100.89.0.1', router[4], far[4]])
  })

  test('refusals arrive as what they are', async () => {
    const { run } = await machine()
    const refused = await run('curl', ['-sS', '--max-time', '5', `http://${near[4]}:${packetPorts.closed}/`])
    expect(refused.code).toBe(7)
    const before = performance.now()
    const mail = await run('curl', ['-sS', '--max-time', '5', `telnet://${near[4]}:25`])
    expect(mail.code).toBe(7)
    const prohibited = await run('ping', ['-c', '1', '-W', '3', '10.1.2.3'])
    expect(prohibited.stdout).toMatch(/filtered|prohibited/i)
    // Answered, not timed out.
    expect(performance.now() - before).toBeLessThan(4000)
  })

  test('where the kernel gives no ping sockets a ping is told so, and TCP goes on', async () => {
    const strict = await netstackExit()
    const saved = exit
    exit = strict
    shellOk('sysctl -qw net.ipv4.ping_group_range="1 0"')
    try {
      const { run } = await machine()
      const ping = await run('ping', ['-c', '1', '-W', '3', far[4]])
      expect(ping.stdout).toMatch(/filtered|prohibited/i)
      expect((await run('curl', ['-sS', url(4, '/')])).stdout).toContain('hello')
      expect(strict.exit.counts.packets?.dropped).toMatchObject({ forbidden: 1 })
    } finally {
      shellOk('sysctl -qw net.ipv4.ping_group_range="0 2147483647"')
      exit = saved
      await strict.stop()
    }
  })

  test('2000 short connections leave nothing behind', async () => {
    const { run } = await machine()
    const descriptors = fs.readdirSync('/proc/self/fd').length
    const { stdout, log } = await run(process.execPath, [connector, near[4], String(packetPorts.echo), '2000', '40'], 60_000)
    expect(JSON.parse(stdout || '{}'), log).toEqual({ done: 2000, failed: 0 })
    await until('all are closed', 10_000, () => exit.exit.counts.streams === 0)
    expect(fs.readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(descriptors + 4)
  })

  test('a slow reader gets everything, and harms nobody beside it', async () => {
    const { run } = await machine()
    const slow = run(
      'curl',
      ['-sS', '--max-time', '60', '--limit-rate', '2M', '-o', '/dev/null', '-w', '%{size_download}', url(4, '/bytes/8000000')],
      60_000,
    )
    const fast = await run('curl', [
      '-sS',
      '--max-time',
      '20',
      '-o',
      '/dev/null',
      '-w',
      '%{size_download} %{time_total}',
      url(4, '/bytes/20000000'),
    ])
    const [bytes, seconds] = fast.stdout.split(' ').map(Number)
    expect(bytes).toBe(20_000_000)
    expect(seconds).toBeLessThan(3)
    expect((await slow).stdout).toBe('8000000')
  })

  test('everything works for an exit without any privilege', async () => {
    const asNobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--no-new-privs', '--']
    const { stdout, log } = await run(asNobody[0]!, [...asNobody.slice(1), process.execPath, rootless, near[4], near[6], far[4], far[6]])
    expect(JSON.parse(stdout || '{}'), log).toEqual({
      uid: 65_534,
      capabilities: '0000000000000000',
      tcp: [4, 6],
      udp: [4, 6],
      ping: [4, 6],
    })
  })
})
