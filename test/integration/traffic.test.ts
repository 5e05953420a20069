import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream, mkdirSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { certificateAuthority } from '../support/certificates.ts'
import { Program, run, runOk, startTestnet, type Testnet, temporaryFolder } from '../support/processes.ts'
import { SocksRefusal, socksConnect, socksResolve, socksUdpExchange } from '../support/socks-client.ts'
import { bytesOf, dnsQuestion, sha256OfBytes, startDnsServer, startWebServer, type WebServer } from '../support/web-server.ts'

const bigBytes = 200_000_000

const folder = temporaryFolder('traffic')
let testnet: Testnet
let web: WebServer

beforeAll(async () => {
  web = await startWebServer({ gitFolder: join(folder.path, 'git') })
  testnet = await startTestnet()
})

afterAll(async () => {
  await testnet?.stop()
  await web?.close()
  folder.remove()
})

/** What programs are given as their proxy; names are left to it. */
const proxies = [
  ['SOCKS5', () => `socks5h://${testnet.ready.socks}`],
  ['HTTP', () => `http://${testnet.ready.http}`],
] as const

describe.each(proxies)('through the %s proxy', (kind, proxy) => {
  test('curl downloads 200 MB intact', async () => {
    const file = join(folder.path, 'down')
    await runOk('curl', ['-sSf', '-x', proxy(), '-o', file, `${web.url}/bytes/${bigBytes}`], { timeoutMs: 100_000 })
    expect(await sha256OfFile(file)).toBe(sha256OfBytes(bigBytes))
  })

  test('curl uploads 200 MB intact', async () => {
    const file = join(folder.path, 'up')
    await pipeline(Readable.from(bytesOf(bigBytes)), createWriteStream(file))
    const answer = await runOk('curl', ['-sSf', '-x', proxy(), '-T', file, `${web.url}/sink`], { timeoutMs: 100_000 })
    expect(JSON.parse(answer)).toEqual({ bytes: bigBytes, sha256: sha256OfBytes(bigBytes) })
  })

  test('64 fetches at once all arrive intact', async () => {
    const curls = Array.from({ length: 64 }, (_, i) => {
      const args = ['-sSf', '-x', proxy(), '-o', join(folder.path, `many${i}`), `${web.url}/bytes/${100_000 + i}`]
      return Program.start('curl', args)
    })
    for (const [i, curl] of curls.entries()) {
      const { code } = await curl.waitForExit(60_000)
      expect(code, curl.log).toBe(0)
      expect(await sha256OfFile(join(folder.path, `many${i}`))).toBe(sha256OfBytes(100_000 + i))
    }
  })

  test('git clones over HTTP', async () => {
    const head = await gitRepository(join(folder.path, 'git', `${kind}.git`))
    const clone = join(folder.path, `clone-${kind}`)
    await runOk('git', ['-c', `http.proxy=${proxy()}`, 'clone', '-q', `${web.url}/git/${kind}.git`, clone])
    expect(await runOk('git', ['-C', clone, 'rev-parse', 'HEAD'])).toBe(head)
    await runOk('git', ['-C', clone, 'fsck', '--full'])
  })

  test('a TLS site works end to end, and a wrong certificate is seen', async () => {
    const authority = certificateAuthority()
    const site = await startWebServer({ tls: authority.issue('localhost') })
    try {
      const trusted = join(folder.path, 'authority.pem')
      writeFileSync(trusted, authority.certificate)
      expect(await runOk('curl', ['-sSf', '-x', proxy(), '--cacert', trusted, `${site.url}/secure`])).toBe(
        'hello from the web server: /secure\n',
      )
      writeFileSync(trusted, certificateAuthority('another authority').certificate)
      expect((await run('curl', ['-sSf', '-x', proxy(), '--cacert', trusted, `${site.url}/secure`])).code).toBe(60)
    } finally {
      await site.close()
    }
  })

  test('several requests go over one kept connection', async () => {
    const connection = await runOk('curl', ['-sSf', '-x', proxy(), '-w', '%{num_connects} ', `${web.url}/one`, `${web.url}/two`])
    expect(connection).toBe('hello from the web server: /one\n1 hello from the web server: /two\n0 ')
  })
})

test('a DNS question over UDP ASSOCIATE comes back answered', async () => {
  const dns = await startDnsServer([192, 0, 2, 7])
  try {
    const answer = await socksUdpExchange('127.0.0.1', dns.port, dnsQuestion(4711, 'answer.example'), { proxy: testnet.ready.socks })
    expect(answer.subarray(0, 2)).toEqual(Buffer.from([4711 >> 8, 4711 & 0xff]))
    expect([...answer.subarray(-4)]).toEqual([192, 0, 2, 7])
    expect(dns.questions).toBe(1)
  } finally {
    dns.close()
  }
})

test('a name is resolved at the exit, for RESOLVE and for CONNECT', async () => {
  expect(await socksResolve('localhost', { proxy: testnet.ready.socks })).toBe('127.0.0.1')
  const socket = await socksConnect('localhost', web.port, { proxy: testnet.ready.socks })
  socket.end('GET /named HTTP/1.0\r\n\r\n')
  expect(await textOf(socket)).toContain('hello from the web server: /named')
})

test('a refused connection is said as such', async () => {
  const closed = await startWebServer()
  await closed.close()
  await expect(socksConnect('127.0.0.1', closed.port, { proxy: testnet.ready.socks })).rejects.toEqual(new SocksRefusal(5))
  const { code } = await run('curl', [
    '-sS',
    '-x',
    `http://${testnet.ready.http}`,
    '-o',
    '/dev/null',
    '-f',
    `http://127.0.0.1:${closed.port}/`,
  ])
  expect(code).toBe(22)
})

test('half-open connections work: an answer comes after the request has been ended', async () => {
  const socket = await socksConnect('127.0.0.1', web.port, { proxy: testnet.ready.socks })
  socket.end(`PUT /sink HTTP/1.0\r\ncontent-length: 5\r\n\r\nhello`)
  expect(await textOf(socket)).toContain('"bytes":5')
})

test('a connection that the server resets is reset for the application, not closed as if complete', async () => {
  const server = createServer((socket) => {
    socket.write(Buffer.alloc(100_000), () => setTimeout(() => socket.resetAndDestroy(), 200))
  })
  const port = await listening(server)
  try {
    const socket = await socksConnect('127.0.0.1', port, { proxy: testnet.ready.socks })
    let bytes = 0
    socket.on('data', (piece: Buffer) => {
      bytes += piece.length
    })
    const end = await new Promise<string>((resolve) => {
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
      socket.once('end', () => resolve('end')).resume()
    })
    expect(end).toBe('ECONNRESET')
    expect(bytes).toBeLessThanOrEqual(100_000)
  } finally {
    server.close()
  }
})

test('when the application gives up, the server is told', async () => {
  const before = web.connections
  const url = `${web.url}/bytes/10000000?per=10000&every=20`
  const curl = Program.start('curl', ['-sS', '-x', `socks5h://${testnet.ready.socks}`, '-o', '/dev/null', url])
  await expect.poll(() => web.connections, { timeout: 10_000 }).toBe(before + 1)
  await curl.stop('SIGKILL')
  await expect.poll(() => web.connections, { timeout: 10_000 }).toBe(before)
})

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  return (server.address() as AddressInfo).port
}

async function gitRepository(path: string): Promise<string> {
  const work = `${path}.work`
  mkdirSync(work, { recursive: true })
  const git = (...args: string[]): Promise<string> =>
    runOk('git', ['-c', 'user.name=test', '-c', 'user.email=test@localhost', '-C', work, ...args])
  await git('init', '-q')
  for (const [i, piece] of [...bytesOf(3_000_000, 100_000)].entries()) writeFileSync(join(work, `file${i}`), piece)
  await git('add', '.')
  await git('commit', '-q', '-m', 'a few megabytes')
  await runOk('git', ['clone', '-q', '--bare', work, path])
  return git('rev-parse', 'HEAD')
}

async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}

async function textOf(stream: Readable): Promise<string> {
  let text = ''
  for await (const piece of stream) text += String(piece)
  return text
}
