import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import type { NatFacts, ReachFacts } from '../../src/nat/index.ts'
import type { CircuitFacts, NodeStatus, RelayFacts, StreamFacts } from '../../src/node/node-control.ts'
import { splitAddress } from './socks-client.ts'

/** A plain client of the control API, written apart from the project's own so that the tests see what any program would. */
export class Control {
  readonly #address: string
  readonly #token: string

  /** @param address "ADDRESS:PORT" or the path of a unix socket, @param dir the node's directory, which holds the token */
  constructor(address: string, dir: string) {
    this.#address = address
    this.#token = readFileSync(join(dir, 'control-token'), 'utf8').trim()
  }

  status(): Promise<NodeStatus> {
    return this.ask('GET', '/v1/status')
  }

  circuits(): Promise<readonly CircuitFacts[]> {
    return this.ask('GET', '/v1/circuits')
  }

  relays(): Promise<readonly RelayFacts[]> {
    return this.ask('GET', '/v1/relays')
  }

  streams(): Promise<readonly StreamFacts[]> {
    return this.ask('GET', '/v1/streams')
  }

  newCircuit(): Promise<CircuitFacts> {
    return this.ask('POST', '/v1/new-circuit')
  }

  nat(): Promise<NatFacts | null> {
    return this.ask('GET', '/v1/nat')
  }

  reach(id: string): Promise<ReachFacts> {
    return this.ask('POST', '/v1/reach', { id })
  }

  async ask<T>(method: 'GET' | 'POST' | 'PATCH', path: string, body?: unknown): Promise<T> {
    const [host, port] = splitAddress(this.#address)
    const unix = this.#address.startsWith('/')
    const where = unix ? { socketPath: this.#address } : { host, port }
    const text = body === undefined ? '' : JSON.stringify(body)
    const headers = {
      host: unix ? 'localhost' : this.#address,
      authorization: `Bearer ${this.#token}`,
      ...(text === '' ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
    }
    const answered = await new Promise<{ status: number; text: string }>((resolve, reject) => {
      const asked = request({ ...where, method, path, headers, agent: false, timeout: 60_000 }, (answer) => {
        let text = ''
        answer.setEncoding('utf8').on('data', (piece: string) => {
          text += piece
        })
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text })).on('error', reject)
      })
      asked.on('error', reject).on('timeout', () => asked.destroy(new Error('the control API does not answer')))
      asked.end(text)
    })
    if (answered.status >= 300) throw new Error(`${method} ${path}: ${answered.status} ${answered.text.slice(0, 500)}`)
    return JSON.parse(answered.text) as T
  }
}
