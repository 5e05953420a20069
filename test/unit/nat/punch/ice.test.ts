import { describe, expect, test } from 'vitest'
import { parseIp } from '../../../../src/base/index.ts'
import type { OwnEndpoints } from '../../../../src/nat/punch/candidates.ts'
import { IceRules, MAX_REMOTE_CANDIDATES, MAX_SDP_CHARS, parseCandidate } from '../../../../src/nat/punch/ice-rules.ts'
import { guarded, type NativePeerConnection } from '../../../../src/nat/punch/peer-connection.ts'

const at = (host: string, port: number) => ({ ip: parseIp(host), port })
const own: OwnEndpoints = { public: [at('11.1.0.2', 4460)], isPortUnpredictable: false, isStrict: false, local: [at('192.168.1.10', 4460)] }
const rules = (host: string, privateAllowed = false) => new IceRules(() => own, { endpoints: [at(host, 4460)] }, privateAllowed)
const candidate = (host: string, port: number, type = 'host') => `a=candidate:1 1 UDP 2114977791 ${host} ${port} typ ${type}`

describe('ICE candidates', () => {
  test.each([
    ['a name', 'candidate:1 1 UDP 1 5b7a.local 5000 typ host'],
    ['TCP', 'candidate:1 1 TCP 1 11.2.0.2 5000 typ host tcptype passive'],
    ['port 0', 'candidate:1 1 UDP 1 11.2.0.2 0 typ host'],
    ['no type', 'candidate:1 1 UDP 1 11.2.0.2 5000'],
    ['nonsense', 'hello'],
  ])('of no use are none: %s', (_what, line) => {
    expect(parseCandidate(line)).toBeNull()
  })

  test('of the home are told only to a peer in the same place', () => {
    expect(rules('11.2.0.2').mayTell(candidate('192.168.1.10', 5000))).toBe(false)
    expect(rules('11.1.0.2').mayTell(candidate('192.168.1.10', 5000))).toBe(true)
    expect(rules('11.2.0.2').mayTell(candidate('2a0f:1::7', 5000))).toBe(true)
    expect(rules('11.2.0.2').mayTell(candidate('11.1.0.2', 5000, 'srflx raddr 0.0.0.0 rport 0'))).toBe(true)
  })

  test('of a peer are tried by the rules for TCP, and only so many', () => {
    const mine = rules('11.2.0.2')
    expect(mine.mayTry(candidate('11.3.0.2', 5000))).toBe(false)
    expect(mine.mayTry(candidate('11.2.0.2', 53))).toBe(false)
    for (let i = 0; i < MAX_REMOTE_CANDIDATES; i++) expect(mine.mayTry(candidate('11.2.0.2', 5000 + i))).toBe(true)
    expect(mine.mayTry(candidate('11.2.0.2', 6000))).toBe(false)
  })
})

describe('a guarded connection', () => {
  class Native implements NativePeerConnection {
    readonly calls: unknown[][] = []
    tell: (candidate: string, mid: string) => void = () => {}
    describe: (sdp: string, type: string) => void = () => {}
    readonly #secret = 'own fields work'
    state = () => this.#secret
    onLocalCandidate(listener: (candidate: string, mid: string) => void) {
      this.tell = listener
    }
    onLocalDescription(listener: (sdp: string, type: string) => void) {
      this.describe = listener
    }
    addRemoteCandidate(...given: unknown[]) {
      this.calls.push(['candidate', ...given])
    }
    setRemoteDescription(...given: unknown[]) {
      this.calls.push(['description', ...given])
    }
  }

  test('tells candidates only after the description, which would be overtaken', async () => {
    const native = new Native()
    const told: string[] = []
    const connection = guarded(native, rules('11.2.0.2'))
    connection.onLocalCandidate((line) => told.push(line))
    connection.onLocalDescription((_sdp, type) => told.push(type))
    native.tell(candidate('2a0f:1::7', 5000), '0')
    native.tell(candidate('192.168.1.10', 5000), '0')
    native.describe('v=0', 'answer')
    expect(told).toEqual(['answer'])
    await new Promise((resolve) => setTimeout(resolve, 5))
    native.tell(candidate('11.1.0.2', 5000, 'srflx'), '0')
    expect(told).toEqual(['answer', candidate('2a0f:1::7', 5000), candidate('11.1.0.2', 5000, 'srflx')])
    expect(connection.state()).toBe('own fields work')
  })

  test('leaves out what a description or a peer may not name', () => {
    const native = new Native()
    const connection = guarded(native, rules('11.2.0.2'))
    const bad = candidate('11.9.0.2', 5000)
    const fine = candidate('11.2.0.2', 5000)
    connection.setRemoteDescription(['v=0', bad, fine, ''].join('\r\n'), 'offer')
    connection.addRemoteCandidate(bad, '0')
    connection.addRemoteCandidate(fine, '0')
    connection.addRemoteCandidate(`${fine} ${'x'.repeat(MAX_SDP_CHARS)}`, '0')
    expect(native.calls).toEqual([
      ['description', ['v=0', fine, ''].join('\r\n'), 'offer'],
      ['candidate', fine, '0'],
    ])
    expect(() => connection.setRemoteDescription('v'.repeat(MAX_SDP_CHARS + 1), 'offer')).toThrow()
  })

  test('describes itself without addresses that the peer may not know', () => {
    const native = new Native()
    const seen: string[] = []
    const connection = guarded(native, rules('11.2.0.2'))
    connection.onLocalDescription((sdp) => seen.push(sdp))
    native.describe(['v=0', candidate('192.168.1.10', 5000), 'a=mid:0'].join('\r\n'), 'offer')
    expect(seen).toEqual(['v=0\r\na=mid:0'])
  })
})
