import { describe, expect, it } from 'vitest'
import { formatIp, parseIp } from '../../../../src/base/index.ts'
import { UdpPorts } from '../../../../src/egress/packets/udp-ports.ts'
import { ExitRefusal } from '../../../../src/relaying/index.ts'

const client = parseIp('100.89.0.2')

function world(most: number) {
  const open: { sent: string[]; receive: (from: { host: string; port: number }, bytes: Uint8Array) => void; closed: boolean }[] = []
  const received: string[] = []
  const ports = new UdpPorts({
    use: {
      openDatagrams: (receive) => {
        if (open.filter((one) => !one.closed).length >= most) throw new ExitRefusal('resource-limit', 'full')
        const one = { sent: [] as string[], receive, closed: false }
        open.push(one)
        return {
          send: (to, bytes) => one.sent.push(`${to.host} ${to.port} ${Buffer.from(bytes)}`),
          close: () => {
            one.closed = true
          },
        }
      },
    },
    idleTimeoutMs: 300_000,
    receive: (port, from, fromPort, data) => received.push(`${port} ${formatIp(from)} ${fromPort} ${Buffer.from(data)}`),
  })
  const send = (fromPort: number, to: string, toPort: number, now = 0) =>
    ports.send({ from: { address: client, port: fromPort }, to: { address: parseIp(to), port: toPort }, data: Buffer.from('x') }, now)
  return { ports, open, received, send }
}

describe("a lease's UDP ports", () => {
  it('are one association each, whatever is sent to', () => {
    const w = world(8)
    w.send(1000, '11.0.0.1', 80)
    w.send(1000, '2a00::1', 81)
    w.send(1000, '11.0.0.1', 82)
    w.send(1001, '11.0.0.1', 80)
    expect(w.open.map(({ sent }) => sent)).toEqual([['11.0.0.1 80 x', '2a00::1 81 x', '11.0.0.1 82 x'], ['11.0.0.1 80 x']])
    w.open[0]!.receive({ host: '2a00::1', port: 81 }, Buffer.from('back'))
    expect(w.received).toEqual(['1000 2a00::1 81 back'])
  })

  it('give way to new ones when the circuit may have no more, the longest unused first', () => {
    const w = world(2)
    w.send(1, '11.0.0.1', 80)
    w.send(2, '11.0.0.1', 80)
    w.send(1, '11.0.0.1', 80)
    expect(w.send(3, '11.0.0.1', 80)).toBe(true)
    expect(w.open.map(({ closed }) => closed)).toEqual([false, true, false])
    expect(w.ports.size).toBe(2)
  })

  it('say so when there is none to give up', () => {
    const w = world(0)
    expect(w.send(1, '11.0.0.1', 80)).toBe(false)
  })

  it('are closed when they idle, those that only asked for names much earlier', () => {
    const w = world(8)
    w.send(1, '11.0.0.1', 53)
    w.send(2, '11.0.0.1', 443)
    w.send(3, '11.0.0.1', 53)
    w.send(3, '11.0.0.1', 443)
    w.ports.sweep(15_000)
    expect(w.open.map(({ closed }) => closed)).toEqual([true, false, false])
    w.ports.sweep(299_999)
    expect(w.ports.size).toBe(2)
    w.ports.sweep(300_000)
    expect(w.ports.size).toBe(0)
  })

  it('hear nothing after they are closed', () => {
    const w = world(8)
    w.send(1, '11.0.0.1', 80)
    w.ports.forget(1)
    w.open[0]!.receive({ host: '11.0.0.1', port: 80 }, Buffer.from('late'))
    w.send(2, '11.0.0.1', 80)
    w.ports.close()
    expect([w.received, w.open.map(({ closed }) => closed)]).toEqual([[], [true, true]])
  })
})
