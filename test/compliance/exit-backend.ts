import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { parseIp } from '../../src/base/index.ts'
import type { Endpoint, ExitBackend, ExitSocket } from '../../src/egress/index.ts'
import { ExitRefusal } from '../../src/relaying/index.ts'

const never = new AbortController().signal

/** What every ExitBackend has to do. Run it with a backend that reaches this machine's loopback, IPv4 and IPv6. */
export function exitBackendCompliance(name: string, create: () => ExitBackend): void {
  describe(`exit backend: ${name}`, () => {
    const open: { close(): unknown }[] = []
    afterEach(() => {
      for (const one of open.splice(0)) one.close()
    })

    async function listen(handler: (socket: Socket) => void, host = '127.0.0.1'): Promise<Endpoint> {
      const sockets = new Set<Socket>()
      const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
        sockets.add(socket)
        socket.on('error', () => {})
        handler(socket)
      })
      server.listen(0, host)
      await once(server, 'listening')
      open.push({
        close: () => {
          for (const socket of sockets) socket.destroy()
          server.close()
        },
      })
      return { address: parseIp(host), port: (server.address() as AddressInfo).port }
    }

    async function connect(to: Endpoint): Promise<ExitSocket> {
      const socket = await create().connect(to, never)
      open.push({ close: () => socket.destroy() })
      return socket
    }

    for (const host of ['127.0.0.1', '::1']) {
      it(`carries bytes both ways over ${host}, and counts them`, async () => {
        const socket = await connect(await listen((peer) => peer.pipe(peer), host))
        socket.write('there and back')
        const [bytes] = (await once(socket, 'data')) as [Uint8Array]
        expect(Buffer.from(bytes).toString()).toBe('there and back')
        expect(socket.bytesRead).toBe(14)
        expect(socket.bytesWritten).toBe(14)
      })
    }

    it('keeps half-close: the server reads to the end and answers afterwards', async () => {
      const to = await listen((peer) => {
        let length = 0
        peer.on('data', (chunk) => {
          length += chunk.length
        })
        peer.on('end', () => peer.end(`got ${length}`))
      })
      const socket = await connect(to)
      socket.end('12345')
      expect(await text(socket)).toBe('got 5')
    })

    it('keeps half-close the other way: it writes on after the server ended', async () => {
      let received = ''
      const to = await listen((peer) => {
        peer.end('hello')
        peer.on('data', (chunk) => {
          received += chunk
        })
      })
      const socket = await connect(to)
      expect(await text(socket)).toBe('hello')
      socket.end('late')
      await once(socket, 'close')
      await until(() => received === 'late')
    })

    it("shows the server's reset as an error, not as an end", async () => {
      const to = await listen((peer) => {
        peer.write('some', () => setTimeout(() => peer.resetAndDestroy(), 20))
      })
      const socket = await connect(to)
      let ended = false
      socket.on('end', () => {
        ended = true
      })
      socket.resume()
      const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException]
      expect(error.code).toBe('ECONNRESET')
      expect(ended).toBe(false)
    })

    it('resets towards the server when told to', async () => {
      let failed: string | undefined
      const to = await listen((peer) => {
        peer.on('error', (error: NodeJS.ErrnoException) => {
          failed = error.code
        })
        peer.resume()
      })
      const socket = await connect(to)
      socket.resetAndDestroy()
      await until(() => failed === 'ECONNRESET')
    })

    it('is closed by a reset at any time, also while it says its own end', async () => {
      const seen: string[] = []
      const to = await listen((peer) => {
        peer.on('error', (error: NodeJS.ErrnoException) => seen.push(error.code!))
        peer.on('end', () => seen.push('end'))
        peer.on('data', () => {})
      })
      for (const end of [() => {}, (socket: ExitSocket) => socket.end(), (socket: ExitSocket) => socket.end('last words')]) {
        const socket = await connect(to)
        end(socket)
        const closed = once(socket, 'close')
        socket.resetAndDestroy()
        await closed
      }
      await until(() => seen.length >= 3)
    })

    it('refuses with "refused" where nobody listens', async () => {
      const port = await unusedPort()
      await expect(create().connect({ address: parseIp('127.0.0.1'), port }, never)).rejects.toMatchObject({ reason: 'refused' })
      await expect(create().connect({ address: parseIp('127.0.0.1'), port }, never)).rejects.toBeInstanceOf(ExitRefusal)
    })

    it('refuses with "unreachable" where no way leads', async () => {
      await expect(create().connect({ address: parseIp('255.255.255.255'), port: 9 }, never)).rejects.toMatchObject({
        reason: 'unreachable',
      })
    })

    it("gives up with the signal's reason, before and while connecting", async () => {
      const gone = new ExitRefusal('timeout', 'given up')
      const to = await listen(() => {})
      await expect(create().connect(to, AbortSignal.abort(gone))).rejects.toBe(gone)
      const abort = new AbortController()
      const connecting = create().connect(to, abort.signal)
      abort.abort(gone)
      await expect(connecting).rejects.toBe(gone)
    })

    it('does not read on while nobody reads', async () => {
      let sent = 0
      const to = await listen((peer) => {
        const chunk = Buffer.alloc(65_536)
        const more = (): void => {
          while (!peer.destroyed && sent < 256e6) {
            sent += chunk.length
            if (!peer.write(chunk)) return
          }
        }
        peer.on('drain', more)
        more()
      })
      const socket = await connect(to)
      await sleep(200)
      const after = sent
      expect(after).toBeLessThan(64e6)
      await sleep(100)
      expect(sent).toBe(after)
      expect(socket.bytesRead).toBeLessThan(1e6)
    })

    it('carries 64 MB intact', async () => {
      const total = 64 * 1_048_576
      const to = await listen((peer) => {
        const chunk = Buffer.allocUnsafe(1_048_576)
        let at = 0
        const more = (): void => {
          while (at < total) {
            for (let i = 0; i < chunk.length; i += 4096) chunk.writeUInt32BE((at + i) >>> 12, i)
            at += chunk.length
            if (!peer.write(Buffer.from(chunk))) return
          }
          peer.end()
        }
        peer.on('drain', more)
        more()
      })
      const socket = await connect(to)
      let at = 0
      let wrong = 0
      let carry = Buffer.alloc(0)
      for await (const chunk of socket as AsyncIterable<Buffer>) {
        const bytes = carry.length > 0 ? Buffer.concat([carry, chunk]) : chunk
        const whole = bytes.length - (bytes.length % 4096)
        for (let i = 0; i < whole; i += 4096) if (bytes.readUInt32BE(i) !== (at + i) >>> 12) wrong++
        at += whole
        carry = Buffer.from(bytes.subarray(whole))
      }
      expect({ at: at + carry.length, wrong }).toEqual({ at: total, wrong: 0 })
    })

    for (const host of ['127.0.0.1', '::1']) {
      it(`carries datagrams both ways over ${host}, from one port to every peer`, async () => {
        const seen: { port: number; text: string }[] = []
        const peers = await Promise.all([udpEcho(host, seen), udpEcho(host, seen)])
        open.push(...peers)
        const answers: string[] = []
        const port = create().openUdp(
          host === '::1' ? 6 : 4,
          (bytes, from) => answers.push(`${Buffer.from(bytes)} from ${from.port}`),
          () => {},
        )
        open.push(port)
        const ports = peers.map((peer) => peer.address().port)
        // The first goes out before the socket is even bound.
        port.send(Buffer.from('one'), { address: parseIp(host), port: ports[0]! })
        port.send(Buffer.from('two'), { address: parseIp(host), port: ports[1]! })
        await until(() => answers.length === 2)
        expect(answers.sort()).toEqual([`one from ${ports[0]}`, `two from ${ports[1]}`].sort())
        expect(new Set(seen.map((one) => one.port)).size).toBe(1)
        expect(port.queuedBytes).toBe(0)
      })
    }

    it('loses a datagram that is too long without failing, and says nothing after close', async () => {
      const peer = await udpEcho('127.0.0.1', [])
      open.push(peer)
      const answers: string[] = []
      let failed = 0
      const port = create().openUdp(
        4,
        (bytes) => answers.push(String(bytes)),
        () => failed++,
      )
      const to = { address: parseIp('127.0.0.1'), port: peer.address().port }
      port.send(Buffer.alloc(70_000), to)
      port.send(Buffer.from('fits'), to)
      await until(() => answers.length === 1)
      port.close()
      port.close()
      port.send(Buffer.from('too late'), to)
      await sleep(30)
      expect({ answers, failed }).toEqual({ answers: ['fits'], failed: 0 })
    })
  })
}

async function text(socket: ExitSocket): Promise<string> {
  let all = ''
  for await (const chunk of socket as AsyncIterable<Uint8Array>) all += Buffer.from(chunk).toString()
  return all
}

async function udpEcho(host: string, seen: { port: number; text: string }[]): Promise<UdpSocket> {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
  socket.on('message', (bytes, from) => {
    seen.push({ port: from.port, text: bytes.toString() })
    socket.send(bytes, from.port, from.address)
  })
  socket.bind(0, host)
  await once(socket, 'listening')
  return socket
}

async function unusedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 5000
  while (!condition()) {
    if (Date.now() > end) throw new Error('waited 5 s in vain')
    await sleep(5)
  }
}
