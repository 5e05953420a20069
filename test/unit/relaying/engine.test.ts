import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { CircuitBuildError, type CircuitEnd, StreamError } from '../../../src/client/index.ts'
import { MemoryMesh, type MemoryMeshOptions, suite } from '../../support/mesh-in-memory.ts'

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup()
})

function mesh(options: MemoryMeshOptions = {}): MemoryMesh {
  const made = new MemoryMesh(options)
  cleanups.push(() => made.stop())
  return made
}

async function serve(handle: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>()
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    handle(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as { port: number }).port
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts)
}

function until(condition: () => boolean, what: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const started = performance.now()
    const look = (): void => {
      if (condition()) resolve()
      else if (performance.now() - started > 10_000) reject(new Error(`never: ${what}`))
      else setTimeout(look, 5)
    }
    look()
  })
}

describe('a circuit through three engines', () => {
  test('echoes bytes both ways and keeps half-close', async () => {
    const port = await serve((socket) => socket.pipe(socket))
    const circuit = await mesh().circuit()
    const { stream, address } = await circuit.connect({ host: 'echo.example', port })
    expect(address).toBe('127.0.0.1')
    const sent = Buffer.from(suite.random(3_000_000))
    stream.end(sent)
    expect((await collect(stream)).equals(sent)).toBe(true)
    await until(() => circuit.openStreams === 0, 'the stream is over')
  })

  test('an answer after the client has ended its half arrives whole', async () => {
    const port = await serve((socket) => {
      socket.resume()
      socket.on('end', () => socket.end('bye'))
    })
    const circuit = await mesh().circuit()
    const { stream } = await circuit.connect({ host: 'h', port })
    stream.end('hello')
    expect((await collect(stream)).toString()).toBe('bye')
  })

  test('many streams at once do not mix', async () => {
    const port = await serve((socket) => socket.pipe(socket))
    const circuit = await mesh().circuit()
    await Promise.all(
      Array.from({ length: 40 }, async (_, i) => {
        const { stream } = await circuit.connect({ host: 'h', port })
        const sent = Buffer.alloc(50_000 + i * 777, i)
        stream.end(sent)
        expect((await collect(stream)).equals(sent)).toBe(true)
      }),
    )
  })

  test('a server that resets is seen as an error, never as an end', async () => {
    const port = await serve((socket) => {
      socket.write('partial', () => setTimeout(() => socket.resetAndDestroy(), 20))
    })
    const circuit = await mesh().circuit()
    const { stream } = await circuit.connect({ host: 'h', port })
    await expect(collect(stream)).rejects.toMatchObject({ reason: 'reset' })
  })

  test('a refused connection says so', async () => {
    const circuit = await mesh().circuit()
    await expect(circuit.connect({ host: 'h', port: 1 })).rejects.toMatchObject({ reason: 'refused' })
  })

  test('an application that lets go resets the server', async () => {
    let failure: NodeJS.ErrnoException | null = null
    const port = await serve((socket) => {
      socket.resume()
      socket.on('error', (error) => {
        failure = error
      })
    })
    const circuit = await mesh().circuit()
    const { stream } = await circuit.connect({ host: 'h', port })
    stream.write('x')
    stream.destroy()
    await until(() => failure !== null, 'the server sees a reset')
    expect(failure!.code).toBe('ECONNRESET')
  })

  test('a name is resolved at the exit', async () => {
    const circuit = await mesh().circuit()
    expect(await circuit.resolve('name.example')).toEqual([{ type: 'address', value: '127.0.0.1', ttlSeconds: 60 }])
  })

  test('datagrams come back', async () => {
    const circuit = await mesh().circuit()
    const got: string[] = []
    const association = circuit.openDatagrams(
      (from, bytes) => got.push(`${from.host}:${from.port} ${Buffer.from(bytes).toString()}`),
      () => {},
    )
    association.send({ host: '192.0.2.1', port: 53 }, Buffer.from('question'))
    await until(() => got.length > 0, 'the datagram comes back')
    expect(got).toEqual(['192.0.2.1:53 question'])
    association.close()
    expect(circuit.openStreams).toBe(0)
  })
})

describe('limits and refusals', () => {
  test('a relay extends only to relays of its view, and says which hop refused', async () => {
    const made = mesh({ known: (index) => index !== 2 })
    await expect(made.circuit()).rejects.toMatchObject({ end: { reason: 'unknown-relay', hop: 1, origin: 'remote' } })
  })

  test('a relay never extends to itself or back', async () => {
    const made = mesh()
    const [a, b] = made.relays
    await expect(made.circuit([a!, a!])).rejects.toMatchObject({ end: { reason: 'not-allowed', hop: 0 } })
    await expect(made.circuit([a!, b!, a!])).rejects.toMatchObject({ end: { reason: 'not-allowed', hop: 1 } })
  })

  test('a peer that is no relay gets no circuit where clients are not served', async () => {
    const made = mesh({ servesClients: false })
    await expect(made.circuit()).rejects.toBeInstanceOf(CircuitBuildError)
    expect(made.relays[0]!.engine.stats().refused).toEqual({ 'unknown-peer': 1 })
  })

  test('an exit serves no stream to a peer that is no relay', async () => {
    const made = mesh({ relays: 1 })
    const circuit = await made.circuit()
    await expect(circuit.connect({ host: 'h', port: 80 })).rejects.toMatchObject({ reason: 'not-exit' })
  })

  test('circuits of one client are bounded', async () => {
    const made = mesh({ config: { maxCircuitsPerClient: 2 } })
    await made.circuit()
    const second = await made.circuit()
    await expect(made.circuit()).rejects.toBeInstanceOf(CircuitBuildError)
    expect(made.relays[0]!.engine.stats().refused).toEqual({ 'circuits-of-peer': 1 })
    second.close('requested')
    await until(() => made.relays[0]!.engine.stats().circuits === 1, 'the guard has forgotten it')
    await made.circuit()
  })

  test('handshakes of one peer are rate-limited', async () => {
    const made = mesh({ config: { createsPerSecondPerPeer: 1 } })
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => made.circuit([made.relays[0]!])))
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(5)
    expect(made.relays[0]!.engine.stats().refused).toEqual({ 'creates-of-peer': 3 })
  })

  test('a relay that stops tells the client, and streams end with an error', async () => {
    const port = await serve((socket) => socket.write('first'))
    const made = mesh()
    const ends: CircuitEnd[] = []
    const circuit = await made.circuit(made.relays, (end) => ends.push(end))
    const { stream } = await circuit.connect({ host: 'h', port })
    const reading = collect(stream)
    made.relays[1]!.engine.stop()
    await expect(reading).rejects.toBeInstanceOf(StreamError)
    expect(ends).toMatchObject([{ reason: 'shutting-down', origin: 'remote', hop: 1 }])
  })

  test('a lost neighbour is named by the relay before it', async () => {
    const made = mesh()
    const ends: CircuitEnd[] = []
    await made.circuit(made.relays, (end) => ends.push(end))
    made.channels.find(({ to }) => to === made.relays[2]!.id)!.near.abort()
    await until(() => ends.length > 0, 'the client hears of it')
    expect(ends).toMatchObject([{ reason: 'channel-lost', origin: 'remote', hop: 1 }])
  })

  test('a closed circuit leaves nothing behind', async () => {
    const port = await serve((socket) => socket.pipe(socket))
    const made = mesh()
    const circuit = await made.circuit()
    const { stream } = await circuit.connect({ host: 'h', port })
    stream.on('error', () => {})
    stream.write(Buffer.alloc(500_000))
    circuit.close('requested')
    await until(() => made.relays.every(({ engine }) => engine.stats().circuits === 0), 'all relays have forgotten it')
    await until(
      () => [made.clientMeter, ...made.relays.map(({ meter }) => meter)].every(({ total }) => total === 0),
      'all meters are at zero',
    )
  })
})

test('beyond the byte budget the circuits with the oldest queued data are closed, and others go on', async () => {
  const chunk = Buffer.alloc(64 * 1024)
  const port = await serve((socket) => {
    const more = (): void => {
      while (socket.writable && socket.write(chunk));
    }
    socket.on('drain', more)
    more()
  })
  const echo = await serve((socket) => socket.pipe(socket))
  const made = mesh({ config: { queueBudgetBytes: 1 << 20 } })
  const ends: CircuitEnd[] = []
  for (let i = 0; i < 24; i++) {
    const circuit = await made.circuit(made.relays, (end) => ends.push(end))
    // The guard's channel to this client is never read: its window fills, then the guard's queue.
    const { stream } = await circuit.connect({ host: 'h', port })
    stream.on('error', () => {})
    made.channels.findLast(({ from }) => from === made.clientId)!.near.pause()
  }
  const guard = made.relays[0]!
  await until(() => (guard.engine.stats().closed.overloaded ?? 0) > 0, 'circuits are closed')
  expect(guard.meter.total).toBeLessThanOrEqual((1 << 20) + 64 * 1024)
  const circuit = await made.circuit()
  const { stream } = await circuit.connect({ host: 'h', port: echo })
  const sent = Buffer.from(suite.random(400_000))
  stream.end(sent)
  expect((await collect(stream)).equals(sent)).toBe(true)
})
