import type { PacketPort } from '../../src/packet/index.ts'
import { MemoryMesh, slowTime } from '../support/mesh-in-memory.ts'
import { PacketExit, turnAround } from '../support/packet-exits.ts'
import { packetPortCompliance } from './packet-port.ts'

/**
 * The port of a packet lease: best effort, so a receiver that pauses holds nobody back. What the suite's packets come from is leased here; what
 * comes back must go to it, so the other side turns its packets around.
 */
packetPortCompliance('a lease through a circuit of three hops', () => {
  const exit = new PacketExit({ address4: '10.77.0.1', address6: null, behind: () => {} })
  const mesh = new MemoryMesh({ exit, now: slowTime })
  return {
    holdsBack: false,
    mostQueued: 512,
    async start() {
      const circuit = await mesh.circuit()
      const { port } = await circuit.openPackets()
      return { port, other: turned(exit.leases[0]!) }
    },
    async stop() {
      mesh.stop()
    },
  }
})

function turned(port: PacketPort): PacketPort {
  const send = port.send.bind(port)
  port.send = (batch, from) => {
    turnAround(batch)
    return send(batch, from)
  }
  return port
}
