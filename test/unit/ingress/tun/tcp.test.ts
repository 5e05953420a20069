import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import type { TcpConnection } from '../../../../src/netstack/index.ts'
import { tcpPacket } from '../../../support/ip-packets.ts'
import { until } from '../../../support/processes.ts'
import { device, OutsideClient, RawMachine, StackMachine, TunWorld, type WorldOptions } from '../../../support/tun-world.ts'
import { endpoint } from '../../../support/virtual-net.ts'

const cleanUps: (() => void)[] = []
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp()
})

function world(options: WorldOptions = {}): TunWorld {
  const made = new TunWorld(options)
  cleanUps.push(() => made.stop())
  return made
}

/** A server on loopback, which stands for all addresses outside. */
async function serve(each: (socket: Socket) => void, host = '127.0.0.1'): Promise<number> {
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    each(socket)
  })
  server.listen(0, host)
  await once(server, 'listening')
  cleanUps.push(() => server.close())
  return (server.address() as { port: number }).port
}

/** Writes all and then ends; the machine's events have to be passed on to `pump`. */
function sender(connection: TcpConnection, machine: StackMachine, bytes: Uint8Array): () => void {
  let from = 0
  let ended = false
  return () => {
    if (ended) return
    from += connection.write(bytes.subarray(from))
    if (from === bytes.length) {
      ended = true
      connection.end()
    }
    machine.driver.touch()
  }
}

function drain(connection: TcpConnection, into: (bytes: Uint8Array) => void): void {
  while (connection.readable > 0) {
    const bytes = connection.peek()
    into(bytes)
    connection.consume(bytes.length)
  }
}

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

describe('TCP over a TUN', () => {
  for (const [family, server, loopback] of [
    [4, '11.0.0.1', '127.0.0.1'],
    [6, '2a0b::1', '::1'],
  ] as const) {
    test(`IPv${family}: bytes go both ways whole, each direction ends by itself`, async () => {
      const { machine: port, client, ingress } = world()
      const machine = new StackMachine(port)
      const up = randomBytes(3_000_000)
      const down = randomBytes(3_000_000)
      const got = createHash('sha256')
      // The server answers only once it has seen the machine's end.
      const serverPort = await serve((socket) => {
        socket.on('data', (chunk) => got.update(chunk))
        socket.on('end', () => socket.end(down))
      }, loopback)
      const connection = machine.dial(endpoint(server, serverPort))
      const pump = sender(connection, machine, up)
      const received = createHash('sha256')
      machine.onEvent = (event) => {
        if (event.type === 'connected' || event.type === 'drained') pump()
        if (event.type === 'readable') drain(connection, (bytes) => received.update(bytes))
      }
      await until('both directions are over', 10_000, () => machine.of('closed').length > 0)
      expect(machine.of('closed')[0]!.reason).toBe('done')
      expect(got.digest('hex')).toBe(sha(up))
      expect(received.digest('hex')).toBe(sha(down))
      expect(client.asked).toMatchObject([{ what: 'connect', target: `${loopback}:${serverPort}` }])
      await until('nothing is left', 2000, () => ingress.counts.tcpFlows === 0 && client.streams.size === 0)
      expect(ingress.counts).toMatchObject({ tcpOpened: 1, tcpRefused: 0, bufferBytes: 0 })
    })
  }

  test('is not accepted before its stream stands', async () => {
    const { machine: port, client } = world()
    const machine = new StackMachine(port)
    const serverPort = await serve((socket) => socket.write('hello'))
    const gate = Promise.withResolvers<void>()
    client.hold = gate.promise
    const connection = machine.dial(endpoint('11.0.0.1', serverPort))
    await until('the stream is asked for', 2000, () => client.opening === 1)
    await sleep(30)
    expect(connection.state).toBe('syn-sent')
    gate.resolve()
    await until('connected', 2000, () => machine.of('readable').length > 0)
  })

  test.each([
    ['refused', 'reset'],
    ['reset', 'reset'],
    ['unreachable', 'host-unreachable'],
    ['timeout', 'host-unreachable'],
    ['circuit-lost', 'host-unreachable'],
    ['policy', 'prohibited'],
    ['not-exit', 'prohibited'],
    ['no-circuit', 'net-unreachable'],
  ] as const)('a stream that fails with "%s" is refused at once, with "%s"', async (failure, answer) => {
    const { machine: port, client, ingress } = world()
    const machine = new RawMachine(port)
    for (const [own, server] of [
      [device.own4, '11.0.0.1'],
      [device.own6, '2a0b::1'],
    ] as const) {
      machine.received.length = 0
      client.failures.set(`${server}:80`, failure)
      const syn = tcpPacket({ from: own, to: server, fromPort: 1025, toPort: 80 })
      machine.send(syn)
      await until('it is answered', 2000, () => machine.received.length > 0)
      const [seen] = machine.seen
      expect(seen).toMatchObject({ to: own, from: server, sound: true })
      if (answer !== 'reset') {
        expect(seen!.icmp).toMatchObject({ kind: answer })
        // The flow, and the sequence number by which the machine knows its SYN.
        const headers = own.includes(':') ? 40 : 20
        expect(seen!.icmp!.quoted.slice(headers, headers + 8)).toEqual(syn.slice(headers, headers + 8))
      } else expect(seen!.bytes.at(-7)! & 4).toBe(4)
    }
    expect(ingress.counts).toMatchObject({ tcpRefused: 2, tcpFlows: 0 })
  })

  test('a connection that the machine gives up stops the search for a circuit', async () => {
    const { machine: port, client, ingress } = world()
    const machine = new RawMachine(port)
    client.hold = new Promise(() => {})
    const fields = { from: device.own4, to: '11.0.0.1', fromPort: 1025, toPort: 80 }
    machine.send(tcpPacket(fields))
    await until('the stream is asked for', 2000, () => client.opening === 1)
    machine.send(tcpPacket({ ...fields, flags: 4, sequence: 1001 }))
    await until('the search is given up', 2000, () => client.aborted === 1)
    expect(ingress.counts.tcpFlows).toBe(0)
  })

  test('a stream that takes too long is given up, and the machine is told', async () => {
    const { machine: port, client } = world({ config: { connectTimeoutMs: 150 } })
    const machine = new RawMachine(port)
    client.hold = new Promise(() => {})
    machine.send(tcpPacket({ from: device.own4, to: '11.0.0.1', fromPort: 1025, toPort: 80 }))
    await until('the search is given up', 2000, () => client.aborted === 1)
    await until('it is told', 2000, () => machine.received.length > 0)
    expect(machine.seen[0]!.icmp).toMatchObject({ kind: 'host-unreachable' })
  })

  test('a stream that stands only after the machine has gone is given back', async () => {
    const stream = new PassThrough()
    const gate = Promise.withResolvers<void>()
    /** Too late to notice that it was given up. */
    class LateClient extends OutsideClient {
      override async connect(): ReturnType<OutsideClient['connect']> {
        this.opening++
        await gate.promise
        return { stream, address: null }
      }
    }
    const client = new LateClient()
    const { machine: port, ingress } = world({ client })
    const machine = new RawMachine(port)
    const fields = { from: device.own4, to: '11.0.0.1', fromPort: 1025, toPort: 80 }
    machine.send(tcpPacket(fields))
    await until('the stream is asked for', 2000, () => client.opening === 1)
    machine.send(tcpPacket({ ...fields, flags: 4, sequence: 1001 }))
    await until('it is given up', 2000, () => ingress.counts.tcpFlows === 0)
    gate.resolve()
    await until('it is given back', 2000, () => stream.destroyed)
    expect(machine.received).toEqual([])
  })

  test('a stream that is lost resets the connection: a cut transfer never looks complete', async () => {
    const { machine: port, client } = world()
    const machine = new StackMachine(port)
    const serverPort = await serve((socket) => socket.write(randomBytes(100_000)))
    const connection = machine.dial(endpoint('11.0.0.1', serverPort))
    machine.onEvent = (event) => {
      if (event.type === 'readable') drain(connection, () => {})
    }
    await until('bytes came', 2000, () => machine.of('readable').length > 0)
    client.loseCircuits()
    await until('it is over', 2000, () => machine.of('closed').length > 0)
    expect(machine.of('closed')[0]!.reason).toBe('reset')
  })

  test('a reset by the machine resets the stream', async () => {
    const { machine: port } = world()
    const machine = new StackMachine(port)
    let error: NodeJS.ErrnoException | null = null
    const serverPort = await serve((socket) => {
      socket.on('error', (one: NodeJS.ErrnoException) => {
        error = one
      })
      socket.on('data', () => {})
    })
    const connection = machine.dial(endpoint('11.0.0.1', serverPort))
    await until('connected', 2000, () => machine.of('connected').length > 0)
    connection.write(randomBytes(10))
    machine.driver.touch()
    await sleep(20)
    connection.abort()
    machine.driver.touch()
    await until('the server sees the reset', 2000, () => error !== null)
    expect(error!.code).toBe('ECONNRESET')
  })

  test('a machine that does not read holds the server back, and memory stays bounded', async () => {
    const { machine: port, ingress, client } = world()
    const machine = new StackMachine(port)
    let written = 0
    const piece = Buffer.alloc(65_536)
    const serverPort = await serve((socket) => {
      const fill = (): void => {
        while (written < 200_000_000) {
          written += piece.length
          if (!socket.write(piece)) {
            socket.once('drain', fill)
            return
          }
        }
      }
      fill()
    })
    const connection = machine.dial(endpoint('11.0.0.1', serverPort))
    await until('bytes came', 2000, () => connection.readable > 500_000)
    await sleep(300)
    const before = written
    await sleep(300)
    expect(written).toBe(before)
    expect(ingress.counts.bufferBytes).toBeLessThanOrEqual(2 << 20)
    for (const stream of client.streams) expect(stream.readableLength).toBeLessThan(1 << 20)
    // And goes on when it is read.
    machine.onEvent = () => drain(connection, () => {})
    drain(connection, () => {})
    machine.driver.touch()
    await until('more is written', 2000, () => written > before + 10_000_000)
  })

  test('a server that does not read holds the machine back, and memory stays bounded', async () => {
    const { machine: port, ingress, client } = world()
    const machine = new StackMachine(port)
    const serverPort = await serve((socket) => socket.pause())
    const connection = machine.dial(endpoint('11.0.0.1', serverPort))
    const piece = Buffer.alloc(65_536)
    let written = 0
    const pump = (): void => {
      for (;;) {
        const taken = connection.write(piece)
        written += taken
        if (taken < piece.length) break
      }
      machine.driver.touch()
    }
    machine.onEvent = (event) => {
      if (event.type === 'connected' || event.type === 'drained') pump()
    }
    await until('bytes flow', 2000, () => written > 1_000_000)
    await sleep(500)
    const before = written
    await sleep(300)
    expect(written).toBe(before)
    expect(ingress.counts.bufferBytes).toBeLessThanOrEqual(2 << 20)
    for (const stream of client.streams) expect(stream.writableLength).toBeLessThan(1 << 20)
  })

  test('a flood of SYNs takes bounded memory, and the streams that are given up are given up', async () => {
    const { machine: port, client, ingress } = world({ config: { maxTcpFlows: 256 }, queuePackets: 1024 })
    client.hold = new Promise(() => {})
    const machine = new RawMachine(port)
    for (let round = 0; round < 20; round++) {
      for (let i = 0; i < 500; i++) {
        const n = round * 500 + i
        machine.send(tcpPacket({ from: device.own4, to: `11.${n >> 8}.${n & 255}.1`, fromPort: 1024 + (n % 50_000), toPort: 80 }))
      }
      await sleep(1)
    }
    await until('all came', 5000, () => ingress.counts.packetsIn >= 9000)
    expect(ingress.counts.tcpFlows).toBeLessThanOrEqual(256)
    expect(client.opening - client.aborted).toBeLessThanOrEqual(256)
    expect(ingress.counts.bufferBytes).toBe(0)
  })

  test('many short connections leave nothing behind', async () => {
    const { machine: port, client, ingress } = world()
    const machine = new StackMachine(port, { tcp: { timeWaitMs: 1 } })
    const serverPort = await serve((socket) => {
      socket.on('data', () => socket.end('answer'))
    })
    let answers = 0
    machine.onEvent = (event) => {
      if (!('connection' in event)) return
      const { connection } = event
      if (event.type === 'connected') connection.write(Buffer.from('question'))
      if (event.type === 'readable') drain(connection, () => answers++)
      if (event.type === 'remote-end') connection.end()
    }
    for (let i = 0; i < 400; i++) {
      machine.dial(endpoint(`11.0.${i & 255}.1`, serverPort))
      if (i % 40 === 39) await until('these are answered', 5000, () => answers === i + 1)
    }
    await until('all are closed', 5000, () => ingress.counts.tcpFlows === 0 && client.streams.size === 0)
    expect(machine.of('closed').every(({ reason }) => reason === 'done')).toBe(true)
    expect(ingress.counts).toMatchObject({ tcpOpened: 400, bufferBytes: 0 })
  })

  test('stopping amid transfers resets them and the streams', async () => {
    const { machine: port, client, ingress, endings } = world()
    const machine = new StackMachine(port)
    const serverPort = await serve((socket) => {
      const fill = (): void => {
        while (socket.write(Buffer.alloc(65_536)));
        socket.once('drain', fill)
      }
      fill()
    })
    for (let i = 0; i < 5; i++) machine.dial(endpoint('11.0.0.1', serverPort))
    machine.onEvent = (event) => {
      if (event.type === 'readable') drain(event.connection, () => {})
    }
    await until('bytes flow', 2000, () => machine.of('readable').length > 50)
    await Promise.all([ingress.stop(), ingress.stop()])
    await until('all are reset', 2000, () => machine.of('closed').length === 5)
    expect(machine.of('closed').map(({ reason }) => reason)).toEqual(Array(5).fill('reset'))
    await until('streams are gone', 2000, () => client.streams.size === 0)
    expect(endings).toEqual([null])
    expect(ingress.counts).toMatchObject({ tcpFlows: 0, bufferBytes: 0 })
  })

  test('a device that goes away ends everything and says so', async () => {
    const { machine: port, client, endings } = world()
    const machine = new StackMachine(port)
    const serverPort = await serve(() => {})
    machine.dial(endpoint('11.0.0.1', serverPort))
    await until('connected', 2000, () => machine.of('connected').length > 0)
    port.close()
    await until('it is told', 2000, () => endings.length === 1)
    await until('streams are gone', 2000, () => client.streams.size === 0)
  })

  test("the device's other end serves nothing", async () => {
    const { machine: port, client } = world()
    const machine = new StackMachine(port)
    machine.dial(endpoint(device.hop4, 80))
    await until('refused', 2000, () => machine.of('closed').length > 0)
    expect(machine.of('closed')[0]!.reason).toBe('refused')
    expect(client.asked).toEqual([])
  })

  test('is isolated by who sends, and by where to when asked', async () => {
    const keys = async (rules: ('client-address' | 'destination-address' | 'destination-port')[], origin = 'tun'): Promise<string[]> => {
      const { machine: port, client } = world({ config: { isolateBy: rules }, modules: { origin } })
      const machine = new RawMachine(port)
      client.hold = new Promise(() => {})
      machine.send(
        tcpPacket({ from: device.own4, to: '11.0.0.1', fromPort: 1001, toPort: 80 }),
        tcpPacket({ from: device.own6, to: '2a0b::1', fromPort: 1002, toPort: 80 }),
        tcpPacket({ from: '192.168.7.7', to: '11.0.0.1', fromPort: 1003, toPort: 80 }),
        tcpPacket({ from: device.own4, to: '11.0.0.1', fromPort: 1004, toPort: 443 }),
      )
      await until('all four are asked for', 2000, () => client.isolations.length === 4)
      return client.isolations
    }
    const [own4, own6, other, port443] = await keys(['client-address'])
    expect([own6, port443]).toEqual([own4, own4])
    expect(other).not.toBe(own4)
    expect(new Set(await keys([])).size).toBe(1)
    expect(new Set(await keys(['client-address', 'destination-address', 'destination-port'])).size).toBe(4)
    // A program with a device of its own never shares with the machine.
    const [execOwn, , execOther] = await keys(['client-address'], 'vpn exec 1')
    expect(execOwn).not.toBe(own4)
    expect(execOther).not.toBe(other)
  })
})
