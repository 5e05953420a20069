import { describe, expect, test } from 'vitest'
import { parseIp } from '../../../../src/base/index.ts'
import type { Accepted, Prospects } from '../../../../src/nat/punch/candidates.ts'
import { defaultPunchingConfig } from '../../../../src/nat/punch/config.ts'
import { Failures } from '../../../../src/nat/punch/failures.ts'
import type { HolePunch } from '../../../../src/nat/punch/hole-punch.ts'
import { Initiator, type InitiatorFacts, type InitiatorOutput } from '../../../../src/nat/punch/initiator.ts'
import { Responder, type ResponderFacts, type ResponderOutput } from '../../../../src/nat/punch/responder.ts'

const config = defaultPunchingConfig
const endpoint = { ip: parseIp('11.2.0.2'), port: 4460 }
const good: Accepted = { endpoints: [endpoint], prospects: 'good', refused: 0 }
const withProspects = (prospects: Prospects): Accepted => ({ ...good, prospects })
const nobody: Accepted = { endpoints: [], prospects: 'unknown', refused: 0 }
const mine = [Uint8Array.of(1)]
const theirs = [Uint8Array.of(2)]

const initiator = (more: Partial<InitiatorFacts> = {}) =>
  new Initiator({ isPeerDirect: false, addresses: mine, tcpUnavailable: null, udpUnavailable: null, config, accept: () => good, ...more })
const responder = (now: number, more: Partial<ResponderFacts> = {}) =>
  new Responder({ addresses: theirs, config, accept: () => good, ...more }, now)

const connect = (addresses: readonly Uint8Array[]): HolePunch => ({ type: 'connect', addresses })
const sync: HolePunch = { type: 'sync', addresses: [] }
const received = (message: HolePunch) => ({ type: 'message', message }) as const
const failedPunch = { type: 'tried', step: 'punch', why: 'nobody' } as const
const failedUdp = { type: 'tried', step: 'udp', why: 'nobody' } as const
const kinds = (outputs: readonly (InitiatorOutput | ResponderOutput)[]) => outputs.map(({ type }) => type)

/** An initiator that has sent its first CONNECT at 100. */
function asked(more: Partial<InitiatorFacts> = {}): Initiator {
  const machine = initiator(more)
  expect(machine.start(0)).toEqual([{ type: 'open' }])
  expect(machine.handle({ type: 'opened' }, 100)).toEqual([{ type: 'send', message: connect(mine) }])
  return machine
}

describe('the side that begins', () => {
  test('dials the public addresses of a peer that has them, and needs no more when that works', () => {
    const machine = initiator({ isPeerDirect: true })
    expect(machine.start(0)).toEqual([{ type: 'reverse', forMs: config.reverseTimeoutMs }])
    expect(kinds(machine.handle({ type: 'tried', step: 'reverse', why: null }, 10))).toEqual(['over'])
  })

  test('goes on to meet it when that fails', () => {
    const machine = initiator({ isPeerDirect: true })
    machine.start(0)
    expect(machine.handle({ type: 'tried', step: 'reverse', why: 'no answer' }, 10)).toEqual([{ type: 'open' }])
  })

  test('sends SYNC at the answer, and begins half a round trip later', () => {
    const machine = asked()
    expect(machine.handle(received(connect(theirs)), 180)).toEqual([{ type: 'send', message: sync }])
    expect(machine.deadline).toBe(220)
    expect(machine.tick(219)).toEqual([])
    expect(machine.tick(220)).toEqual([{ type: 'punch', endpoints: [endpoint], forMs: config.roundTimeoutMs }])
    expect(machine.handle({ type: 'upgraded' }, 300)).toMatchObject([{ type: 'over', outcome: 'upgraded' }])
  })

  test('asks anew for each round, with a new round trip, and turns to UDP after the last', () => {
    const machine = asked()
    let now = 100
    for (let round = 1; round <= config.rounds; round++) {
      const answeredAt = now + 10 * round
      machine.handle(received(connect(theirs)), answeredAt)
      now = machine.deadline!
      expect(now).toBe(answeredAt + 5 * round)
      expect(machine.tick(now)).toMatchObject([{ type: 'punch' }])
      const next = machine.handle(failedPunch, now)
      expect(kinds(next)).toEqual(round < config.rounds ? ['send'] : ['close', 'udp'])
    }
    expect(kinds(machine.handle(failedUdp, now))).toEqual(['close', 'udp'])
    expect(machine.handle(failedUdp, now)).toMatchObject([{ type: 'over', outcome: 'failed' }])
  })

  test('tries a guessed port once over TCP and once over UDP', () => {
    const machine = asked({ accept: () => withProspects('poor') })
    machine.handle(received(connect(theirs)), 100)
    expect(kinds(machine.handle(failedPunch, 5000))).toEqual(['close', 'udp'])
    expect(kinds(machine.handle(failedUdp, 9000))).toEqual(['over'])
  })

  test('tries nothing where it is hopeless', () => {
    const machine = asked({ accept: () => withProspects('none') })
    expect(machine.handle(received(connect(theirs)), 150)).toMatchObject([{ type: 'over', outcome: 'failed' }])
  })

  test('turns to UDP at once when there is no TCP here, or none there', () => {
    expect(kinds(initiator({ tcpUnavailable: 'no koffi' }).start(0))).toEqual(['close', 'udp'])
    expect(kinds(asked({ accept: () => nobody }).handle(received(connect([])), 150))).toEqual(['close', 'udp'])
  })

  test('gives up when neither is there', () => {
    expect(initiator({ tcpUnavailable: 'no koffi', udpUnavailable: 'no WebRTC' }).start(0)).toMatchObject([
      { type: 'over', outcome: 'failed' },
    ])
  })

  test('waits for a stream and for an answer so long and no longer', () => {
    const unopened = initiator()
    unopened.start(0)
    expect(kinds(unopened.tick(config.answerTimeoutMs))).toEqual(['close', 'udp'])
    const unanswered = asked()
    expect(unanswered.deadline).toBe(100 + config.answerTimeoutMs)
    expect(kinds(unanswered.tick(unanswered.deadline!))).toEqual(['close', 'udp'])
    // What comes late is nobody's: its stream was closed.
    expect(unanswered.handle({ type: 'closed', why: 'late' }, 9000)).toEqual([])
  })

  test('goes on without the stream once it is not needed', () => {
    const machine = asked()
    machine.handle(received(connect(theirs)), 200)
    expect(machine.handle({ type: 'closed', why: 'gone' }, 210)).toEqual([])
    expect(kinds(machine.tick(machine.deadline!))).toEqual(['punch'])
    expect(kinds(machine.handle(failedPunch, 5000))).toEqual(['close', 'udp'])
  })

  test.each([
    ['SYNC for an answer', (machine: Initiator) => machine.handle(received(sync), 150)],
    [
      'a second answer',
      (machine: Initiator) => {
        machine.handle(received(connect(theirs)), 150)
        return machine.handle(received(connect(theirs)), 151)
      },
    ],
  ])('ends with a peer that breaks the protocol: %s', (_what, act) => {
    expect(act(asked())).toMatchObject([{ type: 'over', outcome: 'violation' }])
  })

  test('does nothing any more once it is over', () => {
    const machine = asked()
    machine.handle({ type: 'upgraded' }, 150)
    expect(machine.deadline).toBeNull()
    for (const input of [
      received(connect(theirs)),
      failedPunch,
      failedUdp,
      { type: 'closed', why: '' } as const,
      { type: 'upgraded' } as const,
    ])
      expect(machine.handle(input, 200)).toEqual([])
    expect(machine.tick(1e9)).toEqual([])
  })
})

describe('the side that answers', () => {
  test('answers CONNECT and begins at SYNC', () => {
    const machine = responder(0)
    expect(machine.handle(received(connect(mine)), 10)).toEqual([{ type: 'send', message: connect(theirs) }])
    expect(machine.handle(received(sync), 60)).toEqual([{ type: 'punch', endpoints: [endpoint], forMs: config.roundTimeoutMs }])
    expect(machine.handle({ type: 'tried', why: null }, 90)).toMatchObject([{ type: 'over', outcome: 'upgraded' }])
  })

  test('drops a round for the next', () => {
    const machine = responder(0)
    machine.handle(received(connect(mine)), 10)
    machine.handle(received(sync), 60)
    expect(kinds(machine.handle(received(connect(mine)), 4000))).toEqual(['stop-punching', 'send'])
    expect(kinds(machine.handle(received(sync), 4050))).toEqual(['punch'])
  })

  test('takes so many rounds and no more: it sends no SYNs on demand', () => {
    const machine = responder(0)
    for (let round = 0; round < config.rounds; round++) {
      machine.handle(received(connect(mine)), 10)
      machine.handle(received(sync), 10)
    }
    expect(machine.handle(received(connect(mine)), 20)).toMatchObject([{ type: 'over', outcome: 'violation' }])
  })

  test('sends nothing to where it may not', () => {
    const machine = responder(0, { accept: () => ({ ...nobody, refused: 60 }) })
    expect(kinds(machine.handle(received(connect(mine)), 10))).toEqual(['send'])
    expect(machine.handle(received(sync), 20)).toEqual([])
  })

  test('says by naming nothing that it is hopeless', () => {
    const machine = responder(0, { accept: () => withProspects('none') })
    expect(machine.handle(received(connect(mine)), 10)).toEqual([{ type: 'send', message: connect([]) }])
    expect(machine.isHopeless).toBe(true)
  })

  test.each([
    ['SYNC first', [sync]],
    ['CONNECT twice', [connect(mine), connect(mine)]],
    ['SYNC twice', [connect(mine), sync, sync]],
  ])('ends with a peer that breaks the protocol: %s', (_what, messages) => {
    const machine = responder(0)
    const last = messages.map((message) => machine.handle(received(message), 10)).at(-1)
    expect(last).toMatchObject([{ type: 'over', outcome: 'violation' }])
  })

  test('waits for a peer that falls silent so long and no longer', () => {
    for (const messages of [[], [connect(mine)], [connect(mine), sync]]) {
      const machine = responder(0)
      for (const message of messages) machine.handle(received(message), 0)
      expect(machine.tick(machine.deadline! - 1)).toEqual([])
      expect(machine.tick(machine.deadline!)).toMatchObject([{ type: 'over', outcome: 'failed' }])
    }
  })

  test('goes on punching when the stream ends, as the peer may be there already', () => {
    const machine = responder(0)
    machine.handle(received(connect(mine)), 10)
    machine.handle(received(sync), 10)
    expect(machine.handle({ type: 'closed' }, 20)).toEqual([])
    expect(machine.handle({ type: 'upgraded' }, 30)).toMatchObject([{ outcome: 'upgraded' }])
  })
})

describe('both together', () => {
  test.each([0, 3, 80, 400])('begin at the same moment, %i ms from each other', (oneWayMs) => {
    const begun: number[] = []
    const events: { at: number; run: (now: number) => void }[] = []
    const later = (at: number, run: (now: number) => void): void => void events.push({ at, run })
    const begins = initiator()
    const answers = responder(0)
    const fromBeginner = (outputs: readonly InitiatorOutput[], now: number): void => {
      for (const output of outputs) {
        if (output.type === 'open') later(now + 2 * oneWayMs, (at) => fromBeginner(begins.handle({ type: 'opened' }, at), at))
        if (output.type === 'send') later(now + oneWayMs, (at) => fromAnswerer(answers.handle(received(output.message), at), at))
        if (output.type === 'punch') begun.push(now)
      }
      const { deadline } = begins
      if (deadline !== null) later(deadline, (at) => fromBeginner(begins.tick(at), at))
    }
    const fromAnswerer = (outputs: readonly ResponderOutput[], now: number): void => {
      for (const output of outputs) {
        if (output.type === 'send') later(now + oneWayMs, (at) => fromBeginner(begins.handle(received(output.message), at), at))
        if (output.type === 'punch') begun.push(now)
      }
    }
    fromBeginner(begins.start(0), 0)
    while (events.length > 0 && begun.length < 2) {
      events.sort((a, b) => a.at - b.at)
      const { at, run } = events.shift()!
      run(at)
    }
    expect(begun).toEqual([5 * oneWayMs, 5 * oneWayMs])
  })
})

describe('pairs that could not meet', () => {
  const peer = 'peer' as never

  test('are left alone for longer each time, and not for ever', () => {
    const failures = new Failures({ retryAfterMs: 1000, retryAfterMaxMs: 5000 })
    expect(failures.mayTry(peer, 0)).toBe(true)
    let now = 0
    for (const wait of [1000, 2000, 4000, 5000, 5000]) {
      failures.failed(peer, now)
      expect(failures.mayTry(peer, now + wait - 1)).toBe(false)
      now += wait
      expect(failures.mayTry(peer, now)).toBe(true)
    }
  })

  test('may try at once after they met, and when this node is somewhere else', () => {
    const failures = new Failures({ retryAfterMs: 1000, retryAfterMaxMs: 5000 })
    failures.failed(peer, 0, 4)
    failures.met(peer)
    expect(failures.mayTry(peer, 0)).toBe(true)
    failures.failed(peer, 0)
    failures.clear()
    expect(failures.mayTry(peer, 0)).toBe(true)
  })

  test('are not remembered without end', () => {
    const failures = new Failures({ retryAfterMs: 1000, retryAfterMaxMs: 5000 })
    for (let i = 0; i < 5000; i++) failures.failed(`peer ${i}` as never, 0)
    expect(failures.mayTry('peer 0' as never, 0)).toBe(true)
    expect(failures.mayTry('peer 4999' as never, 0)).toBe(false)
  })
})
