import { request } from 'node:http'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { RelayBrief } from '../../../src/node/index.ts'
import { ControlBench } from '../../support/control-server.ts'
import { FakeNode, fakeCircuit, fakeIds, fakeStream, fakeTraffic, fakeVpn } from '../../support/fake-node.ts'
import { until } from '../../support/processes.ts'

let node: FakeNode
let bench: ControlBench
beforeEach(async () => {
  node = new FakeNode()
  bench = await ControlBench.start(node)
})
afterEach(() => bench.close())

interface Following {
  readonly status: number
  readonly events: { type: string; [key: string]: unknown }[]
  readonly ended: () => boolean
  pause(): void
  stop(): void
}

/** Follows the events, as a page does. */
function follow(query: string, token = bench.token): Promise<Following> {
  const [host, port] = bench.server.dashboard!.split(':')
  return new Promise((done, fail) => {
    const asked = request(
      { host, port, path: `/v1/events${query}`, agent: false, headers: { authorization: `Bearer ${token}` } },
      (response) => {
        const events: Following['events'] = []
        let text = ''
        let ended = false
        const following = {
          status: response.statusCode!,
          events,
          ended: () => ended,
          pause: () => void response.pause(),
          stop: () => void asked.destroy(),
        }
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk
          if (text.includes(': shallot events')) done(following)
          for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
            const data = /^data: (.*)$/m.exec(text.slice(0, end))?.[1]
            text = text.slice(end + 2)
            if (data !== undefined) events.push(JSON.parse(data))
          }
        })
        response.on('close', () => {
          ended = true
          done(following)
        })
        response.on('error', () => {})
      },
    )
    asked.on('error', fail).end()
  })
}

const types = (following: Following): string[] => following.events.map(({ type }) => type)

describe('the events', () => {
  test('tell what matters when nothing is said, and the rest to who asks', async () => {
    const usual = await follow('')
    const chosen = await follow('?types=traffic,stream-open,log')
    node.emit({ type: 'circuit-open', at: 1, circuit: fakeCircuit })
    node.emit({ type: 'traffic', at: 2, traffic: fakeTraffic })
    node.emit({ type: 'stream-open', at: 3, stream: fakeStream })
    node.emit({ type: 'vpn', at: 4, vpn: fakeVpn })
    node.book.add({ at: 5, level: 'warn', sub: 'link', message: 'lost', fields: {} }, 4)
    await until('the events', 2000, () => chosen.events.length === 3 && usual.events.length === 2)
    expect(types(usual)).toEqual(['circuit-open', 'vpn'])
    expect(types(chosen)).toEqual(['traffic', 'stream-open', 'log'])
    expect(chosen.events[2]).toMatchObject({ line: { message: 'lost', sub: 'link' } })
  })

  test('of the log are only those that fit', async () => {
    const following = await follow('?types=log&level=warn&sub=link')
    const line = (level: 'debug' | 'warn', sub: string, message: string): void =>
      node.book.add({ at: 0, level, sub, message, fields: {} }, 0)
    line('debug', 'link', 'no: level')
    line('warn', 'linkage', 'no: another subsystem')
    line('warn', 'link.dialer', 'yes')
    line('warn', 'link', 'yes too')
    await until('the lines', 2000, () => following.events.length === 2)
    expect(following.events.map(({ line }) => (line as { message: string }).message)).toEqual(['yes', 'yes too'])
    const page = await bench.web('GET', '/v1/log?level=warn&sub=link', { authorization: `Bearer ${bench.token}` })
    expect(page.body).toMatchObject({ next: 4, missed: false, subsystems: ['link', 'link.dialer', 'linkage'] })
    expect((page.body.lines as unknown[]).length).toBe(2)
  })

  test('say which relays came, changed and went', async () => {
    let relays = node.relayPage({}).relays as RelayBrief[]
    node.relayPage = () => ({ total: relays.length, relays, next: null })
    const following = await follow('?types=relays')
    const view = (): void => node.emit({ type: 'view', at: 1, known: relays.length, eligible: 0 })
    view()
    relays = [
      { ...relays[0]!, eligible: true },
      { ...relays[0]!, id: fakeIds[0]! },
    ]
    view()
    relays = relays.slice(1)
    view()
    relays = Array.from({ length: 150 }, (_, i) => ({ ...relays[0]!, id: `12D3KooW${i}` as never }))
    view()
    await until('the events', 2000, () => following.events.length === 3)
    expect(following.events[0]).toMatchObject({ changed: [{ eligible: true }, { id: fakeIds[0] }], gone: [], more: false })
    expect(following.events[1]).toMatchObject({ changed: [], gone: [expect.any(String)] })
    expect(following.events[2]).toMatchObject({ more: true })
    expect((following.events[2]!.changed as unknown[]).length).toBe(100)
  })

  test('cost nothing that nobody asked for', async () => {
    const asked = node.asked.length
    const following = await follow('?types=view')
    node.emit({ type: 'view', at: 1, known: 1, eligible: 1 })
    await until('the event', 2000, () => following.events.length === 1)
    expect(node.asked.length).toBe(asked)
  })

  test('cut off a reader that does not read', async () => {
    const following = await follow('?types=circuit-open')
    following.pause()
    const fat = { ...fakeCircuit, why: [{ position: 'guard' as const, reasons: ['x'.repeat(50_000)] }] }
    await until('the end', 10_000, () => {
      for (let i = 0; i < 20; i++) node.emit({ type: 'circuit-open', at: 1, circuit: fat })
      return following.ended()
    })
  })

  test('have a few readers, and room again when one has gone', async () => {
    const all: Following[] = []
    for (let i = 0; i < 16; i++) all.push(await follow(''))
    expect((await follow('')).status).toBe(429)
    all[0]!.stop()
    await until('room', 2000, async () => (await follow('')).status === 200)
    for (const one of all) one.stop()
  })

  test('end with the node', async () => {
    const following = await follow('')
    await bench.server.close()
    await until('the end', 2000, () => following.ended())
  })
})
