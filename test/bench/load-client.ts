import { connect } from 'node:net'
import { parseArgs } from 'node:util'
import { splitAddress } from '../support/socks-client.ts'
import { percentile, round } from './stats.ts'

/**
 * Fetches of a small page through a SOCKS5 proxy, each over a connection of its own, as `curl -x socks5h://` makes them: greeting, wait, CONNECT,
 * wait, request, read to the end. Lean, so that the proxy is measured and not this program; prints one JSON line.
 *
 *     node test/bench/load-client.ts --socks 127.0.0.1:9050 --target 127.0.0.1:8080 --path /1k --n 1000 --c 8 [--user NAME | --users K]
 */
export interface LoadResult {
  readonly atOnce: number
  readonly n: number
  readonly errors: number
  readonly why: string | null
  readonly perSecond: number
  readonly connectMs: { readonly p50: number; readonly p95: number }
  readonly firstByteMs: { readonly p50: number; readonly p95: number; readonly p99: number }
  readonly totalMs: { readonly p50: number; readonly p95: number }
  readonly clientCpuMs: number
}

const { values } = parseArgs({
  options: {
    socks: { type: 'string' }, // straight to the target when not given
    target: { type: 'string', default: '127.0.0.1:8080' },
    path: { type: 'string', default: '/1k' },
    n: { type: 'string', default: '500' },
    c: { type: 'string', default: '1' },
    warm: { type: 'string', default: '100' },
    user: { type: 'string' },
    users: { type: 'string', default: '0' },
  },
})
const [targetHost, targetPort] = splitAddress(values.target)
const [host, port] = values.socks ? splitAddress(values.socks) : [targetHost, targetPort]
const request = Buffer.from(`GET ${values.path} HTTP/1.1\r\nHost: ${values.target}\r\nConnection: close\r\n\r\n`)
const portBytes = Uint8Array.of(targetPort >> 8, targetPort & 255)
const octets = targetHost.split('.').map(Number)
const connectRequest = octets.every((octet) => octet >= 0 && octet < 256)
  ? Buffer.from([5, 1, 0, 1, ...octets, ...portBytes])
  : Buffer.concat([Uint8Array.of(5, 1, 0, 3, targetHost.length), Buffer.from(targetHost), portBytes])

function login(k: number): Buffer | null {
  const user = values.user ?? (Number(values.users) > 0 ? `u${k % Number(values.users)}` : null)
  return user === null ? null : Buffer.concat([Uint8Array.of(1, user.length), Buffer.from(user), Uint8Array.of(1, 0x78)])
}

/** [ms to the proxy's success, ms to the first byte of the answer, ms to its end] */
function fetchOnce(k: number): Promise<readonly [number, number, number]> {
  return new Promise((resolve, reject) => {
    const began = performance.now()
    const credentials = login(k)
    let step: 'method' | 'login' | 'connect' | 'answer' = values.socks ? 'method' : 'answer'
    let connected = 0
    let first = 0
    let good = false
    let held = Buffer.alloc(0)
    const socket = connect({ host, port, noDelay: true })
    const fail = (why: string): void => {
      socket.destroy()
      reject(new Error(why))
    }
    socket.setTimeout(60_000, () => fail('timeout'))
    socket.on('error', (error) => fail(error.message))
    socket.on('connect', () => socket.write(step === 'answer' ? request : Uint8Array.of(5, 1, credentials ? 2 : 0)))
    socket.on('data', (bytes) => {
      let data = bytes
      if (step !== 'answer') {
        held = held.length === 0 ? data : Buffer.concat([held, data])
        if (step === 'method' && held.length >= 2) {
          if (held[1] === 255) return fail('no acceptable SOCKS method')
          held = held.subarray(2)
          socket.write(credentials ?? connectRequest)
          step = credentials ? 'login' : 'connect'
        }
        if (step === 'login' && held.length >= 2) {
          if (held[1] !== 0) return fail('SOCKS login refused')
          held = held.subarray(2)
          socket.write(connectRequest)
          step = 'connect'
        }
        if (step !== 'connect' || held.length < 10) return
        if (held[1] !== 0) return fail(`SOCKS reply ${held[1]}`)
        connected = performance.now()
        step = 'answer'
        socket.write(request)
        data = held.subarray(held[3] === 4 ? 22 : 10)
        if (data.length === 0) return
      }
      if (first === 0) {
        first = performance.now()
        good = data.toString('latin1', 9, 12) === '200'
      }
    })
    socket.on('end', () => {
      socket.end()
      if (good) resolve([connected - began, first - began, performance.now() - began])
      else reject(new Error('no answer with status 200'))
    })
  })
}

async function batch(
  count: number,
  atOnce: number,
): Promise<{ rows: (readonly [number, number, number])[]; errors: number; why: string | null }> {
  const rows: (readonly [number, number, number])[] = []
  let next = 0
  let errors = 0
  let why: string | null = null
  const worker = async (): Promise<void> => {
    while (next < count) {
      try {
        rows.push(await fetchOnce(next++))
      } catch (error) {
        errors++
        why = (error as Error).message
      }
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  return { rows, errors, why }
}

const atOnce = Number(values.c)
await batch(Number(values.warm), atOnce)
const cpu = process.cpuUsage()
const began = performance.now()
const { rows, errors, why } = await batch(Number(values.n), atOnce)
const seconds = (performance.now() - began) / 1000
const { user, system } = process.cpuUsage(cpu)
const pick = (column: 0 | 1 | 2, share: number): number =>
  rows.length === 0
    ? 0
    : round(
        percentile(
          rows.map((row) => row[column]),
          share,
        ),
      )
const result: LoadResult = {
  atOnce,
  n: rows.length,
  errors,
  why,
  perSecond: round(rows.length / seconds),
  connectMs: { p50: pick(0, 0.5), p95: pick(0, 0.95) },
  firstByteMs: { p50: pick(1, 0.5), p95: pick(1, 0.95), p99: pick(1, 0.99) },
  totalMs: { p50: pick(2, 0.5), p95: pick(2, 0.95) },
  clientCpuMs: round((user + system) / 1000 / Math.max(1, rows.length)),
}
console.log(JSON.stringify(result))
