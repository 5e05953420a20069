import { SeededRandom } from '../../src/base/index.ts'
import { FaultyPort, memoryPortPair, type PacketPort, PcapTracer } from '../../src/packet/index.ts'
import { packetPortCompliance } from './packet-port.ts'

function memory(wrap: (port: PacketPort) => PacketPort = (port) => port, holdsBack = true) {
  return () => ({
    holdsBack,
    mostQueued: 512,
    async start() {
      const [port, other] = memoryPortPair({ carry: (task) => void setImmediate(task) })
      return { port: wrap(port), other }
    },
    async stop() {},
  })
}

packetPortCompliance('memory', memory())
packetPortCompliance(
  'memory, traced',
  memory((port) => new PcapTracer(port, { sink: { ready: true, write: () => true }, now: () => 0 })),
)
packetPortCompliance(
  'memory, behind a path without faults',
  memory(
    (port) =>
      new FaultyPort(port, {
        random: new SeededRandom(1),
        time: { now: () => performance.now(), at: (time, task) => void setTimeout(task, Math.max(0, time - performance.now())) },
      }),
    false,
  ),
)
