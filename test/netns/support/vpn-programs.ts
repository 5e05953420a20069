import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { until } from '../../support/processes.ts'
import { sha256OfBytes } from '../../support/web-server.ts'
import type { Machine } from '../lab/index.ts'
import { bigFileBytes, bigText, names, ports } from './vpn-names.ts'
import type { VpnServers } from './vpn-servers.ts'

/** Where a program runs and what it talks to. */
export interface ProgramWorld {
  readonly machine: Machine
  readonly servers: VpnServers
  /** For its files. */
  readonly folder: string
  /** What the world may see of the machine: by plain routing its own, through a VPN those of the exits. */
  readonly seenAs: readonly string[]
  /** Those in front of the web server, the farthest from it first: what a trace has to show. */
  readonly routers: readonly Machine[]
}

/** What a real program that knows nothing of us has to do. */
export interface ProgramCheck {
  readonly name: string
  /** Commands and their Debian packages. */
  readonly needs: Readonly<Record<string, string>>
  run(world: ProgramWorld): Promise<void>
}

const patientMs = 90_000

/** Programs of streams, datagrams and names: all the same whichever exit carries them. */
export const everyday: readonly ProgramCheck[] = [
  ...[names.web, names.four, names.six].map((host) => ({
    name: `curl fetches pages and a large file from ${host}, http and https`,
    needs: { curl: 'curl' },
    run: (world: ProgramWorld) => curlFrom(world, host),
  })),
  { name: 'curl fetches from addresses, both families, and many files at once', needs: { curl: 'curl' }, run: curlFromAddresses },
  {
    name: 'git clones by https, by its own protocol, and by ssh',
    needs: { git: 'git', ssh: 'openssh-client', sshd: 'openssh-server' },
    run: gitClones,
  },
  {
    name: 'ssh runs a command and scp copies both ways, both families',
    needs: { ssh: 'openssh-client', sshd: 'openssh-server' },
    run: sshAndScp,
  },
  {
    name: 'dig finds A, AAAA, PTR, TXT, MX, SRV, HTTPS, an unknown type, and what does not exist',
    needs: { dig: 'bind9-dnsutils' },
    run: digs,
  },
  { name: 'dig gets an answer of 8 KB whole, by TCP', needs: { dig: 'bind9-dnsutils' }, run: digsBig },
  ...(['-4', '-6'] as const).map((family) => ({
    name: `iperf3 ${family} both ways, TCP and UDP`,
    needs: { iperf3: 'iperf3' },
    run: (world: ProgramWorld) => iperf(world, family),
  })),
  ...[0, 1].map((i) => ({
    name: `HTTP/3 with ngtcp2 by IPv${i === 0 ? 4 : 6}`,
    needs: { gtlsclient: 'ngtcp2-client', gtlsserver: 'ngtcp2-server' },
    run: (world: ProgramWorld) => http3(world, world.servers.addresses[i]!),
  })),
  ...[names.four, names.six].map((host) => ({
    name: `Chromium shows a page with a script, a style sheet and what the script fetches from ${host}`,
    needs: { chromium: 'chromium' },
    run: (world: ProgramWorld) => chromiumPage(world, host),
  })),
  { name: 'WebRTC in Chromium finds nothing of the machine', needs: { chromium: 'chromium' }, run: chromiumWebRtc },
]

/** A few of them, for ways that differ only underneath. */
export const quickOnes: readonly ProgramCheck[] = everyday.filter(({ name }) =>
  /^(curl fetches pages .* www|dig finds|HTTP\/3|iperf3 -4)/.test(name),
)

/** Programs of raw packets that reach the other end. */
export const pings: readonly ProgramCheck[] = [
  { name: 'ping, both families, small and as large as the device', needs: { ping: 'iputils-ping' }, run: ping },
]

/** Programs of raw packets that see the routers on the way. */
export const traces: readonly ProgramCheck[] = [
  { name: 'mtr sees the routers of the web server, both families', needs: { mtr: 'mtr-tiny' }, run: mtr },
  {
    name: 'traceroute by ICMP sees them, both families',
    needs: { traceroute: 'traceroute' },
    run: (world) => traceroute(world, ['--icmp']),
  },
]

/** What a userspace exit cannot show: its UDP leaves by sockets, whose errors it is not told. */
export const udpTraces: readonly ProgramCheck[] = [
  { name: 'traceroute by UDP sees them, both families', needs: { traceroute: 'traceroute' }, run: (world) => traceroute(world, []) },
]

async function output(world: ProgramWorld, command: string, args: readonly string[], env: Record<string, string> = {}): Promise<string> {
  return world.machine.runOk(command, args, { env: { HOME: world.folder, ...env }, timeoutMs: patientMs })
}

/** A file's name of its own in the world's folder. */
let files = 0
function fileIn(world: ProgramWorld): string {
  return join(world.folder, `file-${files++}`)
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

const curlQuietly = ['-q', '-sSf', '-m', '60']

async function curlFrom(world: ProgramWorld, host: string): Promise<void> {
  const before = world.servers.requests().length
  const secure = [...curlQuietly, '--cacert', world.servers.authorityFile]
  expect(await output(world, 'curl', [...curlQuietly, `http://${host}/`])).toContain('a page of the lab')
  expect(await output(world, 'curl', [...secure, `https://${host}/`])).toContain('a page of the lab')
  const file = fileIn(world)
  await output(world, 'curl', [...secure, '-o', file, `https://${host}/big`])
  expect(sha256(readFileSync(file))).toBe(sha256OfBytes(bigFileBytes))
  const seen = new Set(
    world.servers
      .requests()
      .slice(before)
      .map((line) => line.split(' ')[0]!),
  )
  expect(world.seenAs).toEqual(expect.arrayContaining([...seen]))
}

async function curlFromAddresses(world: ProgramWorld): Promise<void> {
  const [four, six] = world.servers.addresses
  for (const host of [four, `[${six}]`])
    expect(await output(world, 'curl', [...curlQuietly, `http://${host}/`])).toContain('a page of the lab')
  const urls = Array.from({ length: 30 }, (_, i) => [
    `http://${i % 2 === 0 ? four : `[${six}]`}/hello.txt?${i}`,
    '-o',
    `${fileIn(world)}`,
  ]).flat()
  await output(world, 'curl', [...curlQuietly, '--parallel', '--parallel-immediate', ...urls])
}

async function gitClones(world: ProgramWorld): Promise<void> {
  const { servers } = world
  const env = {
    GIT_SSL_CAINFO: servers.authorityFile,
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_SSH_COMMAND: ['ssh', ...sshOptions(world)].join(' '),
    GIT_TERMINAL_PROMPT: '0',
  }
  const urls = [
    `https://${names.web}/project.git`,
    `https://${names.six}/project.git`,
    `git://${names.four}/project.git`,
    `git://${names.six}/project.git`,
    `ssh://root@${names.web}${servers.folder}/www/project.git`,
  ]
  for (const url of urls) {
    const folder = fileIn(world)
    await output(world, 'git', ['clone', '-q', url, folder], env)
    expect(readFileSync(join(folder, 'README'), 'utf8'), url).toBe('hello\n')
    await output(world, 'git', ['-C', folder, 'fsck', '--strict'], env)
  }
}

function sshOptions(world: ProgramWorld): readonly string[] {
  const options = ['BatchMode=yes', 'StrictHostKeyChecking=accept-new', `UserKnownHostsFile=${join(world.folder, 'known-hosts')}`]
  return ['-F', 'none', '-i', world.servers.sshKey, ...options.flatMap((option) => ['-o', option])]
}

async function sshAndScp(world: ProgramWorld): Promise<void> {
  const [four, six] = world.servers.addresses
  for (const [host, bracketed] of [
    [names.web, names.web],
    [four, four],
    [six, `[${six}]`],
  ] as const) {
    expect(await output(world, 'ssh', [...sshOptions(world), `root@${host}`, 'echo', 'said by the server'])).toBe('said by the server\n')
    const [there, back] = [fileIn(world), fileIn(world)]
    const local = join(world.servers.folder, 'www', 'big')
    await output(world, 'scp', ['-q', ...sshOptions(world), local, `root@${bracketed}:${there}`])
    await output(world, 'scp', ['-q', ...sshOptions(world), `root@${bracketed}:${there}`, back])
    expect(sha256(readFileSync(back))).toBe(sha256OfBytes(bigFileBytes))
  }
}

const digQuietly = ['+time=10', '+tries=2']

async function digs(world: ProgramWorld): Promise<void> {
  const [four, six] = world.servers.addresses
  const answers: readonly (readonly [readonly string[], string])[] = [
    [[names.web, 'A'], four],
    [[names.web, 'AAAA'], six],
    [['-x', four], `${names.web}.`],
    [['-x', six], `${names.web}.`],
    [[names.text, 'TXT'], '"said by the lab"'],
    [[names.zone, 'MX'], `10 ${names.mail}.`],
    [[names.service, 'SRV'], `1 2 80 ${names.web}.`],
    [[names.modern, 'HTTPS'], '1 . alpn="h3,h2"'],
    [[names.zone, 'TYPE65280'], '\\# 4 DEADBEEF'],
    [['+tcp', names.web, 'A'], four],
  ]
  for (const [asked, wanted] of answers) {
    const lines = (await output(world, 'dig', [...digQuietly, '+short', ...asked])).trim().split('\n')
    expect(lines, asked.join(' ')).toContain(wanted)
  }
  expect(await output(world, 'dig', [...digQuietly, `nothing.${names.zone}`, 'A'])).toContain('status: NXDOMAIN')
}

async function digsBig(world: ProgramWorld): Promise<void> {
  // As it comes: dig asks again by TCP when the answer says that it was cut.
  const lines = (await output(world, 'dig', [...digQuietly, '+short', names.big, 'TXT'])).trim().split('\n')
  expect(lines.filter((line) => /^"\d+ (shallot )+/.test(line))).toHaveLength(bigText.records)
  expect(await output(world, 'dig', [...digQuietly, '+ignore', '+noedns', names.big, 'TXT'])).toMatch(/flags:[a-z ]* tc[ ;]/)
}

interface IperfReport {
  readonly end: {
    readonly sum_received?: { readonly bytes: number }
    readonly sum?: { readonly bytes: number; readonly lost_percent: number; readonly packets: number }
  }
}

async function iperf(world: ProgramWorld, family: '-4' | '-6'): Promise<void> {
  const client = [family, '--client', names.web, '--time', '1', '--json', '--connect-timeout', '20000']
  for (const [what, more] of Object.entries({
    'up, TCP': [],
    'down, TCP': ['--reverse'],
    'up, UDP': ['--udp', '--bitrate', '2M', '--length', '1100'],
    'down, UDP': ['--udp', '--bitrate', '2M', '--length', '1100', '--reverse'],
  })) {
    // One client at a time: the server may still be busy with the last one's end.
    const report = await until(
      `iperf3 ${what}`,
      patientMs,
      async () => {
        const { code, stdout, log } = await world.machine.run('iperf3', [...client, ...more], { timeoutMs: 40_000 })
        if (code !== 0) throw new Error(log.slice(-1000))
        return JSON.parse(stdout) as IperfReport
      },
      500,
    )
    const { sum_received: received, sum } = report.end
    expect(received?.bytes ?? sum?.bytes ?? 0, what).toBeGreaterThan(150_000)
    if (sum && what.endsWith('UDP')) expect(sum.lost_percent, what).toBeLessThan(20)
  }
}

async function http3(world: ProgramWorld, address: string): Promise<void> {
  const folder = fileIn(world)
  mkdirSync(folder)
  const options = ['--quiet', '--exit-on-all-streams-close', `--download=${folder}`, '--timeout=20s']
  await output(world, 'gtlsclient', [...options, address, String(ports.quic), `https://${names.web}/big`, `https://${names.web}/hello.txt`])
  expect(readFileSync(join(folder, 'hello.txt'), 'utf8')).toBe('hello from a file')
  expect(sha256(readFileSync(join(folder, 'big')))).toBe(sha256OfBytes(bigFileBytes))
}

/** A headless Chromium as it comes, with all that it does in the background. */
export function chromiumArgs(profile: string): readonly string[] {
  return ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-dev-shm-usage', `--user-data-dir=${profile}`]
}

async function chromiumPage(world: ProgramWorld, host: string): Promise<void> {
  const args = [...chromiumArgs(fileIn(world)), '--virtual-time-budget=20000', '--dump-dom', `http://${host}/page.html`]
  const page = await output(world, 'chromium', args)
  expect(page).toContain('<p id="said">the script fetched: hello from a file</p>')
  expect(page).toContain('<p id="style">colour rgb(1, 2, 3)</p>')
}

async function chromiumWebRtc(world: ProgramWorld): Promise<void> {
  const candidates = await webRtcCandidates(world)
  // STUN answered: the page knows an address, and it is one that the world may know.
  const addresses = candidates.flatMap((line) => (/ typ srflx /.test(line) ? [line.split(' ')[4]!] : []))
  expect(addresses.length, candidates.join('\n')).toBeGreaterThan(0)
  expect(world.seenAs).toEqual(expect.arrayContaining(addresses))
}

/** What a page learns of the machine by WebRTC with STUN servers of both families: candidates of ICE and errors. */
export async function webRtcCandidates(world: ProgramWorld): Promise<readonly string[]> {
  const name = `webrtc${files++}`
  const [four, six] = world.servers.addresses
  const url = `http://${names.web}/webrtc.html?name=${name}&stun=${names.four},${names.six},${four},[${six}]`
  const browser = world.machine.start('chromium', [...chromiumArgs(fileIn(world)), url], { env: { HOME: world.folder } })
  try {
    const report = await until('the page reports', patientMs, () => {
      if (browser.exit) throw new Error(`Chromium ended: ${browser.tail()}`)
      return world.servers.requests().find((line) => line.includes(`/report?${name}=`))
    })
    return decodeURIComponent(report.split(`/report?${name}=`)[1]!.split(' ')[0]!).split(';')
  } finally {
    await browser.stop('SIGKILL')
  }
}

async function ping(world: ProgramWorld): Promise<void> {
  for (const [i, address] of world.servers.addresses.entries()) {
    // 1420 with the headers of IP and ICMP.
    for (const bytes of [56, 1000, i === 0 ? 1392 : 1372]) {
      // The first ones may go while the way is made.
      const { stdout } = await world.machine.run('ping', ['-n', '-c', '5', '-i', '0.2', '-W', '10', '-s', String(bytes), address], {
        timeoutMs: patientMs,
      })
      const received = Number(/(\d+) received/.exec(stdout)?.[1])
      expect(received, `${bytes} bytes to ${address}: ${stdout}`).toBeGreaterThanOrEqual(4)
    }
  }
  expect(await output(world, 'ping', ['-c', '1', '-W', '10', names.web])).toContain('1 received')
}

/** The addresses that a trace to the web server ends with. */
function lastHops({ servers, routers }: ProgramWorld, i: 0 | 1): readonly string[] {
  return routers.map((router) => (i === 0 ? router.address : router.ipv6!)).concat(servers.addresses[i]!)
}

async function mtr(world: ProgramWorld): Promise<void> {
  for (const i of [0, 1] as const) {
    const address = world.servers.addresses[i]!
    const report = await output(world, 'mtr', [
      '--no-dns',
      '--report',
      '--report-wide',
      '--report-cycles',
      '3',
      '--interval',
      '0.4',
      '--gracetime',
      '2',
      address,
    ])
    const hops = [...report.matchAll(/^ *\d+\.\|-- (\S+)/gm)].map(([, hop]) => hop!)
    expect(hops.slice(-(world.routers.length + 1)), report).toEqual(lastHops(world, i))
  }
}

async function traceroute(world: ProgramWorld, how: readonly string[]): Promise<void> {
  for (const i of [0, 1] as const) {
    const report = await output(world, 'traceroute', [...how, '-n', '-q', '2', '-w', '4', '-m', '12', world.servers.addresses[i]!])
    const hops = [...report.matchAll(/^ *\d+ +([0-9a-f.:]+|\*)/gm)].map(([, hop]) => hop!)
    expect(hops.slice(-(world.routers.length + 1)), report).toEqual(lastHops(world, i))
  }
}
