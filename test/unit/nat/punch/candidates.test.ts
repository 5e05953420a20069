import { describe, expect, test } from 'vitest'
import { formatIp, parseIp } from '../../../../src/base/index.ts'
import { acceptAddresses, addressesFor, type OwnEndpoints, type PeerPlace } from '../../../../src/nat/punch/candidates.ts'
import { decodeEndpoint, encodeEndpoint } from '../../../../src/nat/punch/hole-punch.ts'

const at = (host: string, port: number) => ({ ip: parseIp(host), port })
const own = (more: Partial<OwnEndpoints> = {}): OwnEndpoints => ({
  public: [at('11.1.0.2', 4460)],
  isPortUnpredictable: false,
  isStrict: false,
  local: [at('192.168.1.10', 4460)],
  ...more,
})
const peer = (...endpoints: [string, number][]): PeerPlace => ({ endpoints: endpoints.map(([host, port]) => at(host, port)) })
const offer = (...endpoints: [string, number][]) => endpoints.map(([host, port]) => encodeEndpoint(at(host, port)))
const text = ({ ip, port }: { ip: Parameters<typeof formatIp>[0]; port: number }) => `${formatIp(ip)} ${port}`
const told = (mine: OwnEndpoints, place: PeerPlace) => addressesFor(mine, place).map((bytes) => text(decodeEndpoint(bytes)!))
const accepted = (offered: Uint8Array[], place: PeerPlace, mine = own(), privateAllowed = false) => {
  const { endpoints, ...rest } = acceptAddresses(offered, mine, place, privateAllowed)
  return { ...rest, endpoints: endpoints.map(text) }
}

describe('what a peer is told', () => {
  test('public addresses, IPv6 first, and nothing of the home', () => {
    const mine = own({ public: [at('11.1.0.2', 20001), at('2a0f:1:1::a', 4460)] })
    expect(told(mine, peer(['11.2.0.2', 4460]))).toEqual(['2a0f:1:1::a 4460', '11.1.0.2 20001'])
  })

  test('addresses of the home only when it has the same public address', () => {
    expect(told(own(), peer(['11.1.0.2', 4461]))).toEqual(['11.1.0.2 4460', '192.168.1.10 4460'])
  })

  test('that the port is a guess, as port 0', () => {
    expect(told(own({ isPortUnpredictable: true }), peer(['11.2.0.2', 4460]))).toEqual(['11.1.0.2 4460', '11.1.0.2 0'])
  })

  test('no more than a few', () => {
    const many = Array.from({ length: 50 }, (_, i) => at('11.1.0.2', 2000 + i))
    const local = Array.from({ length: 50 }, (_, i) => at(`192.168.1.${i + 1}`, 4460))
    expect(told(own({ public: many, local }), peer(['11.1.0.2', 1]))).toHaveLength(4)
  })
})

describe('what is taken from a peer', () => {
  test('addresses that its descriptor names, at any port of 1024 and above', () => {
    const place = peer(['11.2.0.2', 4460])
    expect(accepted(offer(['11.2.0.2', 4460], ['11.2.0.2', 31000]), place)).toEqual({
      endpoints: ['11.2.0.2 4460', '11.2.0.2 31000'],
      refused: 0,
      prospects: 'good',
    })
    expect(accepted(offer(['11.2.0.2', 22], ['11.2.0.2', 1023], ['11.2.0.2', 443]), peer(['11.2.0.2', 443])).endpoints).toEqual([
      '11.2.0.2 443',
    ])
  })

  test('never those of others: that is how a node would be turned on them', () => {
    const place = peer(['11.2.0.2', 4460], ['2a0f:2::2', 4460])
    const foreign = offer(
      ['11.3.0.2', 4460],
      ['11.2.0.3', 4460],
      ['2a0f:2::3', 4460],
      ['127.0.0.1', 4460],
      ['0.0.0.0', 4460],
      ['224.0.0.1', 4460],
      ['255.255.255.255', 4460],
      ['ff02::1', 4460],
      ['::', 4460],
      ['192.168.1.1', 8080],
      ['fe80::1', 4460],
      ['11.1.0.2', 4460],
    )
    expect(accepted([...foreign, Uint8Array.of(1, 2, 3)], place)).toEqual({ endpoints: [], refused: 13, prospects: 'unknown' })
  })

  test('private and loopback addresses of a descriptor only where the network has such relays', () => {
    const place = peer(['127.3.0.1', 4460])
    expect(accepted(offer(['127.3.0.1', 4460]), place).endpoints).toEqual([])
    expect(accepted(offer(['127.3.0.1', 4460]), place, own(), true).endpoints).toEqual(['127.3.0.1 4460'])
  })

  test('addresses of the home of a peer with the same public address, in the same network, never for its services', () => {
    const place = peer(['11.1.0.2', 4461])
    const offered = offer(['192.168.1.11', 4461], ['192.168.1.1', 80], ['10.0.0.7', 4461], ['127.0.0.1', 4461])
    expect(accepted(offered, place)).toEqual({ endpoints: ['192.168.1.11 4461'], refused: 3, prospects: 'good' })
    expect(accepted(offered, peer(['11.2.0.2', 4461])).endpoints).toEqual([])
  })

  test('each once and few of each kind', () => {
    const place = peer(['11.2.0.2', 4460])
    const many = offer(...Array.from({ length: 60 }, (_, i): [string, number] => ['11.2.0.2', 5000 + (i % 30)]))
    expect(accepted(many, place).endpoints).toEqual(['11.2.0.2 5000', '11.2.0.2 5001'])
  })
})

describe('what two NATs can be expected to do', () => {
  const place = peer(['11.2.0.2', 4460])
  const guess = offer(['11.2.0.2', 4460], ['11.2.0.2', 0])
  const known = offer(['11.2.0.2', 4460])

  test.each([
    ['both keep a port for all', known, {}, 'good'],
    ['ours gives each destination another', known, { isPortUnpredictable: true }, 'poor'],
    ["the peer's does, ours lets in any port of an address", guess, {}, 'poor'],
    ["the peer's does, ours lets in only answers", guess, { isStrict: true }, 'none'],
    ['both do', guess, { isPortUnpredictable: true, isStrict: true }, 'none'],
    ['nothing was named', [], { isStrict: true }, 'unknown'],
  ] as const)('%s', (_what, offered, more, prospects) => {
    expect(accepted([...offered], place, own(more)).prospects).toBe(prospects)
  })

  test('IPv6 on both sides makes up for it', () => {
    const six = peer(['11.2.0.2', 4460], ['2a0f:2::2', 4460])
    const offered = [...guess, ...offer(['2a0f:2::2', 4460])]
    expect(accepted(offered, six, own({ isStrict: true })).prospects).toBe('none')
    expect(accepted(offered, six, own({ isStrict: true, public: [at('2a0f:1::2', 4460)] })).prospects).toBe('good')
  })
})
