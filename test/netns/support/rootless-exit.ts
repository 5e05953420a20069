import fs from 'node:fs'
import { PacketClient } from '../../support/packet-client.ts'
import { netstackExit } from '../../support/packet-exit.ts'
import { packetPorts } from '../../support/packet-servers.ts'
import { until } from '../../support/processes.ts'

// NEAR4 NEAR6 FAR4 FAR6: an exit and a client in one process without privileges. Prints what worked, as one line of JSON.
const [near4, near6, far4, far6] = process.argv.slice(2) as [string, string, string, string]
const { exit, stop } = await netstackExit()
const client = new PacketClient(await exit.openCircuit().openPackets(1420, new AbortController().signal))
const result = {
  uid: process.getuid!(),
  capabilities: /^CapEff:\s*(\w+)/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))![1],
  tcp: [] as number[],
  udp: [] as number[],
  ping: [] as number[],
}
for (const [family, near, far] of [
  [4, near4, far4],
  [6, near6, far6],
] as const) {
  const flow = await client.connect(near, packetPorts.echo)
  flow.end('word')
  if ((await flow.all()).toString() === 'word') result.tcp.push(family)
  client.sendDatagram(5000, near, packetPorts.udp, Buffer.from('word'))
  await until('a datagram came', 3000, () => client.datagrams.some(({ from }) => from.address.family === family))
  result.udp.push(family)
  client.sendEcho(far, 1, 1, Buffer.from('word'))
  await until('an echo came', 3000, () => client.echoes.some(({ from }) => from.family === family))
  result.ping.push(family)
}
client.close()
await stop()
process.stdout.write(`${JSON.stringify(result)}\n`)
