import { createSocket } from 'node:dgram'
import { isIP } from 'node:net'
import { MalformedError, messageOf, ShallotError } from '../../base/index.ts'

// Not `import`: docs/decisions/2026-11-20-memory-of-a-node.md
const { request } = process.getBuiltinModule('node:http')

/** RFC 6886 §3.1: the first wait for an answer; it doubles. */
const FIRST_WAIT_MS = 250
/** A description of a device, or an answer to a call. */
const HTTP_BYTES_MAX = 64 * 1024
const SEARCH_ANSWER_BYTES_MAX = 2048
const SEARCH_ANSWERS_MAX = 16
/** Addresses and ports of the search for UPnP devices. UPnP Device Architecture 1.1 §1.3.2 */
export const SSDP_ADDRESS = '239.255.255.250'
export const SSDP_PORT = 1900

export interface Place {
  readonly host: string
  readonly port: number
}

/**
 * Sends a datagram until an answer comes that `read` takes, or time is over. Only datagrams from that address and port are looked at: the socket is connected.
 * @param read null, or a MalformedError, for what is no answer to this
 * @throws ShallotError 'no-answer'; the signal's reason
 */
export function askByUdp<T>(
  to: Place,
  message: Uint8Array,
  read: (answer: Uint8Array) => T | null,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const socket = createSocket(isIP(to.host) === 6 ? 'udp6' : 'udp4')
    let resend: NodeJS.Timeout | null = null
    let isOver = false
    const finish = (then: () => void): void => {
      if (isOver) return
      isOver = true
      if (resend !== null) clearTimeout(resend)
      clearTimeout(end)
      signal.removeEventListener('abort', onAbort)
      socket.close()
      then()
    }
    const fail = (why: string): void => finish(() => reject(new ShallotError('no-answer', why, { kind: 'host', retry: 'later' })))
    const onAbort = (): void => finish(() => reject(signal.reason))
    const end = setTimeout(() => fail('no answer'), timeoutMs)
    signal.addEventListener('abort', onAbort, { once: true })
    // That nobody listens on the port, the system says here.
    socket.on('error', (error) => fail(messageOf(error)))
    socket.on('message', (answer) => {
      try {
        const value = read(answer)
        if (value !== null) finish(() => resolve(value))
      } catch (error) {
        // What is no answer is no reason to give up: another may come.
        if (!(error instanceof MalformedError)) finish(() => reject(error as Error))
      }
    })
    let wait = FIRST_WAIT_MS
    const send = (): void => {
      socket.send(message)
      resend = setTimeout(send, wait)
      wait *= 2
    }
    socket.connect(to.port, to.host, () => {
      if (!isOver) send()
    })
  })
}

/** The address this machine has towards a host; no packet is sent. @throws ShallotError 'no-route' */
export function localAddressTowards(host: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIP(host) === 6 ? 'udp6' : 'udp4')
    socket.once('error', (error) => {
      socket.close()
      reject(new ShallotError('no-route', messageOf(error), { kind: 'host', retry: 'later', cause: error }))
    })
    socket.connect(GATEWAY_PROBE_PORT, host, () => {
      const { address } = socket.address()
      socket.close()
      resolve(address)
    })
  })
}

const GATEWAY_PROBE_PORT = 9

/**
 * Looks for a UPnP gateway; gives out each description's URL as it is told of, the first ones first. Only a URL at the very address that
 * answered is taken: who answers must not send this node elsewhere.
 * @param from this machine's address in that network
 */
export function searchUpnp(to: Place, from: string, waitMs: number, signal: AbortSignal, found: (location: URL) => void): Promise<void> {
  return new Promise((resolve) => {
    const socket = createSocket('udp4')
    let answers = 0
    let isOver = false
    const finish = (): void => {
      if (isOver) return
      isOver = true
      clearTimeout(end)
      for (const timer of timers) clearTimeout(timer)
      signal.removeEventListener('abort', finish)
      socket.close()
      resolve()
    }
    const end = setTimeout(finish, waitMs)
    const timers: NodeJS.Timeout[] = []
    signal.addEventListener('abort', finish, { once: true })
    if (signal.aborted) return finish()
    socket.on('error', finish)
    socket.on('message', (answer, sender) => {
      if (++answers > SEARCH_ANSWERS_MAX) return finish()
      if (answer.length > SEARCH_ANSWER_BYTES_MAX) return
      const location = locationIn(answer.toString('latin1'))
      if (location !== null && location.hostname === sender.address) found(location)
    })
    socket.bind({ address: from, port: 0 }, () => {
      if (isOver) return
      // UPnP Device Architecture 1.1 §1.3.2: not further than the home, and more than once, for datagrams get lost.
      socket.setMulticastTTL(2)
      if (to.host === SSDP_ADDRESS) safely(() => socket.setMulticastInterface(from))
      const send = (): void => {
        for (const target of SEARCH_TARGETS) socket.send(searchMessage(target), to.port, to.host, () => {})
      }
      send()
      timers.push(setTimeout(send, waitMs / 4))
    })
  })
}

const SEARCH_TARGETS = ['urn:schemas-upnp-org:device:InternetGatewayDevice:1', 'urn:schemas-upnp-org:device:InternetGatewayDevice:2']

function searchMessage(target: string): Buffer {
  return Buffer.from(
    `M-SEARCH * HTTP/1.1\r\nHOST: ${SSDP_ADDRESS}:${SSDP_PORT}\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: ${target}\r\n\r\n`,
    'latin1',
  )
}

function locationIn(answer: string): URL | null {
  if (!/^HTTP\/1\.[01] 200/.test(answer)) return null
  const text = /^location:[ \t]*(\S+)[ \t]*\r?$/im.exec(answer)?.[1]
  const url = text !== undefined && URL.canParse(text) ? new URL(text) : null
  return url !== null && url.protocol === 'http:' && url.username === '' ? url : null
}

/**
 * One HTTP request to a device, without redirects; the answer whatever its status.
 * @throws ShallotError 'no-answer' when it takes too long or is too large; the signal's reason
 */
export function askByHttp(
  url: URL,
  { body, headers = {}, timeoutMs, signal }: { body?: string; headers?: Record<string, string>; timeoutMs: number; signal: AbortSignal },
): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const fail = (why: string, cause?: unknown): void =>
      reject(signal.aborted ? signal.reason : new ShallotError('no-answer', why, { kind: 'host', retry: 'later', cause }))
    const asked = request(
      url,
      {
        method: body === undefined ? 'GET' : 'POST',
        headers: { ...headers, connection: 'close', ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }) },
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
        agent: false,
        maxHeaderSize: 8192,
      },
      (response) => {
        const chunks: Buffer[] = []
        let length = 0
        response.on('data', (chunk: Buffer) => {
          length += chunk.length
          chunks.push(chunk)
          if (length <= HTTP_BYTES_MAX) return
          fail('its answer is too long')
          asked.destroy()
        })
        response.once('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }))
        response.once('error', (error) => fail(messageOf(error), error))
      },
    )
    asked.once('error', (error) => fail(asked.destroyed && error.name === 'AbortError' ? 'no answer' : messageOf(error), error))
    asked.end(body)
  })
}

function safely(act: () => void): void {
  try {
    act()
  } catch {
    // The system's own choice of interface is the next best one.
  }
}
