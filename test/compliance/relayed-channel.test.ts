import { randomBytes } from 'node:crypto'
import { multiaddr } from '@multiformats/multiaddr'
import { type CellChannel, CIRCUIT_PROTOCOL, defaultLinkLimits } from '../../src/link/index.ts'
import { relayedAddress, startNode, startRelay, startReserving, stopRelayedNodes, until } from '../support/relayed-nodes.ts'
import { cellChannelCompliance, hello, plainBytes } from './cell-channel.ts'

const closeTimeoutMs = 1500

cellChannelCompliance('libp2p stream through a relay', async () => {
  const limits = { ...defaultLinkLimits, closeTimeoutMs }
  const relay = await startRelay({ connectionBytesPerSecond: 1 << 30, bytesPerSecond: 1 << 30 })
  const hidden = await startReserving(() => [relay.candidate], {}, 1, { limits })
  await until('the relay', () => hidden.reservations.current().length === 1)
  const dialler = await startNode({ key: randomBytes(32), limits })
  const address = relayedAddress(relay, hidden.host.id)
  let next: ((channel: CellChannel) => void) | null = null
  hidden.host.onChannel((channel) => {
    next?.(channel)
    return next !== null
  })
  return {
    meters: [dialler.host.meter, hidden.host.meter],
    mostHeldBytes: 10 * 1024 * 1024,
    closeTimeoutMs,
    async connect(atA, atB) {
      const accepted = Promise.withResolvers<CellChannel>()
      next = (channel) => {
        channel.attach(atB)
        accepted.resolve(channel)
      }
      const channel = await dialler.host.dialer.openChannel(hidden.host.id, [address], AbortSignal.timeout(10_000))
      channel.attach(atA)
      channel.send(hello())
      return { a: channel, b: await accepted.promise }
    },
    async truncate(atB) {
      const accepted = Promise.withResolvers<void>()
      next = (channel) => {
        channel.attach(atB)
        accepted.resolve()
      }
      const connection = await dialler.host.libp2p.dial(multiaddr(address))
      const stream = await connection.newStream(CIRCUIT_PROTOCOL, { runOnLimitedConnection: true })
      const cell = plainBytes(hello())
      stream.send(Buffer.concat([cell, cell.subarray(0, 700)]))
      await accepted.promise
      await stream.close()
    },
    stop: stopRelayedNodes,
  }
})
