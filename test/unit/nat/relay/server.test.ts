import { randomBytes } from 'node:crypto'
import type { Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, it } from 'vitest'
import { type NodeId, silentLogger } from '../../../../src/base/index.ts'
import { chooseSuite } from '../../../../src/crypto/index.ts'
import { readMessage, writeMessage } from '../../../../src/nat/relay/handshake.ts'
import { RelayServer, relayServerConfig } from '../../../../src/nat/relay/index.ts'
import { decodeHop, encodeHop, STATUS } from '../../../../src/nat/relay/messages.ts'
import { isVoucherFor } from '../../../../src/nat/relay/voucher.ts'
import {
  ask,
  connectRaw,
  hopStream,
  relayedAddress,
  startNode,
  startRelay,
  startReserving,
  startTarget,
  stopRelayedNodes,
  type TestNode,
  type TestRelay,
  until,
} from '../../../support/relayed-nodes.ts'

afterEach(stopRelayedNodes)

const { suite } = chooseSuite('auto')

async function reserve(relay: TestRelay, node?: TestNode): Promise<number | null> {
  return (await ask(node ?? (await startNode()), relay, { type: 'reserve' })).answer.status
}

async function connect(node: TestNode, relay: TestRelay, peer: NodeId): Promise<number | null> {
  return (await ask(node, relay, { type: 'connect', peer })).answer.status
}

describe('a reservation', () => {
  it('is told with its end, the limits, the relay’s own addresses and a voucher', async () => {
    const relay = await startRelay({ connectionBytes: 12_345, connectionMs: 67_000, reservationMs: 600_000 })
    const node = await startNode()
    const { answer, stream } = await ask(node, relay, {
      type: 'reserve',
      // Claims of others' addresses and identity: nobody looks at them.
      peer: relay.host.id,
      reservation: { expiresAt: 1, addresses: [multiaddr('/ip4/203.0.113.9/tcp/1').bytes], voucher: null },
    })
    expect(answer).toMatchObject({ type: 'status', status: STATUS.ok, limit: { seconds: 67, bytes: 12_345 } })
    const { expiresAt, addresses, voucher } = answer.reservation!
    expect(Math.abs(expiresAt - (Date.now() / 1000 + 600))).toBeLessThan(3)
    expect(addresses.map((bytes) => multiaddr(bytes).toString())).toEqual([relay.address])
    expect(isVoucherFor(suite, voucher!, { relay: relay.host.id, peer: node.host.id, expiresAt })).toBe(true)
    expect(isVoucherFor(suite, voucher!, { relay: relay.host.id, peer: relay.host.id, expiresAt })).toBe(false)
    expect(isVoucherFor(suite, voucher!, { relay: relay.host.id, peer: node.host.id, expiresAt: expiresAt + 1 })).toBe(false)
    const forged = voucher!.slice()
    forged[forged.length - 1]! ^= 1
    expect(isVoucherFor(suite, forged, { relay: relay.host.id, peer: node.host.id, expiresAt })).toBe(false)
    await stream.close()
    await until('the stream to be closed', () => stream.status === 'closed')
  })

  it('is one a peer, and renewed by asking again', async () => {
    const relay = await startRelay({ requestsPerSecondPerPeer: 100 })
    const node = await startNode()
    for (let i = 0; i < 10; i++) expect(await reserve(relay, node)).toBe(STATUS.ok)
    expect(relay.server.stats().reservations).toMatchObject({ open: 1, granted: 1, renewed: 9 })
  })

  it('is refused beyond what there is in all, and possible again when one has gone', async () => {
    const relay = await startRelay({ maxReservations: 2, reservationsPerAddress: 100 })
    const nodes = [await startNode(), await startNode(), await startNode()]
    expect(await Promise.all(nodes.slice(0, 2).map((node) => reserve(relay, node)))).toEqual([STATUS.ok, STATUS.ok])
    expect(await reserve(relay, nodes[2])).toBe(STATUS.reservationRefused)
    expect(await reserve(relay, nodes[0])).toBe(STATUS.ok)
    expect(relay.server.stats().reservations).toMatchObject({ open: 2, refused: { full: 1 } })
    await nodes[1]!.host.stop()
    await until('the place to be free', () => relay.server.stats().reservations.open === 1)
    expect(relay.server.stats().reservations.ended).toEqual({ disconnected: 1 })
    expect(await reserve(relay, nodes[2])).toBe(STATUS.ok)
  })

  it('is refused beyond what an address and a network may have', async () => {
    const relay = await startRelay({ reservationsPerAddress: 1, reservationsPerNetwork: 2 })
    const from = (outboundAddress: string): Promise<TestNode> => startNode({ outboundAddress })
    expect(await reserve(relay, await from('127.200.0.1'))).toBe(STATUS.ok)
    expect(await reserve(relay, await from('127.200.0.1'))).toBe(STATUS.reservationRefused)
    expect(await reserve(relay, await from('127.200.0.2'))).toBe(STATUS.ok)
    expect(await reserve(relay, await from('127.200.0.3'))).toBe(STATUS.reservationRefused)
    expect(await reserve(relay, await from('127.200.1.1'))).toBe(STATUS.ok)
    expect(relay.server.stats().reservations.refused).toEqual({ 'address-full': 1, 'network-full': 1 })
  })

  it('is for strangers only in part, and only for a while', async () => {
    const relay = await startRelay({ maxStrangerReservations: 1, strangerGraceMs: 60_000 })
    const [first, second] = [await startNode(), await startNode()]
    relay.strangers.add(first.host.id).add(second.host.id)
    const { answer } = await ask(first, relay, { type: 'reserve' })
    expect(answer.reservation!.expiresAt - Date.now() / 1000).toBeLessThan(61)
    expect(await reserve(relay, second)).toBe(STATUS.reservationRefused)
    relay.state.wallOffsetMs = 61_000
    expect(await reserve(relay, first)).toBe(STATUS.permissionDenied)
    expect(await reserve(relay, second)).toBe(STATUS.permissionDenied)
    relay.strangers.clear()
    expect(await reserve(relay, first)).toBe(STATUS.ok)
    expect(relay.server.stats().reservations).toMatchObject({
      open: 1,
      strangers: 0,
      refused: { 'strangers-full': 1, 'not-in-view': 2 },
      ended: { expired: 1 },
    })
  })

  it('is over at its end', async () => {
    const relay = await startRelay({ reservationMs: 3_600_000 })
    const target = await startTarget(relay)
    relay.state.wallOffsetMs = 3_600_001
    expect(await connect(await startNode(), relay, target.host.id)).toBe(STATUS.noReservation)
    await until('the sweep', () => relay.server.stats().reservations.open === 0)
    expect(relay.server.stats().reservations.ended).toEqual({ expired: 1 })
  })
})

describe('a connection', () => {
  it('is refused to a peer without a reservation, to the relay, to oneself, and after the wanted one has gone', async () => {
    const relay = await startRelay()
    const target = await startTarget(relay)
    const dialler = await startNode()
    const other = await startNode()
    expect(await connect(dialler, relay, other.host.id)).toBe(STATUS.noReservation)
    expect(await connect(dialler, relay, relay.host.id)).toBe(STATUS.noReservation)
    expect(await connect(target, relay, target.host.id)).toBe(STATUS.permissionDenied)
    await target.host.stop()
    await until('the reservation to end', () => relay.server.stats().reservations.open === 0)
    expect(await connect(dialler, relay, target.host.id)).toBe(STATUS.noReservation)
    expect(relay.server.stats().connections.refused).toEqual({ 'no-reservation': 3, itself: 1 })
  })

  it('tells the wanted node who the dialler is, by proof and not by claim', async () => {
    const relay = await startRelay()
    const target = await startTarget(relay)
    const dialler = await startNode()
    await connectRaw(dialler, relay, target)
    expect(target.callers).toEqual([dialler.host.id])
  })

  it('is for nodes of the view and newcomers with a reservation; while the view is not there yet, for all', async () => {
    const relay = await startRelay()
    const target = await startTarget(relay)
    const stranger = await startNode()
    relay.strangers.add(stranger.host.id)
    expect(await connect(stranger, relay, target.host.id)).toBe(STATUS.permissionDenied)
    relay.state.isViewReady = false
    expect(await connect(stranger, relay, target.host.id)).toBe(STATUS.ok)
    relay.state.isViewReady = true
    expect(await connect(stranger, relay, target.host.id)).toBe(STATUS.permissionDenied)
    expect(await reserve(relay, stranger)).toBe(STATUS.ok)
    expect(await connect(stranger, relay, target.host.id)).toBe(STATUS.ok)
  })

  it('fails when the wanted node does not take it, or does not answer', async () => {
    const relay = await startRelay({ handshakeTimeoutMs: 500 })
    const refusing = await startTarget(relay, { answer: STATUS.resourceLimitExceeded })
    const deaf = await startNode()
    await ask(deaf, relay, { type: 'reserve' })
    expect(await connect(await startNode(), relay, refusing.host.id)).toBe(STATUS.connectionFailed)
    // Speaks no STOP at all.
    expect(await connect(await startNode(), relay, deaf.host.id)).toBe(STATUS.connectionFailed)
    const silent = await startNode()
    await silent.host.libp2p.handle('/libp2p/circuit/relay/0.2.0/stop', () => {})
    await ask(silent, relay, { type: 'reserve' })
    await expect(connect(await startNode(), relay, silent.host.id)).rejects.toThrow()
    expect(relay.server.stats()).toMatchObject({
      connections: { open: 0, refused: { 'target-failed': 2 } },
      requests: { dropped: { timeout: 1 } },
    })
  })

  it.each([
    ['connectionsPerPair', 'pair-full'],
    ['connectionsPerDialler', 'dialler-full'],
    ['connectionsPerReservation', 'reservation-full'],
    ['maxConnections', 'connections-full'],
  ] as const)('is refused beyond %s, and possible again when one has ended', async (key, reason) => {
    const relay = await startRelay({ connectionsPerPair: 9, [key]: 2 })
    const target = await startTarget(relay)
    const dialler = await startNode()
    const { up } = await connectRaw(dialler, relay, target)
    await connectRaw(dialler, relay, target)
    expect(await connect(dialler, relay, target.host.id)).toBe(STATUS.resourceLimitExceeded)
    expect(relay.server.stats().connections.refused).toEqual({ [reason]: 1 })
    up.abort(new Error('done'))
    await until('a place', () => relay.server.stats().connections.open === 1)
    expect(await connect(dialler, relay, target.host.id)).toBe(STATUS.ok)
  })

  it('is refused through another relay, as is a reservation', async () => {
    const outer = await startRelay()
    const innerSeed = randomBytes(32)
    const inner = await startRelay({}, { seed: innerSeed })
    const target = await startTarget(inner)
    // The inner relay is reachable through the outer one as well.
    const way = await startReserving(() => [outer.candidate])
    await until('the way', () => way.reservations.current().length === 1)
    const behind = new RelayServer(relayServerConfig.parse({}), {
      host: way.host,
      suite,
      seed: innerSeed,
      addresses: () => [],
      isKnownRelay: () => true,
      isViewReady: () => true,
      logger: silentLogger,
      now: () => performance.now(),
      wall: () => Date.now(),
    })
    await behind.start()
    const dialler = await startNode()
    const connection = await dialler.host.libp2p.dial(multiaddr(relayedAddress(outer, way.host.id)))
    const request = async (message: Parameters<typeof encodeHop>[0]): Promise<number | null> => {
      const stream: Stream = await connection.newStream('/libp2p/circuit/relay/0.2.0/hop', { runOnLimitedConnection: true })
      writeMessage(stream, encodeHop(message))
      return decodeHop(await readMessage(stream, AbortSignal.timeout(5000))).status
    }
    expect(await request({ type: 'reserve' })).toBe(STATUS.permissionDenied)
    expect(await request({ type: 'connect', peer: target.host.id })).toBe(STATUS.permissionDenied)
    expect(behind.stats()).toMatchObject({ reservations: { refused: { relayed: 1 } }, connections: { refused: { relayed: 1 } } })
    await behind.stop()
  })

  it('does not outlive the relay’s service', async () => {
    const relay = await startRelay()
    const target = await startTarget(relay)
    const dialler = await startNode()
    const { up } = await connectRaw(dialler, relay, target)
    await relay.server.stop()
    await until('the end', () => up.status !== 'open')
    expect(relay.server.stats()).toMatchObject({ reservations: { open: 0 }, connections: { open: 0, closed: { stopping: 1 } } })
    await expect(hopStream(dialler, relay)).rejects.toThrow()
  })
})

describe('requests', () => {
  it('have a rate for each peer', async () => {
    const relay = await startRelay({ requestsPerSecondPerPeer: 1 })
    const node = await startNode()
    const answers = []
    for (let i = 0; i < 5; i++) answers.push(await reserve(relay, node))
    expect(answers).toEqual([100, 100, 100, 100, STATUS.resourceLimitExceeded])
    expect(await connect(node, relay, node.host.id)).toBe(STATUS.resourceLimitExceeded)
    expect(await reserve(relay)).toBe(STATUS.ok)
  })

  it('are held to other rates and limits when the configuration has others', async () => {
    const relay = await startRelay({ requestsPerSecondPerPeer: 1 })
    const node = await startNode()
    for (let i = 0; i < 4; i++) expect(await reserve(relay, node)).toBe(STATUS.ok)
    expect(await reserve(relay, node)).toBe(STATUS.resourceLimitExceeded)
    Object.assign(relay.config, { requestsPerSecondPerPeer: 100, connectionMs: 33_000 })
    const tenAtOnce = async (): Promise<boolean> => {
      for (let i = 0; i < 10; i++) if ((await reserve(relay, node)) !== STATUS.ok) return false
      return true
    }
    while (!(await tenAtOnce())) await new Promise((done) => setTimeout(done, 50))
    expect((await ask(node, relay, { type: 'reserve' })).answer.limit).toMatchObject({ seconds: 33 })
    relay.config.maxReservations = 1
    expect(await reserve(relay)).toBe(STATUS.reservationRefused)
  })

  it('have a rate for each address', async () => {
    const relay = await startRelay({ requestsPerSecondPerAddress: 1 })
    const answers = []
    for (let i = 0; i < 5; i++) answers.push(await reserve(relay))
    expect(answers).toEqual([100, 100, 100, 100, STATUS.resourceLimitExceeded])
    expect(await reserve(relay, await startNode({ outboundAddress: '127.201.0.1' }))).toBe(STATUS.ok)
  })

  it.each([
    ['nothing of the form', Uint8Array.of(3, 255, 255, 255), STATUS.malformedMessage],
    ['a message without a type', Uint8Array.of(0), STATUS.malformedMessage],
    ['a length beyond the longest', Uint8Array.of(0x81, 0x20), STATUS.malformedMessage],
    ['a length of many bytes', Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0x01), STATUS.malformedMessage],
    ['a connect to nobody', Uint8Array.of(2, 8, 1), STATUS.malformedMessage],
    ['a connect to an id of another kind', Uint8Array.of(8, 8, 1, 18, 4, 10, 2, 0, 0), STATUS.malformedMessage],
    ['a status', Uint8Array.of(2, 8, 2), STATUS.unexpectedMessage],
    ['a type that is none', Uint8Array.of(2, 8, 77), STATUS.unexpectedMessage],
  ])('that are %s are answered so', async (_, bytes, status) => {
    const relay = await startRelay()
    const stream = await hopStream(await startNode(), relay)
    stream.send(bytes)
    expect(decodeHop(await readMessage(stream, AbortSignal.timeout(5000))).status).toBe(status)
    expect(relay.server.stats().requests.open).toBe(0)
  })

  it('that come in single bytes are read, and what follows a connect goes to the other end', async () => {
    const relay = await startRelay()
    const target = await startTarget(relay)
    const stream = await hopStream(await startNode(), relay)
    const message = encodeHop({ type: 'connect', peer: target.host.id })
    for (const byte of [message.length, ...message, 7, 8, 9]) stream.send(Uint8Array.of(byte))
    expect(decodeHop(await readMessage(stream, AbortSignal.timeout(5000))).status).toBe(STATUS.ok)
    await until('the target to be called', () => target.taken.length === 1)
    const got: number[] = []
    target.taken[0]!.addEventListener('message', ({ data }) => got.push(...(data instanceof Uint8Array ? data : data.subarray())))
    target.taken[0]!.resume()
    await until('the bytes', () => got.length === 3)
    expect(got).toEqual([7, 8, 9])
  })
})
