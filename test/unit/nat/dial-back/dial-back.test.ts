import { randomBytes } from 'node:crypto'
import net from 'node:net'
import type { Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { lpStream } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, test } from 'vitest'
import { parseIp, SeededRandom, silentLogger } from '../../../../src/base/index.ts'
import { createHost, type Host } from '../../../../src/link/index.ts'
import {
  DIAL_BACK_PROTOCOL,
  DIAL_REQUEST_PROTOCOL,
  type DialMessage,
  decodeDialMessage,
  encodeDialBack,
  encodeDialMessage,
} from '../../../../src/nat/dial-back/messages.ts'
import { DIAL_BACK_COST_BYTES, DIAL_BACK_PAYLOAD_MAX } from '../../../../src/nat/dial-back/one-shot-dialer.ts'
import { AddressRates } from '../../../../src/nat/dial-back/rates.ts'
import { OWN_ADDRESS_DATA_BYTES } from '../../../../src/nat/dial-back/server.ts'
import { DialBack, type DialBackConfig, type DialBackHelper, dialBackConfig } from '../../../../src/nat/index.ts'

const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

interface Node {
  readonly host: Host
  readonly dialBack: DialBack
  readonly address: string
  /** Whom it may ask. */
  helpers: DialBackHelper[]
}

/** A node at 127.`net`.0.1: each is in a network of its own. */
async function node(
  netNumber: number,
  {
    serves = true,
    privateAddresses = true,
    config = {},
  }: { serves?: boolean; privateAddresses?: boolean; config?: Partial<DialBackConfig> } = {},
): Promise<Node> {
  const ip = `127.${netNumber}.0.1`
  const host = await createHost({ key: new Uint8Array(randomBytes(32)), mode: 'server', listen: [`/ip4/${ip}/tcp/0`], outboundAddress: ip })
  const made: Node = {
    host,
    helpers: [],
    address: host.addresses()[0]!,
    dialBack: new DialBack({
      libp2p: host.libp2p,
      config: dialBackConfig.parse({ timeoutMs: 5_000, connectTimeoutMs: 1_000, ...config }),
      privateAddresses,
      helpers: () => made.helpers,
      ownAddresses: () => host.addresses(),
      outboundAddressFor: () => ip,
      now: () => performance.now(),
      random: new SeededRandom(netNumber),
      logger: silentLogger,
    }),
  }
  await made.dialBack.start()
  await made.dialBack.serve(serves)
  closing.push(async () => {
    await made.dialBack.stop()
    await host.stop()
  })
  return made
}
const helper = ({ host }: Node): DialBackHelper => ({ id: host.id, addresses: host.addresses() })
const verdicts = (round: { verdicts: readonly { verdict: string }[] }): string[] => round.verdicts.map(({ verdict }) => verdict).sort()
const soon = (): AbortSignal => AbortSignal.timeout(15_000)

/** Speaks the protocol by hand. */
async function ask(
  from: Node,
  to: Node,
): Promise<{ say(message: DialMessage): Promise<void>; hear(): Promise<DialMessage>; stream: Stream }> {
  const connection = await from.host.libp2p.dial(multiaddr(`${to.address}/p2p/${to.host.id}`))
  const stream = await connection.newStream(DIAL_REQUEST_PROTOCOL)
  const messages = lpStream(stream, { maxDataLength: 10_000 })
  return {
    stream,
    say: (message) => messages.write(encodeDialMessage(message)),
    hear: async () => decodeDialMessage((await messages.read({ signal: soon() })).subarray()),
  }
}
const request = (...addresses: string[]): DialMessage => ({
  type: 'request',
  addresses: addresses.map((address) => multiaddr(address).bytes),
  nonce: 42n,
})

describe('asking peers to dial back', () => {
  test('finds an address reached, by peers of different networks', async () => {
    const asker = await node(1)
    asker.helpers = [helper(await node(2)), helper(await node(3))]
    const round = await asker.dialBack.check(asker.address, soon())
    expect(verdicts(round)).toEqual(['reached', 'reached'])
    expect(round.available).toBe(2)
    expect(new Set(round.verdicts.map(({ network }) => network))).toEqual(new Set(['127.2.0.0/16', '127.3.0.0/16']))
  })

  test('tells a closed port, another program and another node from oneself', async () => {
    const [asker, server, other] = [await node(1), await node(2), await node(4)]
    asker.helpers = [helper(server)]
    expect(verdicts(await asker.dialBack.check('/ip4/127.1.0.1/tcp/1', soon()))).toEqual(['unreachable'])
    expect(verdicts(await asker.dialBack.check(other.address, soon()))).toEqual(['other'])
    const program = net.createServer(
      (socket) =>
        void socket
          .on('error', () => {})
          .resume()
          .end('HTTP/1.1 400 Bad Request\r\n\r\n'),
    )
    await new Promise<void>((resolve) => program.listen(0, '127.1.0.1', resolve))
    closing.push(() => program.close())
    const { port } = program.address() as net.AddressInfo
    expect(verdicts(await asker.dialBack.check(`/ip4/127.1.0.1/tcp/${port}`, soon()))).toEqual(['other'])
  }, 40_000)

  test('asks others in place of those that give no answer, and says how many there were', async () => {
    const asker = await node(1, { config: { witnesses: 1 } })
    const gone = { id: (await node(9, { serves: false })).host.id, addresses: ['/ip4/127.9.0.1/tcp/1'] }
    const silent = await node(5, { serves: false })
    asker.helpers = [gone, helper(silent), helper(await node(2))]
    const round = await asker.dialBack.check(asker.address, soon())
    expect(verdicts(round).filter((verdict) => verdict !== 'no-answer')).toEqual(['reached'])
    expect(round.available).toBe(1 + 3 - round.verdicts.length)
  })

  test('does not ask the own network, itself, two of one network, or anybody for whom it has no address', async () => {
    const asker = await node(1)
    const [near, one, two] = [await node(1), await node(2), await node(2)]
    asker.helpers = [helper(near), helper(asker), helper(one), helper(two), { id: two.host.id, addresses: [] }]
    const round = await asker.dialBack.check(asker.address, soon())
    expect(round.verdicts.map(({ network }) => network)).toEqual(['127.2.0.0/16'])
    asker.helpers = []
    expect(await asker.dialBack.check(asker.address, soon())).toEqual({ address: asker.address, available: 0, verdicts: [] })
  })

  test('does not believe a peer that only says so', async () => {
    const [asker, liar] = [await node(1), await node(2, { serves: false })]
    await liar.host.libp2p.handle(DIAL_REQUEST_PROTOCOL, async (stream) => {
      const messages = lpStream(stream)
      await messages.read()
      await messages.write(encodeDialMessage({ type: 'response', status: 200, index: 0, dialStatus: 200 }))
    })
    asker.helpers = [helper(liar)]
    expect(verdicts(await asker.dialBack.check(asker.address, soon()))).toEqual(['no-answer'])
  })

  test('does not pay a peer that wants too much, or wants it twice', async () => {
    for (const answers of [
      [{ type: 'data-request', index: 0, bytes: 100_001 }],
      [1, 2].map(() => ({ type: 'data-request', index: 0, bytes: 1 })),
    ]) {
      const [asker, liar] = [await node(1), await node(2, { serves: false })]
      let received = 0
      await liar.host.libp2p.handle(DIAL_REQUEST_PROTOCOL, async (stream) => {
        const messages = lpStream(stream)
        await messages.read()
        stream.addEventListener('message', (event) => {
          received += event.data.byteLength
        })
        for (const answer of answers) await messages.write(encodeDialMessage(answer as DialMessage)).catch(() => {})
      })
      asker.helpers = [helper(liar)]
      expect(verdicts(await asker.dialBack.check(asker.address, soon()))).toEqual(['no-answer'])
      expect(received).toBeLessThan(50)
    }
  })

  test('ends with the signal', async () => {
    const asker = await node(1)
    const hole = net.createServer()
    await new Promise<void>((resolve) => hole.listen(0, '127.2.0.1', resolve))
    closing.push(() => hole.close())
    asker.helpers = [
      { id: (await node(7, { serves: false })).host.id, addresses: [`/ip4/127.2.0.1/tcp/${(hole.address() as net.AddressInfo).port}`] },
    ]
    const giveUp = new AbortController()
    const checking = asker.dialBack.check(asker.address, giveUp.signal)
    setTimeout(() => giveUp.abort(), 100)
    await expect(checking).rejects.toMatchObject({ name: 'AbortError' })
  })
})

test('a number that nobody waits for is not taken, nor one that comes over the own connection', async () => {
  const [asker, peer] = [await node(1), await node(2)]
  const connection = await peer.host.libp2p.dial(multiaddr(`${asker.address}/p2p/${asker.host.id}`))
  const stream = await connection.newStream(DIAL_BACK_PROTOCOL)
  const messages = lpStream(stream)
  await messages.write(encodeDialBack(42n))
  await expect(messages.read({ signal: soon() })).rejects.toThrow()
})

describe('dialling back', () => {
  test('wants to be paid first, whosever address it is', async () => {
    const [asker, server] = [await node(1), await node(2)]
    const own = await ask(asker, server)
    await own.say(request(asker.address))
    expect(await own.hear()).toEqual({ type: 'data-request', index: 0, bytes: OWN_ADDRESS_DATA_BYTES })
    expect(OWN_ADDRESS_DATA_BYTES).toBeGreaterThan(DIAL_BACK_COST_BYTES)
    const other = await ask(asker, server)
    await other.say(request('/ip4/127.8.0.1/tcp/4460'))
    const wanted = await other.hear()
    expect(wanted).toMatchObject({ type: 'data-request', index: 0 })
    expect((wanted as { bytes: number }).bytes).toBeGreaterThanOrEqual(30_000)
    expect((wanted as { bytes: number }).bytes).toBeLessThanOrEqual(100_000)
  })

  test('does nothing for less than the price', async () => {
    const [asker, server] = [await node(1, { config: {} }), await node(2, { config: { timeoutMs: 700 } })]
    let connections = 0
    const target = net.createServer((socket) => {
      connections++
      socket.on('error', () => {}).destroy()
    })
    await new Promise<void>((resolve) => target.listen(0, '127.1.0.1', resolve))
    closing.push(() => target.close())
    const one = await ask(asker, server)
    await one.say(request(`/ip4/127.1.0.1/tcp/${(target.address() as net.AddressInfo).port}`))
    await one.hear()
    await one.say({ type: 'data', data: new Uint8Array(4096) })
    await expect(one.hear()).rejects.toThrow()
    expect(connections).toBe(0)
    expect(server.dialBack.stats).toMatchObject({ served: 0, sentBytes: 0 })
  })

  test('costs what is documented, and leaves nothing behind', async () => {
    const [asker, server] = [await node(1), await node(2)]
    asker.helpers = [helper(server)]
    const before = server.host.libp2p.getConnections().length
    for (let i = 0; i < 3; i++) expect(verdicts(await asker.dialBack.check(asker.address, soon()))).toEqual(['reached'])
    const { sentBytes, dataBytes, served } = server.dialBack.stats
    expect(sentBytes / served).toBeLessThan(1_000)
    expect(sentBytes / served).toBeLessThan(DIAL_BACK_PAYLOAD_MAX)
    expect(dataBytes).toBeGreaterThanOrEqual(3 * OWN_ADDRESS_DATA_BYTES)
    expect(server.host.libp2p.getConnections().length).toBe(before + 1)
    await expect.poll(() => asker.host.libp2p.getConnections().length, { timeout: 5_000 }).toBe(1)
    expect(asker.host.libp2p.getConnections(peerIdFromString(server.host.id))).toHaveLength(1)
  })

  test.each([
    ['a private address where there are none', '/ip4/10.0.0.1/tcp/4460', false],
    ['its own address', '/ip4/127.2.0.1/tcp/4460', true],
    ['an address of multicast', '/ip4/224.0.0.1/tcp/4460', true],
    ['everywhere', '/ip4/0.0.0.0/tcp/4460', true],
    ['port 0', '/ip4/127.1.0.1/tcp/0', true],
    ['a name', '/dns4/localhost/tcp/4460', true],
    ['another transport', '/ip4/127.1.0.1/udp/4460', true],
    ['an address through a relay', '/ip4/127.1.0.1/tcp/4460/p2p/12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw/p2p-circuit', true],
    ['another identity', '/ip4/127.1.0.1/tcp/4460/p2p/12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw', true],
    ['IPv6 without having any', '/ip6/2a02::1/tcp/4460', true],
  ])('refuses %s', async (_, address, privateAddresses) => {
    const [asker, server] = [await node(1), await node(2, { privateAddresses })]
    const one = await ask(asker, server)
    await one.say(request(address))
    expect(await one.hear()).toEqual({ type: 'response', status: 101, index: 0, dialStatus: 0 })
  })

  test('takes the first address that it can dial, and says which', async () => {
    const [asker, server] = [await node(1), await node(2)]
    const one = await ask(asker, server)
    await one.say(request('/ip4/224.0.0.1/tcp/1', '/dns4/x/tcp/1', asker.address, '/ip4/127.1.0.1/tcp/2'))
    expect(await one.hear()).toMatchObject({ type: 'data-request', index: 2 })
  })

  test('refuses nobody’s address and noise', async () => {
    const [asker, server] = [await node(1), await node(2)]
    const one = await ask(asker, server)
    await one.say({ type: 'request', addresses: [new Uint8Array([1, 2, 3]), new Uint8Array(0)], nonce: 1n })
    expect(await one.hear()).toMatchObject({ status: 101 })
    const two = await ask(asker, server)
    await two.say({ type: 'data', data: new Uint8Array(1) })
    await expect(two.hear()).rejects.toThrow()
  })

  test.each<[string, Partial<DialBackConfig>]>([
    ['all askers together', { perMinute: 2 }],
    ['one asker', { perAskerPerMinute: 2 }],
    ['one target', { perTargetPerMinute: 2 }],
  ])('serves %s only so often', async (_, config) => {
    const [asker, server] = [await node(1), await node(2, { config })]
    const statuses: (number | string)[] = []
    for (let i = 0; i < 3; i++) {
      const one = await ask(asker, server)
      await one.say(request(asker.address))
      const answer = await one.hear()
      statuses.push(answer.type === 'response' ? answer.status : answer.type)
      one.stream.abort(new Error('enough'))
    }
    expect(statuses).toEqual(['data-request', 'data-request', 100])
  })

  test('serves only so many at once', async () => {
    const [asker, server] = [await node(1), await node(2, { config: { maxAtOnce: 1 } })]
    const first = await ask(asker, server)
    await first.say(request(asker.address))
    await first.hear()
    const second = await ask(asker, server)
    await second.say(request(asker.address))
    expect(await second.hear()).toMatchObject({ type: 'response', status: 100 })
  })

  test('is not offered by a node that is not to serve', async () => {
    const [asker, server] = [await node(1), await node(2, { serves: false })]
    await expect(ask(asker, server)).rejects.toThrow()
    await server.dialBack.serve(true)
    await ask(asker, server)
    const switchedOff = await node(3, { config: { serve: false } })
    await expect(ask(asker, switchedOff)).rejects.toThrow()
  })
})

test('rates of many addresses take bounded memory', () => {
  const rates = new AddressRates(2, 100)
  for (let i = 0; i < 10_000; i++) rates.take(parseIp(`11.${i >> 8}.${i & 255}.1`), i)
  expect(rates.size).toBe(100)
  const one = parseIp('2a02::1')
  expect([1, 2, 3].map((i) => rates.take(parseIp(`2a02::${i}`), 20_000))).toEqual([true, true, false])
  expect(rates.take(one, 20_000 + 30_000)).toBe(true)
  rates.take(parseIp('11.0.0.1'), 1_000_000)
  expect(rates.size).toBe(1)
})
