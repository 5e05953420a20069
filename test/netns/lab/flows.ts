import type { SeenEndpoint, SeenPacket } from './pcap.ts'

/** Packets of one protocol between two endpoints, as the internet saw them. `a` sent the first one. */
export interface Flow {
  readonly protocol: 'tcp' | 'udp'
  readonly a: SeenEndpoint
  readonly b: SeenEndpoint
  /** Wall-clock ms of the first and the last packet seen (of TCP: of the last SYN). */
  readonly firstAt: number
  readonly lastAt: number
  /** TCP: connection requests, SYN without ACK. UDP: datagrams. */
  readonly askedByA: number
  readonly askedByB: number
  /** Bytes of IP. */
  readonly bytesFromA: number
  readonly bytesFromB: number
}

/** Names a flow's direction: "PROTOCOL FROM FROM_PORT TO TO_PORT ". */
export function flowKey(protocol: 'tcp' | 'udp', from: SeenEndpoint, to: SeenEndpoint): string {
  return `${protocol} ${from.ip} ${from.port} ${to.ip} ${to.port}`
}

interface Growing {
  readonly first: SeenPacket
  lastAt: number
  askedByA: number
  askedByB: number
}

/** Joins packets to flows. */
export class FlowTable {
  readonly #flows = new Map<string, Growing>()

  add(packet: SeenPacket): void {
    const { protocol, from, to } = packet
    const there = this.#flows.get(flowKey(protocol, from, to))
    const back = there ? undefined : this.#flows.get(flowKey(protocol, to, from))
    const flow = there ?? back ?? { first: packet, lastAt: packet.at, askedByA: 0, askedByB: 0 }
    if (!there && !back) this.#flows.set(flowKey(protocol, from, to), flow)
    flow.lastAt = Math.max(flow.lastAt, packet.at)
    if (protocol === 'udp' || (packet.syn && !packet.ack)) {
      if (back) flow.askedByB++
      else flow.askedByA++
    }
  }

  /** Whether the flow of this direction has been seen. @param key see `flowKey` */
  has(key: string): boolean {
    const [protocol, from, fromPort, to, toPort] = key.split(' ')
    return this.#flows.has(key) || this.#flows.has(`${protocol} ${to} ${toPort} ${from} ${fromPort}`)
  }

  /** @param bytes by `flowKey` */
  flows(bytes: ReadonlyMap<string, number>): readonly Flow[] {
    return [...this.#flows.values()].map(({ first, lastAt, askedByA, askedByB }) => {
      const { protocol, from: a, to: b, at: firstAt } = first
      const bytesFrom = (from: SeenEndpoint, to: SeenEndpoint): number => bytes.get(flowKey(protocol, from, to)) ?? 0
      return { protocol, a, b, firstAt, lastAt, askedByA, askedByB, bytesFromA: bytesFrom(a, b), bytesFromB: bytesFrom(b, a) }
    })
  }
}
