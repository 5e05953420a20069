import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { batchOfPackets, type Medium, memoryPortPair, PcapTracer } from '../../src/packet/index.ts'
import { hasCommand, runOk, temporaryFolder } from '../support/processes.ts'
import { endpoint, transfer, VirtualNet } from '../support/virtual-net.ts'

// What our tracer writes, read by Wireshark's program: link type, times, and every checksum and option of what the netstack says.

const reason = (await hasCommand('tshark')) ? null : 'needs tshark'
const folder = temporaryFolder('pcap')
afterAll(() => folder.remove())

/** 2023-11-14, with microseconds that must not be lost. */
const EPOCH_MS = 1_700_000_000_123

interface Said {
  readonly side: 'a' | 'b'
  readonly at: number
  readonly packet: Uint8Array
}

/** All that two stacks say to each other: TCP with loss, datagrams whole and in fragments, echoes and errors. */
function conversation(): Said[] {
  const said: Said[] = []
  for (const v6 of [false, true]) {
    const net = new VirtualNet(9, { delayMs: 3.25, loss: 0.02 })
    net.onPacket = (side, packet) => void said.push({ side, at: net.now, packet: packet.slice() })
    const to = endpoint(v6 ? 'fd00::2' : '10.0.0.2', 47_111)
    const from = endpoint(v6 ? 'fd00::1' : '10.0.0.1', 40_000)
    for (const length of [20, 3000]) net.a.sendDatagram({ from, to, data: new Uint8Array(length).fill(7) }, net.now)
    net.a.sendEcho('echo-request', { from: from.address, to: to.address, identifier: 1, sequence: 1, data: new Uint8Array(56) })
    net.onEvent = (_side, event) => void (event.type === 'datagram' && net.b.refuseDatagram(event, 'port-unreachable', net.now))
    net.wait(20)
    if (!transfer(net, 60_000, 47_112, v6).intact) throw new Error('the transfer is not whole')
  }
  return said
}

/** Writes packets through a tracer on one port of a pair, each at its time. */
function trace(said: readonly Said[], name: string, medium: Medium = 'ip'): string {
  const pieces: Uint8Array[] = []
  const tasks: (() => void)[] = []
  let now = 0
  const [near, far] = memoryPortPair({ carry: (task) => void tasks.push(task), mtu: 1500, medium })
  const tracer = new PcapTracer(near, { sink: { ready: true, write: (bytes) => pieces.push(bytes) > 0 }, now: () => EPOCH_MS + now })
  const handlers = { packets() {}, drained() {}, ended() {} }
  tracer.attach(handlers)
  far.attach(handlers)
  for (const { side, at, packet } of said) {
    now = at
    const port = side === 'a' ? tracer : far
    port.send(batchOfPackets([packet]))
    while (tasks.length > 0) tasks.shift()!()
  }
  expect(tracer.missed).toBe(0)
  const path = join(folder.path, name)
  writeFileSync(path, Buffer.concat(pieces))
  return path
}

const tshark = async (file: string, ...fields: string[]): Promise<string[][]> => {
  const checks = ['ip.check_checksum', 'tcp.check_checksum', 'udp.check_checksum'].flatMap((one) => ['-o', `${one}:TRUE`])
  const out = await runOk('tshark', ['-n', '-r', file, ...checks, '-T', 'fields', ...fields.flatMap((field) => ['-e', field])])
  return out
    .replace(/\n$/, '')
    .split('\n')
    .map((row) => row.split('\t'))
}

describe.skipIf(reason !== null)(`a capture in Wireshark${reason === null ? '' : ` (${reason})`}`, () => {
  test('is raw IP with the times and lengths of the packets, and nothing in it is malformed or has a wrong checksum', async () => {
    const said = conversation()
    const file = trace(said, 'ip.pcap')
    const rows = await tshark(file, 'frame.encap_type', 'frame.time_epoch', 'frame.len', 'ip.version', 'ipv6.version', '_ws.malformed')
    expect(rows.length).toBe(said.length)
    for (const [i, [encapsulation, time, length, four, six, malformed]] of rows.entries()) {
      const { at, packet } = said[i]!
      const v6 = packet[0]! >> 4 === 6
      // WTAP_ENCAP_RAW_IP
      expect(encapsulation).toBe('7')
      expect(Math.abs(Number(time) * 1000 - (EPOCH_MS + at))).toBeLessThan(0.002)
      expect([Number(length), (v6 ? six : four)?.split(',')[0], malformed]).toEqual([packet.length, v6 ? '6' : '4', ''])
    }
    // 0 is "bad"; 1 "good", 2 "unverified" (parts, and what an ICMP error quotes).
    const sums = await tshark(
      file,
      'ip.checksum.status',
      'tcp.checksum.status',
      'udp.checksum.status',
      'icmp.checksum.status',
      'icmpv6.checksum.status',
    )
    for (const [i, row] of sums.entries()) expect(row.join(',').split(','), `packet ${i}`).not.toContain('0')
    const good = sums.filter(([, tcp]) => tcp === '1')
    expect(good.length).toBeGreaterThan(150)
    const reassembled = (await tshark(file, 'udp.length')).flat().filter((length) => length.startsWith('3008'))
    expect(reassembled.length).toBeGreaterThanOrEqual(2)
  })

  test('is Ethernet where the port is', async () => {
    const frame = new Uint8Array(60)
    frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5])
    const file = trace([{ side: 'b', at: 0.5, packet: frame }], 'ethernet.pcap', 'ethernet')
    expect(await tshark(file, 'frame.encap_type', 'frame.time_epoch', 'eth.src', 'eth.type')).toEqual([
      ['1', '1700000000.123500000', '02:00:00:00:00:02', '0x88b5'],
    ])
  })
})
