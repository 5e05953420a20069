import { foldChecksum, IpHeader, type PacketBatch, type PacketPort, Protocol } from '../../../src/packet/index.ts'

/** Where the kernel's own TCP takes the connections: the device's addresses, and ports of listeners there. */
export interface TrickOptions {
  readonly own4: Uint8Array
  readonly own6: Uint8Array
  /** Addresses that stand for everybody outside: of the device's networks, so that answers come back to it. */
  readonly peer4: Uint8Array
  readonly peer6: Uint8Array
  readonly port4: number
  readonly port6: number
}

interface Flow {
  readonly client: Uint8Array
  readonly clientPort: number
  readonly server: Uint8Array
  readonly serverPort: number
}

/**
 * The other way to end a machine's TCP: let the kernel do it. A packet from A:p to X:q is written back as one from peer:n to the device's own address and a
 * listener's port; what the listener answers to peer:n goes back as from X:q to A:p. Only a yardstick for our netstack: it needs a listener for every
 * machine's kernel, and cannot refuse a connection after asking the exit.
 */
export function kernelTrick(port: PacketPort, options: TrickOptions): void {
  const ip = new IpHeader()
  const flows = new Map<number, Flow>()
  const numbers = new Map<string, number>()
  let next = 1024
  const numberOf = (flow: Flow): number => {
    const key = `${flow.client} ${flow.clientPort} ${flow.server} ${flow.serverPort}`
    let number = numbers.get(key)
    if (number === undefined) {
      number = next++
      numbers.set(key, number)
      flows.set(number, flow)
    }
    return number
  }
  // The flow of the packet before, as a netstack has it too.
  let last: { clientPort: number; serverPort: number; addresses: string; number: number } | null = null
  const rewrite = (batch: PacketBatch, i: number): void => {
    const { bytes, view } = batch
    if (ip.parse(view, batch.start(i), batch.end(i)) !== null || ip.protocol !== Protocol.tcp) return
    const { addressBytes, payloadStart: at } = ip
    const is4 = addressBytes === 4
    const peer = is4 ? options.peer4 : options.peer6
    const own = is4 ? options.own4 : options.own6
    const sourcePort = view.getUint16(at)
    const destinationPort = view.getUint16(at + 2)
    if (sourcePort === (is4 ? options.port4 : options.port6) && holds(bytes, ip.destinationAt, peer)) {
      const flow = flows.get(destinationPort)
      if (flow !== undefined) exchange(view, bytes, ip, flow.server, flow.serverPort, flow.client, flow.clientPort)
      return
    }
    const addresses = is4 ? `${view.getInt32(ip.destinationAt)}` : `${view.getInt32(ip.destinationAt + 12)}`
    if (last === null || last.clientPort !== sourcePort || last.serverPort !== destinationPort || last.addresses !== addresses) {
      const number = numberOf({
        client: bytes.slice(ip.sourceAt, ip.sourceAt + addressBytes),
        clientPort: sourcePort,
        server: bytes.slice(ip.destinationAt, ip.destinationAt + addressBytes),
        serverPort: destinationPort,
      })
      last = { clientPort: sourcePort, serverPort: destinationPort, addresses, number }
    }
    exchange(view, bytes, ip, peer, last.number, own, is4 ? options.port4 : options.port6)
  }
  port.attach({
    packets: (batch) => {
      for (let i = 0; i < batch.count; i++) rewrite(batch, i)
      port.send(batch)
    },
    drained: () => {},
    ended: () => {},
  })
}

function exchange(
  view: DataView,
  bytes: Uint8Array,
  ip: IpHeader,
  source: Uint8Array,
  sourcePort: number,
  destination: Uint8Array,
  destinationPort: number,
): void {
  let change = 0
  for (let i = 0; i < source.length; i += 2) {
    change += (~view.getUint16(ip.sourceAt + i) & 0xffff) + ((source[i]! << 8) | source[i + 1]!)
    change += (~view.getUint16(ip.destinationAt + i) & 0xffff) + ((destination[i]! << 8) | destination[i + 1]!)
  }
  bytes.set(source, ip.sourceAt)
  bytes.set(destination, ip.destinationAt)
  if (ip.version === 4) adjust(view, ip.start + 10, change)
  const at = ip.payloadStart
  change += (~view.getUint16(at) & 0xffff) + sourcePort + (~view.getUint16(at + 2) & 0xffff) + destinationPort
  view.setUint16(at, sourcePort)
  view.setUint16(at + 2, destinationPort)
  adjust(view, at + 16, change)
}

function adjust(view: DataView, at: number, change: number): void {
  view.setUint16(at, foldChecksum((~view.getUint16(at) & 0xffff) + change))
}

function holds(bytes: Uint8Array, at: number, address: Uint8Array): boolean {
  for (let i = 0; i < address.length; i++) if (bytes[at + i] !== address[i]) return false
  return true
}
