import { createServer, type Socket, connect as tcpConnect } from 'node:net'
import { createServer as createTlsServer, type TLSSocket, connect as tlsConnect } from 'node:tls'
import { splitAddress } from '../support/socks-client.ts'

/**
 * A plain chain of proxies over TLS 1.3, one process each: what a mesh with the same number of processes and links is compared with.
 * No cells, no layers, no circuits: a SOCKS5 front opens a TLS connection for each stream, the hops pipe, the last one connects.
 *
 *     node test/bench/tls-chain.ts front LISTEN NEXT        SOCKS5 CONNECT in, TLS out
 *     node test/bench/tls-chain.ts hop LISTEN NEXT          TLS in, TLS out
 *     node test/bench/tls-chain.ts exit LISTEN              TLS in, TCP out to the target that the front named
 *
 * Each prints its address when it listens. Hops take their certificate from CHAIN_CERT and CHAIN_KEY (PEM).
 */
const [role, listen, next] = process.argv.slice(2)
const [host, port] = splitAddress(listen!)
const [nextHost, nextPort] = next ? splitAddress(next) : ['', 0]
const options = {
  cert: process.env.CHAIN_CERT,
  key: process.env.CHAIN_KEY,
  minVersion: 'TLSv1.3',
  allowHalfOpen: true,
  noDelay: true,
} as const

function openNext(): TLSSocket {
  const socket = tcpConnect({ host: nextHost, port: nextPort, noDelay: true, allowHalfOpen: true })
  return tlsConnect({ socket, minVersion: 'TLSv1.3', rejectUnauthorized: false })
}

/** Bytes both ways until both have ended; a failure of one is the end of the other. */
function join(a: Socket, b: Socket): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.on('error', () => to.destroy())
    from.on('close', () => {
      if (!from.readableEnded) to.destroy()
    })
    from.pipe(to)
  }
}

/** Reads until `enough` gives a length, then puts the rest back and calls `done` with that many bytes. */
function readHead(socket: Socket, enough: (held: Buffer) => number, done: (head: Buffer) => void): void {
  let held = Buffer.alloc(0)
  const onData = (bytes: Buffer): void => {
    held = Buffer.concat([held, bytes])
    const length = enough(held)
    if (length === 0) return
    socket.off('data', onData).pause()
    if (held.length > length) socket.unshift(held.subarray(length))
    done(held.subarray(0, length))
  }
  socket.on('data', onData).resume()
}

/** The front's word to the exit: ATYP, address and port as in SOCKS5. */
function targetLength(held: Buffer, at: number): number {
  if (held.length < at + 2) return 0
  const size = held[at] === 1 ? 7 : held[at] === 4 ? 19 : 4 + held[at + 1]!
  return held.length < at + size ? 0 : at + size
}

function front(near: Socket): void {
  near.on('error', () => near.destroy())
  readHead(
    near,
    (held) => (held.length >= 2 && held.length >= 2 + held[1]! ? 2 + held[1]! : 0),
    (greeting) => {
      const login = greeting.includes(2, 2)
      near.write(Uint8Array.of(5, login ? 2 : 0))
      if (!login) return requested()
      const whole = (held: Buffer): number => {
        if (held.length < 2) return 0
        const user = 2 + held[1]!
        return held.length > user && held.length > user + held[user]! ? user + held[user]! + 1 : 0
      }
      readHead(near, whole, () => {
        near.write(Uint8Array.of(1, 0))
        requested()
      })
    },
  )
  const requested = (): void =>
    readHead(
      near,
      (held) => targetLength(held, 3),
      (request) => {
        const far = openNext()
        far.on('error', () => near.destroy())
        far.write(request.subarray(3))
        readHead(
          far,
          () => 1,
          (answer) => {
            near.write(Uint8Array.of(5, answer[0]!, 0, 1, 0, 0, 0, 0, 0, 0))
            if (answer[0] === 0) join(near, far)
            else near.end()
          },
        )
      },
    )
}

function exit(near: Socket): void {
  near.on('error', () => near.destroy())
  readHead(
    near,
    (held) => targetLength(held, 0),
    (head) => {
      const address = head.subarray(head[0] === 3 ? 2 : 1, -2)
      const name =
        head[0] === 1 ? address.join('.') : head[0] === 4 ? (address.toString('hex').match(/.{4}/g) ?? []).join(':') : address.toString()
      const far = tcpConnect({ host: name, port: head.readUInt16BE(head.length - 2), noDelay: true, allowHalfOpen: true })
      const refused = (): void => {
        near.end(Uint8Array.of(5))
      }
      far.once('error', refused)
      far.once('connect', () => {
        far.off('error', refused)
        near.write(Uint8Array.of(0))
        join(near, far)
      })
    },
  )
}

const server =
  role === 'front'
    ? createServer({ allowHalfOpen: true, noDelay: true }, front)
    : createTlsServer(options as Parameters<typeof createTlsServer>[0], role === 'exit' ? exit : (near) => join(near, openNext()))
server.listen(port, host, 4096, () => {
  const bound = server.address() as { address: string; port: number }
  console.log(`${bound.address}:${bound.port}`)
})
