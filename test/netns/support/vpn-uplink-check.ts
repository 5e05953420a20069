import { formatIp, type IpNetwork, parseIp } from '../../../src/base/index.ts'
import type { AllowedPeer } from '../../../src/vpn/index.ts'
import { describeFrame, type Frame, linkControl } from './vpn-frames.ts'

/** A frame that the machine sent on its uplink. */
export interface SentFrame {
  /** Wall-clock ms. */
  readonly at: number
  /** Which end of the wire saw it. */
  readonly where: 'machine' | 'peer'
  readonly frame: Frame
}

/** What the VPN says of who may be reached around it: of its status. */
export interface UplinkList {
  readonly allowed: readonly AllowedPeer[]
  /** Our own listening ports, from which answers go. */
  readonly serving?: readonly { readonly protocol: 'tcp' | 'udp'; readonly port: number }[]
}

interface Snapshot {
  readonly at: number
  /** "PROTOCOL ADDRESS PORT", or "*" for every port; "PROTOCOL from PORT". */
  readonly keys: ReadonlySet<string>
}

const protocols: Readonly<Record<number, string>> = { 6: 'tcp', 17: 'udp' }

/**
 * Holds what left a machine against what may leave it: link control, and the allow-list as the VPN itself gives it, over time. A frame may be of
 * the list that was in force when it was sent: the last one that was read before, or the first one that was read after.
 */
export class UplinkCheck {
  readonly #networks: readonly IpNetwork[]
  readonly #snapshots: Snapshot[] = []

  /** @param networks the link's own */
  constructor(networks: readonly IpNetwork[]) {
    this.#networks = networks
  }

  /** Says what the VPN allows now. @param at wall-clock ms, when it was read; later ones come later */
  allow(at: number, { allowed, serving = [] }: UplinkList): void {
    const peers = allowed.map(({ ip, protocol, port }) => `${protocol} ${formatIp(parseIp(ip))} ${port ?? '*'}`)
    const own = serving.map(({ protocol, port }) => `${protocol} from ${port}`)
    this.#snapshots.push({ at, keys: new Set([...peers, ...own]) })
  }

  /** Every frame that was not allowed, a line each: when (ms since `since`), where it was seen, what it was. */
  strays(sent: readonly SentFrame[], since = sent[0]?.at ?? 0): readonly string[] {
    return this.#strays(sent).map(({ at, where, frame }) => `${(at - since).toFixed(0)} ms, at the ${where}: ${describeFrame(frame)}`)
  }

  /** The same in short: each kind once, with how many there were at each end. Ports that the system chose are left out. */
  strayKinds(sent: readonly SentFrame[]): readonly string[] {
    const kinds = new Map<string, { machine: number; peer: number }>()
    for (const { where, frame } of this.#strays(sent)) {
      const kind = describeFrame(frame).replace(/(from \S+) port (3[3-9]|[456]\d)\d{3}\b/, '$1')
      const counts = kinds.get(kind) ?? { machine: 0, peer: 0 }
      counts[where]++
      kinds.set(kind, counts)
    }
    return [...kinds].map(([kind, { machine, peer }]) => `${kind} (${machine} at the machine, ${peer} at the peer)`)
  }

  #strays(sent: readonly SentFrame[]): readonly SentFrame[] {
    return sent.filter((one) => !this.#isAllowed(one))
  }

  #isAllowed({ at, frame }: SentFrame): boolean {
    if (linkControl(frame, this.#networks) !== null) return true
    const { ip } = frame
    if (!ip || ip.isFragment || ip.destinationPort === null) return false
    const protocol = protocols[ip.protocol]
    const peer = `${protocol} ${formatIp(parseIp(ip.destination))}`
    const keys = [`${peer} ${ip.destinationPort}`, `${peer} *`, `${protocol} from ${ip.sourcePort}`]
    return this.#inForce(at).some((snapshot) => keys.some((key) => snapshot.keys.has(key)))
  }

  #inForce(at: number): readonly Snapshot[] {
    const next = this.#snapshots.findIndex((snapshot) => snapshot.at > at)
    if (next < 0) return this.#snapshots.slice(-1)
    return this.#snapshots.slice(Math.max(0, next - 1), next + 1)
  }
}
