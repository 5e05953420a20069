import { readFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { messageOf, type NodeId, ShallotError } from '../base/index.ts'
import type { ServingRole } from '../directory/index.ts'
import type { NatFacts, ReachFacts } from '../nat/index.ts'
import type { CircuitFacts, NodeEvent, NodeStatus, RelayFacts, StreamFacts, VpnSessionRequest } from '../node/index.ts'
import { isErrno } from '../store/index.ts'
import type { VpnFacts } from '../vpn/index.ts'
import type { ControlProblem, ControlRoutes, VpnSessionEvent } from './messages.ts'

// Not `import`: docs/decisions/2026-11-20-memory-of-a-node.md
const { request } = process.getBuiltinModule('node:http')

const TIMEOUT_MS = 60_000

/**
 * Asks a running node. Every method throws a ShallotError: 'node-not-running', 'control-refused' (token), 'control-failed', or
 * the code the node answered with.
 */
export class ControlClient {
  /** "ADDRESS:PORT" or the path of a socket. */
  readonly address: string
  readonly #tokenFile: string

  constructor(address: string, tokenFile: string) {
    this.address = address
    this.#tokenFile = tokenFile
  }

  status(): Promise<NodeStatus> {
    return this.#ask('GET /v1/status')
  }
  circuits(why: boolean): Promise<readonly CircuitFacts[]> {
    return this.#ask('GET /v1/circuits', why ? '?why=1' : '')
  }
  relays(role?: ServingRole): Promise<readonly RelayFacts[]> {
    return this.#ask('GET /v1/relays', role === undefined ? '' : `?role=${role}`)
  }
  streams(): Promise<readonly StreamFacts[]> {
    return this.#ask('GET /v1/streams')
  }
  nat(): Promise<NatFacts | null> {
    return this.#ask('GET /v1/nat')
  }
  reach(id: NodeId): Promise<ReachFacts> {
    return this.#ask('POST /v1/reach', '', { id })
  }
  newCircuit(): Promise<CircuitFacts> {
    return this.#ask('POST /v1/new-circuit')
  }
  vpn(): Promise<VpnFacts | null> {
    return this.#ask('GET /v1/vpn')
  }
  vpnUp(): Promise<VpnFacts> {
    return this.#ask('POST /v1/vpn/up')
  }
  vpnDown(): Promise<VpnFacts> {
    return this.#ask('POST /v1/vpn/down')
  }
  shutdown(): Promise<{ readonly stopping: true }> {
    return this.#ask('POST /v1/shutdown')
  }

  /** Has the node carry a device's traffic until the signal or the node ends it. The first event says that it does. */
  async *vpnSession(request: VpnSessionRequest, signal: AbortSignal): AsyncGenerator<VpnSessionEvent> {
    const response = await this.#open('POST', '/v1/vpn/session', signal, request)
    let text = ''
    try {
      for await (const chunk of response) {
        text += String(chunk)
        for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
          yield JSON.parse(text.slice(0, end)) as VpnSessionEvent
          text = text.slice(end + 1)
        }
      }
    } catch (error) {
      if (!signal.aborted) throw lost(this.address, error)
    }
  }

  /** Events from now on, until the signal or the node ends them. */
  async *events(signal: AbortSignal): AsyncGenerator<NodeEvent> {
    const response = await this.#open('GET', '/v1/events', signal)
    let text = ''
    try {
      for await (const chunk of response) {
        text += String(chunk)
        for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
          const data = /^data: (.*)$/m.exec(text.slice(0, end))?.[1]
          text = text.slice(end + 2)
          if (data !== undefined) yield JSON.parse(data) as NodeEvent
        }
      }
    } catch (error) {
      if (!signal.aborted) throw lost(this.address, error)
    }
  }

  async #ask<R extends keyof ControlRoutes>(route: R, query = '', body?: unknown): Promise<ControlRoutes[R]> {
    const [method, path] = route.split(' ') as [string, string]
    const response = await this.#open(method, path + query, AbortSignal.timeout(TIMEOUT_MS), body)
    return JSON.parse(await textOf(response)) as ControlRoutes[R]
  }

  async #open(method: string, path: string, signal: AbortSignal, body?: unknown): Promise<IncomingMessage> {
    const token = await this.#token()
    const socket = this.address.startsWith('/')
    const response = await new Promise<IncomingMessage>((done, fail) => {
      request(
        {
          ...(socket
            ? { socketPath: this.address }
            : {
                host: this.address.slice(0, this.address.lastIndexOf(':')).replace(/^\[|\]$/g, ''),
                port: this.address.slice(this.address.lastIndexOf(':') + 1),
              }),
          method,
          path,
          signal,
          agent: false,
          headers: { host: socket ? 'localhost' : this.address, authorization: `Bearer ${token}` },
        },
        done,
      )
        .once('error', (error) => fail(lost(this.address, error)))
        .end(body === undefined ? undefined : JSON.stringify(body))
    })
    if (response.statusCode !== undefined && response.statusCode < 300) return response
    throw problemOf(response.statusCode ?? 0, await textOf(response).catch(() => ''))
  }

  async #token(): Promise<string> {
    try {
      return (await readFile(this.#tokenFile, 'utf8')).trim()
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR')) throw notRunning(this.address, error)
      throw new ShallotError(
        'control-refused',
        `the token in ${this.#tokenFile} cannot be read: ${messageOf(error)}. Run this as the user who runs the node`,
        {
          kind: 'host',
          retry: 'never',
          cause: error,
        },
      )
    }
  }
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of response.setEncoding('utf8')) text += chunk
  return text
}

function problemOf(status: number, body: string): ShallotError {
  let problem: ControlProblem['error'] = { code: 'control-failed', message: `the node answered ${status}` }
  try {
    problem = (JSON.parse(body) as ControlProblem).error ?? problem
  } catch {}
  return new ShallotError(status === 401 || status === 403 ? 'control-refused' : problem.code, problem.message, {
    kind: 'process',
    retry: 'later',
  })
}

function lost(address: string, error: unknown): ShallotError {
  if (isErrno(error, 'ECONNREFUSED', 'ENOENT', 'ENOTSOCK')) return notRunning(address, error)
  return new ShallotError('control-failed', `the node at ${address} did not answer: ${messageOf(error)}`, {
    kind: 'process',
    retry: 'later',
    cause: error,
  })
}

function notRunning(address: string, cause: unknown): ShallotError {
  return new ShallotError('node-not-running', `no node answers at ${address}; start one with \`shallot run\` or \`shallot testnet\``, {
    kind: 'process',
    retry: 'later',
    cause,
  })
}
