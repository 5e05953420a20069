import type { Connection } from '@libp2p/interface'
import type { NodeId } from '../../base/index.ts'
import type { Host } from '../../link/index.ts'

/** What a new channel to a peer would run over. */
export interface CurrentLink {
  /** `direct`: a TLS link; `udp`: WebRTC; `stream`: another libp2p connection without a relay. The best first. */
  readonly kind: 'direct' | 'udp' | 'stream' | 'relayed'
  /** `met`: both sides opened it at once. */
  readonly openedBy: 'us' | 'peer' | 'met'
}

/** The best that is up between this node and the peer; null when nothing is. */
export function currentLink(host: Host, peer: NodeId): CurrentLink | null {
  const link = host.directLink(peer)
  if (link !== null) {
    const dialler = link.direction === 'outbound' ? 'us' : 'peer'
    return { kind: 'direct', openedBy: link.origin === 'punched' ? 'met' : dialler }
  }
  const open = host.libp2p.getConnections().filter(({ remotePeer, status }) => status === 'open' && remotePeer.toString() === peer)
  const found = { udp: open.find(isWebRtc), stream: open.find(isPlain), relayed: open.find(isRelayed) }
  if (found.udp !== undefined) return { kind: 'udp', openedBy: 'met' }
  const kind = found.stream !== undefined ? 'stream' : 'relayed'
  const connection = found[kind]
  return connection === undefined ? null : { kind, openedBy: connection.direction === 'outbound' ? 'us' : 'peer' }
}

/** Whether the two are connected through a relay, whatever else there is. */
export function hasRelayed(host: Host, peer: NodeId): boolean {
  return host.libp2p.getConnections().some((connection) => isRelayed(connection) && connection.remotePeer.toString() === peer)
}

/** Through a relay, to which this node or the peer is connected. */
export function isRelayed(connection: Connection): boolean {
  return connection.remoteAddr.toString().includes('/p2p-circuit')
}

export function isWebRtc(connection: Connection): boolean {
  return !isRelayed(connection) && connection.remoteAddr.toString().includes('/webrtc')
}

/** A libp2p connection that one of the two dialled at the other's own address. */
export function isPlain(connection: Connection): boolean {
  return connection.limits == null && !isRelayed(connection) && !isWebRtc(connection)
}
