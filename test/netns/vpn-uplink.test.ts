import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseNetwork } from '../../src/base/index.ts'
import type { AllowedPeer } from '../../src/vpn/index.ts'
import { Lab, missingPackages, reasonAgainstLab } from './lab/index.ts'
import { sendFrame, UplinkCapture } from './support/vpn-capture.ts'
import { elsewhere, fragment, linkFrames, strayFrames, tcpSyn, type UplinkAddresses, udp } from './support/vpn-strays.ts'
import { type SentFrame, UplinkCheck } from './support/vpn-uplink-check.ts'

const missing = missingPackages({ python3: 'python3' })
const reason = (await reasonAgainstLab()) ?? (missing.length > 0 ? `needs ${missing.join(', ')}` : null)

const noiseProgram = fileURLToPath(new URL('support/vpn-noise.py', import.meta.url))

const guard: AllowedPeer = { ip: '11.50.0.2', protocol: 'tcp', port: 4460, why: 'guard' }
const guard6: AllowedPeer = { ip: '2a0f:50::2', protocol: 'tcp', port: 4460, why: 'guard' }
const stun: AllowedPeer = { ip: '11.51.0.2', protocol: 'udp', port: null, why: 'stun' }

/** The capture and its check, by which the VPN's leak tests stand or fall: each stray frame has to be found, and what may leave has to pass. */
describe.skipIf(reason !== null)(`what leaves an uplink${reason === null ? '' : ` (${reason})`}`, () => {
  let lab: Lab
  let capture: UplinkCapture
  let check: UplinkCheck
  /** Of this home, which is the first place of the lab. */
  const on: UplinkAddresses = { ipv4: '192.168.1.10', ipv6: '2a0f:1:1::a', router4: '192.168.1.1', router6: '2a0f:1:1::1' }
  const networks = ['192.168.1.0/24', '2a0f:1:1::/64'].map(parseNetwork)

  beforeAll(async () => {
    lab = await Lab.build({ homes: { home: { nat: 'port-restricted', ipv6: 'firewalled' } } })
    const home = lab.home('home')
    expect(home.machine()).toMatchObject({ address: on.ipv4, ipv6: on.ipv6 })
    capture = await UplinkCapture.start({ machine: home.machine(), device: 'lan', peer: home.router, peerDevice: 'port0', networks })
    check = new UplinkCheck(networks)
    check.allow(Date.now(), { allowed: [guard, guard6, stun] })
  })
  afterAll(async () => {
    await capture?.stop()
    await lab?.remove()
  })

  const send = (frame: Uint8Array) => sendFrame(lab.home('home').machine(), 'lan', frame)

  /** What is new since the last look. */
  let looked = 0
  async function news(): Promise<readonly SentFrame[]> {
    const sent = await capture.sent()
    const fresh = sent.slice(looked)
    looked = sent.length
    return fresh
  }

  for (const name of Object.keys(strayFrames(on))) {
    test(`${name} is found at both ends`, async () => {
      await news()
      await send(strayFrames(on)[name]!)
      const strays = check.strays(await news())
      expect(
        strays.filter((line) => line.includes('at the machine')),
        strays.join('\n'),
      ).toHaveLength(1)
      expect(
        strays.filter((line) => line.includes('at the peer')),
        strays.join('\n'),
      ).toHaveLength(1)
    })
  }

  for (const name of Object.keys(linkFrames(on))) {
    test(`${name} is link control`, async () => {
      await news()
      await send(linkFrames(on)[name]!)
      const sent = await news()
      expect(sent.length).toBeGreaterThanOrEqual(2)
      expect(check.strays(sent)).toEqual([])
    })
  }

  test('what is on the list passes; another port, protocol or address, and parts of packets, do not', async () => {
    await news()
    const { ipv4, ipv6 } = on
    for (const frame of [
      tcpSyn(ipv4, guard.ip, 4460),
      tcpSyn(ipv6, guard6.ip, 4460),
      udp(ipv4, stun.ip, 1, 9),
      udp(ipv4, stun.ip, 1, 3478),
    ])
      await send(frame)
    const passing = await news()
    expect(passing).toHaveLength(8)
    expect(check.strays(passing)).toEqual([])
    const others = [
      tcpSyn(ipv4, guard.ip, 4461),
      udp(ipv4, guard.ip, 1, 4460),
      tcpSyn(ipv4, stun.ip, 3478),
      tcpSyn(ipv4, '11.50.0.3', 4460),
      fragment(ipv4, guard.ip),
      fragment(ipv6, guard6.ip),
    ]
    for (const frame of others) await send(frame)
    expect(check.strays(await news())).toHaveLength(2 * others.length)
  })

  test('a real program that goes around is found, over both families', async () => {
    const pc = lab.home('home').machine()
    for (const address of [elsewhere.ipv4, elsewhere.ipv6]) {
      await news()
      await pc.run('ping', ['-c', '1', '-W', '1', address])
      expect(check.strays(await news()).join('\n')).toMatch(new RegExp(`ICMP.* to ${address}`))
    }
  })

  test('the list holds for as long as it was in force', () => {
    const over = new UplinkCheck(networks)
    over.allow(1000, { allowed: [guard] })
    over.allow(2000, { allowed: [guard, stun] })
    over.allow(3000, { allowed: [stun] })
    over.allow(4000, { allowed: [stun] })
    const at = (ms: number): SentFrame => ({
      at: ms,
      where: 'peer',
      frame: {
        etherType: 0x0800,
        arp: null,
        ip: {
          family: 4,
          source: on.ipv4,
          destination: guard.ip,
          hopLimit: 64,
          protocol: 6,
          isFragment: false,
          sourcePort: 1,
          destinationPort: 4460,
          icmp: null,
        },
      },
    })
    expect([500, 1500, 2500].flatMap((ms) => over.strays([at(ms)]))).toEqual([])
    expect([3500, 4500].flatMap((ms) => over.strays([at(ms)]))).toHaveLength(2)
  })

  test('answers leave from the ports that the node serves at, and from no other', async () => {
    await news()
    const serving = new UplinkCheck(networks)
    serving.allow(Date.now(), { allowed: [], serving: [{ protocol: 'udp', port: 4460 }] })
    for (const port of [4460, 4461]) await send(udp(on.ipv4, elsewhere.ipv4, port, 9))
    expect(serving.strays(await news())).toHaveLength(2)
  })

  test('without a list nothing but link control passes', async () => {
    await news()
    await send(tcpSyn(on.ipv4, guard.ip, 4460))
    expect(new UplinkCheck(networks).strays(await news())).toHaveLength(2)
  })

  // The last one: what the kernel says of its groups comes late.
  test('of what a program tries to get past a VPN every kind is found, while there is none', async () => {
    await news()
    const pc = lab.home('home').machine()
    const args = ['lan', on.router4, on.router6, elsewhere.ipv4, elsewhere.ipv6]
    const noise = pc.start('/usr/bin/python3', [noiseProgram, ...args])
    await noise.waitFor(/^ready/m, 10_000)
    await noise.stop('SIGTERM')
    expect(noise.log).toMatch(/taken \d+ refused \[\]/)
    const found = check.strays(await news()).join('\n')
    const unicast = [on.router4, on.router6, elsewhere.ipv4, elsewhere.ipv6].flatMap((to) => [
      ...['UDP .* port 53', 'UDP .* port 9999', 'TCP .* port 443', 'TCP .* port 53'].map((what) => what.replace('.*', `.* to ${to}`)),
      `UDP fragment .* to ${to}`,
      `ICMP.* type (8|128) .* to ${to}`,
    ])
    const others = [
      '224.0.0.251 port 5353',
      'ff02::fb port 5353',
      '239.255.255.250 port 1900',
      '255.255.255.255 port 6667',
      '224.0.0.22',
      'ff02::16',
    ]
    for (const what of [...unicast, ...others.map((to) => `to ${to}`)]) expect(found).toMatch(new RegExp(what))
  })
})
