import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { silentLogger } from '../../../src/base/index.ts'
import { Client } from '../../../src/client/index.ts'
import { loadConfig, startNode } from '../../../src/node/index.ts'
import { PacketClient } from '../../support/packet-client.ts'
import { socksConnect } from '../../support/socks-client.ts'

/**
 * A client of a testnet with its SOCKS port and, in the same process, a netstack over a packet lease:
 *
 *     node test/bench/packets/client.ts --config FILE
 *
 * Prints a JSON line with the SOCKS port. Then each line `down|up HOST PORT MB` moves so much by HTTP over the lease; the answer is a line with MB/s.
 */
const { values } = parseArgs({ options: { config: { type: 'string' } } })

// The node keeps its client to itself: it is caught when it is first asked, so that both ways are of the same one.
const caught = Promise.withResolvers<Client>()
const { connect } = Client.prototype
Client.prototype.connect = function (this: Client, ...args) {
  caught.resolve(this)
  return connect.apply(this, args)
}

const config = await loadConfig(values.config!)
const node = await startNode(config, { dir: config.dir, logger: silentLogger, signal: new AbortController().signal })
await node.ready()
const { socks } = node.status()
// Any request will do, a refused one too.
socksConnect('11.0.0.1', 1, { proxy: socks! }).then(
  (socket) => socket.destroy(),
  () => {},
)
const client = await caught.promise
const machine = new PacketClient(await client.openPackets({ isolation: 'bench' }))
console.log(JSON.stringify({ socks }))

for await (const line of createInterface({ input: process.stdin })) {
  const [way, host, port, mb] = line.split(' ') as ['down' | 'up', string, string, string]
  console.log((await transfer(way, host, Number(port), Number(mb))).toFixed(2))
}

/** As curl counts: from before the connection to the last byte, or to the answer. */
async function transfer(way: 'down' | 'up', host: string, port: number, mb: number): Promise<number> {
  const bytes = mb * 1_000_000
  const began = performance.now()
  const flow = await machine.connect(host, port)
  const done = Promise.withResolvers<void>()
  flow.closed.then((reason) => done.reject(new Error(`closed: ${reason}`)))
  if (way === 'down') {
    flow.onData = () => {
      // The head is a few hundred bytes.
      if (flow.received > bytes) done.resolve()
    }
    flow.write(`GET /${mb}m HTTP/1.1\r\nHost: bench\r\n\r\n`)
  } else {
    flow.onData = () => done.resolve()
    flow.write(`PUT /up HTTP/1.1\r\nHost: bench\r\nContent-Length: ${bytes}\r\n\r\n`)
    const piece = Buffer.alloc(1_000_000)
    for (let i = 0; i < mb; i++) flow.write(piece)
  }
  await done.promise
  const rate = mb / ((performance.now() - began) / 1000)
  flow.abort()
  return rate
}
