import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseIp, SeededRandom, silentLogger } from '../../src/base/index.ts'
import { addressRecord, decodeMessage, encodeAnswer } from '../../src/dns/index.ts'
import { openPcap, TunIngress, tunConfig } from '../../src/ingress/index.ts'
import { openTun } from '../../src/tun/index.ts'
import { echoPacket, errorPacket, type SeenPacket, tcpPacket } from '../support/ip-packets.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { Program, run, until } from '../support/processes.ts'
import { FakeExit, OutsideClient } from '../support/tun-world.ts'

const reason = enterOwnNetwork()
const config = tunConfig.parse({ udpIdleTimeoutMs: 2000 })
const NAME = 'tun-i'
const servers = { 4: '11.0.0.1', 6: '2a0b::1' } as const

/** Routers on the way to every server, which is the fifth hop beyond the device's other end. */
const HOPS = 5
function internet(packet: SeenPacket): readonly Uint8Array[] {
  const { from, to, hopLimit, bytes, icmp, protocol } = packet
  const is4 = !from.includes(':')
  if (hopLimit < HOPS) {
    const router = is4 ? `11.200.0.${hopLimit}` : `2a0b:200::${hopLimit}`
    return [errorPacket({ from: router, to: from, kind: 'time-exceeded', quoted: bytes.slice(0, is4 ? 528 : 1200) })]
  }
  if (icmp?.kind === 'echo-request') {
    return [
      echoPacket({ from: to, to: from, kind: 'echo-reply', id: icmp.identifier, sequence: sequenceOf(bytes, is4), data: icmp.quoted }),
    ]
  }
  const view = new DataView(bytes.buffer)
  const at = is4 ? 20 : 40
  if (protocol === 6) return [tcpPacket({ from: to, to: from, fromPort: view.getUint16(at + 2), toPort: view.getUint16(at), flags: 0x14 })]
  return [errorPacket({ from: to, to: from, kind: 'port-unreachable', quoted: bytes.slice(0, is4 ? 528 : 1200) })]
}

function sequenceOf(bytes: Uint8Array, is4: boolean): number {
  return new DataView(bytes.buffer).getUint16((is4 ? 20 : 40) + 6)
}

/** The bytes that an ICMPv6 checksum is over: RFC 8200 §8.1. */
function icmp6Whole(payload: Buffer, from: string, to: string): Buffer {
  const tail = Buffer.alloc(8)
  tail.writeUInt32BE(payload.length)
  tail[7] = 58
  return Buffer.concat([parseIp(from).bytes, parseIp(to).bytes, tail, payload])
}

/** The folded sum of 16-bit words. */
function onesSum(bytes: Buffer): number {
  let sum = 0
  for (let i = 0; i < bytes.length; i += 2) sum += bytes.readUInt16BE(i)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}

const client = new OutsideClient()
const exit = new FakeExit()
exit.answer = internet
client.packets = exit.lease
const questions: string[] = []
const dns = {
  async ask(message: Uint8Array): Promise<Uint8Array> {
    const asked = decodeMessage(message)
    questions.push(asked.question!.name)
    const count = asked.question!.name.startsWith('many') ? 200 : 1
    const answers = Array.from({ length: count }, (_, i) => addressRecord(parseIp(`11.0.${i}.1`), 60))
    return encodeAnswer(asked, { rcode: 0, answers })
  },
}

let ingress: TunIngress
let folder: string
let pcap: { close(): Promise<void> }
let web: number
let iperf: Program
let iperfPort: number
const body = randomBytes(20_000_000)
const sums: string[] = []
const closers: (() => void)[] = []

async function attach(): Promise<void> {
  const port = await openTun({ name: NAME, mtu: config.mtu, addresses: config.addresses })
  shellOk(`ip route add 11.0.0.0/8 dev ${NAME}; ip route add 8.8.8.8 dev ${NAME}; ip -6 route add 2a0b::/16 dev ${NAME}`)
  const capture = openPcap(port, join(folder, 'tun.pcap'), () => Date.now(), 50_000_000)
  pcap = capture
  ingress = new TunIngress(config, { client, dns, logger: silentLogger, random: new SeededRandom(Date.now() & 0xffff_ffff) })
  ingress.attach(capture.port, config.addresses)
}

async function listenOn(host: string, port = 0): Promise<number> {
  const server = createHttpServer((request, response) => {
    if (request.method === 'PUT') {
      const sum = createHash('sha256')
      request.on('data', (chunk) => sum.update(chunk))
      request.on('end', () => {
        sums.push(sum.digest('hex'))
        response.end('ok')
      })
    } else if (request.url === '/small') response.end('small')
    else response.end(body)
  })
  server.listen(port, host)
  await once(server, 'listening')
  closers.push(() => server.close())
  return (server.address() as AddressInfo).port
}

const url = (family: 4 | 6, path: string): string => `http://${family === 4 ? servers[4] : `[${servers[6]}]`}:${web}${path}`

beforeAll(async () => {
  if (reason !== null) return
  folder = mkdtempSync(join(tmpdir(), 'shallot-tun-'))
  writeFileSync(join(folder, 'body'), body)
  web = await listenOn('127.0.0.1')
  await listenOn('::1', web)
  iperfPort = 20_000 + (process.pid % 20_000)
  iperf = Program.start('iperf3', ['-s', '-p', String(iperfPort), '--forceflush'])
  await iperf.waitFor(/listening/i, 10_000)
  await attach()
})

afterAll(async () => {
  if (reason !== null) return
  await ingress.stop()
  await pcap.close()
  await iperf.stop('SIGKILL')
  for (const close of closers) close()
  rmSync(folder, { recursive: true })
})

describe.skipIf(reason !== null)(`the machine's own programs over a TUN${reason === null ? '' : ` (${reason})`}`, () => {
  for (const family of [4, 6] as const) {
    test(`IPv${family}: curl gets and puts 20 MB whole`, async () => {
      const path = join(folder, `got${family}`)
      const get = await run('curl', ['-sS', '-o', path, url(family, '/body')], { timeoutMs: 30_000 })
      expect(get.code, get.log).toBe(0)
      expect(readFileSync(path).equals(body)).toBe(true)
      const put = await run('curl', ['-sS', '-T', join(folder, 'body'), url(family, '/up')], { timeoutMs: 30_000 })
      expect(put.code, put.log).toBe(0)
      expect(sums.at(-1)).toBe(createHash('sha256').update(body).digest('hex'))
    })

    test(`IPv${family}: iperf3 both ways`, async () => {
      for (const more of [[], ['-R'], ['--bidir']]) {
        const { code, stdout, log } = await run('iperf3', ['-c', servers[family], '-p', String(iperfPort), '-t', '1', '-J', ...more])
        expect(code, log).toBe(0)
        const { end } = JSON.parse(stdout) as { end: { sum_received: { bytes: number } } }
        expect(end.sum_received.bytes).toBeGreaterThan(20_000_000)
      }
    })

    test(`IPv${family}: ping`, async () => {
      for (const size of ['56', '1300']) {
        const { code, stdout } = await run('ping', ['-n', '-c', '3', '-i', '0.05', '-W', '2', '-s', size, servers[family]])
        expect(code, stdout).toBe(0)
        expect(stdout).toMatch(/3 received, 0% packet loss/)
      }
    })

    test(`IPv${family}: a ping in fragments is at the exit, each of them from the leased address`, async () => {
      exit.last.received.length = 0
      const ping = Program.start('ping', ['-n', '-c', '1', '-W', '1', '-s', '3000', servers[family]])
      await until('all parts are there', 5000, () => exit.last.received.length === 3)
      await ping.waitForExit(5000)
      expect(exit.last.seen.every((one) => one.from === (family === 4 ? exit.address4 : exit.address6))).toBe(true)
      // Put together they are what the kernel sent: its checksum is right.
      const payload = Buffer.concat(exit.last.received.map((one) => one.subarray(family === 4 ? 20 : 48)))
      const whole = family === 4 ? payload : icmp6Whole(payload, exit.address6!, servers[6])
      expect(onesSum(whole)).toBe(0xffff)
    })

    test.each([
      ['UDP', []],
      ['ICMP', ['-I']],
      ['TCP', ['-T', '-p', '443']],
    ] as const)(`IPv${family}: traceroute by %s shows the device's other end, the routers and the server`, async (_name, more) => {
      const { code, stdout, log } = await run('traceroute', [
        `-${family}`,
        '-n',
        '-q',
        '1',
        '-w',
        '2',
        '-m',
        '10',
        ...more,
        servers[family],
      ])
      expect(code, log).toBe(0)
      const hops = stdout
        .split('\n')
        .slice(1)
        .filter((line) => line.trim() !== '')
      const addresses = hops.map((line) => line.trim().split(/\s+/)[1])
      const hop = family === 4 ? '10.83.104.1' : 'fd73:6861:6c6c:6f74::1'
      const routers = Array.from({ length: HOPS - 1 }, (_, i) => (family === 4 ? `11.200.0.${i + 1}` : `2a0b:200::${i + 1}`))
      expect(addresses, stdout).toEqual([hop, ...routers, servers[family]])
    })

    test(`IPv${family}: connections are refused in the kernel's words`, async () => {
      const errorOf = (port: number): Promise<string | undefined> =>
        new Promise((resolve) => {
          const socket = connect({ host: servers[family], port })
          socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code))
          socket.on('connect', () => resolve(undefined))
        })
      const began = performance.now()
      client.failures.set(`${servers[family]}:81`, 'no-circuit')
      client.failures.set(`${servers[family]}:82`, 'unreachable')
      client.failures.set(`${servers[family]}:83`, 'policy')
      client.failures.set(`${servers[family]}:84`, 'refused')
      expect(await Promise.all([81, 82, 83, 84].map(errorOf))).toEqual([
        'ENETUNREACH',
        'EHOSTUNREACH',
        family === 4 ? 'EHOSTUNREACH' : 'EACCES',
        'ECONNREFUSED',
      ])
      expect(performance.now() - began).toBeLessThan(1500)
    })
  }

  test('a thousand short connections, twenty at once, leave nothing behind', async () => {
    const before = ingress.counts.tcpOpened
    const one = `url = "${url(4, '/small')}"\noutput = "/dev/null"\nheader = "Connection: close"\n`
    const { code, log } = await run('curl', ['-sS', '--parallel', '--parallel-max', '20', '--config', '-'], {
      input: one.repeat(1000),
      timeoutMs: 60_000,
    })
    expect(code, log).toBe(0)
    expect(ingress.counts.tcpOpened - before).toBe(1000)
    await until('all are closed', 5000, () => ingress.counts.tcpFlows === 0 && client.streams.size === 0)
    expect(ingress.counts.bufferBytes).toBe(0)
  })

  test('datagrams as fast as a video call are all there', async () => {
    const args = ['-c', servers[4], '-p', String(iperfPort), '-u', '-b', '10M', '-l', '1200', '-t', '1', '-J']
    for (const more of [[], ['-R']]) {
      const { code, stdout, log } = await run('iperf3', [...args, ...more])
      expect(code, log).toBe(0)
      const { end } = JSON.parse(stdout) as { end: { sum: { lost_percent: number; packets: number } } }
      expect(end.sum.packets).toBeGreaterThan(700)
      // What a busy machine's sockets lose they lose without a TUN too.
      expect(end.sum.lost_percent).toBeLessThan(10)
    }
    expect(ingress.counts.udp).toMatchObject({ overflow: 0, unasked: 0, refused: 0 })
  })

  test('dig asks through it, by UDP and TCP, small and large', async () => {
    for (const more of [[], ['+tcp'], ['+bufsize=4096'], ['+notcp', '+ignore']]) {
      const { code, stdout } = await run('dig', ['@8.8.8.8', '+tries=1', '+time=3', ...more, 'a.example', 'A'])
      expect(code, stdout).toBe(0)
      expect(stdout).toMatch(/a\.example\.\s+60\s+IN\s+A\s+11\.0\.0\.1/)
    }
    const { stdout } = await run('dig', ['@8.8.8.8', '+tries=1', '+time=3', '+short', 'many.example', 'A'])
    expect(stdout.trim().split('\n').length).toBe(200)
    expect(questions).toContain('many.example')
  })

  test('mtr in report mode shows each hop once, without loss', async () => {
    const { code, stdout, log } = await run('mtr', ['-n', '--report', '-c', '3', '-i', '0.2', '-m', '8', servers[4]])
    expect(code, log).toBe(0)
    const rows = [...stdout.matchAll(/\|-- (\S+)\s+([\d.]+)%/g)].map((match) => [match[1], match[2]])
    expect(rows.map(([address]) => address)).toEqual(['10.83.104.1', '11.200.0.1', '11.200.0.2', '11.200.0.3', '11.200.0.4', servers[4]])
    expect(rows.every(([, loss]) => loss === '0.0')).toBe(true)
  })

  test('a program that reads slowly holds the server back, and gets it all', async () => {
    const { code, log } = await run('sh', ['-c', `curl -sS --limit-rate 8M ${url(4, '/body')} | sha256sum`], { timeoutMs: 30_000 })
    expect(code, log).toBe(0)
    expect(log).toContain(createHash('sha256').update(body).digest('hex'))
  })

  test('a circuit that is lost amid a transfer is an error to the program, never a short file', async () => {
    const curl = Program.start('curl', ['-sS', '--limit-rate', '2M', '-o', '/dev/null', url(4, '/body')])
    await until('it runs', 5000, () => client.streams.size === 1)
    await new Promise((resolve) => setTimeout(resolve, 300))
    client.loseCircuits()
    const { code } = await curl.waitForExit(5000)
    expect(code).toBe(56)
  })

  test('what has gone by is in the capture, readable', async () => {
    const { stdout } = await run('tcpdump', ['-n', '-r', join(folder, 'tun.pcap'), '-c', '100'])
    expect(stdout).toMatch(/IP 10\.83\.104\.2\.\d+ > 11\.0\.0\.1\.\d+: Flags \[S\]/)
    expect(stdout).toMatch(/IP 11\.0\.0\.1\.\d+ > 10\.83\.104\.2\.\d+: Flags \[S\.\]/)
  })

  test('stopped amid transfers, programs are told at once', async () => {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      const fill = (): void => {
        while (socket.write(Buffer.alloc(65_536)));
        socket.once('drain', fill)
      }
      fill()
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const ends = Array.from({ length: 5 }, () => {
      const socket = connect({ host: servers[4], port })
      socket.resume()
      return new Promise<string | undefined>((resolve) => socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code)))
    })
    await until('all run', 5000, () => client.streams.size === 5)
    await new Promise((resolve) => setTimeout(resolve, 100))
    await ingress.stop()
    expect(await Promise.all(ends)).toEqual(Array(5).fill('ECONNRESET'))
    expect(client.streams.size).toBe(0)
    server.close()
    expect(shellOk('ip -o link').includes(NAME)).toBe(false)
    await attach()
    const again = await run('curl', ['-sS', url(4, '/small')])
    expect(again.stdout).toBe('small')
  })
})
