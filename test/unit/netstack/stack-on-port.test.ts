import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import { type StackEvent, StackOnPort, type TcpConnection } from '../../../src/netstack/index.ts'
import { memoryPortPair } from '../../../src/packet/index.ts'
import { endpoint, Sink, Source, testStack } from '../../support/virtual-net.ts'

/** Two stacks on the ends of a memory pair, in turns of a queue of tasks. */
function world(queuePackets: number) {
  const tasks: (() => void)[] = []
  const carry = (task: () => void) => void tasks.push(task)
  const ports = memoryPortPair({ carry, queuePackets })
  const random = new SeededRandom(1)
  let now = 0
  const log = { a: [] as string[], b: [] as string[] }
  const handlers: { event: (side: 'a' | 'b', event: StackEvent) => void } = { event: () => {} }
  const make = (side: 'a' | 'b') => {
    const stack = testStack(side === 'a' ? 1 : 2, random)
    const driver = new StackOnPort({
      stack,
      port: ports[side === 'a' ? 0 : 1],
      now: () => now,
      soon: carry,
      event: (event) => handlers.event(side, event),
      timeoutChanged: () => {},
      ended: (error) => log[side].push(`ended ${error?.code ?? 'in order'}`),
    })
    driver.start()
    return { stack, driver }
  }
  const a = make('a')
  const b = make('b')
  const run = (until: () => boolean) => {
    for (let turns = 0; turns < 100_000 && !until(); turns++) {
      const task = tasks.shift()
      if (task !== undefined) {
        task()
        continue
      }
      const next = Math.min(a.driver.pollTimeout() ?? Number.POSITIVE_INFINITY, b.driver.pollTimeout() ?? Number.POSITIVE_INFINITY)
      if (next === Number.POSITIVE_INFINITY) return
      now = Math.max(now, next)
      a.driver.expired()
      b.driver.expired()
    }
  }
  return { a, b, ports, handlers, log, run }
}

describe('a stack on a port', () => {
  it('moves bytes through a port with little room, without loss and without sending again', () => {
    const { a, b, handlers, run } = world(8)
    const sink = new Sink()
    let source: Source | null = null
    let done = false
    handlers.event = (side, event) => {
      if (event.type === 'incoming') event.connection.accept()
      if (side === 'a' && (event.type === 'connected' || event.type === 'drained')) source?.pump()
      if (side === 'b' && event.type === 'readable') sink.read(event.connection)
      if (side === 'b' && event.type === 'remote-end') done = true
    }
    b.stack.listen({ address: null, port: 80 })
    const connection: TcpConnection = a.stack.dial(endpoint('10.0.0.2', 80), 0)
    source = new Source(connection, 1, 500_000)
    a.driver.touch()
    run(() => done)
    expect([sink.bytes, connection.info.retransmissions]).toEqual([500_000, 0])
    expect(sink.digest()).toBe(source.digest())
  })

  it('resets its connections when the port ends, and is silent then', () => {
    const { a, b, ports, handlers, log, run } = world(64)
    const told: string[] = []
    handlers.event = (side, event) => {
      if (event.type === 'incoming') event.connection.accept()
      told.push(`${side} ${event.type}`)
    }
    b.stack.listen({ address: null, port: 80 })
    a.stack.dial(endpoint('10.0.0.2', 80), 0)
    a.driver.touch()
    run(() => told.includes('b connected'))
    ports[0].close()
    run(() => log.a.length > 0 && log.b.length > 0)
    expect(log).toEqual({ a: ['ended in order'], b: ['ended in order'] })
    expect(told.slice(-2).sort()).toEqual(['a closed', 'b closed'])
    expect([a.driver.pollTimeout(), a.stack.facts.connections]).toEqual([null, 0])
    a.driver.touch()
    a.driver.expired()
  })
})
