import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import { CircuitChain } from '../../support/circuit-chain.ts'

const EXIT = 2
const target = { host: 'example.com', port: 80 }

describe('a circuit of three hops', () => {
  it('echoes a message through the exit and ends in order', () => {
    const chain = new CircuitChain().build()
    const sent = new SeededRandom(1).bytes(1000)
    chain.on = (party, output) => {
      if (party === EXIT && output.type === 'data') chain.relays[EXIT]!.offer(output.stream, output.bytes.slice())
      if (party === EXIT && output.type === 'end') chain.relays[EXIT]!.end(output.stream, 'done')
      return false
    }
    const stream = chain.client.open(target, chain.now)
    chain.client.offer(stream, sent.slice())
    chain.client.end(stream, 'done')
    chain.run()
    expect(chain.outputsOf(EXIT, 'begin')).toEqual([{ type: 'begin', stream, target }])
    expect(chain.outputsOf(-1, 'connected')).toEqual([{ type: 'connected', stream, address: '203.0.113.5' }])
    expect(chain.bytesAt(EXIT, stream)).toEqual(sent)
    expect(chain.bytesAt(-1, stream)).toEqual(sent)
    expect(chain.seenAt(EXIT, stream).ends).toEqual(['done'])
    expect(chain.seenAt(-1, stream).ends).toEqual(['done'])
    expect(chain.client.counts.openStreams).toBe(0)
    expect(chain.relays[EXIT]!.counts.openStreams).toBe(0)
  })

  it('carries megabytes both ways at once, in order', () => {
    const chain = new CircuitChain().build()
    const random = new SeededRandom(2)
    const up = random.bytes(3_000_000)
    const down = random.bytes(2_000_000)
    const feed = (party: number, stream: number, bytes: Uint8Array): (() => void) => {
      let at = 0
      return () => {
        const machine = chain.machine(party)
        while (at < bytes.length) {
          const piece = bytes.slice(at, at + 50_000)
          at += piece.length
          if (!machine.offer(stream, piece)) return
        }
        machine.end(stream, 'done')
      }
    }
    const stream = chain.client.open(target, chain.now)
    const feeds = [feed(-1, stream, up), feed(EXIT, stream, down)]
    chain.on = (party, output) => {
      if (output.type === 'writable') feeds[party === EXIT ? 1 : 0]!()
      return false
    }
    feeds[0]!()
    chain.run()
    feeds[1]!()
    chain.run()
    expect(Buffer.compare(chain.bytesAt(EXIT, stream), up)).toBe(0)
    expect(Buffer.compare(chain.bytesAt(-1, stream), down)).toBe(0)
    expect(chain.seenAt(EXIT, stream).ends).toEqual(['done'])
    expect(chain.seenAt(-1, stream).ends).toEqual(['done'])
    expect(chain.client.counts.openStreams).toBe(0)
    expect(chain.client.queuedBytes).toBe(0)
  })
})
