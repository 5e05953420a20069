import { Duplex } from 'node:stream'
import { type IpAddress, parseIp } from '../../src/base/index.ts'
import { type MemoryPort, memoryPortPair, type PacketBatch } from '../../src/packet/index.ts'
import { type ExitCircuit, type ExitPacketLease, ExitRefusal, type ExitService } from '../../src/relaying/index.ts'
import { loopbackExit } from './mesh-in-memory.ts'

export interface PacketExitOptions {
  readonly address4?: string | null
  readonly address6?: string | null
  readonly mtu?: number
  readonly queuePackets?: number
  /** What stands behind each lease; the default sends everything back. */
  readonly behind?: (port: MemoryPort) => void
  /** Refuses every lease. */
  readonly refuses?: ExitRefusal
}

/** An exit whose leases end in memory: `leases` are the ports on the network's side, in the order they were leased. */
export class PacketExit implements ExitService {
  readonly leases: MemoryPort[] = []
  /** Leases that were not given back. */
  open = 0
  readonly #options: PacketExitOptions

  constructor(options: PacketExitOptions = {}) {
    this.#options = options
  }

  openCircuit(): ExitCircuit {
    const { address4 = '100.64.0.2', address6 = 'fd00::2', mtu = 1420, queuePackets = 4096, behind = echo, refuses } = this.#options
    return {
      ...loopbackExit.openCircuit(),
      openPackets: async (asked): Promise<ExitPacketLease> => {
        if (refuses) throw refuses
        const [port, network] = memoryPortPair({ carry: (task) => void setImmediate(task), mtu: Math.min(asked, mtu), queuePackets })
        this.leases.push(network)
        this.open++
        const { close } = port
        port.close = () => {
          this.open--
          close.call(port)
        }
        behind(network)
        return { address4: ipOf(address4), address6: ipOf(address6), port }
      },
    }
  }
}

function ipOf(text: string | null): IpAddress | null {
  return text === null ? null : parseIp(text)
}

/** Sends each packet back to where it came from. */
export function echo(port: MemoryPort): void {
  port.attach({
    packets: (batch) => {
      turnAround(batch)
      port.send(batch)
    },
    drained: () => {},
    ended: () => {},
  })
}

/** Exchanges source and destination: no checksum changes by it. */
export function turnAround(batch: PacketBatch): void {
  for (let i = 0; i < batch.count; i++) {
    const start = batch.start(i)
    const isIpv4 = batch.bytes[start]! >> 4 === 4
    const [at, length] = isIpv4 ? [start + 12, 4] : [start + 8, 16]
    const source = batch.bytes.slice(at, at + length)
    batch.bytes.copyWithin(at, at + length, at + 2 * length)
    batch.bytes.set(source, at + length)
  }
}

/** An exit whose resolver answers each message with `answer`, in the framing of RFC 1035 §4.2.2; null ends the stream. */
export function resolverExit(answer: (question: Uint8Array) => Uint8Array | null): ExitService {
  return {
    openCircuit: () => ({
      ...loopbackExit.openCircuit(),
      connectResolver: () => {
        let rest = Buffer.alloc(0)
        const duplex = new Duplex({
          allowHalfOpen: true,
          read: () => {},
          write: (chunk: Uint8Array, _encoding, done) => {
            rest = Buffer.concat([rest, chunk])
            while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
              const length = rest.readUInt16BE(0)
              const answered = answer(rest.subarray(2, 2 + length))
              rest = rest.subarray(2 + length)
              duplex.push(answered === null ? null : Buffer.concat([Uint8Array.of(answered.length >> 8, answered.length & 0xff), answered]))
            }
            done()
          },
          final: (done) => {
            duplex.push(null)
            done()
          },
        })
        return duplex
      },
    }),
  }
}

export const noPackets = new ExitRefusal('not-exit', 'this exit serves no packets')
