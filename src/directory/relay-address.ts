import {
  formatIp,
  type IpAddress,
  ipFromBytes,
  MalformedError,
  type NodeId,
  networkContains,
  parseIp,
  parseNetwork,
  parseNodeId,
} from '../base/index.ts'

/** How a relay is spoken to at an address: `libp2p` is `/tcp/PORT`, `tls` is `/tcp/PORT/tls` (a direct link for cells). */
export type RelayTransport = 'libp2p' | 'tls'

/** One address of a descriptor. Text form: `/ip4/203.0.113.5/tcp/443`, with `/tls` behind it for a direct link. Never a name. */
export interface RelayAddress {
  readonly ip: IpAddress
  readonly port: number
  readonly transport: RelayTransport
}

/** @throws MalformedError when the text is not the one canonical form of a relay address */
export function parseRelayAddress(text: string): RelayAddress {
  const parts = text.split('/')
  const [empty, family, host, tcp, portText, tls] = parts
  if (empty !== '' || (family !== 'ip4' && family !== 'ip6') || tcp !== 'tcp' || host === undefined || portText === undefined) {
    throw malformed('not of the form /ip4|ip6/ADDRESS/tcp/PORT[/tls]')
  }
  if (parts.length > 6 || (parts.length === 6 && tls !== 'tls')) throw malformed('ends in something else than /tcp/PORT or /tcp/PORT/tls')
  const port = Number(portText)
  if (!/^[1-9]\d{0,4}$/.test(portText) || port > 65_535) throw malformed('port is not 1 to 65535')
  const address: RelayAddress = { ip: parseIp(host), port, transport: parts.length === 6 ? 'tls' : 'libp2p' }
  if (formatRelayAddress(address) !== text) throw malformed('not in canonical form')
  return address
}

/** The canonical text of an address. */
export function formatRelayAddress(address: RelayAddress): string {
  const base = `/ip${address.ip.family}/${formatIp(address.ip)}/tcp/${address.port}`
  return address.transport === 'tls' ? `${base}/tls` : base
}

/** A node that helps others in: where, and the identity it must prove. */
export interface BootstrapAddress {
  readonly id: NodeId
  /** The multiaddr without its `/p2p/` part. */
  readonly address: string
}

/** `/ip4|ip6/ADDRESS/tcp/PORT/p2p/ID`. Names are refused: nothing of this network resolves one. @throws MalformedError */
export function parseBootstrapAddress(text: string): BootstrapAddress {
  const at = text.indexOf('/p2p/')
  if (at < 0) throw new MalformedError('bootstrap address', 'has no /p2p/ID at its end')
  const address = parseRelayAddress(text.slice(0, at))
  if (address.transport !== 'libp2p') throw new MalformedError('bootstrap address', 'is not a libp2p address (/tcp/PORT/p2p/ID)')
  return { id: parseNodeId(text.slice(at + 5)), address: formatRelayAddress(address) }
}

/** What kind of address it is: only `public` may be in a descriptor, and `private` where the network's rules allow it; `unusable` never. */
export function addressScope(ip: IpAddress): 'public' | 'private' | 'unusable' {
  // The text door makes this impossible; addresses built from bytes come through it as well.
  const address = ipFromBytes(ip.bytes)
  if (unusable.some((network) => networkContains(network, address))) return 'unusable'
  if (nonPublic.some((network) => networkContains(network, address))) return 'private'
  return address.family === 4 || networkContains(globalUnicast6, address) ? 'public' : 'private'
}

/** Unspecified, multicast, broadcast and reserved: no node can be there. */
const unusable = ['0.0.0.0/8', '224.0.0.0/4', '240.0.0.0/4', '::/128', 'ff00::/8'].map(parseNetwork)

/** RFC 6890 and the IANA special-purpose registries: not reachable from everywhere. */
const nonPublic = [
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '2001::/23',
  '2001:db8::/32',
  '2002::/16',
  '3fff::/20',
].map(parseNetwork)

const globalUnicast6 = parseNetwork('2000::/3')

function malformed(problem: string): MalformedError {
  return new MalformedError('relay address', problem)
}
