import { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { formatIp, type IpAddress, parseIp, silentLogger } from '../../../../src/base/index.ts'
import { nativeSuite } from '../../../../src/crypto/index.ts'
import { exitConfig, NetstackBackend, type PacketUse } from '../../../../src/egress/index.ts'
import { netstackLimits } from '../../../../src/egress/packets/limits.ts'
import type { OpenPingSocket } from '../../../../src/egress/packets/ping-system.ts'
import { batchOfPackets, IcmpHeader, IpHeader, type PacketBatch } from '../../../../src/packet/index.ts'
import { ExitRefusal } from '../../../../src/relaying/index.ts'
import { echoPacket, PacketClient, rawPacket, udpPacket } from '../../../support/packet-client.ts'

const never = new AbortController().signal
const server = '11.0.0.1'
const server6 = '2a00::1'
const suite = nativeSuite()
const stops: (() => Promise<void> | void)[] = []
afterEach(async () => {
  vi.useRealTimers()
  for (const stop of stops.splice(0).reverse()) await stop()
})

/** Takes what is written when it is told to, and never ends by itself. */
class FakeSocket extends Duplex {
  taking = false
  written = 0
  wasReset = false
  #waiting: (() => void)[] = []

  constructor() {
    super({ allowHalfOpen: true, writableHighWaterMark: 65_536 })
  }

  override _read(): void {}

  override _write(chunk: Uint8Array, _encoding: string, done: () => void): void {
    this.written += chunk.length
    if (this.taking) done()
    else this.#waiting.push(done)
  }

  takeAll(): void {
    this.taking = true
    for (const done of this.#waiting.splice(0)) done()
  }

  resetAndDestroy(): this {
    this.wasReset = true
    return this.destroy()
  }
}

function fakeUse(changes: Partial<PacketUse> = {}) {
  const sockets: FakeSocket[] = []
  const connects: string[] = []
  const datagrams: string[] = []
  const use: PacketUse = {
    allows: (address) => address.bytes[0] !== 10,
    takeRate: () => true,
    connect: async ({ address, port }) => {
      connects.push(`${formatIp(address)} ${port}`)
      const socket = new FakeSocket()
      sockets.push(socket)
      return socket
    },
    openDatagrams: () => ({ send: (to, bytes) => datagrams.push(`${to.host} ${to.port} ${bytes.length}`), close: () => {} }),
    ...changes,
  }
  return { use, sockets, connects, datagrams }
}

/** Ping sockets that send nothing. */
const silentPings = async (): Promise<OpenPingSocket> => () => ({ send: () => null, close: () => {} })

async function makeBackend(config: object = {}, clock?: { now: number }) {
  const backend = new NetstackBackend({
    config: exitConfig.parse(config),
    families: [4, 6],
    suite,
    now: () => clock?.now ?? performance.now(),
    logger: silentLogger,
    loadPingSockets: silentPings,
  })
  await backend.start()
  stops.push(() => backend.stop())
  return backend
}

/** A lease whose port is the test's: what comes is kept as text. */
async function rawLease(backend: NetstackBackend, use: PacketUse) {
  const lease = await backend.open(use, 1420, never)
  const got: string[] = []
  let ended = 0
  const ip = new IpHeader()
  const icmp = new IcmpHeader()
  lease.port.attach({
    packets: (batch: PacketBatch) => {
      for (let i = 0; i < batch.count; i++) {
        if (ip.parse(batch.view, batch.start(i), batch.end(i)) !== null) throw new Error('a malformed packet')
        const isIcmp = ip.protocol === 1 || ip.protocol === 58
        if (isIcmp && icmp.parse(batch.view, ip.payloadStart, ip.end, ip.version) !== null) throw new Error('a malformed message')
        const from = { family: ip.version, bytes: batch.bytes.slice(ip.sourceAt, ip.sourceAt + ip.addressBytes) }
        got.push(`${isIcmp ? icmp.kind : ip.protocol} from ${formatIp(from)}`)
      }
    },
    drained: () => {},
    ended: () => ended++,
  })
  const send = async (...packets: Uint8Array[]): Promise<readonly string[]> => {
    lease.port.send(batchOfPackets(packets))
    for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve))
    return got.splice(0)
  }
  return { lease, send, got, ended: () => ended, own4: lease.address4!, own6: lease.address6! }
}

describe('the netstack backend', () => {
  it('answers what has no port or protocol it carries, once a packet, and never an error', async () => {
    const backend = await makeBackend()
    const { send, own4, own6 } = await rawLease(backend, fakeUse().use)
    const sctp = (from: IpAddress, to: string) => rawPacket({ from, to }, 132, 40).packet
    expect(await send(sctp(own4, server))).toEqual(['protocol-unreachable from 100.89.0.1'])
    expect(await send(sctp(own6, server6))).toEqual(['protocol-unreachable from fd73:6861:6c6c:6578::1'])
    // To many, and ICMP of the other version.
    expect(await send(sctp(own4, '224.0.0.5'), sctp(own6, 'ff02::5'), rawPacket({ from: own4, to: server }, 2, 8).packet)).toEqual([
      'protocol-unreachable from 100.89.0.1',
    ])
    // An error with no hop left is no reason for another.
    const error = rawPacket({ from: own4, to: server, hopLimit: 1 }, 1, 36)
    error.view.setUint8(error.at, 3)
    expect(await send(error.packet)).toEqual([])
    expect(backend.counts.dropped).toEqual({ protocol: 5, 'hop-limit': 1 })
  })

  it('answers as few ICMP errors a second as it may', async () => {
    const clock = { now: 1000 }
    const backend = await makeBackend({}, clock)
    const { send, own4 } = await rawLease(backend, fakeUse().use)
    const packets = Array.from({ length: 60 }, () => rawPacket({ from: own4, to: server }, 132, 40).packet)
    const count = async (): Promise<number> => (await send(...packets)).length
    expect([await count(), await count(), await count()]).toEqual([60, 40, 0])
    clock.now += 500
    expect(await count()).toBe(50)
  })

  it('answers echo requests to its gateway itself, whatever their hop limit', async () => {
    const backend = await makeBackend()
    const { send, own4, own6 } = await rawLease(backend, fakeUse().use)
    const data = Buffer.from('x')
    expect(
      await send(
        echoPacket({ from: own4, to: '100.89.0.1', hopLimit: 1 }, 1, 1, data),
        echoPacket({ from: own6, to: 'fd73:6861:6c6c:6578::1', hopLimit: 64 }, 1, 1, data),
      ),
    ).toEqual(['echo-reply from 100.89.0.1', 'echo-reply from fd73:6861:6c6c:6578::1'])
    expect(await send(udpPacket({ from: own4, to: '100.89.0.1' }, 5, 5, data))).toEqual(['prohibited from 100.89.0.1'])
  })

  it('keeps echo requests to policy and rates', async () => {
    let rate = true
    const backend = await makeBackend()
    const { send, own4 } = await rawLease(backend, fakeUse({ takeRate: () => rate }).use)
    const data = Buffer.from('x')
    expect(await send(echoPacket({ from: own4, to: '10.0.0.1' }, 1, 1, data))).toEqual(['prohibited from 100.89.0.1'])
    rate = false
    expect(await send(echoPacket({ from: own4, to: server }, 1, 1, data))).toEqual([])
    expect(backend.counts.dropped).toEqual({ policy: 1, rate: 1 })
    rate = true
    const flood = Array.from({ length: netstackLimits.echoBurst + 50 }, (_, i) => echoPacket({ from: own4, to: server }, 1, i, data))
    await send(...flood)
    expect(backend.counts.dropped.rate).toBeGreaterThan(40)
  })

  it("accepts a client's connection only when the exit's own stands", async () => {
    let connected: (socket: Duplex) => void = () => {}
    const { use } = fakeUse({
      connect: () =>
        new Promise((resolve) => {
          connected = resolve
        }),
    })
    const client = new PacketClient(await (await makeBackend()).open(use, 1420, never))
    const flow = client.dial(server, 80)
    await sleep(30)
    expect([flow.connection.state, flow.reason]).toEqual(['syn-sent', null])
    connected(new FakeSocket())
    await flow.connected
  })

  it('gives up connecting when the client does', async () => {
    let given: AbortSignal | undefined
    const { use } = fakeUse({
      connect: (_to, signal) =>
        new Promise((_, reject) => {
          given = signal
          signal.addEventListener('abort', () => reject(signal.reason))
        }),
    })
    const backend = await makeBackend()
    const client = new PacketClient(await backend.open(use, 1420, never))
    client.dial(server, 80)
    await until(() => given !== undefined)
    client.close()
    await until(() => given!.aborted)
    expect(backend.counts.leases).toBe(0)
  })

  it.each([
    ['refused', 'refused'],
    ['reset', 'refused'],
    ['policy', 'unreachable'],
    ['resource-limit', 'unreachable'],
  ] as const)('a connect that ends with "%s" is told as "%s"', async (reason, told) => {
    const { use } = fakeUse({ connect: () => Promise.reject(new ExitRefusal(reason, 'no')) })
    const backend = await makeBackend()
    const client = new PacketClient(await backend.open(use, 1420, never))
    await expect(client.connect(server, 80)).rejects.toThrow(told)
    expect(backend.counts.dropped[reason]).toBe(1)
  })

  it('half-closes and resets as either side does', async () => {
    const { use, sockets } = fakeUse()
    const client = new PacketClient(await (await makeBackend()).open(use, 1420, never))
    const flow = await client.connect(server, 80)
    const socket = sockets[0]!
    socket.takeAll()
    flow.end('question')
    await until(() => socket.writableFinished)
    expect([socket.written, flow.remoteEnded]).toEqual([8, false])
    socket.push('answer')
    socket.push(null)
    expect((await flow.all()).toString()).toBe('answer')
    expect(socket.wasReset).toBe(false)

    const lost = await client.connect(server, 80)
    sockets[1]!.destroy(new Error('gone'))
    expect(await lost.closed).toBe('reset')
    const left = await client.connect(server, 80)
    left.abort()
    await until(() => sockets[2]!.wasReset)
    // A close without an end has lost something.
    const cut = await client.connect(server, 80)
    sockets[3]!.destroy()
    expect(await cut.closed).toBe('reset')
  })

  it('reads from the client only what the server takes', async () => {
    const { use, sockets } = fakeUse()
    const client = new PacketClient(await (await makeBackend()).open(use, 1420, never))
    const flow = await client.connect(server, 80)
    for (let i = 0; i < 64; i++) flow.write(new Uint8Array(65_536))
    await sleep(200)
    const [socket] = sockets
    // What waits in the socket is a write or two; the rest is in windows and buffers of TCP.
    expect(socket!.written).toBeLessThan(300_000)
    socket!.takeAll()
    await until(() => socket!.written === 64 * 65_536)
  })

  it('takes connections from who holds most memory when there is too much, and from nobody else', async () => {
    const { use, sockets } = fakeUse()
    const backend = await makeBackend({ packetBufferBytes: 8 << 20 })
    const [greedy, modest] = [
      new PacketClient(await backend.open(use, 1420, never), 1),
      new PacketClient(await backend.open(use, 1420, never), 2),
    ]
    const kept = await modest.connect(server, 80)
    kept.write('hello')
    const flows = await Promise.all(Array.from({ length: 16 }, () => greedy.connect(server, 81)))
    for (const flow of flows) flow.write(new Uint8Array(1 << 20))
    await until(() => flows.every((flow) => flow.reason === 'reset'), 15_000)
    expect([kept.reason, backend.counts.dropped.memory]).toEqual([null, expect.any(Number)])
    expect(sockets.filter((socket) => socket.wasReset)).toHaveLength(16)
  })

  it('closes a lease that nobody uses, and none that has something open', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    const clock = { now: 0 }
    const backend = await makeBackend({ packetIdleTimeoutMs: 60_000, udpIdleTimeoutMs: 120_000 }, clock)
    const [idle, busy] = [await rawLease(backend, fakeUse().use), await rawLease(backend, fakeUse().use)]
    await busy.send(udpPacket({ from: busy.own4, to: server }, 1000, 443, Buffer.from('x')))
    const pass = async (ms: number) => {
      clock.now += ms
      vi.advanceTimersByTime(netstackLimits.sweepMs)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await pass(59_999)
    expect(backend.counts.leases).toBe(2)
    await pass(1)
    expect([idle.ended(), busy.ended(), backend.counts.leases]).toEqual([1, 0, 1])
    await pass(60_000)
    expect(busy.ended()).toBe(1)
  })

  it('gives every address back, ends every port and opens nothing more when it is stopped', async () => {
    const backend = await makeBackend()
    const leases = [await rawLease(backend, fakeUse().use), await rawLease(backend, fakeUse().use)]
    await backend.stop()
    await new Promise((resolve) => setImmediate(resolve))
    expect([leases.map((one) => one.ended()), backend.counts.leases]).toEqual([[1, 1], 0])
    expect(leases[0]!.lease.port.send(batchOfPackets([new Uint8Array(20)]))).toBe(1)
    await expect(backend.open(fakeUse().use, 1420, never)).rejects.toBeInstanceOf(ExitRefusal)
    await backend.start()
    expect(formatIp((await backend.open(fakeUse().use, 1420, never)).address4!)).toBe('100.89.0.4')
  })

  it('delivers nothing while it is paused, and what it can hold afterwards', async () => {
    const backend = await makeBackend()
    const { lease, send, own4, got } = await rawLease(backend, fakeUse().use)
    const ping = (sequence: number) => echoPacket({ from: own4, to: '100.89.0.1' }, 1, sequence, Buffer.from('x'))
    lease.port.pause()
    expect(await send(...Array.from({ length: netstackLimits.ownPackets + 9 }, (_, i) => ping(i)))).toEqual([])
    lease.port.resume()
    await until(() => got.length === netstackLimits.ownPackets)
  })

  it('counts what it holds, and what its stacks drop, also when the lease is over', async () => {
    const { use } = fakeUse()
    const backend = await makeBackend()
    expect(backend.counts.stack).toMatchObject({ tcpConnections: 0, udpPorts: 0, echoes: 0, bufferBytes: 0, retransmissions: 0 })
    const client = new PacketClient(await backend.open(use, 1420, never))
    await client.connect(server, 80)
    expect(backend.counts.stack).toMatchObject({ tcpConnections: 1, udpPorts: 0 })
    const { lease, send, own4 } = await rawLease(backend, use)
    const spoilt = udpPacket({ from: own4, to: server }, 1000, 7, Buffer.from('x'))
    spoilt[spoilt.length - 1]! ^= 1
    await send(
      udpPacket({ from: own4, to: server }, 1000, 7, Buffer.from('x')),
      rawPacket({ from: own4, to: server }, 132, 40).packet,
      spoilt,
    )
    expect(backend.counts.stack).toMatchObject({ tcpConnections: 1, udpPorts: 1, bufferLimitBytes: 256 << 20 })
    expect(backend.counts.dropped).toEqual({ protocol: 1, malformed: 1 })
    lease.port.close()
    expect(backend.counts.dropped).toEqual({ protocol: 1, malformed: 1 })
    expect(backend.counts.stack).toMatchObject({ udpPorts: 0 })
  })

  it('looks only at packets from the place it is told', async () => {
    const backend = await makeBackend()
    const { use, datagrams } = fakeUse()
    const { lease, own4 } = await rawLease(backend, use)
    const packet = (port: number) => udpPacket({ from: own4, to: server }, 1000, port, Buffer.from('x'))
    lease.port.send(batchOfPackets([packet(1), packet(2), packet(3)]), 1)
    await until(() => datagrams.length === 2)
    expect([datagrams, backend.counts.packetsIn]).toEqual([['11.0.0.1 2 1', '11.0.0.1 3 1'], 2])
  })

  it('forgets a UDP port that the client says is closed', async () => {
    let closed = 0
    const { use } = fakeUse({ openDatagrams: () => ({ send: () => {}, close: () => closed++ }) })
    const { send, own4 } = await rawLease(await makeBackend(), use)
    await send(udpPacket({ from: own4, to: server }, 1000, 443, Buffer.from('x')))
    const quoted = udpPacket({ from: parseIp(server), to: formatIp(own4) }, 443, 1000, Buffer.from('y'))
    const error = rawPacket({ from: own4, to: server }, 1, 8 + quoted.length)
    error.view.setUint16(error.at, 0x0303)
    error.packet.set(quoted, error.at + 8)
    let sum = 0
    for (let i = error.at; i < error.packet.length - 1; i += 2) sum += error.view.getUint16(i)
    if ((error.packet.length - error.at) % 2 === 1) sum += error.packet.at(-1)! << 8
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
    error.view.setUint16(error.at + 2, ~sum & 0xffff)
    await send(error.packet)
    expect(closed).toBe(1)
  })
})

async function until(condition: () => boolean, ms = 5000): Promise<void> {
  const end = Date.now() + ms
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited ${ms} ms in vain`)
    await sleep(2)
  }
}
