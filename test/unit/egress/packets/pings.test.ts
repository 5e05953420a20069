import { describe, expect, it } from 'vitest'
import { formatIp, type IpAddress, parseIp, ShallotError, silentLogger } from '../../../../src/base/index.ts'
import { netstackLimits } from '../../../../src/egress/packets/limits.ts'
import { loadPingSockets, type OpenPingSocket, type PingHandlers } from '../../../../src/egress/packets/ping-system.ts'
import { type EchoClient, Pings } from '../../../../src/egress/packets/pings.ts'

const server = parseIp('11.0.0.1')
const server6 = parseIp('2a00::1')

/** Ping sockets of a test: what is sent is kept, and what comes is said by the test. */
function world(changes: { open?: (family: 4 | 6) => void; source4?: string } = {}) {
  const sent: { family: 4 | 6; message: Uint8Array; to: string; hopLimit: number }[] = []
  const handlers: Partial<Record<4 | 6, PingHandlers>> = {}
  const sources: (string | null)[] = []
  let failure: string | null = null
  let closed = 0
  const open: OpenPingSocket = (family, source, given) => {
    changes.open?.(family)
    handlers[family] = given
    sources.push(source && formatIp(source))
    return {
      send: (message, to, hopLimit) => {
        if (failure === null) sent.push({ family, message: message.slice(), to: formatIp(to), hopLimit })
        return failure
      },
      close: () => closed++,
    }
  }
  const clock = { now: 0 }
  let loads = 0
  const pings = new Pings({
    load: async () => {
      loads++
      return open
    },
    outboundIpv4: changes.source4 ?? '',
    outboundIpv6: '',
    firstNumber: 65_534,
    now: () => clock.now,
    logger: silentLogger,
  })
  return {
    pings,
    sent,
    handlers,
    sources,
    clock,
    get loads() {
      return loads
    },
    get closed() {
      return closed
    },
    fail: (code: string | null) => {
      failure = code
    },
  }
}

function client() {
  const told: string[] = []
  const one: EchoClient = {
    reply: (from, identifier, sequence, data, hopLimit) =>
      told.push(`reply ${formatIp(from)} ${identifier} ${sequence} ${Buffer.from(data)} ${hopLimit}`),
    failed: (reporter, to, type, code, mtu, message) =>
      told.push(`failed ${formatIp(reporter)} ${formatIp(to)} ${type} ${code} ${mtu} ${Buffer.from(message).toString('hex')}`),
    refused: (request, why) => told.push(`refused ${formatIp(request.to)} ${why}`),
  }
  return { one, told }
}

const request = (to: IpAddress, identifier: number, sequence: number, hopLimit = 63) => ({
  to,
  identifier,
  sequence,
  data: Buffer.from('data'),
  hopLimit,
})
const settle = () => new Promise((resolve) => setImmediate(resolve))
const answer = (message: Uint8Array): Uint8Array => {
  const reply = message.slice()
  reply[0] = reply[0] === 8 ? 0 : 129
  return reply
}

describe('the pings of an exit', () => {
  it('go out under numbers of the exit, and come back under those of the client', async () => {
    const w = world()
    const [a, b] = [client(), client()]
    expect(w.pings.send(a.one, request(server, 500, 7, 12))).toBeNull()
    expect(w.pings.send(b.one, request(server, 500, 7))).toBeNull()
    await settle()
    expect(w.loads).toBe(1)
    // Over the end of the 16 bits; nothing of the client's identifier.
    expect(w.sent.map(({ message, to, hopLimit }) => [Buffer.from(message).toString('hex'), to, hopLimit])).toEqual([
      ['080000000000ffff64617461', '11.0.0.1', 12],
      ['080000000000000064617461', '11.0.0.1', 63],
    ])
    w.handlers[4]!.answer(server, answer(w.sent[1]!.message), 55)
    w.handlers[4]!.answer(server, answer(w.sent[0]!.message), 56)
    expect([a.told, b.told]).toEqual([['reply 11.0.0.1 500 7 data 56'], ['reply 11.0.0.1 500 7 data 55']])
    // Once.
    w.handlers[4]!.answer(server, answer(w.sent[0]!.message), 56)
    expect([a.told.length, w.pings.pending]).toEqual([1, 0])
  })

  it('count an answer only from where the request went, and only an answer', async () => {
    const w = world()
    const a = client()
    w.pings.send(a.one, request(server, 1, 1))
    await settle()
    const { message } = w.sent[0]!
    w.handlers[4]!.answer(parseIp('11.0.0.2'), answer(message), 64)
    w.handlers[4]!.answer(server, message, 64)
    w.handlers[4]!.answer(server, answer(message).subarray(0, 7), 64)
    w.handlers[4]!.error(server, 11, 0, 0, message.subarray(0, 5))
    expect(a.told).toEqual([])
    w.handlers[4]!.answer(server, answer(message), 64)
    expect(a.told).toHaveLength(1)
  })

  it("tell what a router says, with the client's numbers in what it quotes", async () => {
    const w = world()
    const a = client()
    w.pings.send(a.one, request(server, 0xabcd, 0x0102))
    await settle()
    w.handlers[4]!.error(parseIp('11.7.7.7'), 11, 0, 0, w.sent[0]!.message)
    expect(a.told).toEqual(['failed 11.7.7.7 11.0.0.1 11 0 0 08000000abcd010264617461'])
    expect(w.pings.pending).toBe(0)
  })

  it('use one socket a family, and the outbound address', async () => {
    const w = world({ source4: '11.0.0.9' })
    const a = client()
    for (const to of [server, server6, server, server6]) w.pings.send(a.one, request(to, 1, 1))
    await settle()
    expect(w.sources).toEqual(['11.0.0.9', null])
    expect(w.sent.map(({ family, message }) => [family, message[0]])).toEqual([
      [4, 8],
      [6, 128],
      [4, 8],
      [6, 128],
    ])
  })

  it('bound what is unanswered, and forget it after a time or with its client', async () => {
    const w = world()
    const [a, b] = [client(), client()]
    w.pings.send(a.one, request(server, 1, 1))
    await settle()
    const results = Array.from({ length: netstackLimits.pendingEchoes }, (_, i) => w.pings.send(a.one, request(server, 1, i)))
    expect(results.filter((why) => why === 'limit')).toHaveLength(1)
    expect(w.pings.send(b.one, request(server, 1, 1))).toBeNull()
    w.pings.forget(a.one)
    expect(w.pings.pending).toBe(1)
    w.clock.now += netstackLimits.echoTimeoutMs
    w.pings.sweep(w.clock.now)
    expect(w.pings.pending).toBe(0)
    expect(w.pings.send(a.one, request(server, 1, 1))).toBeNull()
  })

  it('hold back a few while the sockets are made', async () => {
    const w = world()
    const a = client()
    const results = Array.from({ length: netstackLimits.waitingEchoes + 3 }, (_, i) => w.pings.send(a.one, request(server, 1, i)))
    expect(results.filter((why) => why === 'limit')).toHaveLength(3)
    await settle()
    expect(w.sent).toHaveLength(netstackLimits.waitingEchoes)
  })

  it('say that the machine forbids them, and ask it again after a minute, each family for itself', async () => {
    let forbidden: readonly (4 | 6)[] = [4]
    const w = world({
      open: (family) => {
        if (forbidden.includes(family)) throw new ShallotError('ping-not-permitted', 'no', { kind: 'host', retry: 'later' })
      },
    })
    const a = client()
    w.pings.send(a.one, request(server, 1, 1))
    w.pings.send(a.one, request(server6, 1, 1))
    await settle()
    expect([a.told, w.sent.length, w.pings.refusal]).toEqual([['refused 11.0.0.1 forbidden'], 1, null])
    expect(w.pings.send(a.one, request(server, 1, 2))).toBe('forbidden')
    forbidden = []
    expect(w.pings.send(a.one, request(server, 1, 2))).toBe('forbidden')
    w.clock.now += netstackLimits.pingRetryMs
    expect(w.pings.send(a.one, request(server, 1, 2))).toBeNull()
  })

  it('say what the system refuses to send', async () => {
    const w = world()
    const a = client()
    w.pings.send(a.one, request(server, 1, 1))
    await settle()
    const of = (code: string) => {
      w.fail(code)
      return w.pings.send(a.one, request(server, 1, 2))
    }
    expect(['ENETUNREACH', 'EMSGSIZE', 'EAGAIN', 'EPERM'].map(of)).toEqual(['unreachable', 'too-long', 'limit', 'unreachable'])
    expect(w.pings.pending).toBe(1)
  })

  it('end with their sockets', async () => {
    const w = world()
    const a = client()
    w.pings.send(a.one, request(server, 1, 1))
    await settle()
    w.pings.close()
    expect([w.closed, w.pings.pending, w.pings.send(a.one, request(server, 1, 1))]).toEqual([1, 0, 'forbidden'])
  })
})

describe('ping sockets', () => {
  it('say in a typed word where they are not built', async () => {
    await expect(loadPingSockets('darwin')).rejects.toMatchObject({ code: 'ping-not-on-this-platform' })
    await expect(loadPingSockets('linux', () => Promise.reject(new Error('no such package')))).rejects.toMatchObject({
      code: 'ping-unavailable',
    })
  })
})
