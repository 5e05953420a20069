import { equalBytes, formatIp, type IpAddress, parseIp } from '../../base/index.ts'
import type { Datagram } from '../../netstack/index.ts'
import type { DatagramPort } from '../../relaying/index.ts'
import type { PacketUse } from '../packet-backend.ts'
import { netstackLimits } from './limits.ts'

export interface UdpPortsModules {
  readonly use: Pick<PacketUse, 'openDatagrams'>
  readonly idleTimeoutMs: number
  /** A datagram for the client's port. @param data the receiver's own */
  readonly receive: (port: number, from: IpAddress, fromPort: number, data: Uint8Array) => void
}

const DNS_PORT = 53

interface UdpPort {
  readonly port: DatagramPort
  lastActive: number
  /** Whether all that was sent went to port 53. */
  onlyDns: boolean
  /** Where the last datagram went, and the same as a target. */
  to: IpAddress
  target: { readonly host: string; readonly port: number }
}

/** One UDP association for each port that a client sends from, whatever it sends to (endpoint-independent mapping, RFC 4787 REQ-1). */
export class UdpPorts {
  readonly #m: UdpPortsModules
  /** By the client's port, the one that was longest not sent from first. */
  readonly #ports = new Map<number, UdpPort>()

  constructor(modules: UdpPortsModules) {
    this.#m = modules
  }

  get size(): number {
    return this.#ports.size
  }

  /** False: the circuit has as many associations as it may, and none of them is this lease's to give up. */
  send({ from, to, data }: Datagram, now: number): boolean {
    let one = this.#ports.get(from.port)
    if (!one) {
      const port = this.#open(from.port)
      if (!port) return false
      one = { port, lastActive: now, onlyDns: true, to: to.address, target: { host: formatIp(to.address), port: to.port } }
    } else {
      this.#ports.delete(from.port)
      one.lastActive = now
      if (one.target.port !== to.port || !equalBytes(one.to.bytes, to.address.bytes)) {
        one.to = to.address
        one.target = { host: formatIp(to.address), port: to.port }
      }
    }
    this.#ports.set(from.port, one)
    if (to.port !== DNS_PORT) one.onlyDns = false
    one.port.send(one.target, data)
    return true
  }

  /** The client says that nobody listens there any more. */
  forget(port: number): void {
    const one = this.#ports.get(port)
    this.#ports.delete(port)
    one?.port.close()
  }

  sweep(now: number): void {
    for (const [port, one] of this.#ports) {
      const idle = one.onlyDns ? Math.min(netstackLimits.dnsIdleTimeoutMs, this.#m.idleTimeoutMs) : this.#m.idleTimeoutMs
      if (now - one.lastActive >= idle) this.forget(port)
    }
  }

  close(): void {
    for (const port of [...this.#ports.keys()]) this.forget(port)
  }

  /** As a NAT does, the one that was longest not used gives way (RFC 4787 §4.3 lets it: tables are finite). */
  #open(clientPort: number): DatagramPort | null {
    for (;;) {
      try {
        return this.#m.use.openDatagrams((from, bytes) => {
          const one = this.#ports.get(clientPort)
          if (one) this.#m.receive(clientPort, parseIp(from.host), from.port, bytes)
        })
      } catch {
        const oldest = this.#ports.keys().next()
        if (oldest.done) return null
        this.forget(oldest.value)
      }
    }
  }
}
