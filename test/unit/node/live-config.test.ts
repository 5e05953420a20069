import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { loadConfig, type NodeConfig } from '../../../src/node/config.ts'
import { isLiveKey, LiveConfig } from '../../../src/node/live-config.ts'
import { temporaryFolder } from '../../support/processes.ts'

const relay = '12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw'
let folder: { path: string; remove(): void }
beforeEach(() => {
  folder = temporaryFolder('live-config')
  writeFileSync(join(folder.path, 'network.toml'), `bootstrap = ["/ip4/198.51.100.1/tcp/4460/p2p/${relay}"]\n`)
})
afterEach(() => folder.remove())

function configOf(text: string): Promise<NodeConfig> {
  const file = join(folder.path, 'shallot.toml')
  writeFileSync(file, text)
  return loadConfig(file)
}

describe('the configuration in force', () => {
  test('is seen by who holds a section of it, at any depth, and stays what it was where it counts from the next start', async () => {
    const live = new LiveConfig(await configOf('[ingress.socks]\nmax_connections = 5\n'))
    const socks = live.section('ingress', 'socks')
    const whole = live.section('ingress')
    const limits = live.section('link', 'limits')
    const told: string[] = []
    for (const section of ['ingress', 'link', 'path'] as const) live.onChange(section, () => told.push(section))
    const next = await configOf('[ingress.socks]\nmax_connections = 6\nlisten = []\n[link.limits]\nmax_links = 9\nmax_handshakes = 3\n')
    live.apply(next, ['ingress.socks.max_connections', 'ingress.socks.listen', 'link.limits.max_links', 'link.limits.max_handshakes'])
    expect(socks).toMatchObject({ maxConnections: 6, listen: ['127.0.0.1:9250'] })
    expect(whole.socks).toMatchObject({ maxConnections: 6, listen: ['127.0.0.1:9250'] })
    expect(limits).toMatchObject({ maxLinks: 9, maxHandshakes: 256 })
    expect(live.current.link.limits).toMatchObject({ maxLinks: 9, maxHandshakes: 256 })
    expect(told).toEqual(['link', 'ingress'])
    expect(live.section('ingress', 'socks')).toBe(socks)
    live.apply(next, [])
    expect(told).toHaveLength(2)
  })

  test('takes no key that was not asked for', async () => {
    const live = new LiveConfig(await configOf(''))
    live.apply(await configOf('[path]\nmax_circuits = 7\nmax_building = 2\n'), ['path.max_building'])
    expect(live.current.path).toMatchObject({ maxBuilding: 2, maxCircuits: 64 })
  })

  test('counts from the next start where the kernel’s rules are made of it', async () => {
    const netstack = await configOf('')
    const tun = { ...netstack, exit: { ...netstack.exit, packets: 'tun' } } as NodeConfig
    expect([isLiveKey(netstack, ['exit', 'policy']), isLiveKey(tun, ['exit', 'policy'])]).toEqual([true, false])
    expect([isLiveKey(netstack, ['exit', 'maxStreams']), isLiveKey(tun, ['exit', 'maxStreams'])]).toEqual([true, true])
    expect(isLiveKey(netstack, ['exit', 'tun', 'name'])).toBe(false)
    expect(isLiveKey(netstack, ['exit', 'dns', 'maxStreams'])).toBe(true)
    expect(isLiveKey(netstack, ['node', 'roles'])).toBe(false)
  })
})
