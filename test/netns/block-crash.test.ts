import { readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { ShallotError } from '../../src/base/index.ts'
import { NFT_TABLE, ResolvConf, repair, type VpnConfig, vpnWithoutNode } from '../../src/vpn/index.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { type Program, run, shallot } from '../support/processes.ts'
import { BlockNetwork, places, UplinkCapture } from './support/block-network.ts'

const reason = enterOwnNetwork()
const program = new URL('support/block-program.ts', import.meta.url).pathname
const trafficScript = new URL('support/block-traffic.py', import.meta.url).pathname

/** What a step of the program said. */
interface Said {
  readonly step: string
  readonly began: number
  readonly done: number
  readonly acts: readonly boolean[]
  readonly state: string
  readonly code?: string
}

describe.skipIf(reason !== null)(`a VPN whose node dies${reason === null ? '' : ` (${reason})`}`, () => {
  let network: BlockNetwork
  let before = ''
  let original = ''
  let modified = 0

  async function nodeWith(
    steps: string,
    { config = {}, death = null }: { config?: Partial<VpnConfig>; death?: { at: number; when: 'before' | 'after' } | null } = {},
  ): Promise<{ said: readonly Said[]; signal: NodeJS.Signals | null }> {
    const args = [program, network.dir, network.resolvConf, steps, JSON.stringify(config), JSON.stringify(death)]
    const { stdout, signal, log, code } = await run(process.execPath, args, { timeoutMs: 30_000 })
    if (code !== 0 && signal !== 'SIGKILL') throw new Error(log)
    return { said: stdout.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line) as Said] : [])), signal }
  }
  const repaired = async (): Promise<void> => {
    await repair(network.dir, { resolvConf: new ResolvConf(network.resolvConf) }).catch((error) => {
      // It died before it had done anything.
      if (!(error instanceof ShallotError) || error.code !== 'vpn-nothing-to-undo') throw error
    })
  }
  const blockStands = (): boolean => shellOk('nft list tables').includes(NFT_TABLE)
  /** Every act, and after every one that changes something. */
  const deathsOf = (acts: readonly boolean[], from = 0) =>
    acts.flatMap((changes, i) =>
      i < from ? [] : [{ at: i + 1, when: 'before' as const }, ...(changes ? [{ at: i + 1, when: 'after' as const }] : [])],
    )

  const senders: Program[] = []
  /** Everything that a machine and who is behind it sends, until `silence`. */
  const send = async (): Promise<void> => {
    const traffic = network.start('python3', [trafficScript, '-', places.device])
    senders.push(traffic)
    for (const server of [places.server4, places.server6])
      senders.push(network.start('ping', ['-i', '0.05', '-q', server], network.behindWrapper))
    await traffic.waitFor(/sending/, 10_000)
  }
  const silence = async (): Promise<void> => {
    expect(senders.filter(({ exit }) => exit !== null).map((sender) => sender.tail())).toEqual([])
    for (const sender of senders.splice(0)) await sender.stop('SIGTERM')
  }

  beforeAll(async () => {
    network = await BlockNetwork.create()
    before = network.snapshot()
    original = readFileSync(network.resolvConf, 'utf8')
    modified = statSync(network.resolvConf).mtimeMs / 1000
  })
  afterEach(async () => {
    await repair(network.dir, { force: true, resolvConf: new ResolvConf(network.resolvConf) }).catch(() => {})
  })
  afterAll(() => network?.remove())

  test('at whatever act of going up: repair brings everything back', async () => {
    const { said } = await nodeWith('up,down')
    expect(said.map(({ state }) => state)).toEqual(['up', 'down'])
    expect(network.snapshot()).toBe(before)
    for (const death of deathsOf(said[0]!.acts)) {
      const { signal } = await nodeWith('up', { death })
      expect({ death, signal }).toEqual({ death, signal: 'SIGKILL' })
      await repaired()
      expect(network.snapshot(), JSON.stringify(death)).toBe(before)
      expect((await vpnWithoutNode(network.dir, 0)).state).toBe('down')
    }
  })

  test('at whatever act of going down: repair brings everything back, and so does the next start', async () => {
    const { said } = await nodeWith('up,down')
    for (const [i, death] of deathsOf(said[1]!.acts, said[0]!.acts.length).entries()) {
      const { signal } = await nodeWith('up,down', { death })
      expect({ death, signal }).toEqual({ death, signal: 'SIGKILL' })
      if (i % 2 === 0) await repaired()
      else expect((await nodeWith('protect')).said[0]).toMatchObject({ state: 'down' })
      expect(network.snapshot(), JSON.stringify(death)).toBe(before)
    }
  })

  test('while it is up: the block stands, the next start takes it over with the same original, at whatever act it dies again', async () => {
    const capture = await UplinkCapture.start(network)
    const [from] = (await nodeWith('up,die')).said
    await send()
    expect(blockStands()).toBe(true)
    expect(await vpnWithoutNode(network.dir, 0)).toMatchObject({ state: 'blocked', problems: [expect.stringMatching(/the block stands/)] })
    const { said } = await nodeWith('protect,start,die')
    expect(said.map(({ state }) => state)).toEqual(['blocked', 'up'])
    expect(readFileSync(network.resolvConf, 'utf8')).toContain('nameserver 10.83.104.1')
    for (const death of deathsOf(said[1]!.acts).filter(({ when }) => when === 'after')) {
      await nodeWith('protect,start', { death })
      expect(blockStands(), JSON.stringify(death)).toBe(true)
    }
    expect(capture.strays(from!.done)).toEqual([])
    expect(capture.lines(from!.done).length).toBeGreaterThan(100)
    await silence()
    await repaired()
    expect(network.snapshot()).toBe(before)
    await capture.stop()
  })

  test('a resolv.conf that is a container’s bind mount is written in place and given back', async () => {
    const [place, mounted] = [network.resolvConf, `${network.dir}/mounted`]
    writeFileSync(mounted, 'nameserver 9.9.9.9\n')
    const args = [program, network.dir, place, 'up,die']
    const script = `mount --bind ${mounted} ${place}; "$@"; cat ${place}; echo; exec "$0" ${args.slice(0, 3).join(' ')} protect,down`
    const { stdout, log } = await run('unshare', ['--mount', 'sh', '-c', script, process.execPath, process.execPath, ...args], {
      timeoutMs: 30_000,
    })
    expect(stdout, log).toContain('nameserver 10.83.104.1')
    expect(stdout).toMatch(/"step":"down".*"state":"down"/)
    expect(readFileSync(mounted, 'utf8')).toBe('nameserver 9.9.9.9\n')
    expect(network.snapshot()).toBe(before)
  })

  test('the command line lifts the block of a node that is gone, and repairs what is left', async () => {
    const cli = (...args: string[]) => shallot(['vpn', ...args, '--dir', network.dir], { env: { XDG_RUNTIME_DIR: network.dir } })
    await nodeWith('up,die')
    expect(await cli('status')).toMatchObject({ code: 4, stdout: expect.stringMatching(/^VPN\s+blocked/) })
    expect(await cli('down')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^Undone: the machine's resolver.*\nUndone: .*rules.*\nUndone: the kill switch/),
    })
    expect(network.snapshot()).toBe(before)
    expect((await cli('status')).code).toBe(3)
    expect(await cli('repair')).toMatchObject({ code: 2, log: expect.stringMatching(/nothing to undo/) })
    await nodeWith('up,die')
    rmSync(`${network.dir}/vpn.json`)
    expect(await cli('repair')).toMatchObject({ code: 1, log: expect.stringMatching(/another Shallot node/) })
    expect(blockStands()).toBe(true)
    const forced = await cli('repair', '--force', '--json')
    expect(JSON.parse(forced.stdout)).toEqual({ undone: ['routing', 'kill-switch'] })
    // Its original went with the state file.
    writeFileSync(network.resolvConf, original)
    utimesSync(network.resolvConf, modified, modified)
    expect(network.snapshot()).toBe(before)
  })

  test('a node that is stopped in order leaves its block, or restores everything, as it was told', async () => {
    expect((await nodeWith('up,stop')).said.at(-1)).toMatchObject({ step: 'stop', state: 'up' })
    expect(blockStands()).toBe(true)
    await repaired()
    expect(network.snapshot()).toBe(before)
    await nodeWith('up,stop', { config: { whenStopped: 'restore' } })
    expect(network.snapshot()).toBe(before)
  })

  test('not one stray packet: start, run, kill, dead, restart, stop, restart, down', { timeout: 180_000 }, async () => {
    const capture = await UplinkCapture.start(network)
    await send()
    const first = await nodeWith('protect,start,die', { config: { up: true } })
    const settle = () => new Promise((resolve) => setTimeout(resolve, 700))
    await settle()
    const again = await nodeWith('protect,start,stop', { config: { up: true } })
    expect(again.said.map(({ state }) => state)).toEqual(['blocked', 'up', 'up'])
    await settle()
    const last = await nodeWith('protect,start,down', { config: { up: true } })
    const [from, to] = [first.said[0]!.done, last.said[2]!.began]
    await settle()
    await silence()
    expect(capture.strays(from, to)).toEqual([])
    // It did see what leaves: what is for the guards, and everything before and after.
    expect(capture.lines(from, to).length).toBeGreaterThan(0)
    expect(capture.strays(0, from).length).toBeGreaterThan(100)
    expect(capture.strays(last.said[2]!.done).length).toBeGreaterThan(100)
    expect(network.snapshot()).toBe(before)
    await capture.stop()
  })

  test('the check sees one stray packet past the kill switch', async () => {
    const capture = await UplinkCapture.start(network)
    const { said } = await nodeWith('up,die')
    const script = `import socket
s=socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('${places.device}', 0))
s.send(bytes.fromhex('ffffffffffff0200000000010800' '4500001c0000000040110000' '0b000002' '0d000005' '1234270f00080000'))`
    await run('python3', ['-c', script])
    await expect
      .poll(() => capture.strays(said[0]!.done), { timeout: 5_000 })
      .toEqual([expect.stringMatching(/11\.0\.0\.2\.4660 > 13\.0\.0\.5\.9999: UDP/)])
    await capture.stop()
  })

  test('around it goes what was asked for, and nothing else: local network, networks around it, DHCP', async () => {
    const capture = await UplinkCapture.start(network)
    const config = { localNetwork: true, bypass: [places.bypass4] }
    const { said } = await nodeWith('up,die', { config })
    const dhcp = `import socket
s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); s.bind(('', 68))
s.sendto(b'renew', ('13.0.0.67', 67)); s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'${places.device}'); s.sendto(b'discover', ('255.255.255.255', 67))
s=socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('', 546)); s.sendto(b'solicit', ('ff02::1:2', 547, 0, socket.if_nametoindex('${places.device}')))
s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'around', ('${places.inBypass4}', 9999)); s.sendto(b'name', ('${places.inBypass4}', 53))`
    await run('python3', ['-c', dhcp])
    await network.start('ping', ['-c', '3', '-i', '0.05', '-W', '1', places.inBypass4], network.behindWrapper).waitForExit(10_000)
    await run('python3', [trafficScript, '1', places.device], { timeoutMs: 20_000 })
    const may =
      /> (255\.255\.255\.255|13\.0\.0\.67)\.67: |> ff02::1:2\.547: |> 14\.0\.0\.7(\.9999)?: |(11\.0\.0\.2|192\.168\.7\.2)(\.\d+)? > 192\.168\.7\.(1|255)(\.(9999|80|138))?: |> 11\.0\.0\.255\.138: |fd77::2(\.\d+)? > fd77::1(\.(9999|80))?: |\.5353 > |> 224\.0\.0\.251\.5353: |> ff02::fb\.5353: |igmp/
    expect(capture.strays(said[0]!.done, undefined, may)).toEqual([])
    const seen = capture.lines(said[0]!.done).join('\n')
    for (const wanted of [
      '> 13.0.0.67.67: ',
      '> 255.255.255.255.67: ',
      '> ff02::1:2.547: ',
      '> 14.0.0.7.9999: ',
      '> 14.0.0.7: ICMP',
      '> 192.168.7.1.80: ',
      '> fd77::1.80: ',
      '> 224.0.0.251.5353: ',
    ])
      expect(seen).toContain(wanted)
    await capture.stop()
  })
})
