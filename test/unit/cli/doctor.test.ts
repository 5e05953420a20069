import { describe, expect, test } from 'vitest'
import { type ClockFacts, clockFinding } from '../../../src/cli/doctor/clock.ts'
import type { Finding } from '../../../src/cli/doctor/finding.ts'
import type { DirectoryFacts, MachineFacts } from '../../../src/cli/doctor/machine.ts'
import { directoryFindings, machineFindings, nodeFindings } from '../../../src/cli/doctor/machine-checks.ts'
import { bootstrapFinding, type StatusToJudge, statusFindings, versionFinding } from '../../../src/cli/doctor/network-checks.ts'
import { type PortFacts, portFindings, wantedPorts } from '../../../src/cli/doctor/ports.ts'
import { type NodeConfig, parseConfig } from '../../../src/node/index.ts'
import { fakeStatus } from '../../support/fake-node.ts'

// Each judgement by facts that are good, bad and unknown; whole runs are in test/integration.

const HOUR = 3_600_000
const NOW = Date.UTC(2026, 10, 21, 12)

const only = (findings: readonly Finding[], check: string): Finding => {
  const found = findings.filter((one) => one.check === check)
  expect(found, JSON.stringify(findings)).toHaveLength(1)
  return found[0]!
}

/** What is wrong has something to do; what is right has not. */
const says = ({ result, message, advice }: Finding, wanted: Finding['result'], what: RegExp, todo?: RegExp): void => {
  expect([result, message]).toEqual([wanted, expect.stringMatching(what)])
  if (wanted === 'warn' || wanted === 'fail') expect(advice).toMatch(todo ?? /./)
  else if (todo) expect(advice).toMatch(todo)
  else expect(wanted === 'ok' ? advice : null).toBeNull()
}

async function configOf(roles: string, more = ''): Promise<NodeConfig> {
  const text = `[node]\nroles = ${roles}\n${more}`
  return parseConfig(
    text,
    '/n/shallot.toml',
    async () => 'bootstrap = ["/ip4/198.51.100.7/tcp/4460/p2p/12D3KooWLgxpKV6kdPUHbwafpUHn29Qoou7DkGMT3HzHQ21ZAd7M"]\n',
  )
}
const listening = (port: number): string => `[link]\nlisten = ["/ip4/0.0.0.0/tcp/${port}"]\n`

const machine: MachineFacts = {
  platform: 'linux',
  cores: 2,
  openFilesLimit: 65_536,
  openFiles: 40,
  totalBytes: 4e9,
  availableBytes: 2e9,
  memoryLimitBytes: null,
  capabilities: 0n,
  tunDevice: 'usable',
  userNamespaces: true,
  globalIpv6: false,
  hasNetwork: true,
}

describe('the clock', () => {
  const network: NonNullable<ClockFacts['network']> = {
    publishedAt: [NOW - HOUR / 2, NOW - HOUR, NOW - 60_000],
    syncedAt: NOW - 30_000,
    refused: { future: 0, expired: 0 },
    republishMs: HOUR,
    toleranceMs: 600_000,
  }
  const finding = (change: Partial<ClockFacts> & { readonly net?: Partial<typeof network> } = {}): Finding =>
    clockFinding({ now: NOW, notBefore: null, network: { ...network, ...change.net }, ...change })

  test('agrees with relays', () => says(finding(), 'ok', /agrees with what 3 relays say/))
  test('is behind where relays published later than now', () =>
    says(finding({ net: { publishedAt: [NOW, NOW, NOW + 300_000] } }), 'fail', /at least 5 min behind/, /set-ntp|chronyc/))
  test('is far behind where most descriptors are refused as of the future', () =>
    says(
      finding({ net: { publishedAt: [], syncedAt: null, refused: { future: 7, expired: 0 } } }),
      'fail',
      /at least 10 min behind that of 7 relays/,
    ))
  test('is not judged by one liar who dates ahead', () => says(finding({ net: { refused: { future: 3, expired: 0 } } }), 'ok', /agrees/))
  test('is ahead where nobody has published for long', () =>
    says(finding({ net: { publishedAt: [NOW - 3 * HOUR, NOW - 4 * HOUR, NOW - 3 * HOUR] } }), 'warn', /last 3 h: the clock may be ahead/))
  test('may be right where the view is as old as the descriptors', () =>
    says(finding({ net: { publishedAt: [NOW - 9 * HOUR, NOW - 9 * HOUR, NOW - 9 * HOUR], syncedAt: NOW - 9 * HOUR } }), 'ok', /agrees/))
  test('is hours ahead where everything has expired', () =>
    says(finding({ net: { publishedAt: [], refused: { future: 0, expired: 9 } } }), 'fail', /hours ahead/))
  test('is not known with few relays, or without the node', () => {
    says(finding({ net: { publishedAt: [NOW] } }), 'note', /too few relays/)
    says(finding({ network: null }), 'note', /only while the node runs/)
  })
  test('is behind where something here bears a later date, also without the node', () =>
    says(
      finding({ network: null, notBefore: { what: "the network file's signature", at: NOW + 49 * HOUR } }),
      'fail',
      /2 d 1 h behind the date of the network file's signature/,
    ))
})

describe('the version', () => {
  const protocols = { circuit: [1], link: [1] } as unknown as NodeConfig['network']['protocols']
  const fleet = (...versions: string[]): string[] => versions.map((version) => `shallot ${version}`)

  test('is not older than what most run', () =>
    says(versionFinding(protocols, fleet('1.2.0', '1.1.0', '1.3.0', 'x'), '1.2.0', '1.2.0'), 'ok', /not older/))
  test('is old where most run something newer', () =>
    says(
      versionFinding(protocols, fleet('1.10.0', '1.9.1', '1.2.0'), '1.2.0', '1.2.0'),
      'warn',
      /2 of 3 relays .* up to 1\.10\.0/,
      /upgrade/,
    ))
  test('of the node is older than that of the program after an upgrade', () =>
    says(versionFinding(protocols, fleet('1.2.0'), '1.1.0', '1.2.0'), 'warn', /still runs version 1\.1\.0/, /restart/))
  test('does not speak what the network asks for', () =>
    says(versionFinding({ circuit: [2], link: [1] } as unknown as typeof protocols, null, null), 'fail', /does not speak/, /upgrade/))
  test('is not compared without the node, or with few relays', () => {
    says(versionFinding(protocols, null, null, '1.2.0'), 'note', /version 1\.2\.0; what others run/)
    says(versionFinding(protocols, fleet('1.2.0'), '1.2.0', '1.2.0'), 'note', /too few/)
  })
})

describe('the machine', () => {
  const finding = async (check: string, change: Partial<MachineFacts>, config: NodeConfig | null): Promise<Finding> =>
    only(machineFindings({ ...machine, ...change }, config), check)

  test('lets the process open enough files, or too few, or nobody knows', async () => {
    const relay = await configOf('["middle"]', listening(4460))
    says(await finding('open-files', {}, relay), 'ok', /65536 files/)
    says(await finding('open-files', { openFilesLimit: Number.MAX_SAFE_INTEGER }, relay), 'ok', /any number/)
    says(
      await finding('open-files', { openFilesLimit: 256 }, relay),
      'warn',
      /256 files .* 16384 are wanted/,
      /LimitNOFILE.*ulimit.*--ulimit/,
    )
    says(await finding('open-files', { openFilesLimit: 4096 }, await configOf('["client"]')), 'ok', /4096/)
    says(await finding('open-files', { openFilesLimit: 1000, openFiles: 950 }, relay), 'fail', /950 of 1000 files/, /LimitNOFILE/)
    says(await finding('open-files', { openFilesLimit: null, openFiles: null }, relay), 'note', /not known/)
  })

  test('has memory, for a node at rest and under load', async () => {
    const relay = await configOf('["middle"]', listening(4460))
    says(await finding('memory', {}, relay), 'ok', /2\.0 GB of memory are free/)
    says(await finding('memory', { memoryLimitBytes: 512e6 }, relay), 'ok', /control group allows 512/)
    says(
      await finding('memory', { memoryLimitBytes: 200e6 }, relay),
      'warn',
      /under load .* 264/,
      /MemoryMax=, or lower relaying\.queue_budget_bytes/,
    )
    says(await finding('memory', { memoryLimitBytes: 200e6 }, await configOf('["client"]')), 'ok', /free/)
    says(await finding('memory', { memoryLimitBytes: 64e6 }, relay), 'fail', /at rest takes 130/, /MemoryMax/)
    says(await finding('memory', { availableBytes: 30e6 }, relay), 'warn', /only 30/, /swap/)
  })

  test('gives the rights that the configuration needs, and no more is asked for', async () => {
    const client = await configOf('["client"]')
    const tun = await configOf('["exit"]', `${listening(4460)}[exit]\npackets = "tun"\n`)
    says(await finding('privileges', {}, await configOf('["middle"]', listening(4460))), 'ok', /rights/)
    says(await finding('tun', {}, client), 'note', /vpn up.*CAP_NET_ADMIN/, /docs\/vpn\.md/)
    says(await finding('tun', { tunDevice: 'missing' }, client), 'note', /no \/dev\/net\/tun/, /vpn\.md/)
    says(await finding('privileges', { capabilities: 1n << 12n }, client), 'ok', /rights/)
    says(await finding('tun', {}, tun), 'fail', /no CAP_NET_ADMIN/, /shallot-exit-tun\.conf.*netstack/)
    says(await finding('tun', { capabilities: 1n << 12n, tunDevice: 'missing' }, tun), 'fail', /no \/dev\/net\/tun/)
    says(await finding('tun', { capabilities: 1n << 12n, tunDevice: 'denied' }, tun), 'fail', /can't be opened/)
    says(await finding('privileges', { capabilities: 1n << 12n }, tun), 'ok', /rights/)
    says(await finding('namespaces', { userNamespaces: false }, client), 'warn', /ordinary users may not/, /sysctl/)
    says(await finding('privileges', { platform: 'darwin', capabilities: null }, client), 'note', /Linux only/)
  })

  test('has IPv6 as the configuration wants it', async () => {
    const four = await configOf('["middle"]', listening(4460))
    const six = await configOf('["middle"]', '[link]\nlisten = ["/ip6/::/tcp/4460"]\n')
    says(await finding('ipv6', {}, four), 'ok', /no IPv6, and nothing asks/)
    says(await finding('ipv6', { globalIpv6: true }, four), 'note', /does not listen there/, /\/ip6\//)
    says(await finding('ipv6', {}, six), 'warn', /no global IPv6 address/, /link\.listen/)
    says(await finding('ipv6', { globalIpv6: true }, six), 'ok', /has IPv6/)
  })
})

describe('the directory', () => {
  const good: DirectoryFacts = {
    exists: true,
    isWritable: true,
    ownedByOther: false,
    ownerUid: 0,
    open: [],
    damaged: [],
    freeBytes: 9e9,
    freeFiles: 1e6,
    newestAt: NOW,
  }
  const findings = (change: Partial<DirectoryFacts> = {}): Finding[] => directoryFindings('/n', { ...good, ...change })

  test("is there, the owner's alone, and can be written", () => {
    says(only(findings(), 'directory'), 'ok', /owner's alone/)
    says(only(findings({ exists: false }), 'directory'), 'fail', /no directory \/n/, /shallot init/)
    says(only(findings({ isWritable: false }), 'directory'), 'fail', /can't be written/, /chown/)
    says(only(findings({ ownedByOther: true, isWritable: false }), 'directory'), 'note', /another user/)
    says(only(findings({ open: ['keys/identity'] }), 'directory'), 'fail', /may read keys\/identity/, /chmod/)
    says(only(findings({ damaged: ['view.corrupt-1'] }), 'directory'), 'warn', /view\.corrupt-1/, /disk/)
  })

  test('has room', () => {
    says(only(findings(), 'disk'), 'ok', /9\.0 GB/)
    says(only(findings({ freeBytes: 100e6 }), 'disk'), 'warn', /only 100/, /room/)
    says(only(findings({ freeBytes: 1e6 }), 'disk'), 'fail', /full/, /keys nor the view/)
    says(only(findings({ freeFiles: 3 }), 'disk'), 'fail', /3 more files/, /room/)
    says(only(findings({ freeBytes: null, freeFiles: null }), 'disk'), 'note', /not known/)
  })
})

test('the node runs, or not, and for whom is asked', () => {
  says(only(nodeFindings({ pid: 7, uptimeMs: 2 * HOUR }, '/n', 0, 5), 'node'), 'ok', /process 7, for 2 h/)
  says(only(nodeFindings(null, '/n', 1000, 1000), 'node'), 'note', /does not run/, /shallot run --dir \/n/)
  says(only(nodeFindings(null, '/n', 0, 990), 'user'), 'note', /you are root, and the node is that of user 990/, /setpriv --reuid 990/)
  expect(nodeFindings(null, '/n', 0, 0)).toHaveLength(1)
})

describe('ports', () => {
  const facts = (problem: string | null, protocol: 'tcp' | 'udp' = 'tcp'): PortFacts[] => [
    { key: 'link.listen', protocol, host: '0.0.0.0', port: 4460, problem },
  ]

  test('are free, or taken, or not to be had', () => {
    says(only(portFindings(facts(null)), 'ports'), 'ok', /free.*4460/)
    says(only(portFindings([]), 'ports'), 'ok', /takes any/)
    says(only(portFindings(facts('EADDRINUSE')), 'ports'), 'fail', /TCP port 4460 of 0\.0\.0\.0 is taken/, /ss -lntp/)
    says(only(portFindings(facts('EADDRINUSE', 'udp')), 'ports'), 'fail', /UDP port 4460/, /ss -lnup/)
    says(only(portFindings(facts('EADDRNOTAVAIL')), 'ports'), 'fail', /no address of this machine/, /node\.advertise/)
    says(only(portFindings(facts('EACCES')), 'ports'), 'fail', /may not be taken by this user/, /CAP_NET_BIND_SERVICE/)
    says(only(portFindings(facts('EMFILE')), 'ports'), 'fail', /EMFILE/, /configuration\.md/)
  })

  test('are those that the configuration takes at the start', async () => {
    const relay = await configOf('["middle"]', `${listening(4460)}[metrics]\nlisten = ["127.0.0.1:9297"]\n`)
    expect(wantedPorts(relay).map(({ key, port }) => [key, port])).toEqual([
      ['link.listen', 4460],
      ['metrics.listen', 9297],
    ])
    const client = await configOf(
      '["client"]',
      '[dashboard]\nenabled = true\nlisten = "127.0.0.1:9290"\n[ingress.dns]\nlisten = ["127.0.0.1:5300"]\n',
    )
    const wanted = wantedPorts(client).map(({ key, protocol, port }) => `${key} ${protocol} ${port}`)
    expect(wanted).toEqual(
      expect.arrayContaining(['dashboard.listen tcp 9290', 'ingress.dns.listen tcp 5300', 'ingress.dns.listen udp 5300']),
    )
    const any = await configOf(
      '["client"]',
      '[ingress.socks]\nlisten = ["127.0.0.1:0"]\n[ingress.http]\nlisten = []\n[ingress.dns]\nlisten = []\n',
    )
    expect(wantedPorts(any)).toEqual([])
  })
})

describe('the network', () => {
  const status: StatusToJudge = {
    ...fakeStatus,
    uptimeMs: HOUR,
    warnings: [],
    relaying: null,
    stun: null,
    natRelay: null,
    draining: null,
    ready: true,
  }
  const nobody = { ...status.view, known: { ...status.view.known, total: 0 } }
  const finding = (change: Partial<StatusToJudge> = {}, hasNetwork = true): Finding =>
    only(statusFindings({ ...status, ...change }, hasNetwork), 'network')

  test('is there, or not yet, or not at all', () => {
    says(finding(), 'ok', /ready and knows 6 relays/)
    const outage = { code: 'exits-unreachable', message: 'nothing can be reached: no exit answers', advice: 'wait', since: 0 } as const
    says(finding({ ready: false, outage }), 'fail', /no exit answers/, /wait/)
    const told = statusFindings({ ...status, outage, warnings: [{ code: outage.code, message: 'the same; wait', since: 0 }] }, true)
    expect(told.filter(({ result }) => result !== 'ok').map(({ check }) => check)).toEqual(['network'])
    says(finding({ view: nobody, ready: false }), 'fail', /knows no relay/, /bootstrap.*clock/)
    says(finding({ view: nobody, roles: ['bootstrap'] }), 'note', /first node of a network/, /network\.toml/)
    says(finding({ view: nobody, ready: false, uptimeMs: 5_000 }), 'note', /just been started/, /in a minute/)
    says(finding({ ready: false, uptimeMs: 5_000 }), 'note', /just been started/, /in a minute/)
    says(finding({ ready: false }), 'warn', /has run for 1 h, knows 6 relays, and is not ready/, /shallot circuits/)
    says(finding({ ready: false, client: null }), 'warn', /not ready/, /netcheck/)
    says(finding({ ready: false }, false), 'fail', /this machine has no network/, /ip route/)
    says(finding({ ready: false, guards: [{ state: 'unreachable' }, { state: 'sampled' }] }), 'fail', /none of the 1 guards/, /TCP/)
    says(finding({ ready: false, guards: [{ state: 'unreachable' }, { state: 'primary' }] }), 'warn', /not ready/)
  })

  test('tells of warnings, of how others reach the node, and of leaving', () => {
    const all = statusFindings(
      {
        ...status,
        warnings: [{ code: 'state-corrupt', message: 'the view was damaged', since: 0 }],
        relaying: {},
        reachability: 'relayed',
        draining: { since: 0, until: 1, circuitsLeft: 4 } as StatusToJudge['draining'],
      },
      true,
    )
    says(only(all, 'state-corrupt'), 'warn', /damaged/, /shallot logs/)
    says(only(all, 'reachability'), 'warn', /only through a relay/, /netcheck/)
    says(only(all, 'draining'), 'note', /4 circuits are left/)
    says(only(statusFindings({ ...status, stun: {}, reachability: 'punchable' }, true), 'reachability'), 'warn', /hole punching/)
    expect(statusFindings({ ...status, reachability: 'relayed' }, true).map(({ check }) => check)).toEqual(['network'])
  })

  test('can be entered, or is down, or blocked', () => {
    const entry = (problems: readonly (string | null)[], change = {}): Finding =>
      bootstrapFinding({ isBootstrap: false, hasNetwork: true, triedInVain: false, problems, ...change })
    says(entry([null, 'ETIMEDOUT']), 'ok', /1 of 2 bootstrap nodes/)
    says(entry([null], { triedInVain: true }), 'fail', /1 of 1 .* came to terms with none: the clock/, /date -u/)
    says(entry(['ETIMEDOUT'], { triedInVain: true }), 'fail', /no bootstrap node answers/)
    says(entry([]), 'fail', /nothing names a bootstrap node/, /newest network\.toml/)
    says(entry([], { isBootstrap: true }), 'ok', /itself where the network begins/)
    says(entry(['ENETUNREACH'], { hasNetwork: false }), 'fail', /no network/, /ip address/)
    says(entry(['ECONNREFUSED']), 'fail', /^the bootstrap node refuses/, /another network/)
    says(entry(['ECONNREFUSED', 'ECONNREFUSED']), 'fail', /all 2 bootstrap nodes refuse/)
    says(entry(['ETIMEDOUT', 'EHOSTUNREACH', 'ETIMEDOUT']), 'fail', /ETIMEDOUT, EHOSTUNREACH.*firewall/, /outgoing TCP/)
  })
})
