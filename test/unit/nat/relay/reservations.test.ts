import { randomBytes } from 'node:crypto'
import net from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, it } from 'vitest'
import { type NodeId, nodeIdFromKey, parseIp, SeededRandom, silentLogger, TokenBucket } from '../../../../src/base/index.ts'
import { createHost, parseTcpAddress } from '../../../../src/link/index.ts'
import { readMessage, writeMessage } from '../../../../src/nat/relay/handshake.ts'
import { type RelayCandidate, Reservations, reservationsConfig } from '../../../../src/nat/relay/index.ts'
import { decodeStop, encodeHop, encodeStop, HOP_PROTOCOL, STATUS, STOP_PROTOCOL } from '../../../../src/nat/relay/messages.ts'
import { Pump, type PumpEnd } from '../../../../src/nat/relay/pump.ts'
import { numbered, Recorder } from '../../../compliance/cell-channel.ts'
import {
  relayedAddress,
  startNode,
  startRelay,
  startReserving,
  startTarget,
  stopRelayedNodes,
  until,
} from '../../../support/relayed-nodes.ts'

afterEach(stopRelayedNodes)

describe('the first relay', () => {
  const drawing = async (known: () => readonly RelayCandidate[], isViewReady: () => boolean, more: { preferred?: NodeId[] } = {}) => {
    const node = await startNode()
    const clock = { ms: 0 }
    const reservations = new Reservations(reservationsConfig.parse({ relays: 1 }), {
      ...node,
      ...more,
      candidates: known,
      isViewReady,
      random: new SeededRandom(2),
      logger: silentLogger,
      now: () => performance.now() + clock.ms,
      wall: () => Date.now(),
    })
    await reservations.start()
    return { reservations, clock }
  }

  it('is drawn when the view has become a choice', async () => {
    const relays = [await startRelay(), await startRelay()].map(({ candidate }) => candidate)
    let known = relays.slice(0, 1)
    let isReady = false
    const { reservations } = await drawing(
      () => known,
      () => isReady,
    )
    await delay(300)
    known = relays
    await delay(300)
    expect(reservations.current()).toEqual([])
    isReady = true
    await until('the relay', () => reservations.current().length === 1, 2000)
    await reservations.stop()
  })

  it('is taken from a young view when that gets no older, and at once when it is known which one it was', async () => {
    const relay = await startRelay()
    const known = () => [relay.candidate]
    const patient = await drawing(known, () => true)
    await delay(300)
    expect(patient.reservations.current()).toEqual([])
    patient.clock.ms = 4_000
    await until('the only one', () => patient.reservations.current().length === 1, 2000)
    const again = await drawing(known, () => false, { preferred: [relay.host.id] })
    await until('the one of before', () => again.reservations.current().length === 1, 2000)
    await Promise.all([patient.reservations.stop(), again.reservations.stop()])
  })
})

describe('reservations', () => {
  it('are held with as many relays as wanted, and carry channels both ways, encrypted end to end', async () => {
    const relays = [await startRelay(), await startRelay(), await startRelay()]
    const hidden = await startReserving(() => relays.map(({ candidate }) => candidate))
    await until('two relays', () => hidden.reservations.current().length === 2)
    const relay = relays.find(({ host }) => host.id === hidden.reservations.current()[0])!
    expect(relay.server.stats().reservations).toMatchObject({ open: 1, granted: 1, strangers: 0 })

    const received: Recorder[] = []
    hidden.host.onChannel((channel) => {
      const recorder = new Recorder()
      recorder.channel = channel
      channel.attach(recorder)
      received.push(recorder)
      return true
    })
    const dialler = await startNode()
    const channel = await dialler.host.dialer.openChannel(
      hidden.host.id,
      [relayedAddress(relay, hidden.host.id)],
      AbortSignal.timeout(5000),
    )
    const recorder = new Recorder()
    channel.attach(recorder)
    channel.send(numbered(0, 1))
    await until('the cell', () => received[0]?.count === 1)
    received[0]!.channel!.send(numbered(0, 1))
    await until('the answer', () => recorder.count === 1)
    expect(received[0]!.channel!.peer).toBe(dialler.host.id)

    const [connection] = dialler.host.libp2p.getConnections().filter((one) => one.remotePeer.toString() === hidden.host.id)
    expect(connection!.limits).toBeDefined()
    expect(connection!.encryption).toBe('/tls/1.0.0')
    const back = hidden.host.libp2p.getConnections().find((one) => one.remotePeer.toString() === dialler.host.id)
    expect(back!.limits).toBeDefined()
    expect(back!.direct).toBe(false)
    expect(relay.server.stats().connections).toMatchObject({ open: 1, total: 1 })
    expect(relay.server.stats().bytes.toReserved).toBeGreaterThan(1536)
    expect(relay.server.stats().bytes.fromReserved).toBeGreaterThan(1536)
    channel.abort()
  })

  it('move to another relay within two seconds when one is lost', async () => {
    const relays = [await startRelay(), await startRelay(), await startRelay()]
    const hidden = await startReserving(() => relays.map(({ candidate }) => candidate))
    const changes: NodeId[][] = []
    hidden.reservations.onChange((ids) => changes.push(ids))
    await until('two relays', () => hidden.reservations.current().length === 2)
    const [lost, kept] = hidden.reservations.current()
    const spare = relays.find(({ host }) => host.id !== lost && host.id !== kept)!.host.id
    const from = performance.now()
    const relay = relays.find(({ host }) => host.id === lost)!
    await relay.server.stop()
    await relay.host.stop()
    await until('the spare relay', () => hidden.reservations.current().includes(spare))
    expect(performance.now() - from).toBeLessThan(2000)
    expect(hidden.reservations.current()).toEqual([kept, spare])
    expect(changes.at(-1)).toEqual([kept, spare])
  })

  it('are found again at a relay that comes back, though all failed', async () => {
    const seed = randomBytes(32)
    const first = await startRelay({}, { seed })
    const { port } = parseTcpAddress(first.candidate.addresses[0]!)!
    const { host } = parseTcpAddress(first.candidate.addresses[0]!)!
    const hidden = await startReserving(() => [first.candidate], { retryMs: 200 })
    await until('the relay', () => hidden.reservations.current().length === 1)
    await first.server.stop()
    await first.host.stop()
    await until('the loss', () => hidden.reservations.current().length === 0)
    await delay(800)
    await startRelay({}, { seed, listen: `/ip4/${host}/tcp/${port}` })
    await until('the relay again', () => hidden.reservations.current().length === 1, 3000)
  })

  it('are not waited for at a relay that is silent', async () => {
    const silent = net.createServer()
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    const { port } = silent.address() as net.AddressInfo
    const deaf = {
      id: nodeIdFromKey(new Uint8Array(32).fill(3)),
      addresses: [`/ip4/127.0.0.1/tcp/${port}`],
      ips: [parseIp('127.0.0.1')],
      family: [],
      weight: 1e9,
    }
    const relay = await startRelay()
    const from = performance.now()
    const hidden = await startReserving(() => [deaf, relay.candidate], { relays: 1, nextAfterMs: 300 })
    await until('the other relay', () => hidden.reservations.current()[0] === relay.host.id)
    expect(performance.now() - from).toBeLessThan(1500)
    silent.close()
  })

  it('notice a relay that has gone without a word, and go elsewhere', async () => {
    const [frozen, other] = [await startRelay(), await startRelay()]
    // The way to the first relay: frozen later, as by a router that has forgotten.
    const { host, port } = parseTcpAddress(frozen.candidate.addresses[0]!)!
    const sockets: net.Socket[] = []
    const way = net.createServer((socket) => {
      const onward = net.connect(port, host)
      socket.pipe(onward).pipe(socket)
      sockets.push(socket, onward)
      for (const one of [socket, onward]) one.on('error', () => {})
    })
    await new Promise<void>((resolve) => way.listen(0, '127.0.0.1', resolve))
    const through = { ...frozen.candidate, addresses: [`/ip4/127.0.0.1/tcp/${(way.address() as net.AddressInfo).port}`] }
    let candidates: RelayCandidate[] = [through]
    const hidden = await startReserving(() => candidates, { relays: 1, probeMs: 200, probeTimeoutMs: 400, nextAfterMs: 200 })
    await until('the relay', () => hidden.reservations.current()[0] === frozen.host.id)
    // Signs of life are given for as long as the way is open.
    await delay(1000)
    expect(hidden.reservations.current()).toEqual([frozen.host.id])
    candidates = [through, other.candidate]
    for (const socket of sockets) socket.unpipe().pause()
    const from = performance.now()
    await until('the other relay', () => hidden.reservations.current()[0] === other.host.id, 5000)
    expect(performance.now() - from).toBeLessThan(2500)
    way.close()
    for (const socket of sockets) socket.destroy()
  })

  it('begin anew where the machine is now, with the same relays', async () => {
    const relays = [await startRelay(), await startRelay(), await startRelay(), await startRelay()]
    const hidden = await startReserving(() => relays.map(({ candidate }) => candidate))
    await until('two relays', () => hidden.reservations.current().length === 2)
    const before = hidden.reservations.current()
    hidden.reservations.networkChanged()
    expect(hidden.reservations.current()).toEqual([])
    await until('two relays', () => hidden.reservations.current().length === 2)
    expect([...hidden.reservations.current()].sort()).toEqual([...before].sort())
    await until('the places to be there', () => relays.reduce((sum, { server }) => sum + server.stats().reservations.open, 0) === 2)
  })

  it('are renewed long before their end, and given up when they are not', async () => {
    const relay = await startRelay({ reservationMs: 62_000, strangerGraceMs: 0 })
    let isLater = 0
    const node = await startNode()
    const reservations = new Reservations(reservationsConfig.parse({}), {
      ...node,
      candidates: () => [relay.candidate],
      random: new SeededRandom(1),
      logger: silentLogger,
      now: () => performance.now() + isLater,
      wall: () => Date.now() + isLater,
    })
    await reservations.start()
    await until('the relay', () => reservations.current().length === 1)
    const { expiresAt } = reservations.facts()[0]!
    isLater = relay.state.wallOffsetMs = 40_000
    await until('the renewal', () => relay.server.stats().reservations.renewed === 1)
    await until('the later end', () => reservations.facts()[0]!.expiresAt > expiresAt + 30_000)
    // Not in the view, and its time is over: the relay is given up before its end.
    relay.strangers.add(node.host.id)
    isLater = relay.state.wallOffsetMs = 80_000
    await until('the loss', () => reservations.current().length === 0)
    await reservations.stop()
  })

  it('that are refused are sought elsewhere, and not asked for again soon', async () => {
    const [full, good] = [await startRelay({ maxReservations: 1 }), await startRelay({ strangerGraceMs: 100_000 })]
    await startTarget(full)
    const hidden = await startReserving(() => [{ ...full.candidate, weight: 1e9 }, good.candidate])
    await until('the good relay', () => hidden.reservations.current()[0] === good.host.id)
    await until('the refusal', () => full.server.stats().reservations.refused.full === 1)
    await delay(1200)
    expect(full.server.stats().reservations.refused.full).toBe(1)
    expect(hidden.reservations.current()).toEqual([good.host.id])
  })

  it('let only their own relays bring connections', async () => {
    const [own, other] = [await startRelay(), await startRelay()]
    const hidden = await startReserving(() => [own.candidate])
    await until('the relay', () => hidden.reservations.current().length === 1)
    // It is connected with the other relay too, and that one calls.
    await hidden.host.libp2p.dial(multiaddr(other.address))
    const calls = () => other.host.libp2p.getConnections().find(({ remotePeer }) => remotePeer.toString() === hidden.host.id)
    await until('the connection', () => calls() !== undefined)
    const stream = await calls()!.newStream(STOP_PROTOCOL)
    writeMessage(stream, encodeStop({ type: 'connect', peer: other.host.id }))
    expect(decodeStop(await readMessage(stream, AbortSignal.timeout(3000))).status).toBe(STATUS.permissionDenied)
    expect(hidden.reservations.inbound).toBe(0)
  })

  it('let nobody in whom the relay names falsely', async () => {
    const relay = await startRelay()
    const hidden = await startReserving(() => [relay.candidate])
    await until('the relay', () => hidden.reservations.current().length === 1)
    const way = relay.host.libp2p.getConnections().find(({ remotePeer }) => remotePeer.toString() === hidden.host.id)!
    // A relay that calls in its own name of choice, whoever dials.
    let name: NodeId = nodeIdFromKey(new Uint8Array(32).fill(9))
    const ends: PumpEnd[] = []
    await relay.server.stop()
    await relay.host.libp2p.handle(HOP_PROTOCOL, async (stream) => {
      await readMessage(stream, AbortSignal.timeout(3000))
      const onward = await way.newStream(STOP_PROTOCOL)
      writeMessage(onward, encodeStop({ type: 'connect', peer: name }))
      expect(decodeStop(await readMessage(onward, AbortSignal.timeout(3000))).status).toBe(STATUS.ok)
      writeMessage(stream, encodeHop({ type: 'status', status: STATUS.ok }))
      const now = (): number => performance.now()
      const rates = [new TokenBucket(1e9, 1e9, now())]
      const over = (_: unknown, end: PumpEnd): void => void ends.push(end)
      new Pump({ dialler: stream, target: onward, maxBytes: 1e9, maxHeldBytes: 1e9, rates, now, over }).start()
    })
    const dialler = await startNode()
    const dial = async (): Promise<boolean> => {
      await dialler.host.libp2p
        .dial(multiaddr(relayedAddress(relay, hidden.host.id)), { signal: AbortSignal.timeout(3000) })
        .catch(() => {})
      await delay(100)
      return hidden.host.libp2p.getConnections().some(({ direct }) => !direct)
    }
    expect(await dial()).toBe(false)
    expect(ends).toEqual(['reset'])
    name = dialler.host.id
    expect(await dial()).toBe(true)
  })

  it('cost a pure client nothing: it has no such transport', async () => {
    const relay = await startRelay()
    const hidden = await startReserving(() => [relay.candidate])
    await until('the relay', () => hidden.reservations.current().length === 1)
    const client = await createHost({ key: randomBytes(32), mode: 'client' })
    await expect(client.libp2p.dial(multiaddr(relayedAddress(relay, hidden.host.id)))).rejects.toThrow()
    await client.stop()
  })
})
