import { afterEach, describe, expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/index.ts'
import { METRICS, type MetricsServer, startMetrics } from '../../../src/metrics/index.ts'
import { PAGE_AGE_MS, PageWriter } from '../../../src/metrics/page.ts'
import { formatFor } from '../../../src/metrics/server.ts'
import type { NodeConfig, NodeStatus } from '../../../src/node/index.ts'
import { fakeIds } from '../../support/fake-node.ts'
import { busyNode as busy, quietRuntime as runtime } from '../../support/metrics.ts'

const config = (listen: readonly string[]): NodeConfig => ({ metrics: { listen }, exit: { packets: 'netstack' } }) as unknown as NodeConfig
const servers: MetricsServer[] = []

afterEach(async () => {
  for (const server of servers.splice(0)) await server.close()
})

async function serve(status: () => NodeStatus = () => busy): Promise<string> {
  const server = await startMetrics({ status }, { config: config(['127.0.0.1:0']), logger: silentLogger })
  servers.push(server!)
  return `http://${server!.addresses[0]}/metrics`
}

const pageOf = (status: NodeStatus, isLocal = true, format: 'prometheus' | 'openmetrics' = 'prometheus') =>
  new PageWriter(
    () => ({ status, config: config([]) }),
    { facts: async () => runtime },
    () => 0,
  ).page(format, isLocal)

describe('metrics', () => {
  test('are of every role, and every one has a value where the node has all roles', async () => {
    const { text } = await pageOf(busy)
    const missing = METRICS.filter(
      ({ name }) => !text.includes(`\n${name}`) && name !== 'shallot_memory_limit_bytes' && !name.startsWith('shallot_view_synced'),
    )
    expect(missing.map(({ name }) => name)).toEqual([])
  })

  test('are named by the conventions, with a help and no label that names anybody', () => {
    for (const { name, help, type, labels } of METRICS) {
      expect(name).toMatch(/^(shallot|process|nodejs)_[a-z0-9_]+$/)
      expect(name.endsWith('_total'), name).toBe(type === 'counter')
      expect(help).toMatch(/^[A-Z].*\.$/)
      for (const label of labels)
        expect(['version', 'crypto', 'role', 'state', 'reason', 'direction', 'backend', 'protocol', 'kind']).toContain(label)
    }
    expect(new Set(METRICS.map(({ name }) => name)).size).toBe(METRICS.length)
  })

  test("hold no id, no address and no word that is not the program's", async () => {
    const { text } = await pageOf(busy)
    for (const secret of [...fakeIds, busy.id, '203.0.113', busy.socks!, busy.network.name]) expect(text).not.toContain(secret)
    expect(text).toContain('shallot_exit_refused_total{reason="other"} 16')
  })

  test('are coarse: counts by eight and bytes by mebibytes, downwards', async () => {
    const { text } = await pageOf(busy)
    expect(text).toContain('\nshallot_relay_circuits 16\n')
    expect(text).toContain('shallot_exit_refused_total{reason="policy"} 16')
    expect(text).toContain('shallot_exit_refused_total{reason="resource-limit"} 8')
    for (const match of text.matchAll(/^shallot_(?:relay|exit|client|nat_relay|stun)_bytes_total\S* (\d+)$/gm))
      expect(Number(match[1]) % (1 << 20)).toBe(0)
  })

  test('of the own user are told to the loopback only', async () => {
    expect((await pageOf(busy, true)).text).toContain('shallot_client_circuits')
    expect((await pageOf(busy, false)).text).not.toContain('shallot_client')
  })

  test('are made anew once a minute, so that nobody sees what happened when', async () => {
    let now = 0
    let circuits = 80
    const writer = new PageWriter(
      () => ({ status: { ...busy, relaying: { ...busy.relaying!, circuitsOpen: circuits } }, config: config([]) }),
      { facts: async () => runtime },
      () => now,
    )
    const shown = async () => /^shallot_relay_circuits (\d+)$/m.exec((await writer.page('prometheus', false)).text)?.[1]
    expect(await shown()).toBe('80')
    circuits = 160
    now = PAGE_AGE_MS - 1
    expect(await shown()).toBe('80')
    now = PAGE_AGE_MS
    expect(await shown()).toBe('160')
  })

  test('leave no listener and load nothing where none is asked for', async () => {
    expect(await startMetrics({ status: () => busy }, { config: config([]), logger: silentLogger })).toBeNull()
  })
})

describe('the listener of metrics', () => {
  test('answers in OpenMetrics whom that suits better, and else in text', async () => {
    const url = await serve()
    const plain = await fetch(url)
    expect(plain.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
    const open = await fetch(url, {
      headers: { accept: 'application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1' },
    })
    expect(open.headers.get('content-type')).toMatch(/^application\/openmetrics-text; version=1\.0\.0/)
    const text = await open.text()
    expect(text.endsWith('# EOF\n')).toBe(true)
    expect(text).toMatch(/^# TYPE shallot_relay_cells counter$/m)
    expect(formatFor(undefined)).toBe('prometheus')
    expect(formatFor('application/openmetrics-text;q=0.1,text/plain')).toBe('prometheus')
    expect(formatFor('application/openmetrics-text;q=0')).toBe('prometheus')
  })

  test('knows one page, reads nothing, and tells a rebound name nothing of the user', async () => {
    const url = await serve()
    expect((await fetch(url, { method: 'POST', body: 'x' })).status).toBe(405)
    expect((await fetch(url.replace('/metrics', '/metrics/../v1/status'))).status).toBe(404)
    expect(await (await fetch(url)).text()).toContain('shallot_client_circuits')
    expect(await (await fetch(url, { headers: { origin: 'https://evil.example' } })).text()).not.toContain('shallot_client')
  })

  test('says which address is taken, and leaves nothing open', async () => {
    const { host } = new URL(await serve())
    await expect(
      startMetrics({ status: () => busy }, { config: config(['127.0.0.1:0', host]), logger: silentLogger }),
    ).rejects.toMatchObject({
      code: 'address-in-use',
    })
  })

  test('does not say why a page failed', async () => {
    const response = await fetch(
      await serve(() => {
        throw new Error('secret')
      }),
    )
    expect(response.status).toBe(500)
    expect(await response.text()).not.toContain('secret')
  })
})
