import { SeededRandom } from '../../src/base/index.ts'
import { LeasedPort } from '../../src/egress/leased-port.ts'
import { Junction } from '../../src/ingress/tun/junction.ts'
import { FaultyPort, memoryPortPair, type PacketPort, PcapTracer } from '../../src/packet/index.ts'
import { WatchedPort } from '../../src/vpn/watched-port.ts'
import { packetPortCompliance } from './packet-port.ts'

const systemTime = {
  now: () => performance.now(),
  at: (time: number, task: () => void) => void setTimeout(task, Math.max(0, time - performance.now())),
}

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
        time: systemTime,
      }),
    false,
  ),
)
packetPortCompliance(
  'memory, behind the capture of a bad path',
  memory(
    (port) =>
      new PcapTracer(
        new FaultyPort(port, { random: new SeededRandom(2), time: systemTime, outgoing: { delayMs: 1 }, incoming: { jitterMs: 1 } }),
        {
          sink: { ready: false, write: () => false },
          now: () => 0,
        },
      ),
    false,
  ),
)
// What other rooms put around a port has to be one as well.
packetPortCompliance(
  'memory, watched by the VPN',
  memory((port) => new WatchedPort(port, () => {})),
)
packetPortCompliance(
  "memory, as an exit's lease",
  memory((port) => new LeasedPort(port, () => {})),
)
packetPortCompliance(
  "memory, behind the client TUN's junction",
  memory((port) => new Junction(port, (batch) => batch)),
)
