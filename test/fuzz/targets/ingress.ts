import { fromHex, parseHost, parseHostPort } from '../../../src/base/index.ts'
import { parsePolicy } from '../../../src/egress/index.ts'
import {
  decodeGreeting,
  decodeRequest,
  decodeSocks4Request,
  decodeUdp,
  decodeUserPassword,
  encodeUdp,
  parseAbsoluteForm,
  parseAuthorityForm,
  parseBasic,
  requestFraming,
  SocksHandshake,
  withoutHopByHop,
} from '../../../src/ingress/index.ts'
import type { FuzzTarget } from '../fuzzer.ts'

const texts = (...all: string[]): (() => Uint8Array[]) => {
  return () => all.map((text) => new Uint8Array(Buffer.from(text, 'latin1')))
}
const hexes = (...all: string[]): (() => Uint8Array[]) => {
  return () => all.map(fromHex)
}
const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1')

const name = '0b6578616d706c652e636f6d'
const request4 = '05010001c00002010050'
const requestName = `05010003${name}01bb`

/** What applications send to the proxies, and what an operator writes into an exit's policy. */
export const ingressTargets: readonly FuzzTarget[] = [
  { name: 'ingress/socks-greeting', decode: decodeGreeting, seeds: hexes('050100', '05020002') },
  { name: 'ingress/socks-credentials', decode: decodeUserPassword, seeds: hexes('0103757365720470617373', '01000000') },
  {
    name: 'ingress/socks-request',
    decode: decodeRequest,
    seeds: hexes(request4, requestName, '0503000420010db80000000000000000000000010050'),
  },
  {
    name: 'ingress/socks4-request',
    decode: decodeSocks4Request,
    seeds: hexes('04010050c0000201626f6200', '040100500000000162006578616d706c6500'),
  },
  {
    name: 'ingress/socks-datagram',
    decode: decodeUdp,
    seeds: () => ['192.0.2.1', '2001:db8::1', 'example.com'].map((host) => encodeUdp({ host, port: 53 }, Uint8Array.of(1, 2, 3))),
  },
  {
    // The whole handshake, in two pieces cut at a place that the input itself names.
    name: 'ingress/socks-handshake',
    decode: (bytes) => {
      const handshake = new SocksHandshake({ checkCredentials: bytes.length % 2 === 0 ? null : ({ user }) => user === 'user' })
      const cut = Math.min(bytes.length, bytes.at(-1) ?? 0)
      return [handshake.handleBytes(bytes.subarray(0, cut)), handshake.handleBytes(bytes.subarray(cut))]
    },
    seeds: hexes(`050100${request4}`, `05020002${'0103757365720470617373'}${requestName}68656c6c6f`, '04010050c0000201626f6200'),
  },
  {
    name: 'ingress/http-absolute-form',
    decode: (bytes) => parseAbsoluteForm(latin1(bytes), 'GET'),
    seeds: texts('http://user@example.com:80/a?b#c'),
  },
  {
    name: 'ingress/http-authority-form',
    decode: (bytes) => parseAuthorityForm(latin1(bytes)),
    seeds: texts('example.com:443', '[2001:db8::1]:443'),
  },
  { name: 'ingress/http-credentials', decode: (bytes) => parseBasic(latin1(bytes)), seeds: texts('Basic dXNlcjpwYXNz') },
  {
    name: 'ingress/http-fields',
    decode: (bytes) => {
      const raw = latin1(bytes).split('\n')
      if (raw.length % 2 === 1) raw.pop()
      return [requestFraming(raw), withoutHopByHop(raw)]
    },
    seeds: texts('Content-Length\n5\nConnection\nclose, X\n', 'Transfer-Encoding\nchunked\n'),
  },
  {
    name: 'base/host',
    decode: (bytes) => parseHost(Buffer.from(bytes).toString('utf8')),
    seeds: texts('example.com', '192.0.2.1', '[2001:db8::1]', 'xn--bcher-kva.example'),
  },
  {
    name: 'base/host-port',
    decode: (bytes) => parseHostPort(Buffer.from(bytes).toString('utf8'), 80),
    seeds: texts('example.com:443', '[2001:db8::1]:53'),
  },
  {
    name: 'egress/policy',
    decode: (bytes) => parsePolicy(latin1(bytes).split('\n')),
    seeds: texts('accept *:443 # web\nreject 10.0.0.0/8:*\naccept6 [2001:db8::]/32:80-90,443', 'reject4 *:25\naccept [2001:db8::/32]:*'),
  },
]
