import { connect, createServer, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../../src/base/index.ts'
import { Listeners } from '../../../src/ingress/listeners.ts'

describe('a listener that stops', () => {
  it('closes a connection that is just saying its FIN, where Node forgets to', async () => {
    let accepted: Socket | null = null
    const listeners: Listeners = new Listeners({
      name: 'test',
      listen: ['127.0.0.1:0'],
      maxConnections: 4,
      createServer: () =>
        createServer({ allowHalfOpen: true }, (socket) => {
          listeners.admit(socket)
          accepted = socket
        }),
      refuse: (socket) => socket.destroy(),
      logger: silentLogger,
    })
    await listeners.start()
    const [host, port] = listeners.addresses[0]!.split(':') as [string, string]
    const client = connect({ host, port: Number(port), allowHalfOpen: true })
    client.on('error', () => {})
    await new Promise((resolve) => client.once('connect', resolve))
    while (accepted === null) await new Promise((resolve) => setImmediate(resolve))
    const socket = accepted as Socket
    const closed = new Promise((resolve) => socket.once('close', resolve))
    // Its shutdown is under way from here until the loop's next turn.
    socket.end()
    void listeners.stop()
    await closed
    expect(listeners.open).toBe(0)
    client.destroy()
  })
})
