import { setTimeout as delay } from 'node:timers/promises'
import type { Connection, Libp2p } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { afterEach, describe, expect, it } from 'vitest'
import { type NodeId, nodeIdFromKey, silentLogger } from '../../../src/base/index.ts'
import { ConnectionProbes, hasSignOfLife } from '../../../src/link/connection-probes.ts'

const anna = nodeIdFromKey(new Uint8Array(32).fill(1))
const bert = nodeIdFromKey(new Uint8Array(32).fill(2))

/** A connection that answers questions, refuses them, or says nothing. */
class FakeConnection {
  readonly remotePeer
  status = 'open'
  rtt: number | undefined
  asked = 0
  readonly #says: 'yes' | 'no' | 'nothing'

  constructor(peer: NodeId, says: 'yes' | 'no' | 'nothing') {
    this.remotePeer = peerIdFromString(peer)
    this.#says = says
  }

  async newStream(_protocol: string, { signal }: { signal: AbortSignal }): Promise<{ close(): Promise<void> }> {
    this.asked++
    if (this.#says === 'yes') return { close: async () => {} }
    if (this.#says === 'no') throw new Error('protocol not supported')
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  }

  abort(): void {
    this.status = 'aborted'
  }
}

function fake(peer: NodeId, says: 'yes' | 'no' | 'nothing'): FakeConnection & Connection {
  return new FakeConnection(peer, says) as unknown as FakeConnection & Connection
}

const started: ConnectionProbes[] = []
afterEach(() => {
  for (const probes of started.splice(0)) probes.stop()
})

function probing(connections: Connection[], timeoutMs = 40): { libp2p: EventTarget; probes: ConnectionProbes; doubted: NodeId[] } {
  const doubted: NodeId[] = []
  const libp2p = Object.assign(new EventTarget(), {
    getConnections: (peer?: { toString(): string }) =>
      connections.filter((one) => peer === undefined || one.remotePeer.toString() === peer.toString()),
  })
  const probes = new ConnectionProbes(libp2p as unknown as Libp2p, timeoutMs, silentLogger, (peer) => doubted.push(peer))
  probes.start()
  started.push(probes)
  return { libp2p, probes, doubted }
}

describe('a libp2p connection', () => {
  it('gives a sign of life by any answer, and none by silence', async () => {
    expect(await hasSignOfLife(fake(anna, 'yes'), 20)).toBe(true)
    expect(await hasSignOfLife(fake(anna, 'no'), 20)).toBe(true)
    expect(await hasSignOfLife(fake(anna, 'nothing'), 20)).toBe(false)
  })

  it('that is slow is given four of its round trips', async () => {
    const slow = Object.assign(fake(anna, 'nothing'), { rtt: 50 })
    const since = performance.now()
    await hasSignOfLife(slow, 20)
    expect(performance.now() - since).toBeGreaterThan(190)
  })

  it('is not taken for dead because this node stood still', async () => {
    const connection = fake(anna, 'yes')
    const late = Promise.withResolvers<{ close(): Promise<void> }>()
    connection.newStream = (() => late.promise) as never
    const answer = hasSignOfLife(connection, 60)
    setImmediate(() => {
      const until = performance.now() + 400
      while (performance.now() < until);
      setTimeout(() => late.resolve({ close: async () => {} }), 5)
    })
    expect(await answer).toBe(true)
  })

  it('in doubt is ended when it is silent, and what else there is with the peer is in doubt then', async () => {
    const [dead, alive, other] = [fake(anna, 'nothing'), fake(anna, 'yes'), fake(bert, 'nothing')]
    const { probes, doubted } = probing([dead, alive, other])
    probes.suspect(anna)
    probes.suspect(anna)
    await delay(100)
    expect([dead.status, alive.status, other.status]).toEqual(['aborted', 'open', 'open'])
    expect([dead.asked, alive.asked > 0, other.asked]).toEqual([1, true, 0])
    expect(doubted).toEqual([anna])
    probes.suspect(null)
    await delay(100)
    expect(other.status).toBe('aborted')
  })

  it('is in doubt when the peer makes another one, which itself is not', async () => {
    const [old, fresh] = [fake(anna, 'nothing'), fake(anna, 'nothing')]
    const { libp2p, doubted } = probing([old, fresh])
    libp2p.dispatchEvent(Object.assign(new Event('connection:open'), { detail: fresh }))
    expect(doubted).toEqual([anna])
    await delay(100)
    expect([old.status, fresh.status]).toEqual(['aborted', 'open'])
    expect(fresh.asked).toBe(0)
  })
})
