import { randomBytes } from 'node:crypto'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, describe, expect, it } from 'vitest'
import { type NodeId, parseIp } from '../../../../src/base/index.ts'
import { createHost, type Host } from '../../../../src/link/index.ts'
import {
  collect,
  relayedAddress,
  sendAll,
  startNode,
  startRelay,
  startReserving,
  stopRelayedNodes,
  until,
} from '../../../support/relayed-nodes.ts'

const hosts: Host[] = []
afterEach(async () => {
  await stopRelayedNodes()
  for (const host of hosts.splice(0)) await host.stop()
})

async function libraryNode(): Promise<Host> {
  const host = await createHost({ key: randomBytes(32), mode: 'server', transports: [circuitRelayTransport() as never] })
  hosts.push(host)
  return host
}

/** Speaks a protocol of its own over limited connections: sends back what it gets. */
async function echo(host: Host): Promise<void> {
  await host.libp2p.handle(
    '/test/echo',
    (stream) => {
      stream.addEventListener('message', ({ data }) => stream.send(data))
      stream.addEventListener('end', () => void stream.close())
    },
    { runOnLimitedConnection: true },
  )
}

async function echoed(from: Host, address: string, isLimited = true): Promise<void> {
  const connection = await from.libp2p.dial(multiaddr(address), { signal: AbortSignal.timeout(5000) })
  expect(connection.limits !== undefined).toBe(isLimited)
  const stream = await connection.newStream('/test/echo', { runOnLimitedConnection: true })
  const seen = collect(stream)
  const bytes = randomBytes(300_000)
  await sendAll(stream, bytes)
  await stream.close()
  await until('the echo', () => seen.end === 'fin')
  expect(seen.bytes).toBe(bytes.length)
}

describe('our relay with the library’s clients', () => {
  it('gives them reservations at its own addresses, and connects them with each other and with ours', async () => {
    const relay = await startRelay()
    const [reserved, dialler] = [await libraryNode(), await libraryNode()]
    await echo(reserved)
    const own = (reserved.libp2p as unknown as { components: { transportManager: { listen(addresses: unknown[]): Promise<void> } } })
      .components
    await own.transportManager.listen([multiaddr(`${relay.address}/p2p-circuit`)])
    expect(relay.server.stats().reservations).toMatchObject({ open: 1, granted: 1 })
    expect(reserved.libp2p.getMultiaddrs().map(String)).toEqual([`${relay.address}/p2p-circuit/p2p/${reserved.id}`])
    await echoed(dialler, relayedAddress(relay, reserved.id))
    await echoed((await startNode()).host, relayedAddress(relay, reserved.id))
    expect(relay.server.stats().connections).toMatchObject({ open: 2, total: 2 })
    const [connection] = dialler.libp2p.getConnections().filter(({ limits }) => limits !== undefined)
    expect(Number(connection!.limits!.bytes)).toBeGreaterThan(2 ** 35)
    expect(connection!.limits!.seconds).toBeGreaterThan(80_000)
  })

  it('tells them when it has nothing for them', async () => {
    const relay = await startRelay()
    const dialler = await libraryNode()
    const other = await libraryNode()
    await expect(dialler.libp2p.dial(multiaddr(relayedAddress(relay, other.id)))).rejects.toThrow('NO_RESERVATION')
  })
})

describe('our nodes with the library’s relay', () => {
  it('reserve, are connected, and their connections are limited though the relay says no limit', async () => {
    const relay = await createHost({
      key: randomBytes(32),
      mode: 'server',
      listen: ['/ip4/127.0.0.1/tcp/0'],
      services: { relay: circuitRelayServer({ reservations: { applyDefaultLimit: false } }) as never },
    })
    hosts.push(relay)
    const addresses = relay.addresses().filter((text) => !text.endsWith('/tls'))
    const hidden = await startReserving(() => [{ id: relay.id, addresses, ips: [parseIp('127.0.0.1')], family: [], weight: 1 }])
    await until('a reservation', () => hidden.reservations.current().length === 1)
    const [facts] = hidden.reservations.facts()
    expect(facts!.expiresAt - Date.now()).toBeGreaterThan(3_600_000)
    await echo(hidden.host)
    const through = `${addresses[0]}/p2p/${relay.id}/p2p-circuit/p2p/${hidden.host.id as NodeId}`
    await echoed((await startNode()).host, through)
    await echoed(await libraryNode(), through, false)
    expect(hidden.reservations.inbound).toBe(2)
    // Ours refuses to be connected through a relay that it did not ask.
    await hidden.reservations.stop()
    await expect((await startNode()).host.libp2p.dial(multiaddr(through))).rejects.toThrow()
  })
})
