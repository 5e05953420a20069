import { describe, expect, test } from 'vitest'
import { parseIp } from '../../../src/base/index.ts'
import { createTun } from '../../../src/tun/index.ts'
import { setUpDevice, setUpLines } from '../../../src/tun/set-up.ts'
import { TunSystem } from '../../../src/tun/system.ts'

describe('opening a TUN', () => {
  test.each([
    [{ name: 'sixteen-letters-' }],
    [{ name: 'a b' }],
    [{ name: 'a\nlink' }],
    [{ name: '..' }],
    [{ name: '-all' }],
    [{ name: '%d%d' }],
    [{ name: '' }],
    [{ mtu: 1279 }],
    [{ mtu: 65_536 }],
    [{ mtu: 1420.5 }],
    [{ queuePackets: 0 }],
    [{ addresses: ['10.0.0.1'] }],
    [{ addresses: ['10.0.0.1/33'] }],
    [{ addresses: ['10.0.0.1/24/1'] }],
    [{ addresses: ['fd00::1%eth0/64'] }],
  ])('refuses %j before anything is done', async (options) => {
    await expect(createTun(options)).rejects.toMatchObject({ code: 'tun-bad-options', kind: 'usage' })
  })

  test('elsewhere than on Linux it says so', async () => {
    await expect(TunSystem.load('darwin')).rejects.toMatchObject({ code: 'tun-not-on-this-platform', retry: 'never' })
  })

  test.skipIf(process.platform !== 'linux')('without the foreign-function library it says what is missing', async () => {
    const failing = TunSystem.load('linux', () => Promise.reject(new Error('no such package')))
    await expect(failing).rejects.toMatchObject({ code: 'tun-unavailable', message: expect.stringContaining('koffi') })
  })

  test('without the program ip it says what to install', async () => {
    const setUp = { name: 'x', mtu: 1420, queuePackets: 1, addresses: [] }
    await expect(setUpDevice(setUp, 'no-such-program')).rejects.toMatchObject({
      code: 'tun-unavailable',
      message: expect.stringContaining('iproute2'),
    })
  })

  test('the device keeps the whole address, and is up last', () => {
    const addresses = ['10.9.0.7', 'fd09::7'].map((text, i) => ({ address: parseIp(text), bits: i === 0 ? 24 : 64 }))
    expect(setUpLines({ name: 'x', mtu: 1420, queuePackets: 9, addresses })).toEqual([
      'link set dev x mtu 1420 txqueuelen 9 addrgenmode none',
      'address replace 10.9.0.7/24 dev x',
      'address replace fd09::7/64 dev x nodad',
      'link set dev x up',
    ])
  })
})
