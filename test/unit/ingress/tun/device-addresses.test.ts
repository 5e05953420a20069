import { describe, expect, test } from 'vitest'
import { formatIp, parseIp, parseNetwork } from '../../../../src/base/index.ts'
import { DeviceAddresses, deviceNetwork, isHonestSource, isNowhere, isToMany } from '../../../../src/ingress/tun/device-addresses.ts'

const of = (...texts: string[]): DeviceAddresses => new DeviceAddresses(texts.map(deviceNetwork))
const ask = (how: (bytes: Uint8Array, at: number, length: number) => boolean, text: string): boolean => {
  const { bytes } = parseIp(text)
  return how(bytes, 0, bytes.length)
}

describe('addresses of a device', () => {
  test.each([
    ['10.83.104.2/30', '10.83.104.1'],
    ['10.83.104.1/30', '10.83.104.2'],
    ['10.1.2.3/8', '10.0.0.1'],
    ['10.1.2.3/32', '192.0.0.8'],
    ['10.1.2.3/31', '192.0.0.8'],
  ])('the other end of %s is %s', (own, hop) => {
    expect(formatIp(of(own).hop4)).toBe(hop)
  })

  test.each([
    ['fd73::2/64', 'fd73::1'],
    ['fd73::1/64', 'fd73::2'],
    ['fd73::5/128', 'fd73::4'],
  ])('the other end of %s is %s', (own, hop) => {
    expect(formatIp(of('10.0.0.2/30', own).hop6)).toBe(hop)
  })

  test('a device without an address of a family has another end all the same', () => {
    expect(formatIp(of('fd73::2/64').hop4)).toBe('192.0.0.8')
    expect(formatIp(of('10.0.0.2/30').hop6)).toBe('fe80::3')
  })

  test('a broadcast is one of its networks', () => {
    const addresses = of('10.83.104.2/30', '10.99.0.1/16')
    const is = (text: string): boolean => addresses.isBroadcast(parseIp(text).bytes, 0)
    expect([is('10.83.104.3'), is('10.99.255.255'), is('10.83.104.2'), is('11.0.0.255')]).toEqual([true, true, false, false])
  })

  test.each([
    ['10.1.1.1', true],
    ['172.15.0.1', false],
    ['172.16.0.1', true],
    ['172.32.0.1', false],
    ['192.168.1.1', true],
    ['192.169.1.1', false],
    ['100.63.0.1', false],
    ['100.64.0.1', true],
    ['198.18.0.1', true],
    ['198.17.0.1', false],
    ['8.8.8.8', false],
    ['fd00::1', true],
    ['fc00::1', true],
    ['fec0::1', true],
    ['2001:4860::8888', false],
  ])('%s is internal: %s', (text, internal) => {
    const addresses = of('10.83.104.2/30')
    expect(ask((...args) => addresses.isInternal(...args), text)).toBe(internal)
  })

  test('an internal network that exits of this mesh serve is none', () => {
    const addresses = new DeviceAddresses([deviceNetwork('10.83.104.2/30')], [parseNetwork('10.77.0.0/16')])
    expect(ask((...args) => addresses.isInternal(...args), '10.77.1.1')).toBe(false)
    expect(ask((...args) => addresses.isInternal(...args), '10.78.1.1')).toBe(true)
  })

  test.each([
    ['10.83.104.2', true],
    ['11.0.0.1', true],
    ['0.0.0.0', false],
    ['0.1.2.3', false],
    ['127.0.0.1', false],
    ['169.254.3.4', false],
    ['224.0.0.1', false],
    ['255.255.255.255', false],
    ['240.0.0.1', false],
    ['::', false],
    ['::1', false],
    ['fe80::1', false],
    ['ff02::1', false],
    ['fd73::2', true],
    ['2a0b::1', true],
  ])('packets may come from %s: %s', (text, honest) => {
    expect(ask(isHonestSource, text)).toBe(honest)
  })

  test.each([
    ['224.0.0.251', true, false],
    ['239.255.255.250', true, false],
    ['255.255.255.255', true, true],
    ['169.254.1.1', false, true],
    ['127.0.0.1', false, true],
    ['0.0.0.0', false, true],
    ['240.0.0.1', false, true],
    ['ff02::2', true, false],
    ['fe80::1', false, true],
    ['::1', false, true],
    ['8.8.8.8', false, false],
    ['2a0b::1', false, false],
  ])('%s is for many: %s; for no host: %s', (text, toMany, nowhere) => {
    expect(ask(isToMany, text)).toBe(toMany)
    expect(ask(isNowhere, text)).toBe(nowhere)
  })
})
