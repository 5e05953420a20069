import { randomBytes } from 'node:crypto'
import net from 'node:net'
import { type LogFields, type NodeId, nodeIdFromKey, silentLogger } from '../../src/base/index.ts'
import { BatchPool } from '../../src/link/batch-pool.ts'
import { ed25519PublicKey, makeCertificate } from '../../src/link/certificate.ts'
import { ByteMeter, type CellChannel, type ChannelAcceptor, defaultLinkLimits, type LinkLimits } from '../../src/link/index.ts'
import type { DirectAddress } from '../../src/link/tls-links.ts'
import { TlsLinks } from '../../src/link/tls-links.ts'

/** A node that has direct links and nothing else. */
export interface LinkNode {
  readonly id: NodeId
  readonly links: TlsLinks
  readonly meter: ByteMeter
  readonly address: DirectAddress
  /** The same as a multiaddr. */
  readonly multiaddr: string
  /** What it said at debug level: the reasons of ended links and refusals. */
  readonly reasons: string[]
  acceptor: ChannelAcceptor | null
  open(to: LinkNode): Promise<CellChannel>
  stop(): Promise<void>
}

export async function newLinkNode(limits: Partial<LinkLimits> = {}): Promise<LinkNode> {
  const key = randomBytes(32)
  const id = nodeIdFromKey(ed25519PublicKey(key))
  const meter = new ByteMeter()
  const reasons: string[] = []
  const debug = (_message: string, fields?: LogFields): void => void reasons.push(String(fields?.why))
  const links = new TlsLinks({
    id,
    certificate: makeCertificate(key, Date.now()),
    limits: { ...defaultLinkLimits, ...limits },
    meter,
    logger: { ...silentLogger, debug },
    outboundAddressFor: () => undefined,
    acceptor: () => node.acceptor,
    sweepMs: 20,
    // A batch that is looked at after it was sent is seen to have changed.
    pool: new BatchPool(true),
  })
  const server = net.createServer((socket) => links.take(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as net.AddressInfo
  const address = { host: '127.0.0.1', port }
  const node: LinkNode = {
    id,
    links,
    meter,
    address,
    multiaddr: `/ip4/127.0.0.1/tcp/${port}/tls`,
    reasons,
    acceptor: null,
    open: (to) => links.openChannel(to.id, [to.address], AbortSignal.timeout(5000)),
    async stop() {
      server.close()
      await links.stop()
    },
  }
  return node
}
