import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { silentLogger } from '../../../src/base/index.ts'
import type { StreamErrorReason } from '../../../src/client/index.ts'
import { HttpProxy, httpConfig } from '../../../src/ingress/index.ts'
import { curl } from '../../support/curl.ts'
import { DirectClientService } from '../../support/direct-client-service.ts'

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

let client: DirectClientService
beforeEach(() => {
  client = new DirectClientService()
  client.names.set('site.example', '127.0.0.1')
  client.names.set('other.example', '127.0.0.1')
})

async function start(config: object = {}): Promise<{ server: HttpProxy; proxy: string; port: number }> {
  const server = new HttpProxy(httpConfig.parse({ listen: ['127.0.0.1:0'], ...config }), { client, logger: silentLogger })
  await server.start()
  closers.push(() => server.stop())
  const address = server.addresses[0]!
  return { server, proxy: `http://${address}`, port: Number(address.split(':').at(-1)) }
}

async function web(handler: RequestListener, change: (server: Server) => void = () => {}): Promise<number> {
  const server = createServer(handler)
  change(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closers.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** A server that speaks bytes. */
async function tcp(handler: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>()
  const server = createTcpServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    handler(socket)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  closers.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** Bytes to the proxy, as they are; what came back, and how the connection ended. */
async function dial(port: number) {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  let text = ''
  let ended: 'fin' | 'reset' | null = null
  socket.setEncoding('latin1')
  socket.on('data', (chunk: string) => {
    text += chunk
  })
  socket.on('end', () => {
    ended = 'fin'
  })
  socket.on('error', () => {
    ended = 'reset'
  })
  await once(socket, 'connect')
  closers.push(() => socket.destroy())
  return {
    socket,
    ended: () => ended,
    text: () => text,
    until: async (pattern: RegExp): Promise<string> => {
      await eventually(() => pattern.test(text) || ended !== null)
      expect(text).toMatch(pattern)
      return text
    },
  }
}

async function raw(port: number, request: string, pattern = /\r\n\r\n/): Promise<string> {
  const connection = await dial(port)
  connection.socket.write(request, 'latin1')
  const text = await connection.until(pattern)
  connection.socket.destroy()
  return text
}

async function eventually(condition: () => boolean): Promise<void> {
  const end = Date.now() + 5000
  while (!condition()) {
    if (Date.now() > end) throw new Error('waited 5 s in vain')
    await sleep(5)
  }
}

const pairs = (message: IncomingMessage): string[] => message.rawHeaders.map((field, i) => (i % 2 === 0 ? field.toLowerCase() : field))

describe('plain requests', () => {
  it('are passed on in origin-form, without what is for this hop and without a trace of the proxy', async () => {
    const { proxy } = await start()
    let seen: string[] = []
    let url = ''
    const port = await web((request, response) => {
      seen = pairs(request)
      url = request.url ?? ''
      response.end('ok')
    })
    const result = await curl(
      '-x',
      proxy,
      '-U',
      'me:secret',
      '-H',
      'X-Mine: 1',
      '-H',
      'Connection: X-Hop',
      '-H',
      'X-Hop: 1',
      `http://site.example:${port}/a/%7Eb?c=d`,
    )
    expect(result.out).toBe('ok')
    expect(url).toBe('/a/%7Eb?c=d')
    expect(seen.filter((_, i) => i % 2 === 0).sort()).toEqual(['accept', 'connection', 'host', 'user-agent', 'x-mine'])
    expect(seen).toContain(`site.example:${port}`)
    expect(seen.join()).not.toMatch(/via|forwarded|proxy|secret/i)
  })

  it('keep their connections on both sides', async () => {
    const { proxy } = await start()
    const sockets = new Set<unknown>()
    const port = await web((request, response) => {
      sockets.add(request.socket)
      response.end(request.url)
    })
    const url = (path: string): string => `http://site.example:${port}/${path}`
    const result = await curl('-x', proxy, '-w', ' %{num_connects} ', url('a'), url('b'), url('c'))
    expect(result.out).toBe('/a 1 /b 0 /c 0 ')
    expect(client.asked).toHaveLength(1)
    expect(sockets.size).toBe(1)
    // Another connection of the same application shares the idle stream; other credentials do not.
    await curl('-x', proxy, url('d'))
    expect(client.asked).toHaveLength(1)
    await curl('-x', proxy, '-U', 'x:y', url('e'))
    expect(client.asked).toHaveLength(2)
    expect(new Set(client.asked.map((one) => one.isolation)).size).toBe(2)
  })

  it('carry bodies both ways, of known and of unknown length', async () => {
    const { proxy } = await start()
    const seen: (string | undefined)[] = []
    const port = await web((request, response) => {
      const hash = createHash('sha256')
      seen.push(request.headers['transfer-encoding'] ?? request.headers['content-length'])
      request.on('data', (chunk) => hash.update(chunk))
      request.on('end', () => response.end(hash.digest('hex')))
    })
    const url = `http://site.example:${port}/`
    const known = await curl('-x', proxy, '-T', process.execPath, url)
    const unknown = await curl('-x', proxy, '-T', process.execPath, '-H', 'Transfer-Encoding: chunked', url)
    expect(known.out).toMatch(/^[0-9a-f]{64}$/)
    expect(unknown.out).toBe(known.out)
    expect(seen[0]).toMatch(/^\d+$/)
    expect(seen[1]).toBe('chunked')
    expect((await curl('-x', proxy, '-X', 'POST', url)).code).toBe(0)
    expect(seen[2]).toBe('0')
  })

  it.each(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'PROPFIND'])('pass %s on', async (method) => {
    const { port: proxy } = await start()
    const port = await web((request, response) => {
      response.setHeader('X-Method', request.method ?? '')
      response.end(request.url)
    })
    const answer = await raw(proxy, `${method} http://site.example:${port} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(answer).toContain(`X-Method: ${method}\r\n`)
  })

  it('give the answer as it is: status, fields in order and as often as they came, nothing added but framing', async () => {
    const { port: proxy } = await start()
    const port = await tcp((socket) => {
      socket.once('data', () =>
        socket.write(
          'HTTP/1.1 299 Quite Fine\r\nX-b: 2\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nContent-Length: 2\r\n\r\nhi',
        ),
      )
    })
    const answer = await raw(proxy, `GET http://site.example:${port}/ HTTP/1.1\r\nHost: x\r\n\r\n`, /hi$/)
    const fields = answer.split('\r\n\r\n')[0]!.split('\r\n')
    expect(fields.slice(0, 5)).toEqual(['HTTP/1.1 299 Quite Fine', 'X-b: 2', 'Set-Cookie: a=1', 'set-cookie: b=2', 'Content-Length: 2'])
    expect(answer).not.toMatch(/x-hop|date:|via:|timeout=9/i)
  })

  it('name the host of the target to the server, whatever Host said', async () => {
    const { port: proxy } = await start()
    let host: string | undefined
    const port = await web((request, response) => {
      host = request.headers.host
      response.end('ok')
    })
    await raw(proxy, `GET http://site.example:${port}/ HTTP/1.1\r\nHost: other.example\r\n\r\n`, /ok/)
    expect(host).toBe(`site.example:${port}`)
  })

  it('wait for the 100 of the server', async () => {
    const { port: proxy } = await start()
    const port = await web(
      () => {},
      (server) =>
        server.on('checkContinue', (request, response) => {
          if (request.url === '/no') {
            response.writeHead(417).end()
            return
          }
          response.writeContinue()
          request.on('data', () => {}).on('end', () => response.end('thanks'))
        }),
    )
    const connection = await dial(proxy)
    const head = (path: string): string =>
      `POST http://site.example:${port}/${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n`
    connection.socket.write(head('yes'))
    await connection.until(/^HTTP\/1\.1 100 Continue\r\n\r\n/)
    connection.socket.write('body')
    await connection.until(/thanks/)
    expect(await raw(proxy, head('no'))).toMatch(/^HTTP\/1\.1 417 /)
  })

  it('get the early hints of the server, and not its other interim answers', async () => {
    const { port: proxy } = await start()
    const port = await tcp((socket) => {
      socket.once('data', () =>
        socket.write(
          'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n' +
            'HTTP/1.1 103 Early Hints\r\nLink: nonsense\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi',
        ),
      )
    })
    const answer = await raw(proxy, `GET http://site.example:${port}/ HTTP/1.1\r\nHost: x\r\n\r\n`, /hi$/)
    expect(answer).toMatch(/^HTTP\/1\.1 103 Early Hints\r\nLink: <\/a\.css>; rel=preload\r\n\r\nHTTP\/1\.1 200 OK\r\n/)
  })

  it('are sent again when an idle connection turned out to be gone, if they may be', async () => {
    const { proxy } = await start()
    let connections = 0
    const port = await tcp((socket) => {
      connections++
      let first = true
      socket.on('data', () => {
        // One answer a connection; the next question finds it gone.
        if (first) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
        else socket.resetAndDestroy()
        first = false
      })
    })
    const url = `http://site.example:${port}/`
    expect((await curl('-x', proxy, url, url)).out).toBe('okok')
    expect(connections).toBe(2)
    const post = await curl('-x', proxy, '-o', '/dev/null', '-w', '%{http_code}', '-d', 'x', url)
    expect(post.out).toBe('502')
    expect(connections).toBe(2)
  })

  it('that lose their server in the middle are reset, never closed as if complete', async () => {
    const { port: proxy } = await start()
    const heads = ['Content-Length: 100\r\n', 'Transfer-Encoding: chunked\r\n', '']
    const port = await tcp((socket) => {
      socket.once('data', (question) => {
        const head = heads[Number(/GET \/(\d)/.exec(String(question))?.[1])] ?? ''
        socket.write(`HTTP/1.1 200 OK\r\n${head}\r\n${head.includes('chunked') ? '5\r\nhello\r\n' : 'hello'}`, () =>
          setTimeout(() => socket.resetAndDestroy(), 30),
        )
      })
    })
    for (const i of heads.keys()) {
      const connection = await dial(proxy)
      connection.socket.write(`GET http://site.example:${port}/${i} HTTP/1.${i === 2 ? 0 : 1}\r\nHost: x\r\n\r\n`)
      await connection.until(/hello/)
      await eventually(() => connection.ended() !== null)
      expect(connection.ended(), `framing ${i}`).toBe('reset')
    }
  })

  it('that lose their stream without any error, where only its end marks the end, are reset too', async () => {
    const { port: proxy } = await start()
    const port = await tcp((socket) => socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\n\r\nhello')))
    const connection = await dial(proxy)
    connection.socket.write(`GET http://site.example:${port}/ HTTP/1.1\r\nHost: x\r\n\r\n`)
    await connection.until(/hello/)
    for (const stream of client.streams) stream.destroy()
    await eventually(() => connection.ended() !== null)
    expect(connection.ended()).toBe('reset')
  })

  it('whose answer ends with its connection are complete', async () => {
    const { proxy } = await start()
    const port = await tcp((socket) => socket.once('data', () => socket.end('HTTP/1.0 200 OK\r\n\r\nall of it')))
    expect(await curl('-x', proxy, `http://site.example:${port}/`)).toEqual({ code: 0, out: 'all of it', error: '' })
  })

  it('are given up when the application goes away', async () => {
    const { port: proxy } = await start()
    const port = await web(() => {})
    const connection = await dial(proxy)
    connection.socket.write(`GET http://site.example:${port}/ HTTP/1.1\r\nHost: x\r\n\r\n`)
    await eventually(() => client.streams.size === 1)
    connection.socket.resetAndDestroy()
    await eventually(() => client.streams.size === 0)
  })

  it('close idle streams after their time, and keep no more than allowed', async () => {
    const { proxy, server } = await start({ upstreamIdleTimeoutMs: 150, maxIdleUpstream: 1 })
    const port = await web((_, response) => response.end('ok'))
    await Promise.all([curl('-x', proxy, `http://site.example:${port}/`), curl('-x', proxy, `http://other.example:${port}/`)])
    await eventually(() => client.streams.size <= 1)
    await eventually(() => client.streams.size === 0 && server.counts.idleUpstream === 0)
  })

  it('come back unharmed 64 at once', async () => {
    const { proxy } = await start()
    const port = await web((request, response) => response.end(Buffer.alloc(200_000, request.url)))
    const results = await Promise.all(
      Array.from({ length: 4 }, (_, i) =>
        curl('-x', proxy, '-Z', '--parallel-max', '16', ...Array.from({ length: 16 }, (_, j) => `http://site.example:${port}/${i}-${j}`)),
      ),
    )
    for (const { out, code } of results) expect({ length: out.length, code }).toEqual({ length: 16 * 200_000, code: 0 })
  })
})

describe('CONNECT', () => {
  it('carries bytes both ways, and half-close', async () => {
    const { port: proxy } = await start()
    const port = await tcp((socket) => {
      let text = ''
      socket.on('data', (chunk) => {
        text += chunk
      })
      socket.on('end', () => socket.end(`got ${text}`))
    })
    const connection = await dial(proxy)
    connection.socket.end(`CONNECT site.example:${port} HTTP/1.1\r\nHost: x\r\n\r\nearly and all`)
    expect(await connection.until(/got/)).toBe('HTTP/1.1 200 Connection established\r\n\r\ngot early and all')
    await eventually(() => connection.ended() === 'fin')
  })

  it('is what curl takes, also twice on one connection', async () => {
    const { proxy } = await start()
    const port = await web((request, response) => response.end(request.url))
    const url = `http://site.example:${port}/`
    expect((await curl('-p', '-x', proxy, `${url}a`, `${url}b`)).out).toBe('/a/b')
    expect(client.asked).toHaveLength(1)
  })

  it('is reset when the circuit is lost', async () => {
    const { port: proxy, server } = await start()
    const port = await tcp((socket) => socket.write('part'))
    const connection = await dial(proxy)
    connection.socket.write(`CONNECT site.example:${port} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await connection.until(/part/)
    client.loseCircuits()
    await eventually(() => connection.ended() !== null)
    expect(connection.ended()).toBe('reset')
    await eventually(() => server.counts.open === 0)
  })

  it('that stays silent is not closed by the time-outs of requests', async () => {
    const { port: proxy } = await start({ headersTimeoutMs: 100, keepAliveTimeoutMs: 100, idleTimeoutMs: 1000 })
    const port = await tcp((socket) => socket.pipe(socket))
    const connection = await dial(proxy)
    connection.socket.write(`CONNECT site.example:${port} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await connection.until(/established/)
    await sleep(1500)
    connection.socket.write('still here')
    await connection.until(/still here/)
  })
})

describe('what does not open', () => {
  it.each<[StreamErrorReason, number, string]>([
    ['refused', 502, 'connection_refused'],
    ['resolve-failed', 502, 'dns_error'],
    ['unreachable', 502, 'destination_ip_unroutable'],
    ['timeout', 504, 'connection_timeout'],
    ['policy', 403, 'destination_ip_prohibited'],
    ['reset', 502, 'connection_terminated'],
    ['circuit-lost', 502, 'connection_terminated'],
    ['no-circuit', 503, 'destination_unavailable'],
    ['resource-limit', 503, 'connection_limit_reached'],
    ['internal', 502, 'proxy_internal_error'],
  ])('because of "%s" is answered with %i and %s', async (reason, status, word) => {
    const { port: proxy } = await start()
    client.failures.set('site.example:80', reason)
    client.failures.set('site.example:443', reason)
    const plain = await raw(proxy, 'GET http://site.example/ HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n', /<\/html>/)
    const tunnel = await raw(proxy, 'CONNECT site.example:443 HTTP/1.1\r\nHost: x\r\n\r\n', /\r\n\r\n.*\n/)
    for (const answer of [plain, tunnel]) {
      expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
      expect(answer).toContain(`Proxy-Status: shallot; error=${word}\r\n`)
    }
    expect(plain).toContain('text/html')
    expect(tunnel).toContain('text/plain')
  })

  it('in time is answered with 504', async () => {
    const { port: proxy } = await start({ connectTimeoutMs: 100 })
    client.connect = (_, options) =>
      new Promise((_, reject) => options.signal?.addEventListener('abort', () => reject(options.signal?.reason)))
    expect(await raw(proxy, 'GET http://site.example/ HTTP/1.1\r\nHost: x\r\n\r\n')).toMatch(/^HTTP\/1\.1 504 /)
    expect(await raw(proxy, 'CONNECT site.example:443 HTTP/1.1\r\nHost: x\r\n\r\n')).toMatch(/^HTTP\/1\.1 504 /)
  })

  it.each([
    ['https://', 'GET https://site.example/ HTTP/1.1', 400],
    ['another scheme', 'GET ftp://site.example/ HTTP/1.1', 400],
    ['a bad host', 'GET http://bad_host-/ HTTP/1.1', 400],
    ['an address in an old notation', 'GET http://2130706433/ HTTP/1.1', 400],
    ['CONNECT without a port', 'CONNECT site.example HTTP/1.1', 400],
    ['CONNECT to port 0', 'CONNECT site.example:0 HTTP/1.1', 400],
    ['a request to the proxy itself', 'GET / HTTP/1.1', 400],
    ['OPTIONS *', 'OPTIONS * HTTP/1.1', 400],
  ])('because of %s is refused', async (_, line, status) => {
    const { port: proxy } = await start()
    expect(await raw(proxy, `${line}\r\nHost: x\r\n\r\n`)).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    expect(client.asked).toEqual([])
  })

  it('because the server does not speak HTTP, or says nothing, is answered with 502', async () => {
    const { port: proxy } = await start()
    const noise = await tcp((socket) => socket.end('SSH-2.0-something\r\n'))
    const silence = await tcp((socket) => socket.end())
    expect(await raw(proxy, `GET http://site.example:${noise}/ HTTP/1.1\r\nHost: x\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 502 [\s\S]*error=http_protocol_error/,
    )
    expect(await raw(proxy, `GET http://site.example:${silence}/ HTTP/1.1\r\nHost: x\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 502 [\s\S]*error=connection_terminated/,
    )
  })

  it('because the head of the answer is too long is answered with 502', async () => {
    const { port: proxy } = await start({ maxHeaderBytes: 4096 })
    const port = await web((_, response) => response.setHeader('X', 'x'.repeat(8000)).end())
    expect(await raw(proxy, `GET http://site.example:${port}/ HTTP/1.1\r\nHost: x\r\n\r\n`)).toMatch(/^HTTP\/1\.1 502 /)
  })
})

describe('unsound requests', () => {
  const smuggled: [string, string][] = [
    ['Content-Length and Transfer-Encoding', 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['Transfer-Encoding and Content-Length', 'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n'],
    ['two lengths', 'Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello'],
    ['the same length twice', 'Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello'],
    ['a list of lengths', 'Content-Length: 5, 5\r\n\r\nhello'],
    ['a signed length', 'Content-Length: +5\r\n\r\nhello'],
    ['a coding that hides chunked', 'Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n'],
    ['chunked not last', 'Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n'],
    ['chunked twice', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['a space before the colon', 'Content-Length : 5\r\n\r\nhello'],
    ['a folded field', 'X: a\r\n b\r\nContent-Length:\r\n 5\r\n\r\nhello'],
    ['a bare carriage return', 'X: a\rContent-Length: 5\r\n\r\nhello'],
    ['a zero byte', 'X: a\0b\r\n\r\n'],
    ['a chunk size with noise', 'Transfer-Encoding: chunked\r\n\r\n5z\r\nhello\r\n0\r\n\r\n'],
    ['a negative chunk size', 'Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n'],
  ]
  it.each(smuggled)('with %s are refused, and nothing of them is carried out twice', async (_, rest) => {
    const { port: proxy } = await start()
    const seen: string[] = []
    const port = await web((request, response) => {
      seen.push(`${request.method} ${request.url}`)
      request.on('error', () => {})
      request.resume().on('end', () => response.end('ok'))
    })
    const hidden = `GET http://site.example:${port}/smuggled HTTP/1.1\r\nHost: x\r\n\r\n`
    const connection = await dial(proxy)
    connection.socket.write(`POST http://site.example:${port}/first HTTP/1.1\r\nHost: x\r\n${rest}${hidden}`, 'latin1')
    await eventually(() => connection.ended() !== null || /\r\n\r\n/.test(connection.text()))
    await sleep(30)
    expect(connection.text()).toMatch(/^(HTTP\/1\.1 (400|501) |$)/)
    expect(seen.filter((one) => one.includes('smuggled'))).toEqual([])
  })

  it('with too long a head are answered with 431', async () => {
    const { port: proxy } = await start({ maxHeaderBytes: 4096 })
    expect(await raw(proxy, `GET http://site.example/ HTTP/1.1\r\nX: ${'x'.repeat(8000)}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431 /)
  })

  it('with too long a body are answered with 413, of known and of unknown length', async () => {
    const { port: proxy } = await start({ maxBodyBytes: 1000 })
    const port = await web((request, response) => request.resume().on('end', () => response.end('ok')))
    const line = `POST http://site.example:${port}/ HTTP/1.1\r\nHost: x\r\n`
    expect(await raw(proxy, `${line}Content-Length: 1001\r\n\r\n`)).toMatch(/^HTTP\/1\.1 413 /)
    expect(await raw(proxy, `${line}Transfer-Encoding: chunked\r\n\r\n7d0\r\n${'x'.repeat(2000)}\r\n`)).toMatch(/^HTTP\/1\.1 413 /)
    expect(await raw(proxy, `${line}Content-Length: 1000\r\n\r\n${'x'.repeat(1000)}`)).toMatch(/^HTTP\/1\.1 200 /)
  })

  it('that come too slowly are answered with 408', async () => {
    const { port: proxy } = await start({ headersTimeoutMs: 150 })
    const connection = await dial(proxy)
    connection.socket.write('GET http://site.example/ HTTP/1.1\r\nX: ')
    await connection.until(/^HTTP\/1\.1 408 /)
    await eventually(() => connection.ended() !== null)
  })

  it('of noise are answered with 400, and the listener goes on', async () => {
    const { port: proxy, server } = await start()
    for (const noise of [
      '\x05\x01\x00',
      '\x16\x03\x01\x02\x00\x01\x00\x01\xfc',
      'hello\r\n\r\n',
      'GET http://site.example/ HTTP/9.9\r\n\r\n',
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    ]) {
      expect(await raw(proxy, noise)).toMatch(/^HTTP\/1\.1 400 /)
    }
    await eventually(() => server.counts.open === 0)
  })
})

describe('who may use it', () => {
  it('is asked for credentials where they are required', async () => {
    const { proxy } = await start({ requireCredentials: true, credentials: [{ user: 'u', password: 'right' }] })
    const port = await web((_, response) => response.end('ok'))
    const url = `http://site.example:${port}/`
    const status = async (...args: string[]): Promise<string> =>
      (await curl('-x', proxy, '-o', '/dev/null', '-w', '%{http_code} %{http_connect}', ...args, url)).out
    expect(await status()).toBe('407 000')
    expect(await status('-U', 'u:wrong')).toBe('407 000')
    expect(await status('-U', 'u:right')).toBe('200 000')
    expect(await status('-p')).toBe('000 407')
    expect(await status('-p', '-U', 'u:right')).toBe('200 200')
    expect(client.asked.length).toBeLessThanOrEqual(2)
  })

  it('is told so when there are too many connections', async () => {
    const { port: proxy, server } = await start({ maxConnections: 1 })
    const port = await web((_, response) => response.end('ok'))
    const request = `GET http://site.example:${port}/ HTTP/1.1\r\nHost: x\r\n\r\n`
    const first = await dial(proxy)
    first.socket.write(request)
    await first.until(/ok/)
    const second = await dial(proxy)
    second.socket.write(request)
    await second.until(/^HTTP\/1\.1 503 [\s\S]*Connection: close/)
    await eventually(() => second.ended() !== null)
    expect(server.counts.refused).toBeGreaterThan(0)
  })

  it('is found in use when the port is', async () => {
    const { server } = await start()
    const again = new HttpProxy(httpConfig.parse({ listen: [...server.addresses] }), { client, logger: silentLogger })
    await expect(again.start()).rejects.toMatchObject({
      code: 'port-in-use',
      message: expect.stringContaining('ingress.http: cannot listen on 127.0.0.1:'),
    })
  })
})

describe('a WebSocket upgrade', () => {
  const ask = (port: number): string =>
    `GET http://site.example:${port}/chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\n`

  it('is passed through, and its bytes both ways', async () => {
    const { port: proxy } = await start()
    let seen: string[] = []
    const port = await web(
      () => {},
      (server) =>
        server.on('upgrade', (request, socket) => {
          seen = pairs(request)
          socket.on('error', () => {})
          socket.write(
            'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: xyz\r\n\r\nfirst',
          )
          socket.pipe(socket)
        }),
    )
    const connection = await dial(proxy)
    connection.socket.write(ask(port))
    const head = await connection.until(/first$/)
    expect(head).toMatch(/^HTTP\/1\.1 101 Switching Protocols\r\n/)
    expect(head).toContain('Sec-WebSocket-Accept: xyz\r\n')
    expect(head).toContain('Upgrade: websocket\r\n')
    expect(seen).toContain('sec-websocket-key')
    connection.socket.write('ping')
    await connection.until(/ping$/)
    client.loseCircuits()
    await eventually(() => connection.ended() === 'reset')
  })

  it('that the server refuses gives its answer, and ends', async () => {
    const { port: proxy } = await start()
    const port = await web((_, response) => response.writeHead(426, { 'X-Why': 'no' }).end('sorry'))
    const connection = await dial(proxy)
    connection.socket.write(ask(port))
    const text = await connection.until(/sorry/)
    expect(text).toMatch(/^HTTP\/1\.1 426 /)
    expect(text).toContain('X-Why: no')
    await eventually(() => connection.ended() === 'fin')
  })

  it('to nobody is answered with 502', async () => {
    const { port: proxy } = await start()
    client.failures.set('site.example:80', 'refused')
    const connection = await dial(proxy)
    connection.socket.write(ask(80))
    await connection.until(/^HTTP\/1\.1 502 /)
  })

  it('to another protocol is left away, and the request served as it is', async () => {
    const { port: proxy } = await start()
    let seen: string[] = []
    const port = await web((request, response) => {
      seen = pairs(request)
      response.end('plain')
    })
    await raw(
      proxy,
      `GET http://site.example:${port}/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n`,
      /plain/,
    )
    expect(seen.join()).not.toMatch(/h2c|http2/i)
  })
})
