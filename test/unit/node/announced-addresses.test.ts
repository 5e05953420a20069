import { expect, test } from 'vitest'
import { announcedAddresses } from '../../../src/node/announced-addresses.ts'

const listening = [
  '/ip4/127.0.0.1/tcp/1',
  '/ip4/127.0.0.1/tcp/1/tls',
  '/ip4/10.0.0.2/tcp/1',
  '/ip4/8.8.4.4/tcp/1',
  '/ip4/9.9.9.9/tcp/1',
  '/ip6/fe80::1/tcp/1',
  '/ip6/2600::1/tcp/1',
]

test('one public address of each family, for both kinds of link', () => {
  expect(announcedAddresses(listening, [], false)).toEqual([
    '/ip4/8.8.4.4/tcp/1',
    '/ip4/8.8.4.4/tcp/1/tls',
    '/ip6/2600::1/tcp/1',
    '/ip6/2600::1/tcp/1/tls',
  ])
})

test('what the operator advertises wins', () => {
  expect(announcedAddresses(listening, ['/ip4/9.9.9.9/tcp/80'], false)).toEqual(['/ip4/9.9.9.9/tcp/80', '/ip4/9.9.9.9/tcp/80/tls'])
})

test('private addresses only where the network allows them', () => {
  const only = ['/ip4/127.5.0.1/tcp/7']
  expect(announcedAddresses(only, [], true)).toEqual(['/ip4/127.5.0.1/tcp/7', '/ip4/127.5.0.1/tcp/7/tls'])
  expect(() => announcedAddresses(only, [], false)).toThrow(/listens on 127\.5\.0\.1.*node\.advertise/)
  expect(() => announcedAddresses([], [], true)).toThrow(/nothing/)
})
