import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { formatIp, silentLogger } from '../../src/base/index.ts'
import { createDnsForwarder, type DnsForwarder, exitConfig } from '../../src/egress/index.ts'
import { DnsServer, DnsService, dnsConfig } from '../../src/ingress/index.ts'
import { DirectClientService } from '../support/direct-client-service.ts'
import { hasCommand, Program, run, until } from '../support/processes.ts'
import { RawDnsServer } from '../support/raw-dns-server.ts'
import { ResolverBridge } from '../support/resolver-bridge.ts'

const wanted = (await Promise.all(['dig', 'dnsmasq'].map(hasCommand))).every((there) => there)
const now = (): number => performance.now()

const long = Array.from({ length: 20 }, (_, i) => `${i}:${'x'.repeat(200)}`)
const zone = [
  '--host-record=host.shallot.example,192.0.2.1,2001:db8::1',
  '--host-record=mixed.shallot.example,10.1.2.3',
  '--host-record=mixed.shallot.example,192.0.2.3',
  '--host-record=inner.shallot.example,10.9.9.9',
  '--txt-record=text.shallot.example,hello world',
  ...long.map((text) => `--txt-record=long.shallot.example,${text}`),
  '--mx-host=mail.shallot.example,host.shallot.example,7',
  '--srv-host=_x._tcp.shallot.example,host.shallot.example,4443,1,2',
  '--caa-record=caa.shallot.example,0,issue,ca.example',
  '--dns-rr=web.shallot.example,65,00010000010003026832',
  '--dns-rr=odd.shallot.example,65280,c00cdeadbeefc00c',
  '--cname=alias.shallot.example,host.shallot.example',
  '--ptr-record=9.2.0.192.in-addr.arpa,nine.shallot.example',
]

/** dig asks our listener, which asks our service, that a stream, that our forwarder, that dnsmasq. */
describe.skipIf(!wanted)('dig over the listener, a stream, the forwarder and dnsmasq (Debian: bind9-dnsutils, dnsmasq-base)', () => {
  let dnsmasq: Program
  let forwarder: DnsForwarder
  let bridge: ResolverBridge
  let service: DnsService
  let server: DnsServer
  const client = new DirectClientService()

  const dig = async (...args: string[]): Promise<string> => {
    const [host, port] = server.addresses[0]!.split(':')
    const { stdout, code, log } = await run('dig', [`@${host}`, '-p', port!, '+tries=1', '+time=10', ...args])
    expect(code, log).toBe(0)
    return stdout
  }
  const short = async (...args: string[]): Promise<string> => (await dig('+short', ...args)).trim()

  beforeAll(async () => {
    const probe = await RawDnsServer.start(() => [])
    const { port } = probe
    probe.close()
    const own = [
      '--keep-in-foreground',
      '--conf-file=/dev/null',
      '--no-resolv',
      '--no-hosts',
      '--log-facility=-',
      '--pid-file=',
      '--user=',
      '--group=',
    ]
    dnsmasq = Program.start('dnsmasq', [
      ...own,
      `--port=${port}`,
      '--listen-address=127.0.0.1',
      '--bind-interfaces',
      '--local-ttl=77',
      '--local=/shallot.example/',
      '--log-queries',
      ...zone,
    ])
    await until(
      'dnsmasq answers',
      10_000,
      async () => (await run('dig', ['@127.0.0.1', '-p', String(port), '+tries=1', '+time=1', 'host.shallot.example'])).code === 0,
    )
    forwarder = createDnsForwarder({
      config: exitConfig.parse({ resolvers: [`127.0.0.1:${port}`], dnsMinTtlSeconds: 0 }),
      resolver: { addresses: () => Promise.reject(new Error('not asked')), names: () => Promise.reject(new Error('not asked')) },
      allowAddress: (ip) => !formatIp(ip).startsWith('10.'),
      now,
      logger: silentLogger,
    })
    const circuit = forwarder.openCircuit()
    bridge = await ResolverBridge.start(() => circuit.connect())
    client.resolverPort = bridge.port
    const config = dnsConfig.parse({ listen: ['127.0.0.1:0'] })
    service = new DnsService(config, { client, logger: silentLogger, now })
    server = new DnsServer(config, { service, logger: silentLogger })
    await server.start()
  })

  afterAll(async () => {
    await server?.stop()
    service?.close()
    forwarder?.close()
    bridge?.close()
    await dnsmasq?.stop()
  })

  it.each([
    ['A', 'host.shallot.example', '192.0.2.1'],
    ['AAAA', 'host.shallot.example', '2001:db8::1'],
    ['PTR', '9.2.0.192.in-addr.arpa', 'nine.shallot.example.'],
    ['TXT', 'text.shallot.example', '"hello world"'],
    ['MX', 'mail.shallot.example', '7 host.shallot.example.'],
    ['SRV', '_x._tcp.shallot.example', '1 2 4443 host.shallot.example.'],
    ['CAA', 'caa.shallot.example', '0 issue "ca.example"'],
    ['HTTPS', 'web.shallot.example', '1 . alpn="h2"'],
    ['CNAME', 'alias.shallot.example', 'host.shallot.example.'],
    ['TYPE65280', 'odd.shallot.example', '\\# 8 C00CDEADBEEFC00C'],
  ])('%s comes as it is', async (type, name, value) => {
    expect((await short(type, name)).replace(/(\\# \d+) ([0-9A-F ]+)$/, (_, head, hex) => `${head} ${hex.replaceAll(' ', '')}`)).toBe(value)
    expect((await short('+tcp', type, name)).length).toBeGreaterThan(0)
  })

  it('says where there is nothing, and of what kind', async () => {
    expect(await dig('none.shallot.example')).toMatch(/status: NXDOMAIN/)
    expect(await dig('text.shallot.example', 'A')).toMatch(/status: NOERROR[\s\S]*ANSWER: 0/)
  })

  it('brings 4 kB whole: truncated by UDP, then by TCP', async () => {
    expect(await dig('+ignore', 'TXT', 'long.shallot.example')).toMatch(/flags: qr tc rd ra; QUERY: 1, ANSWER: 0/)
    const lines = (await short('TXT', 'long.shallot.example')).split('\n')
    expect(lines.map((line) => line.replaceAll('"', '')).sort()).toEqual([...long].sort())
    expect(await dig('TXT', 'long.shallot.example')).toMatch(/\(TCP\)/)
    expect(await dig('+ignore', '+noedns', 'TXT', 'long.shallot.example')).toMatch(/flags: qr tc /)
  })

  it('takes private addresses out, and leaves the others', async () => {
    expect(await short('mixed.shallot.example')).toBe('192.0.2.3')
    expect(await dig('inner.shallot.example')).toMatch(/status: NOERROR[\s\S]*ANSWER: 0/)
  })

  it('remembers, and counts the time to live down', async () => {
    const ttl = async (): Promise<number> => Number(/^host\S+\s+(\d+)/m.exec(await dig('host.shallot.example'))?.[1])
    expect(await ttl()).toBeLessThanOrEqual(77)
    const { remembered } = service.counts
    await new Promise((resolve) => setTimeout(resolve, 1100))
    expect(await ttl()).toBeLessThan(77)
    expect(service.counts.remembered).toBe(remembered + 1)
  })

  it('echoes the capitals of the question', async () => {
    expect(await dig('HoSt.ShAlLoT.example')).toMatch(/^HoSt\.ShAlLoT\.example\..*192\.0\.2\.1/m)
  })

  it.each([
    ['ANY', 'host.shallot.example', 'REFUSED'],
    ['AXFR', 'shallot.example', 'REFUSED'],
    ['IXFR=1', 'shallot.example', 'REFUSED'],
  ])('refuses %s', async (type, name, status) => {
    expect(await dig(...(type === 'ANY' ? ['+tcp'] : []), '+noall', '+comments', '+onesoa', name, type)).toMatch(
      status === 'REFUSED' ? /REFUSED|Transfer failed/ : status,
    )
  })

  it('says no to what is asked of the server itself, to updates and to other versions of EDNS', async () => {
    expect(await dig('CH', 'TXT', 'version.bind')).toMatch(/status: REFUSED/)
    expect(await dig('+opcode=5', 'shallot.example', 'SOA')).toMatch(/status: REFUSED/)
    expect(await dig('+opcode=2', 'shallot.example', 'SOA')).toMatch(/status: NOTIMP/)
    expect(await dig('+edns=7', '+noednsneg', 'host.shallot.example')).toMatch(/status: BADVERS/)
  })

  it.each([
    ['printer.local', 'A', /NXDOMAIN[\s\S]*local\.\s+\d+\s+IN\s+SOA/],
    ['abc.onion', 'A', /NXDOMAIN/],
    ['x.home.arpa', 'AAAA', /NXDOMAIN/],
    ['localhost', 'A', /NOERROR[\s\S]*127\.0\.0\.1/],
    ['any.localhost', 'AAAA', /NOERROR[\s\S]*::1/],
    ['localhost', 'MX', /NOERROR[\s\S]*ANSWER: 0/],
    ['1.1.168.192.in-addr.arpa', 'PTR', /NXDOMAIN/],
    ['1.0.0.127.in-addr.arpa', 'PTR', /localhost\./],
    ['_dns.resolver.arpa', 'SVCB', /NOERROR[\s\S]*ANSWER: 0/],
    ['ipv4only.arpa', 'A', /192\.0\.0\.170/],
  ])('answers %s %s here, and nobody hears of it', async (name, type, answer) => {
    const asked = dnsmasq.log.length
    const { questions } = forwarder.counts
    expect(await dig(name, type)).toMatch(answer)
    expect(forwarder.counts.questions).toBe(questions)
    expect(dnsmasq.log.length).toBe(asked)
  })

  it('never passes on where the asker is, nor any other option', async () => {
    expect(await dig('+subnet=198.51.100.0/24', '+nsid', 'text.shallot.example', 'TXT')).not.toMatch(/CLIENT-SUBNET|NSID/)
  })
})
