import { afterEach, describe, expect, it } from 'vitest'
import type { NodeId } from '../../../../src/base/index.ts'
import { numbered, Recorder } from '../../../compliance/cell-channel.ts'
import { relayedAddress, startNode, startRelay, startReserving, stopRelayedNodes, until } from '../../../support/relayed-nodes.ts'

afterEach(stopRelayedNodes)

describe('reservations', () => {
  it('are held with as many relays as wanted, and carry channels both ways, encrypted end to end', async () => {
    const relays = [await startRelay(), await startRelay(), await startRelay()]
    const hidden = await startReserving(() => relays.map(({ candidate }) => candidate))
    await until('two relays', () => hidden.reservations.current().length === 2)
    const relay = relays.find(({ host }) => host.id === hidden.reservations.current()[0])!
    expect(relay.server.stats().reservations).toMatchObject({ open: 1, granted: 1, strangers: 0 })

    const received: Recorder[] = []
    hidden.host.onChannel((channel) => {
      const recorder = new Recorder()
      recorder.channel = channel
      channel.attach(recorder)
      received.push(recorder)
      return true
    })
    const dialler = await startNode()
    const channel = await dialler.host.dialer.openChannel(
      hidden.host.id,
      [relayedAddress(relay, hidden.host.id)],
      AbortSignal.timeout(5000),
    )
    const recorder = new Recorder()
    channel.attach(recorder)
    channel.send(numbered(0, 1))
    await until('the cell', () => received[0]?.count === 1)
    received[0]!.channel!.send(numbered(0, 1))
    await until('the answer', () => recorder.count === 1)
    expect(received[0]!.channel!.peer).toBe(dialler.host.id)

    const [connection] = dialler.host.libp2p.getConnections().filter((one) => one.remotePeer.toString() === hidden.host.id)
    expect(connection!.limits).toBeDefined()
    expect(connection!.encryption).toBe('/tls/1.0.0')
    const back = hidden.host.libp2p.getConnections().find((one) => one.remotePeer.toString() === dialler.host.id)
    expect(back!.limits).toBeDefined()
    expect(back!.direct).toBe(false)
    expect(relay.server.stats().connections).toMatchObject({ open: 1, total: 1 })
    expect(relay.server.stats().bytes.toReserved).toBeGreaterThan(1536)
    expect(relay.server.stats().bytes.fromReserved).toBeGreaterThan(1536)
    channel.abort()
  })

  it('move to another relay within two seconds when one is lost', async () => {
    const relays = [await startRelay(), await startRelay(), await startRelay()]
    const hidden = await startReserving(() => relays.map(({ candidate }) => candidate))
    const changes: NodeId[][] = []
    hidden.reservations.onChange((ids) => changes.push(ids))
    await until('two relays', () => hidden.reservations.current().length === 2)
    const [lost, kept] = hidden.reservations.current()
    const spare = relays.find(({ host }) => host.id !== lost && host.id !== kept)!.host.id
    const from = performance.now()
    const relay = relays.find(({ host }) => host.id === lost)!
    await relay.server.stop()
    await relay.host.stop()
    await until('the spare relay', () => hidden.reservations.current().includes(spare))
    expect(performance.now() - from).toBeLessThan(2000)
    expect(hidden.reservations.current()).toEqual([kept, spare])
    expect(changes.at(-1)).toEqual([kept, spare])
  })
})
