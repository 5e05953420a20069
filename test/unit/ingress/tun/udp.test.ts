import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { StreamError, type StreamErrorReason } from '../../../../src/client/index.ts'
import { decodeMessage, encodeAnswer, frameMessage } from '../../../../src/dns/index.ts'
import type { DnsAsker } from '../../../../src/ingress/index.ts'
import { udpFlowLimits } from '../../../../src/ingress/tun/udp-flows.ts'
import { errorPacket, udpPacket } from '../../../support/ip-packets.ts'
import { until } from '../../../support/processes.ts'
import { device, OutsideClient, RawMachine, StackMachine, TunWorld, type WorldOptions } from '../../../support/tun-world.ts'
import { endpoint } from '../../../support/virtual-net.ts'

const cleanUps: (() => void)[] = []
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp()
})

function world(options: WorldOptions = {}): TunWorld {
  const made = new TunWorld(options)
  cleanUps.push(() => made.stop())
  return made
}

/** A UDP server on loopback; answers with what it was sent, from another port too when asked. */
async function echoServer(): Promise<{ port: number; socket: Socket; seen: { port: number; bytes: Buffer }[] }> {
  const socket = createSocket('udp4')
  const seen: { port: number; bytes: Buffer }[] = []
  socket.on('message', (bytes, from) => {
    seen.push({ port: from.port, bytes })
    socket.send(bytes, from.port, from.address)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  cleanUps.push(() => socket.close())
  return { port: socket.address().port, socket, seen }
}

class RefusingClient extends OutsideClient {
  reason: StreamErrorReason = 'not-exit'
  tries = 0
  override async openDatagrams(): Promise<never> {
    this.tries++
    throw new StreamError(this.reason)
  }
}

describe('UDP over a TUN', () => {
  test('answers come back from where they were asked, both families, one association for each local port', async () => {
    const { machine: port, client, ingress } = world()
    const machine = new StackMachine(port)
    const [one, two] = [await echoServer(), await echoServer()]
    for (const [to, text] of [
      [endpoint('11.0.0.1', one.port), 'a'],
      [endpoint('11.0.0.2', two.port), 'b'],
    ] as const) {
      machine.send(5000, to, Buffer.from(text))
    }
    await until('both are answered', 2000, () => machine.of('datagram').length === 2)
    machine.send(5001, endpoint('11.0.0.1', one.port), Buffer.from('c'))
    machine.send(5000, endpoint('2a0b::7', two.port), Buffer.from('d'))
    await until('all are answered', 2000, () => machine.of('datagram').length === 4)
    const answers = machine.of('datagram').map(({ from, to, data }) => [from.port, to.port, Buffer.from(data).toString()])
    expect(answers.toSorted()).toEqual(
      [
        [one.port, 5000, 'a'],
        [two.port, 5000, 'b'],
        [one.port, 5001, 'c'],
        [two.port, 5000, 'd'],
      ].toSorted(),
    )
    // Endpoint-independent: both servers see one port for 5000 of IPv4.
    expect(one.seen[0]!.port).toBe(two.seen[0]!.port)
    expect(client.associations).toBe(3)
    expect(ingress.counts).toMatchObject({ udpFlows: 3, udp: { opened: 3 } })
  })

  test('datagrams as large as UDP takes go and come in fragments', async () => {
    const { machine: port } = world()
    const machine = new StackMachine(port)
    const server = await echoServer()
    const data = Buffer.alloc(60_000, 'x')
    data.write('begin')
    machine.send(5000, endpoint('11.0.0.1', server.port), data)
    await until('it is answered', 3000, () => machine.of('datagram').length === 1)
    expect(Buffer.from(machine.of('datagram')[0]!.data).equals(data)).toBe(true)
  })

  test('what is sent while the association is opened waits, as much as there is room for', async () => {
    const { machine: port, client, ingress } = world({ queuePackets: 1024 })
    const machine = new StackMachine(port)
    const server = await echoServer()
    const gate = Promise.withResolvers<void>()
    client.hold = gate.promise
    for (let i = 0; i < 200; i++) machine.send(5000, endpoint('11.0.0.1', server.port), Buffer.from([i]))
    await until('they are here', 2000, () => ingress.counts.packetsIn === 200)
    gate.resolve()
    await until('those with room are answered', 2000, () => machine.of('datagram').length === udpFlowLimits.waitingDatagrams)
    expect(machine.of('datagram').map(({ data }) => data[0])).toEqual(Array.from({ length: 64 }, (_, i) => i))
    expect(ingress.counts.udp.overflow).toBe(136)
  })

  test('only those that were sent to may answer', async () => {
    const { machine: port, ingress } = world()
    const machine = new StackMachine(port)
    const [server, stranger] = [await echoServer(), createSocket('udp4')]
    cleanUps.push(() => stranger.close())
    machine.send(5000, endpoint('11.0.0.1', server.port), Buffer.from('a'))
    await until('it is answered', 2000, () => machine.of('datagram').length === 1)
    // To the association's port at the exit, from an address that nothing was sent to.
    stranger.send('unasked', server.seen[0]!.port, '127.0.0.1')
    await until('it is counted', 2000, () => ingress.counts.udp.unasked === 1)
    expect(machine.of('datagram').length).toBe(1)
  })

  test('idles out, and begins again', async () => {
    const { machine: port, client, ingress } = world({ config: { udpIdleTimeoutMs: 200 } })
    const machine = new StackMachine(port)
    const server = await echoServer()
    machine.send(5000, endpoint('11.0.0.1', server.port), Buffer.from('a'))
    await until('it is answered', 2000, () => machine.of('datagram').length === 1)
    await until('it is closed', 2000, () => client.associations === 0 && ingress.counts.udpFlows === 0)
    machine.send(5000, endpoint('11.0.0.1', server.port), Buffer.from('b'))
    await until('it is answered', 2000, () => machine.of('datagram').length === 2)
  })

  test('an association whose circuit is lost is opened anew with the next datagram', async () => {
    const { machine: port, client } = world()
    const machine = new StackMachine(port)
    const server = await echoServer()
    machine.send(5000, endpoint('11.0.0.1', server.port), Buffer.from('a'))
    await until('it is answered', 2000, () => machine.of('datagram').length === 1)
    client.loseCircuits()
    machine.send(5000, endpoint('11.0.0.1', server.port), Buffer.from('b'))
    await until('it is answered', 2000, () => machine.of('datagram').length === 2)
    expect(client.associations).toBe(1)
  })

  test.each([
    ['not-exit', 'prohibited'],
    ['policy', 'prohibited'],
    ['no-circuit', 'net-unreachable'],
  ] as const)('when none is to be had (%s) the machine is told (%s), and not asked for anew with each', async (reason, kind) => {
    const client = new RefusingClient()
    client.reason = reason
    const { machine: port } = world({ client })
    const machine = new RawMachine(port)
    const packet = udpPacket({ from: device.own4, to: '11.0.0.1', fromPort: 5000, toPort: 443, data: Buffer.from('hello') })
    for (let i = 0; i < 3; i++) {
      machine.send(packet)
      await until('it is answered', 2000, () => machine.received.length === i + 1)
    }
    expect(machine.seen[2]).toMatchObject({ from: device.hop4, to: device.own4, sound: true, icmp: { kind } })
    // Which datagram it was: ports and length.
    expect(machine.seen[2]!.icmp!.quoted.slice(20, 26)).toEqual(packet.slice(20, 26))
    expect(client.tries).toBe(1)
  })

  test('flows are bounded: those that nobody answered give way, answered ones stay', async () => {
    const { machine: port, client, ingress } = world({ config: { maxUdpFlows: 8 } })
    const machine = new StackMachine(port)
    const server = await echoServer()
    for (let i = 0; i < 4; i++) machine.send(6000 + i, endpoint('11.0.0.1', server.port), Buffer.from('a'))
    await until('these are answered', 2000, () => machine.of('datagram').length === 4)
    for (let i = 0; i < 100; i++) machine.send(7000 + i, endpoint('11.0.0.9', 9), Buffer.from('b'))
    await until('all came', 2000, () => ingress.counts.packetsIn >= 104)
    await until('the others are closed', 2000, () => client.associations <= 8)
    expect(ingress.counts.udpFlows).toBe(8)
    for (let i = 0; i < 4; i++) machine.send(6000 + i, endpoint('11.0.0.1', server.port), Buffer.from('c'))
    await until('the old ones still go', 2000, () => machine.of('datagram').length === 8)
    expect(server.seen.length).toBe(8)
    expect(new Set(server.seen.map((one) => one.port)).size).toBe(4)
  })

  test('a flood from all ports opens associations only so fast', async () => {
    const { machine: port, client, ingress } = world({ queuePackets: 2048 })
    const machine = new RawMachine(port)
    for (let i = 0; i < 5000; i++) {
      machine.send(udpPacket({ from: device.own4, to: '11.0.0.1', fromPort: 1024 + i, toPort: 9 }))
      if (i % 1000 === 999) await sleep(1)
    }
    await until('all came', 3000, () => ingress.counts.packetsIn === 5000)
    expect(client.isolations.length).toBeLessThan(udpFlowLimits.openBurst + udpFlowLimits.opensPerSecond * 3)
    expect(ingress.counts.udpFlows).toBeLessThanOrEqual(1024)
    expect(ingress.counts.udp.overflow).toBeGreaterThan(3000)
  })

  test('a machine that says that nobody takes the answers closes the association', async () => {
    const { machine: port, client } = world()
    const machine = new RawMachine(port)
    const server = await echoServer()
    machine.send(udpPacket({ from: device.own4, to: '11.0.0.1', fromPort: 5000, toPort: server.port }))
    await until('it is answered', 2000, () => machine.received.length === 1)
    expect(machine.seen[0]).toMatchObject({ from: '11.0.0.1', to: device.own4, sound: true, udp: { fromPort: server.port, toPort: 5000 } })
    machine.send(errorPacket({ from: device.own4, to: '11.0.0.1', kind: 'port-unreachable', quoted: machine.received[0]! }))
    await until('it is closed', 2000, () => client.associations === 0)
  })

  test("the device's other end has no ports but DNS", async () => {
    const { machine: port, client } = world()
    const machine = new RawMachine(port)
    machine.send(udpPacket({ from: device.own4, to: device.hop4, fromPort: 5000, toPort: 500 }))
    await until('it is answered', 2000, () => machine.received.length === 1)
    expect(machine.seen[0]).toMatchObject({ icmp: { kind: 'port-unreachable' } })
    expect(client.asked).toEqual([])
  })
})

/** Answers every question with as many bytes of text as its name's first label says. */
class FakeDns implements DnsAsker {
  readonly isolations: string[] = []
  asked = 0
  fails = false
  hold: Promise<void> | null = null

  async ask(message: Uint8Array, isolation: string): Promise<Uint8Array> {
    this.asked++
    this.isolations.push(isolation)
    if (this.hold !== null) await this.hold
    if (this.fails) throw new StreamError('no-circuit')
    const asked = decodeMessage(message)
    const length = Number.parseInt(asked.question!.name, 10)
    const answers = Array.from({ length: Math.ceil(length / 200) }, () => ({ type: 16, ttl: 60, data: Buffer.alloc(200, 199) }))
    return encodeAnswer(asked, { rcode: 0, answers })
  }
}

function question(name: string, id = 77): Uint8Array {
  const wire = encodeQuestionName(name)
  const bytes = new Uint8Array(12 + wire.length + 4)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, id)
  view.setUint16(2, 0x0100)
  view.setUint16(4, 1)
  bytes.set(wire, 12)
  view.setUint16(12 + wire.length, 16)
  view.setUint16(14 + wire.length, 1)
  return bytes
}

function encodeQuestionName(name: string): Uint8Array {
  return Uint8Array.from([...name.split('.').flatMap((label) => [label.length, ...Buffer.from(label)]), 0])
}

describe('questions over a TUN', () => {
  test('by UDP to any address, the device itself included, are answered from there', async () => {
    const dns = new FakeDns()
    const { machine: port, client } = world({ dns })
    const machine = new StackMachine(port)
    for (const to of ['8.8.8.8', '192.168.1.1', device.hop4, '2a0b::53', device.hop6]) {
      machine.send(5353, endpoint(to, 53), question('100.example'))
    }
    await until('all are answered', 2000, () => machine.of('datagram').length === 5)
    for (const { from, to, data } of machine.of('datagram')) {
      expect([from.port, to.port]).toEqual([53, 5353])
      expect(decodeMessage(data)).toMatchObject({ id: 77 })
    }
    expect(client.asked).toEqual([])
    expect(new Set(dns.isolations).size).toBe(1)
  })

  test('an answer that is too large for the asker is cut, and comes whole by TCP', async () => {
    const dns = new FakeDns()
    const { machine: port } = world({ dns })
    const machine = new StackMachine(port)
    machine.send(5353, endpoint('8.8.8.8', 53), question('30000.example'))
    await until('it is answered', 2000, () => machine.of('datagram').length === 1)
    const { data } = machine.of('datagram')[0]!
    expect(data.length).toBeLessThanOrEqual(512)
    expect(data[2]! & 2).toBe(2)

    const connection = machine.dial(endpoint('8.8.8.8', 53))
    const got: Buffer[] = []
    machine.onEvent = (event) => {
      if (event.type === 'connected') {
        // Two at once, the second in two pieces; then the end.
        const [first, second] = [frameMessage(question('30000.example', 1)), frameMessage(question('200.example', 2))]
        connection.write(Buffer.concat([first, second.subarray(0, 9)]))
        setTimeout(() => {
          connection.write(second.subarray(9))
          connection.end()
          machine.driver.touch()
        }, 20)
      }
      if (event.type !== 'readable') return
      while (connection.readable > 0) {
        got.push(Buffer.from(connection.peek()))
        connection.consume(got.at(-1)!.length)
      }
    }
    await until('it is over', 3000, () => machine.of('closed').length === 1)
    expect(machine.of('closed')[0]!.reason).toBe('done')
    const all = Buffer.concat(got)
    const ids: number[] = []
    for (let at = 0; at < all.length; at += 2 + all.readUInt16BE(at)) ids.push(all.readUInt16BE(at + 2))
    expect(ids.toSorted()).toEqual([1, 2])
    expect(all.length).toBeGreaterThan(30_000)
  })

  test('a TCP connection with many questions is read only as far as answers go', async () => {
    const dns = new FakeDns()
    const gate = Promise.withResolvers<void>()
    dns.hold = gate.promise
    const { machine: port, ingress } = world({ dns })
    const machine = new StackMachine(port)
    const connection = machine.dial(endpoint('8.8.8.8', 53))
    const frame = frameMessage(question('200.example'))
    let answers = 0
    machine.onEvent = (event) => {
      if (event.type === 'connected') for (let i = 0; i < 300; i++) connection.write(frame)
      if (event.type !== 'readable') return
      answers += connection.readable
      connection.consume(connection.readable)
    }
    await until('some are asked', 2000, () => dns.asked === 32)
    await sleep(50)
    expect(dns.asked).toBe(32)
    gate.resolve()
    await until('all are answered', 3000, () => dns.asked === 300 && answers > 300 * 200)
    expect(ingress.counts.tcpFlows).toBe(1)
  })

  test('what is no question, or claims to be an answer, is not asked', async () => {
    const dns = new FakeDns()
    const { machine: port, ingress } = world({ dns })
    const machine = new StackMachine(port)
    const answer = question('1.example')
    answer[2]! |= 0x80
    machine.send(5353, endpoint('8.8.8.8', 53), answer)
    machine.send(5353, endpoint('8.8.8.8', 53), new Uint8Array(5))
    await until('both came', 2000, () => ingress.counts.packetsIn === 2)
    await sleep(20)
    expect(dns.asked).toBe(0)
    const connection = machine.dial(endpoint('8.8.8.8', 53))
    machine.onEvent = (event) => {
      if (event.type === 'connected') connection.write(Uint8Array.of(0, 3, 1, 2, 3))
    }
    await until('the connection is reset', 2000, () => machine.of('closed').length === 1)
    expect(machine.of('closed')[0]!.reason).toBe('reset')
  })

  test('when nobody answers there is no answer, and no packet goes another way', async () => {
    const dns = new FakeDns()
    dns.fails = true
    const { machine: port, client } = world({ dns })
    const machine = new StackMachine(port)
    machine.send(5353, endpoint('8.8.8.8', 53), question('1.example'))
    await until('it is asked', 2000, () => dns.asked === 1)
    await sleep(30)
    expect(machine.events).toEqual([])
    expect(client.asked).toEqual([])
  })

  test('switched off, port 53 is as any other', async () => {
    const dns = new FakeDns()
    const { machine: port, client } = world({ dns, config: { interceptDns: false } })
    const machine = new RawMachine(port)
    machine.send(udpPacket({ from: device.own4, to: '11.0.0.1', fromPort: 5000, toPort: 53, data: question('1.example') }))
    await until('an association is asked for', 2000, () => client.asked.length === 1)
    expect(client.asked[0]!.what).toBe('datagrams')
    expect(dns.asked).toBe(0)
  })
})
