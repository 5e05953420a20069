/**
 * Run in a network namespace by autonat.test.ts: nodes on public-looking addresses of the loopback device, since AutoNAT refuses private ones. Prints one line of JSON.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import net from 'node:net'
import { autoNATv2 } from '@libp2p/autonat-v2'
import { multiaddr } from '@multiformats/multiaddr'
import { SeededRandom, silentLogger } from '../../src/base/index.ts'
import { createHost, type Host, outboundAddressFor } from '../../src/link/index.ts'
import { DialBack, type DialBackHelper, dialBackConfig } from '../../src/nat/index.ts'

const SERVER = '11.1.0.1'
const SECOND = '11.2.0.1'
const ASKER = '11.3.0.1'
const VICTIM = '11.4.0.1'

function prepare(): void {
  execFileSync('ip', ['link', 'set', 'lo', 'up'])
  for (const address of [SERVER, SECOND, ASKER, VICTIM]) execFileSync('ip', ['address', 'add', `${address}/32`, 'dev', 'lo'])
}

const outboundFrom =
  (address: string) =>
  (host: string): string | undefined =>
    outboundAddressFor(host, address, [])

interface Ours {
  readonly host: Host
  readonly dialBack: DialBack
}

async function ours(address: string, helpers: () => readonly DialBackHelper[] = () => []): Promise<Ours> {
  const host = await createHost({
    key: new Uint8Array(randomBytes(32)),
    mode: 'server',
    listen: [`/ip4/${address}/tcp/4460`],
    outboundAddress: address,
  })
  const dialBack = new DialBack({
    libp2p: host.libp2p,
    config: dialBackConfig.parse({ connectTimeoutMs: 2_500 }),
    privateAddresses: false,
    helpers,
    ownAddresses: () => host.addresses(),
    outboundAddressFor: outboundFrom(address),
    now: () => performance.now(),
    random: new SeededRandom(7),
    logger: silentLogger,
  })
  await dialBack.start()
  await dialBack.serve(true)
  return { host, dialBack }
}

/** libp2p's own AutoNAT v2, both sides, over the same host. */
async function theirs(address: string): Promise<Host> {
  return createHost({
    key: new Uint8Array(randomBytes(32)),
    mode: 'server',
    listen: [`/ip4/${address}/tcp/4460`],
    outboundAddress: address,
    services: { autoNAT: autoNATv2() as never },
  })
}

const helperOf = (host: Host): DialBackHelper => ({ id: host.id, addresses: host.addresses() })

/** Our client asks libp2p's server. */
async function askTheirs(): Promise<unknown> {
  const server = await theirs(SERVER)
  const second = await theirs(SECOND)
  const asker = await ours(ASKER, () => [server, second].map(helperOf))
  const signal = AbortSignal.timeout(30_000)
  const open = await asker.dialBack.check(`/ip4/${ASKER}/tcp/4460`, signal)
  const closed = await asker.dialBack.check(`/ip4/${ASKER}/tcp/9`, signal)
  const elsewhere = await asker.dialBack.check(`/ip4/${VICTIM}/tcp/9`, signal)
  return { open: verdicts(open), closed: verdicts(closed), elsewhere: verdicts(elsewhere) }
}

/** libp2p's client asks our server. */
async function askOurs(): Promise<unknown> {
  const server = await ours(SERVER)
  const asker = await theirs(ASKER)
  await asker.libp2p.dial(multiaddr(`/ip4/${SERVER}/tcp/4460/p2p/${server.host.id}`))
  const manager = (asker.libp2p as unknown as { components: { addressManager: AddressManager } }).components.addressManager
  const isVerified = (): boolean =>
    manager.getAddressesWithMetadata().some(({ multiaddr, verified }) => verified && String(multiaddr).includes(ASKER))
  for (let i = 0; i < 200 && !isVerified(); i++) await new Promise((resolve) => setTimeout(resolve, 50))
  return { verified: isVerified(), stats: server.dialBack.stats }
}

interface AddressManager {
  getAddressesWithMetadata(): readonly { readonly multiaddr: unknown; readonly verified: boolean }[]
}

function verdicts(round: { verdicts: readonly { verdict: string }[] }): string[] {
  return round.verdicts.map(({ verdict }) => verdict)
}

/**
 * Bytes on the wire, IP headers and all, in both directions. `target`: what stands at the address that is to be dialled.
 * `own`: whether that is the asker's own address.
 */
async function measure(target: 'node' | 'silent' | 'hostile' | 'nothing' | 'dropped', own: boolean): Promise<unknown> {
  const server = await ours(SERVER)
  const asker = await ours(ASKER, () => [helperOf(server.host)])
  const at = own ? ASKER : VICTIM
  const port = target === 'node' && own ? 4460 : 5000
  const sockets: net.Socket[] = []
  if (target === 'silent' || target === 'hostile') {
    const listener = net.createServer((socket) => {
      sockets.push(socket)
      socket.on('error', () => {})
      if (target === 'silent') return void socket.pause()
      // Answers everything that is offered with everything that could make the other side say more.
      socket.on(
        'data',
        (chunk) => void socket.write(Buffer.concat([chunk, Buffer.from('\x13/multistream/1.0.0\n\x03na\n\x07/noise\n'), randomBytes(500)])),
      )
    })
    await new Promise<void>((resolve) => listener.listen(port, at, resolve))
  }
  const rules = [
    'table inet count {',
    'counter to_target {}',
    'counter to_asker {}',
    'counter from_asker {}',
    '  chain output { type filter hook output priority 0; policy accept;',
    `    ip saddr ${SERVER} ip daddr ${at} tcp dport ${port} counter name to_target`,
    `    ip saddr ${SERVER} ip daddr ${ASKER} counter name to_asker`,
    `    ip saddr ${ASKER} ip daddr ${SERVER} counter name from_asker`,
    '  }',
    '  chain input { type filter hook input priority 0; policy accept;',
    ...(target === 'dropped' ? [`    ip daddr ${at} tcp dport ${port} drop`] : []),
    '  }',
    '}',
  ]
  execFileSync('nft', ['-f', '-'], { input: rules.join('\n') })
  const round = await asker.dialBack.check(`/ip4/${at}/tcp/${port}`, AbortSignal.timeout(30_000))
  // What is sent again because nobody answers.
  await new Promise((resolve) => setTimeout(resolve, target === 'node' ? 200 : 4_000))
  const bytes = (name: string): number => {
    const text = execFileSync('nft', ['list', 'counter', 'inet', 'count', name]).toString()
    return Number(/bytes (\d+)/.exec(text)![1])
  }
  return {
    verdicts: verdicts(round),
    toTarget: bytes('to_target'),
    toAsker: bytes('to_asker'),
    fromAsker: bytes('from_asker'),
    stats: server.dialBack.stats,
  }
}

prepare()
const [what, ...how] = process.argv.slice(2)
const result =
  what === 'ask-theirs'
    ? await askTheirs()
    : what === 'ask-ours'
      ? await askOurs()
      : await measure(how[0] as Parameters<typeof measure>[0], how[1] === 'own')
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
