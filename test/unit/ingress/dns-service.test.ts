import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { parseIp, silentLogger } from '../../../src/base/index.ts'
import { StreamError, type StreamOptions } from '../../../src/client/index.ts'
import {
  type DnsMessage,
  DnsType,
  decodeMessage,
  encodeAnswer,
  encodeName,
  encodeQuestion,
  encodeUnread,
  Flag,
  Rcode,
} from '../../../src/dns/index.ts'
import { DnsService, dnsConfig } from '../../../src/ingress/index.ts'
import { DirectClientService } from '../../support/direct-client-service.ts'
import { until } from '../../support/processes.ts'
import { dnsAnswer, RawDnsServer, txtData } from '../../support/raw-dns-server.ts'

const four = (last: number): Uint8Array => Uint8Array.of(192, 0, 2, last)

let exit: RawDnsServer
let client: DirectClientService
let now = 0
const services: DnsService[] = []

beforeEach(async () => {
  now = 0
  exit = await RawDnsServer.start((asked) => [dnsAnswer(asked, [four(1)])])
  client = new DirectClientService()
  client.resolverPort = exit.port
})
afterEach(() => {
  for (const one of services.splice(0)) one.close()
  exit.close()
})

function make(config: object = {}, privateDestinations: readonly string[] = []): DnsService {
  const one = new DnsService(dnsConfig.parse({ timeoutMs: 3000, ...config }), {
    client,
    logger: silentLogger,
    now: () => now,
    privateDestinations,
  })
  services.push(one)
  return one
}

let ids = 1000
function question(name: string, type: number = DnsType.A, more: { edns?: boolean; dnssecOk?: boolean; cd?: boolean } = {}): Uint8Array {
  const edns = more.edns ? { udpBytes: 1400, dnssecOk: more.dnssecOk ?? false } : null
  return encodeQuestion({ id: ++ids, question: { wire: encodeName(name), type, class: 1 }, edns, checkingDisabled: more.cd ?? false })
}

async function ask(
  service: DnsService,
  name: string,
  type?: number,
  more?: Parameters<typeof question>[2],
  isolation = 'one',
): Promise<DnsMessage> {
  const message = question(name, type, more)
  const answer = decodeMessage(await service.ask(message, isolation))
  expect(answer.id).toBe(decodeMessage(message).id)
  expect(answer.flags & Flag.response).not.toBe(0)
  return answer
}
const data = (answer: DnsMessage): string[] =>
  answer.records
    .filter(({ type }) => type !== DnsType.OPT)
    .map(({ dataAt, end }) => Buffer.from(answer.bytes.subarray(dataAt, end)).toString('hex'))
const opened = (): number => client.asked.filter(({ what }) => what === 'connect').length

describe('a question', () => {
  it('goes over one stream for each isolation key, many at a time, and its answer comes whole', async () => {
    const text = txtData('t'.repeat(20_000))
    exit.script = async (asked) => {
      if (asked.question!.name === 'slow.example') await new Promise((resolve) => setTimeout(resolve, 60))
      return [dnsAnswer(asked, [asked.question!.type === DnsType.TXT ? text : four(1)])]
    }
    const service = make()
    const answers = await Promise.all(['slow.example', 'b.example', 'c.example'].map((name) => ask(service, name)))
    expect(answers.map(data)).toEqual([['c0000201'], ['c0000201'], ['c0000201']])
    expect(data(await ask(service, 'long.example', DnsType.TXT))[0]).toHaveLength(2 * text.length)
    expect(opened()).toBe(1)
    await ask(service, 'b.example', 1, {}, 'two')
    expect(client.asked.map(({ isolation }) => isolation)).toEqual(['one', 'two'])
    expect(service.counts).toMatchObject({ questions: 5, streams: 2, asking: 0, failed: 0 })
  })

  it('says to the exit only what is asked: a fresh id, DO and CD, no option, no capitals lost', async () => {
    const service = make()
    const plain = question('Host.example', 1, { edns: true, dnssecOk: true, cd: true })
    const subnet = Uint8Array.of(0, 8, 0, 7, 0, 1, 24, 0, 198, 51, 100)
    const bytes = new Uint8Array([...plain, ...subnet])
    new DataView(bytes.buffer).setUint16(plain.length - 2, subnet.length)
    await service.ask(bytes, 'one')
    for (let i = 0; i < 5; i++) await ask(service, `n${i}.example`)
    const [first] = exit.asked
    expect(first!.asked).toMatchObject({ edns: { dnssecOk: true, udpBytes: 1232 } })
    expect(first!.asked.edns!.options).toHaveLength(0)
    expect(first!.asked.flags).toBe(Flag.recursionDesired | Flag.checkingDisabled)
    expect(Buffer.from(first!.asked.question!.wire).toString()).toContain('Host')
    expect(exit.asked.every(({ asked }, i) => asked.id !== 1001 + i)).toBe(true)
    expect(new Set(exit.asked.map(({ asked }) => asked.id)).size).toBeGreaterThan(3)
  })

  it('has EDNS in its answer when it had that itself', async () => {
    const service = make()
    expect((await ask(service, 'a.example', 1, { edns: true, dnssecOk: true })).edns).toMatchObject({ udpBytes: 1232, dnssecOk: true })
    expect((await ask(service, 'b.example')).edns).toBeNull()
  })

  it('of any type is answered byte for byte', async () => {
    exit.script = (asked) => [dnsAnswer(asked, [Uint8Array.of(0xc0, 0x0c, 1, 2)])]
    expect(data(await ask(make(), 'a.example', 65_280))).toEqual(['c00c0102'])
  })
})

describe('answers of a stranger', () => {
  it.each<[string, (asked: DnsMessage) => Uint8Array]>([
    ['another id', (asked) => dnsAnswer({ ...asked, id: asked.id ^ 1 }, [four(66)])],
    ['another name', (asked) => dnsAnswer({ ...asked, question: { ...asked.question!, wire: encodeName('evil.example') } }, [four(66)])],
    ['a question', (asked) => asked.bytes],
    ['no question', (asked) => encodeUnread(asked.bytes, Rcode.nxDomain)],
  ])('that are none are passed over: %s', async (_, lie) => {
    exit.script = (asked) => [lie(asked), dnsAnswer(asked, [four(1)])]
    const service = make()
    expect(data(await ask(service, 'a.example'))).toEqual(['c0000201'])
    expect(service.counts.foreign).toBe(1)
  })

  it('never claim to be authentic, nor give addresses of one’s own networks', async () => {
    exit.script = (asked) => {
      const answers = ['192.168.1.1', '127.0.0.1', '192.0.2.7', '169.254.169.254'].map((ip) => ({
        type: 1,
        ttl: 60,
        data: parseIp(ip).bytes,
      }))
      const answer = encodeAnswer(asked, { rcode: 0, answers })
      answer[3]! |= Flag.authenticData
      return [answer]
    }
    const answer = await ask(make(), 'rebind.example')
    expect(data(answer)).toEqual(['c0000207'])
    expect(answer.flags & Flag.authenticData).toBe(0)
    const service = make({}, ['127.0.0.0/8'])
    expect(data(await ask(service, 'rebind.example'))).toEqual(['7f000001', 'c0000207'])
  })

  it('that are no DNS end the stream, and the next question has another', async () => {
    exit.script = (asked) => [new Uint8Array([...dnsAnswer(asked, [four(1)]).slice(0, 20)])]
    const service = make()
    expect((await ask(service, 'a.example')).rcode).toBe(Rcode.servFail)
    exit.script = (asked) => [dnsAnswer(asked, [four(1)])]
    expect((await ask(service, 'a.example')).rcode).toBe(0)
  })

  it('without a question, when a server fails, are given the one that was asked', async () => {
    exit.script = (asked) => [encodeUnread(Uint8Array.of(asked.id >> 8, asked.id & 255), Rcode.refused)]
    expect(await ask(make(), 'a.example', 1, { edns: true })).toMatchObject({ rcode: Rcode.refused, question: { name: 'a.example' } })
  })
})

describe('memory', () => {
  it('holds within an isolation and in no other, and counts down', async () => {
    const service = make()
    await ask(service, 'a.example')
    now += 60_000
    expect((await ask(service, 'A.Example')).records[0]!.ttl).toBe(240)
    expect(exit.asked).toHaveLength(1)
    await ask(service, 'a.example', 1, {}, 'two')
    expect(exit.asked).toHaveLength(2)
    now += 241_000
    await ask(service, 'a.example')
    expect(exit.asked).toHaveLength(3)
  })

  it('believes no exit for longer than a circuit lasts', async () => {
    exit.script = (asked) => [dnsAnswer(asked, [four(1)], 1_000_000)]
    const service = make()
    expect((await ask(service, 'a.example')).records[0]!.ttl).toBe(600)
    now += 600_001
    await ask(service, 'a.example')
    expect(exit.asked).toHaveLength(2)
  })

  it('is shared while the question is under way, and failures are not remembered', async () => {
    exit.script = (asked) => [dnsAnswer(asked, [], 0, Rcode.servFail)]
    const service = make()
    const all = await Promise.all(Array.from({ length: 10 }, () => ask(service, 'a.example')))
    expect(all.every(({ rcode }) => rcode === Rcode.servFail)).toBe(true)
    expect(exit.asked).toHaveLength(1)
    await ask(service, 'a.example')
    expect(exit.asked).toHaveLength(2)
  })
})

describe('a stream', () => {
  it('that is lost is opened again, and every question on it asked once more', async () => {
    exit.script = () => []
    const service = make()
    const answers = ['a.example', 'b.example', 'c.example'].map((name) => ask(service, name))
    await until('all are asked', 2000, () => exit.asked.length === 3)
    exit.script = (asked) => [dnsAnswer(asked, [four(5)])]
    client.loseCircuits()
    expect((await Promise.all(answers)).map(data)).toEqual([['c0000205'], ['c0000205'], ['c0000205']])
    expect(opened()).toBe(2)
  })

  it('that is lost twice is given up: SERVFAIL', async () => {
    exit.script = () => {
      setImmediate(() => exit.reset())
      return []
    }
    const service = make()
    expect((await ask(service, 'a.example')).rcode).toBe(Rcode.servFail)
    expect(opened()).toBe(2)
  })

  it('that the exit has ended is opened again with the next question', async () => {
    const service = make()
    await ask(service, 'a.example')
    client.loseCircuits()
    await until('it is gone', 2000, () => service.counts.streams === 0)
    expect((await ask(service, 'b.example')).rcode).toBe(0)
  })

  it('ends when it idles', async () => {
    const service = make({ streamIdleTimeoutMs: 100 })
    await ask(service, 'a.example')
    await until('it is gone at both ends', 3000, () => service.counts.streams === 0 && exit.open === 0)
    expect((await ask(service, 'b.example')).rcode).toBe(0)
  })

  it('that has grown old gets no more questions, and ends when the last is answered', async () => {
    let answer: (() => void) | undefined
    exit.script = async (asked) => {
      if (asked.question!.name === 'slow.example')
        await new Promise<void>((resolve) => {
          answer = resolve
        })
      return [dnsAnswer(asked, [four(1)])]
    }
    const service = make()
    const slow = ask(service, 'slow.example')
    await until('it is asked', 2000, () => answer !== undefined)
    now += 600_001
    await ask(service, 'b.example')
    expect(service.counts.streams).toBe(2)
    answer!()
    expect((await slow).rcode).toBe(0)
    await until('the old one is gone', 2000, () => service.counts.streams === 1)
    expect(opened()).toBe(2)
  })

  it('that is silent for several questions is taken for dead', async () => {
    exit.script = () => []
    const service = make({ timeoutMs: 100 })
    for (let i = 0; i < 3; i++) expect((await ask(service, `n${i}.example`)).rcode).toBe(Rcode.servFail)
    exit.script = (asked) => [dnsAnswer(asked, [four(1)])]
    expect((await ask(service, 'a.example')).rcode).toBe(0)
    expect(opened()).toBe(2)
  })

  it('of an origin that has not asked for long makes room for another', async () => {
    const service = make({ maxStreams: 2 })
    for (const isolation of ['one', 'two', 'three']) expect((await ask(service, 'a.example', 1, {}, isolation)).rcode).toBe(0)
    expect(service.counts.streams).toBe(2)
    exit.script = () => []
    void ask(service, 'x.example', 1, {}, 'two')
    void ask(service, 'x.example', 1, {}, 'three')
    expect((await ask(service, 'x.example', 1, {}, 'four')).rcode).toBe(Rcode.servFail)
  })
})

describe('an exit without a resolver', () => {
  beforeEach(() => {
    client.resolverPort = null
    client.names.set('host.example', '192.0.2.9')
    client.pointers.set('192.0.2.9', 'host.example')
  })

  it('is asked by resolve for addresses and names; the rest is NOTIMP', async () => {
    const service = make()
    expect(data(await ask(service, 'host.example'))).toEqual(['c0000209'])
    expect(await ask(service, 'host.example', DnsType.AAAA)).toMatchObject({ rcode: 0, counts: [0, 0, 0] })
    expect(data(await ask(service, '9.2.0.192.in-addr.arpa', DnsType.PTR))).toEqual([
      Buffer.from(encodeName('host.example')).toString('hex'),
    ])
    expect((await ask(service, 'host.example', DnsType.MX)).rcode).toBe(Rcode.notImp)
    expect(await ask(service, 'none.example')).toMatchObject({ rcode: 0, counts: [0, 0, 0] })
  })

  it('is not asked for a stream with every question, but again after a while', async () => {
    let tries = 0
    const { connectResolver } = client
    client.connectResolver = (options: StreamOptions) => {
      tries++
      return connectResolver.call(client, options)
    }
    const service = make()
    for (let i = 0; i < 5; i++) await ask(service, `n${i}.example`)
    expect(tries).toBe(1)
    client.resolverPort = exit.port
    now += 60_001
    expect((await ask(service, 'x.example', DnsType.MX)).rcode).toBe(0)
    expect(tries).toBe(2)
  })
})

describe('what fails', () => {
  it('is SERVFAIL: no circuit, no answer in time, given up, closed', async () => {
    const service = make({ timeoutMs: 200 })
    client.connectResolver = () => Promise.reject(new StreamError('no-circuit'))
    expect((await ask(service, 'a.example')).rcode).toBe(Rcode.servFail)
    client.connectResolver = () => new Promise(() => {})
    const started = performance.now()
    expect((await ask(service, 'a.example', 1, {}, 'other')).rcode).toBe(Rcode.servFail)
    expect(performance.now() - started).toBeGreaterThan(150)
    const given = new AbortController()
    const answer = service.ask(question('b.example'), 'third', given.signal)
    given.abort()
    expect(decodeMessage(await answer).rcode).toBe(Rcode.servFail)
    expect(decodeMessage(await service.ask(question('c.example'), 'third', given.signal)).rcode).toBe(Rcode.servFail)
    service.close()
    expect((await ask(service, 'd.example')).rcode).toBe(Rcode.servFail)
    expect(service.counts).toMatchObject({ failed: 5, asking: 0 })
  })

  it('is what one gives up only for that one', async () => {
    exit.script = async (asked) => {
      await new Promise((resolve) => setTimeout(resolve, 50))
      return [dnsAnswer(asked, [four(1)])]
    }
    const service = make()
    const given = new AbortController()
    const [first, second] = [service.ask(question('a.example'), 'one', given.signal), ask(service, 'a.example')]
    given.abort()
    expect(decodeMessage(await first).rcode).toBe(Rcode.servFail)
    expect((await second).rcode).toBe(0)
  })

  it.each<[string, Uint8Array, number]>([
    ['nothing', new Uint8Array(0), Rcode.formErr],
    ['half a message', Uint8Array.of(0, 7, 1, 0, 0, 1), Rcode.formErr],
    ['an answer', encodeUnread(Uint8Array.of(0, 7), 0), Rcode.formErr],
    ['ANY', question('a.example', 255), Rcode.refused],
    ['an update', Uint8Array.from(question('a.example'), (byte, i) => (i === 2 ? 0x28 : byte)), Rcode.refused],
  ])('of itself is said so, and carried nowhere: %s', async (_, bytes, rcode) => {
    const service = make()
    const answer = await service.ask(bytes, 'one')
    expect(answer[3]! & 15).toBe(rcode)
    if (bytes.length >= 2) expect([answer[0], answer[1]]).toEqual([bytes[0], bytes[1]])
    expect(client.asked).toEqual([])
    expect(service.counts.refused).toBe(1)
  })

  it.each(['printer.local', 'x.onion', 'localhost', '1.0.0.10.in-addr.arpa', 'x.home.arpa', 'resolver.arpa'])(
    '%s is answered here',
    async (name) => {
      const service = make()
      await ask(service, name, 12)
      expect(client.asked).toEqual([])
      expect(service.counts.local).toBe(1)
    },
  )
})

describe('a flood', () => {
  it('of one origin leaves room for others; what is too much fails at once', async () => {
    exit.script = (asked) => (asked.question!.name.startsWith('flood') ? [] : [dnsAnswer(asked, [four(1)])])
    const service = make({ maxQuestionsPerOrigin: 20, maxQuestions: 30, timeoutMs: 500 })
    const flood = Array.from({ length: 500 }, (_, i) => ask(service, `flood${i}.example`))
    expect(service.counts.asking).toBe(20)
    expect((await ask(service, 'a.example', 1, {}, 'two')).rcode).toBe(0)
    const more = Array.from({ length: 500 }, (_, i) => ask(service, `flood${i}.example`, 1, {}, `origin${i}`))
    expect(service.counts.asking).toBeLessThanOrEqual(30)
    const answers = await Promise.all([...flood, ...more])
    expect(answers.every(({ rcode }) => rcode === Rcode.servFail)).toBe(true)
    expect(service.counts).toMatchObject({ asking: 0 })
    expect((await ask(service, 'b.example', 1, {}, 'two')).rcode).toBe(0)
  })

  it('of questions that were given up does not grow either', async () => {
    exit.script = () => []
    const service = make({ maxQuestions: 50, timeoutMs: 300 })
    for (let i = 0; i < 200; i++) {
      const given = new AbortController()
      const answer = service.ask(question(`n${i}.example`), 'one', given.signal)
      given.abort()
      await answer
    }
    await until('it was asked no more than it may', 2000, () => exit.asked.length > 0)
    expect(exit.asked.length).toBeLessThanOrEqual(50)
  })
})

it('does nothing by itself', async () => {
  const service = make()
  await new Promise((resolve) => setTimeout(resolve, 30))
  expect(client.asked).toEqual([])
  expect(service.counts).toEqual({ questions: 0, local: 0, remembered: 0, refused: 0, failed: 0, foreign: 0, asking: 0, streams: 0 })
})
