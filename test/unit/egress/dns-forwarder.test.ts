import { createSocket } from 'node:dgram'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { formatIp, parseIp, silentLogger } from '../../../src/base/index.ts'
import {
  type DnsMessage,
  DnsType,
  decodeMessage,
  encodeAnswer,
  encodeName,
  encodeQuestion,
  encodeUnread,
  Flag,
  FrameReader,
  frameMessage,
  Rcode,
} from '../../../src/dns/index.ts'
import { parseResolvConf } from '../../../src/egress/dns/servers.ts'
import { createDnsForwarder, type DnsForwarder, type DnsForwarderModules, exitConfig, type Resolver } from '../../../src/egress/index.ts'
import { NotFound } from '../../../src/egress/lookup-cache.ts'
import { ByteRate } from '../../../src/egress/throttle.ts'
import { temporaryFolder, until } from '../../support/processes.ts'
import { dnsAnswer, RawDnsServer, txtData } from '../../support/raw-dns-server.ts'

const noResolver: Resolver = {
  addresses: () => Promise.reject(new Error('the system is not asked')),
  names: () => Promise.reject(new Error('the system is not asked')),
}
const four = (last: number): Uint8Array => Uint8Array.of(192, 0, 2, last)

let server: RawDnsServer
let now = 0
const forwarders: DnsForwarder[] = []
const servers: RawDnsServer[] = []

beforeEach(async () => {
  now = 0
  server = await serve((asked) => [dnsAnswer(asked, [four(1)])])
})
afterEach(() => {
  for (const one of forwarders.splice(0)) one.close()
  for (const one of servers.splice(0)) one.close()
})

async function serve(script: RawDnsServer['script']): Promise<RawDnsServer> {
  const one = await RawDnsServer.start(script)
  servers.push(one)
  return one
}

function forwarder(config: { dns?: object; [key: string]: unknown } = {}, modules: Partial<DnsForwarderModules> = {}): DnsForwarder {
  const one = createDnsForwarder({
    config: exitConfig.parse({
      resolvers: [server.address],
      resolveTimeoutMs: 5000,
      ...config,
      dns: { attemptTimeoutMs: 2500, ...config.dns },
    }),
    resolver: noResolver,
    allowAddress: (ip) => !formatIp(ip).startsWith('10.') && !formatIp(ip).startsWith('127.') && formatIp(ip) !== '::1',
    now: () => now,
    logger: silentLogger,
    ...modules,
  })
  forwarders.push(one)
  return one
}

/** A client's end of a stream. */
class Asker {
  readonly stream: Duplex
  readonly answers = new Map<number, DnsMessage>()
  readonly order: number[] = []
  ended = false
  error: Error | null = null
  #id = 0

  constructor(stream: Duplex) {
    const reader = new FrameReader()
    this.stream = stream
    stream.on('data', (chunk: Uint8Array) => {
      for (const bytes of reader.push(chunk)) {
        const answer = decodeMessage(bytes)
        this.answers.set(answer.id, answer)
        this.order.push(answer.id)
      }
    })
    stream.on('end', () => {
      this.ended = true
    })
    stream.on('error', (error) => {
      this.error = error
    })
  }

  /** Writes a question; its id. */
  send(name: string, type: number = DnsType.A, more: { dnssecOk?: boolean; cd?: boolean; edns?: boolean } = {}): number {
    const id = ++this.#id
    const edns = more.edns === false ? null : { udpBytes: 1232, dnssecOk: more.dnssecOk ?? false }
    this.stream.write(
      frameMessage(encodeQuestion({ id, question: { wire: encodeName(name), type, class: 1 }, edns, checkingDisabled: more.cd ?? false })),
    )
    return id
  }

  async ask(name: string, type?: number, more?: { dnssecOk?: boolean; cd?: boolean; edns?: boolean }): Promise<DnsMessage> {
    const id = this.send(name, type, more)
    return until(`an answer to ${name}`, 5000, () => this.answers.get(id), 2)
  }
}

const asker = (one: DnsForwarder): Asker => new Asker(one.openCircuit().connect())
const data = (answer: DnsMessage): string[] =>
  answer.records
    .filter(({ type }) => type !== DnsType.OPT)
    .map(({ dataAt, end }) => Buffer.from(answer.bytes.subarray(dataAt, end)).toString('hex'))

describe('a question', () => {
  it('reaches the server with a fresh id and port, EDNS 1232, and nothing of the client', async () => {
    const client = asker(forwarder())
    const options = encodeQuestion({
      id: 7,
      question: { wire: encodeName('A.example'), type: 1, class: 1 },
      edns: { udpBytes: 4096, dnssecOk: true },
    })
    // A client subnet behind the OPT record's fields.
    const subnet = Uint8Array.of(0, 8, 0, 7, 0, 1, 24, 0, 198, 51, 100)
    const bytes = new Uint8Array([...options, ...subnet])
    new DataView(bytes.buffer).setUint16(options.length - 2, subnet.length)
    client.stream.write(frameMessage(bytes))
    await until('the answer', 2000, () => client.answers.get(7))
    for (let i = 0; i < 7; i++) await client.ask(`n${i}.example`)
    const [first] = server.asked
    expect(first!.asked).toMatchObject({ question: { name: 'a.example' }, edns: { udpBytes: 1232, dnssecOk: true, version: 0 } })
    expect(first!.asked.edns!.options).toHaveLength(0)
    expect(first!.asked.flags & Flag.recursionDesired).not.toBe(0)
    expect(new Set(server.asked.map(({ from }) => from)).size).toBeGreaterThan(4)
    expect(new Set(server.asked.map(({ asked }) => asked.id)).size).toBeGreaterThan(4)
    expect(client.answers.get(7)!.edns!.options).toHaveLength(0)
  })

  it('of any type is answered byte for byte', async () => {
    const odd = Uint8Array.of(0xc0, 0x0c, 0xde, 0xad, 0, 0xff)
    server.script = (asked) => [dnsAnswer(asked, [odd, odd])]
    expect(data(await asker(forwarder()).ask('odd.example', 65_280))).toEqual(['c00cdead00ff', 'c00cdead00ff'])
  })

  it('gets its answer when that is there: later ones do not wait for earlier ones', async () => {
    server.script = async (asked) => {
      if (asked.question!.name.startsWith('slow')) await new Promise((resolve) => setTimeout(resolve, 100))
      return [dnsAnswer(asked, [four(1)])]
    }
    const client = asker(forwarder())
    const [slow, fast] = [client.send('slow.example'), client.send('fast.example')]
    await until('both', 2000, () => client.order.length === 2)
    expect(client.order).toEqual([fast, slow])
  })

  it('is asked by TCP when the answer is truncated, and comes whole', async () => {
    const text = 'y'.repeat(4000)
    server.script = (asked, via) => {
      if (via === 'tcp') return [dnsAnswer(asked, [txtData(text)])]
      const cut = dnsAnswer(asked, [])
      cut[2]! |= 2
      return [cut]
    }
    const answer = await asker(forwarder()).ask('long.example', DnsType.TXT)
    expect(data(answer)).toEqual([Buffer.from(txtData(text)).toString('hex')])
    expect(server.asked.map(({ via }) => via)).toEqual(['udp', 'tcp'])
    await until('the connection is over', 2000, () => server.open === 0)
  })

  it('is asked without EDNS where the server does not know it', async () => {
    server.script = (asked) => [asked.edns === null ? dnsAnswer(asked, [four(9)]) : encodeUnread(asked.bytes, Rcode.formErr)]
    expect(data(await asker(forwarder()).ask('old.example'))).toEqual(['c0000209'])
    expect(server.asked.map(({ asked }) => asked.edns === null)).toEqual([false, true])
  })
})

describe('what is no answer', () => {
  it.each<[string, (asked: DnsMessage) => Uint8Array]>([
    ['another id', (asked) => dnsAnswer({ ...asked, id: asked.id ^ 1 }, [four(66)])],
    [
      'another question',
      (asked) => dnsAnswer({ ...asked, question: { ...asked.question!, name: 'b', wire: encodeName('evil.example') } }, [four(66)]),
    ],
    ['another type', (asked) => dnsAnswer({ ...asked, question: { ...asked.question!, type: 28 } }, [new Uint8Array(16)])],
    ['a question itself', (asked) => asked.bytes],
    ['no question', (asked) => encodeUnread(asked.bytes, Rcode.nxDomain)],
    ['rubbish', () => Uint8Array.of(1, 2, 3)],
  ])('is passed over: %s', async (_, lie) => {
    server.script = (asked) => [lie(asked), lie(asked), dnsAnswer(asked, [four(1)])]
    const one = forwarder()
    expect(data(await asker(one).ask('a.example'))).toEqual(['c0000201'])
    expect(one.counts.foreign).toBe(2)
  })

  it('comes from elsewhere: a connected socket does not hear it', async () => {
    const foreigner = createSocket('udp4')
    server.script = async (asked) => {
      const { from } = server.asked.at(-1)!
      await new Promise((resolve) => foreigner.send(dnsAnswer(asked, [four(66)]), from, '127.0.0.1', resolve))
      await new Promise((resolve) => setTimeout(resolve, 30))
      return [dnsAnswer(asked, [four(1)])]
    }
    const one = forwarder()
    expect(data(await asker(one).ask('a.example'))).toEqual(['c0000201'])
    expect(one.counts.foreign).toBe(0)
    foreigner.close()
  })

  it('comes in a flood: then TCP is asked, where nobody guesses', async () => {
    server.script = (asked, via) =>
      via === 'tcp'
        ? [dnsAnswer(asked, [four(1)])]
        : Array.from({ length: 20 }, (_, i) => dnsAnswer({ ...asked, id: (asked.id + 1 + i) & 0xffff }, [four(66)]))
    expect(data(await asker(forwarder()).ask('a.example'))).toEqual(['c0000201'])
    expect(server.asked.map(({ via }) => via)).toEqual(['udp', 'tcp'])
  })

  it('is broken: another server is asked', async () => {
    const good = await serve((asked) => [dnsAnswer(asked, [four(2)])])
    server.script = (asked) => [dnsAnswer(asked, [four(1)]).slice(0, -9)]
    const answer = await asker(forwarder({ resolvers: [server.address, good.address] })).ask('a.example')
    expect(data(answer)).toEqual(['c0000202'])
  })
})

describe('servers that fail', () => {
  const quick = { attemptTimeoutMs: 150 }

  it('are passed over for the next, which stays the first', async () => {
    const good = await serve((asked) => [dnsAnswer(asked, [four(2)])])
    server.script = () => []
    const one = forwarder({ resolvers: [server.address, good.address], dns: quick })
    const client = asker(one)
    expect(data(await client.ask('a.example'))).toEqual(['c0000202'])
    expect(data(await client.ask('b.example'))).toEqual(['c0000202'])
    expect([server.asked.length, good.asked.length]).toEqual([1, 2])
  })

  it('may be late: their answer is taken while another is asked', async () => {
    const silent = await serve(() => [])
    server.script = async (asked) => {
      await new Promise((resolve) => setTimeout(resolve, 300))
      return [dnsAnswer(asked, [four(3)])]
    }
    expect(data(await asker(forwarder({ resolvers: [server.address, silent.address], dns: quick })).ask('a.example'))).toEqual(['c0000203'])
    expect(silent.asked).toHaveLength(1)
  })

  it('by refusing: what one refuses another may know, and if none does that is said, and remembered for a while', async () => {
    const other = await serve((asked) => [dnsAnswer(asked, [], 0, Rcode.servFail)])
    server.script = (asked) => [dnsAnswer(asked, [], 0, Rcode.servFail)]
    const one = forwarder({ resolvers: [server.address, other.address] })
    const client = asker(one)
    expect(await client.ask('a.example')).toMatchObject({ rcode: Rcode.servFail, question: { name: 'a.example' } })
    expect([server.asked.length, other.asked.length]).toEqual([1, 1])
    expect(await client.ask('a.example')).toMatchObject({ rcode: Rcode.servFail })
    expect([server.asked.length, other.asked.length]).toEqual([1, 1])
    now += 5001
    await client.ask('a.example')
    expect(server.asked.length + other.asked.length).toBe(4)
    expect(one.counts.failed).toBe(2)
  })

  it('by silence, all of them: SERVFAIL within the time that is set', async () => {
    server.script = () => []
    const started = performance.now()
    expect(await asker(forwarder({ resolveTimeoutMs: 400, dns: quick })).ask('a.example')).toMatchObject({ rcode: Rcode.servFail })
    expect(performance.now() - started).toBeLessThan(1500)
    expect(server.asked).toHaveLength(2)
  })

  it('by not being there: SERVFAIL at once', async () => {
    const gone = await RawDnsServer.start(() => [])
    const { address } = gone
    gone.close()
    expect(await asker(forwarder({ resolvers: [address] })).ask('a.example')).toMatchObject({ rcode: Rcode.servFail })
  })
})

describe('memory', () => {
  it('is shared by circuits, counts down, and tells DO and CD apart', async () => {
    const one = forwarder({ dnsMinTtlSeconds: 0 })
    await asker(one).ask('a.example')
    now += 100_000
    const again = await asker(one).ask('A.EXAMPLE')
    expect(again.records[0]!.ttl).toBe(200)
    expect(Buffer.from(again.question!.wire).toString()).toContain('EXAMPLE')
    expect(server.asked).toHaveLength(1)
    expect(one.counts.remembered).toBe(1)
    await asker(one).ask('a.example', 1, { dnssecOk: true })
    await asker(one).ask('a.example', 1, { cd: true })
    expect(server.asked).toHaveLength(3)
    now += 200_001
    await asker(one).ask('a.example')
    expect(server.asked).toHaveLength(4)
  })

  it('is shared while a question is under way', async () => {
    const client = asker(forwarder())
    const ids = Array.from({ length: 20 }, () => client.send('a.example'))
    await until('all', 2000, () => ids.every((id) => client.answers.has(id)))
    expect(server.asked).toHaveLength(1)
  })
})

describe('what is not told', () => {
  it('private addresses, in whatever section; the rest stays', async () => {
    server.script = (asked) => {
      const answers = [Uint8Array.of(10, 0, 0, 1), four(1)].map((one) => ({ type: 1, ttl: 60, data: one }))
      return [
        encodeAnswer(asked, {
          rcode: 0,
          answers: [{ type: 5, ttl: 60, data: encodeName('x.example') }, ...answers],
          authorities: [{ type: 1, ttl: 60, data: Uint8Array.of(127, 0, 0, 1) }],
        }),
      ]
    }
    const answer = await asker(forwarder()).ask('a.example')
    expect(answer.counts).toEqual([2, 0, 1])
    expect(data(answer)[1]).toBe('c0000201')
  })

  it.each([
    ['printer.local', Rcode.nxDomain],
    ['a.onion', Rcode.nxDomain],
    ['secret.internal', Rcode.nxDomain],
    ['box.home.arpa', Rcode.nxDomain],
    ['localhost', Rcode.noError],
    ['1.0.0.10.in-addr.arpa', Rcode.nxDomain],
  ])('%s: no server is asked', async (name, rcode) => {
    expect(await asker(forwarder()).ask(name)).toMatchObject({ rcode, counts: [0, 1, 1] })
    expect(server.asked).toHaveLength(0)
  })

  it('the names of addresses that the policy keeps, whole or not; of others they are', async () => {
    const one = forwarder({}, { allowAddress: (ip) => !formatIp(ip).startsWith('198.51.') })
    const client = asker(one)
    for (const name of ['7.100.51.198.in-addr.arpa', '51.198.in-addr.arpa'])
      expect((await client.ask(name, DnsType.PTR)).rcode).toBe(Rcode.nxDomain)
    expect(server.asked).toHaveLength(0)
    server.script = (asked) => [dnsAnswer(asked, [encodeName('n.example')])]
    for (const name of ['198.in-addr.arpa', '1.2.0.192.in-addr.arpa'])
      expect((await client.ask(name, DnsType.PTR)).rcode).toBe(Rcode.noError)
    expect(server.asked).toHaveLength(2)
  })

  it('loopback, where the network lets it be reached', async () => {
    const answer = await asker(forwarder({}, { allowAddress: () => true })).ask('localhost')
    expect(data(answer)).toEqual(['7f000001'])
  })

  it.each([
    ['ANY', 255],
    ['AXFR', 252],
    ['IXFR', 251],
    ['MAILB', 253],
  ])('%s', async (_, type) => {
    expect((await asker(forwarder()).ask('a.example', type)).rcode).toBe(Rcode.refused)
    expect(server.asked).toHaveLength(0)
  })

  it.each([
    ['an update', 0x28, Rcode.refused],
    ['a notify', 0x20, Rcode.refused],
    ['a status', 0x10, Rcode.notImp],
  ])('%s', async (_, flags, rcode) => {
    const client = asker(forwarder())
    const bytes = encodeQuestion({ id: 5, question: { wire: encodeName('a.example'), type: 6, class: 1 }, edns: null })
    bytes[2]! |= flags
    client.stream.write(frameMessage(bytes))
    expect((await until('the answer', 2000, () => client.answers.get(5))).rcode).toBe(rcode)
    expect(server.asked).toHaveLength(0)
  })
})

describe('a stream', () => {
  it('answers FORMERR to what is no question, nothing to an answer, and ends on what is no DNS', async () => {
    const client = asker(forwarder())
    client.stream.write(frameMessage(Uint8Array.from([0, 9, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0])))
    client.stream.write(frameMessage(encodeUnread(Uint8Array.of(0, 8), 0)))
    expect((await until('FORMERR', 2000, () => client.answers.get(9))).rcode).toBe(Rcode.formErr)
    client.stream.write(Uint8Array.of(0, 1, 0))
    await until('its end', 2000, () => client.error !== null)
    expect(client.answers.has(8)).toBe(false)
  })

  it('ends when the client has ended and all is answered', async () => {
    server.script = async (asked) => {
      await new Promise((resolve) => setTimeout(resolve, 60))
      return [dnsAnswer(asked, [four(1)])]
    }
    const one = forwarder()
    const client = asker(one)
    client.send('a.example')
    client.send('b.example')
    client.stream.end()
    await until('the end', 2000, () => client.ended)
    expect(client.order).toHaveLength(2)
    await until('it is gone', 2000, () => one.counts.streams === 0)
  })

  it('ends when nothing is asked for long, and not before', async () => {
    const one = forwarder({ dns: { idleTimeoutMs: 150 } })
    const client = asker(one)
    for (let i = 0; i < 4; i++) {
      await new Promise((resolve) => setTimeout(resolve, 80))
      await client.ask('a.example')
    }
    expect(client.ended).toBe(false)
    await until('its end', 2000, () => client.ended)
    await until('it is gone, though the client has not ended', 2000, () => one.counts.streams === 0)
  })

  it('has so many questions under way and no more: the rest waits with the client', async () => {
    let open = 0
    let most = 0
    server.script = async (asked) => {
      most = Math.max(most, ++open)
      await new Promise((resolve) => setTimeout(resolve, 10))
      open--
      return [dnsAnswer(asked, [four(1)])]
    }
    const client = asker(forwarder({ dns: { maxQuestionsPerStream: 5, questionsPerSecondPerCircuit: 0 } }))
    const ids = Array.from({ length: 60 }, (_, i) => client.send(`n${i}.example`))
    await until('all', 5000, () => ids.every((id) => client.answers.has(id)))
    expect(most).toBeGreaterThan(1)
    expect(most).toBeLessThanOrEqual(5)
    expect([...client.answers.values()].every(({ rcode }) => rcode === 0)).toBe(true)
  })

  it('keeps to its rate of questions', async () => {
    const client = asker(forwarder({ dns: { questionsPerSecondPerCircuit: 50, questionBurst: 5 } }, { now: () => performance.now() }))
    const started = performance.now()
    const ids = Array.from({ length: 15 }, (_, i) => client.send(`n${i}.example`))
    await until('all', 5000, () => ids.every((id) => client.answers.has(id)))
    expect(performance.now() - started).toBeGreaterThan(150)
  })

  it("keeps to the circuit's rate of bytes", async () => {
    const clock = (): number => performance.now()
    server.script = (asked, via) => {
      const answer = dnsAnswer(asked, [txtData('z'.repeat(40_000))])
      if (via === 'udp') return [Uint8Array.from(dnsAnswer(asked, []), (byte, i) => (i === 2 ? byte | 2 : byte))]
      return [answer]
    }
    const one = forwarder({ dnsCacheEntries: 0 }, { now: clock })
    const client = new Asker(one.openCircuit([new ByteRate(200_000, clock)]).connect())
    const started = performance.now()
    for (let i = 0; i < 4; i++) await client.ask(`n${i}.example`, DnsType.TXT)
    await client.ask('last.example', 1)
    expect(performance.now() - started).toBeGreaterThan(300)
  })
})

describe('limits', () => {
  it('are streams of a circuit and in all, and circuits that are over', () => {
    const one = forwarder({ dns: { maxStreams: 3, maxStreamsPerCircuit: 2 } })
    const circuit = one.openCircuit()
    const streams = [circuit.connect(), circuit.connect()]
    expect(() => circuit.connect()).toThrow(expect.objectContaining({ reason: 'resource-limit' }))
    const other = one.openCircuit()
    other.connect()
    expect(() => other.connect()).toThrow(expect.objectContaining({ reason: 'resource-limit' }))
    circuit.close()
    expect(streams.every((stream) => stream.destroyed)).toBe(true)
    expect(() => circuit.connect()).toThrow(expect.objectContaining({ reason: 'resource-limit' }))
  })

  it('are questions to servers in all: more fail at once', async () => {
    server.script = () => []
    const one = forwarder({ dns: { maxQuestions: 4 } })
    const client = asker(one)
    for (let i = 0; i < 4; i++) client.send(`n${i}.example`)
    expect(await client.ask('more.example')).toMatchObject({ rcode: Rcode.servFail })
    expect(server.asked.length).toBeLessThanOrEqual(4)
  })

  it('are answers that nobody takes: such a stream is reset, and one that reads is not', async () => {
    const text = txtData('z'.repeat(60_000))
    server.script = (asked, via) => [
      via === 'tcp' ? dnsAnswer(asked, [text]) : Uint8Array.from(dnsAnswer(asked, []), (byte, i) => (i === 2 ? byte | 2 : byte)),
    ]
    const one = forwarder({ dns: { maxUnreadBytes: 200_000, questionsPerSecondPerCircuit: 0 } })
    const lazy = one.openCircuit().connect()
    lazy.on('error', () => {})
    const reading = asker(one)
    await reading.ask('big.example', DnsType.TXT)
    for (let i = 0; i < 100; i++)
      lazy.write(frameMessage(encodeQuestion({ id: i, question: { wire: encodeName('big.example'), type: 16, class: 1 }, edns: null })))
    await until('it is reset', 5000, () => lazy.destroyed)
    expect(lazy.readableLength).toBeLessThan(2_200_000)
    expect((await reading.ask('big.example', DnsType.TXT)).counts[0]).toBe(1)
  })

  it('hold against a flood of questions', async () => {
    const one = forwarder({ dns: { questionsPerSecondPerCircuit: 0, maxQuestions: 50 }, dnsCacheEntries: 100 })
    const clients = Array.from({ length: 5 }, () => asker(one))
    for (let i = 0; i < 1000; i++) for (const [c, client] of clients.entries()) client.send(`f${i}-${c}.example`)
    await until('all answered', 15_000, () => clients.every((client) => client.answers.size === 1000))
    expect(one.counts.questions).toBe(5000)
  })
})

describe('without a server', () => {
  const folder = temporaryFolder('dns')
  const resolvConf = join(folder.path, 'resolv.conf')
  const resolver: Resolver = {
    addresses: async (name) => {
      if (name === 'none.example') throw new NotFound('nothing')
      if (name === 'broken.example') throw new Error('it failed')
      return { value: ['192.0.2.1', '10.0.0.1', '2001:db8::1'].map(parseIp), ttlSeconds: 60 }
    },
    names: async () => ({ value: ['host.example'], ttlSeconds: 60 }),
  }
  const system = (): Asker => asker(forwarder({ resolvers: [] }, { resolver, resolvConf }))

  it('the system is asked for addresses and names, and the rest is NOTIMP', async () => {
    writeFileSync(resolvConf, 'search example\nnameserver not-an-address\n')
    const client = system()
    expect(data(await client.ask('host.example'))).toEqual(['c0000201'])
    expect(data(await client.ask('host.example', DnsType.AAAA))).toEqual(['20010db8000000000000000000000001'])
    expect(data(await client.ask('1.2.0.192.in-addr.arpa', DnsType.PTR))).toEqual([Buffer.from(encodeName('host.example')).toString('hex')])
    expect((await client.ask('host.example', DnsType.MX)).rcode).toBe(Rcode.notImp)
    expect(await client.ask('none.example')).toMatchObject({ rcode: Rcode.noError, counts: [0, 0, 1] })
    expect((await client.ask('broken.example')).rcode).toBe(Rcode.servFail)
    expect((await client.ask('1.2.3.4')).rcode).toBe(Rcode.nxDomain)
  })

  it('those of resolv.conf are asked as soon as it has some', async () => {
    writeFileSync(resolvConf, '')
    const client = system()
    expect((await client.ask('host.example', DnsType.TXT)).rcode).toBe(Rcode.notImp)
    writeFileSync(resolvConf, 'nameserver 127.0.0.254\n')
    now += 30_001
    expect((await client.ask('host.example', DnsType.TXT)).rcode).toBe(Rcode.servFail)
    folder.remove()
  })

  it('reads resolv.conf(5) as it is written', () => {
    const text =
      '# nameserver 1.1.1.1\nnameserver 9.9.9.9\n\tnameserver  2620:fe::fe # quad9\nnameserver fe80::1%eth0\nnameserver x\noptions edns0'
    expect(parseResolvConf(text)).toEqual([
      { host: '9.9.9.9', port: 53 },
      { host: '2620:fe::fe', port: 53 },
      { host: 'fe80::1%eth0', port: 53 },
    ])
    expect(parseResolvConf('nameserver 127.0.0.1\n'.repeat(50))).toHaveLength(8)
  })
})

it('asks nothing and opens nothing before a client asks', async () => {
  const one = forwarder()
  one.openCircuit().connect()
  await new Promise((resolve) => setTimeout(resolve, 30))
  expect(server.asked).toHaveLength(0)
  expect(one.counts).toEqual({ streams: 1, questions: 0, remembered: 0, refused: 0, failed: 0, asked: 0, foreign: 0 })
})
