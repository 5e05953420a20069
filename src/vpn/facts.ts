/** One place outside the tunnel that this machine may send to while the VPN is up. */
export interface AllowedPeer {
  /** Address in text. */
  readonly ip: string
  readonly protocol: 'tcp' | 'udp'
  /** Null: every port of that address. */
  readonly port: number | null
  readonly why: 'guard' | 'bootstrap' | 'peer' | 'stun' | 'router'
}

/** A port on which this node serves others: whoever asks there is answered around the tunnel. */
export interface ServingPort {
  readonly protocol: 'tcp' | 'udp'
  readonly port: number
}

/** The VPN as `shallot vpn status --json` shows it. */
export interface VpnFacts {
  /** 'blocked': the kill switch stands and nothing can be carried now: no circuit, or no device. */
  readonly state: 'down' | 'starting' | 'up' | 'blocked' | 'stopping'
  /** Wall-clock ms of the last change. */
  readonly since: number
  readonly device: { readonly name: string; readonly mtu: number; readonly addresses: readonly string[] } | null
  /** Everything that may leave by another way than the tunnel, besides `serving`, `bypass` and link control; any other packet is dropped. */
  readonly allowed: readonly AllowedPeer[]
  /** Our own listening ports: only what answers there may leave from them. */
  readonly serving: readonly ServingPort[]
  /** Networks that go around by the user's wish. */
  readonly bypass: readonly string[]
  readonly localNetwork: boolean
  readonly dns: { readonly how: 'resolv.conf' | 'resolved' | 'none'; readonly servers: readonly string[] } | null
  readonly counts: {
    readonly packetsIn: number
    readonly packetsOut: number
    readonly bytesIn: number
    readonly bytesOut: number
    readonly tcpFlows: number
    readonly udpFlows: number
    /** Packets that the kill switch dropped. */
    readonly blocked: number
  } | null
  /** What is wrong, in words, with what to do; empty when all is well. */
  readonly problems: readonly string[]
}
