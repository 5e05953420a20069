import { describe, expect, it } from 'vitest'
import type { Descriptor } from '../../../src/directory/index.ts'
import { allowedPeers, type PeersInput } from '../../../src/node/allowed-peers.ts'

const id = '12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf'
const at = (...addresses: string[]) => ({ addresses }) as unknown as Descriptor
const nobody: PeersInput = { bootstrap: [], guards: [], relays: null, stun: [], router: null }

describe('whom a node itself talks to', () => {
  it('is, for a client, its guards and the bootstrap nodes, by TCP', () => {
    const found = allowedPeers({
      ...nobody,
      bootstrap: [`/ip4/11.0.0.1/tcp/4460/p2p/${id}`],
      guards: [at('/ip4/11.0.0.2/tcp/443', '/ip6/2606:4700::2/tcp/443/tls')],
    })
    expect(found).toEqual([
      { ip: '11.0.0.2', protocol: 'tcp', port: 443, why: 'guard' },
      { ip: '2606:4700::2', protocol: 'tcp', port: 443, why: 'guard' },
      { ip: '11.0.0.1', protocol: 'tcp', port: 4460, why: 'bootstrap' },
    ])
  })

  it('is, for a serving node, its peers, STUN servers and router too', () => {
    const found = allowedPeers({
      bootstrap: [`/ip4/11.0.0.1/tcp/4460/p2p/${id}`],
      guards: [],
      relays: [at('/ip4/11.0.0.3/tcp/1')],
      stun: [{ ip: '11.0.0.9', port: 3478 }],
      router: '192.168.1.1',
    })
    expect(found.map(({ ip, protocol, port, why }) => `${why} ${ip} ${protocol} ${port}`)).toEqual([
      'bootstrap 11.0.0.1 tcp 4460',
      'stun 11.0.0.1 udp 4460',
      'stun 11.0.0.1 udp 4461',
      'peer 11.0.0.3 tcp 1',
      'stun 11.0.0.9 udp 3478',
      'router 192.168.1.1 udp 5351',
      'router 239.255.255.250 udp 1900',
      'router 192.168.1.1 tcp null',
    ])
  })

  it('names each place once, and nothing that is on no wire', () => {
    const found = allowedPeers({
      ...nobody,
      bootstrap: [`/ip4/11.0.0.1/tcp/4460/p2p/${id}`, `/ip4/127.0.0.1/tcp/4460/p2p/${id}`],
      guards: [at('/ip4/11.0.0.1/tcp/4460', '/ip4/11.0.0.1/tcp/4460/tls', '/ip6/::1/tcp/4')],
    })
    expect(found).toEqual([{ ip: '11.0.0.1', protocol: 'tcp', port: 4460, why: 'guard' }])
  })
})
