import { readFileSync } from 'node:fs'
import type { CircuitFacts, NodeStatus, RelayFacts, StreamFacts } from '../../src/node/node-control.ts'

/** A plain client of the control API, written apart from the project's own so that the tests see what any program would. */
export class Control {
  readonly #base: string
  readonly #token: string

  /** @param address "ADDRESS:PORT" */
  constructor(address: string, token: string) {
    this.#base = `http://${address}`
    this.#token = token
  }

  static withTokenFile(address: string, file: string): Control {
    return new Control(address, readFileSync(file, 'utf8').trim())
  }

  status(): Promise<NodeStatus> {
    return this.ask('GET', '/v1/status')
  }

  circuits(): Promise<readonly CircuitFacts[]> {
    return this.list('/v1/circuits')
  }

  relays(): Promise<readonly RelayFacts[]> {
    return this.list('/v1/relays')
  }

  streams(): Promise<readonly StreamFacts[]> {
    return this.list('/v1/streams')
  }

  newCircuit(): Promise<CircuitFacts> {
    return this.ask('POST', '/v1/new-circuit')
  }

  async ask<T>(method: 'GET' | 'POST', path: string): Promise<T> {
    const answer = await fetch(this.#base + path, { method, headers: { authorization: `Bearer ${this.#token}` } })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text.slice(0, 500)}`)
    return JSON.parse(text) as T
  }

  private async list<T>(path: string): Promise<readonly T[]> {
    const body = await this.ask<readonly T[] | Record<string, readonly T[]>>('GET', path)
    return Array.isArray(body) ? body : Object.values(body as Record<string, readonly T[]>)[0]!
  }
}
