import { parseArgs } from 'node:util'
import { SeededRandom, silentLogger } from '../../../src/base/index.ts'
import { Client } from '../../../src/client/index.ts'
import { TunIngress, tunConfig } from '../../../src/ingress/index.ts'
import { loadConfig, startNode } from '../../../src/node/index.ts'
import { adoptTun, createTun } from '../../../src/tun/index.ts'
import { shellOk } from '../../support/own-network.ts'
import { socksConnect } from '../../support/socks-client.ts'

/**
 * A client of a testnet with its SOCKS port and a TUN device, which stands in another network namespace and has the default routes there:
 *
 *     node test/bench/tun/client.ts --config FILE --namespace PID
 *
 * Prints a JSON line with the SOCKS port once both carry traffic.
 */
const { values } = parseArgs({
  options: { config: { type: 'string' }, namespace: { type: 'string' }, mtu: { type: 'string', default: '1420' } },
})

// The node keeps its client to itself: it is caught when it is first asked, so that both ways in are of the same one.
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

const settings = tunConfig.parse({})
const device = await createTun({ name: 'bench-tun', mtu: Number(values.mtu) })
const enter = `nsenter --net=/proc/${values.namespace}/ns/net`
shellOk(`ip link set dev ${device.name} netns ${values.namespace}
${enter} ip link set dev ${device.name} mtu ${device.mtu} txqueuelen 1000
${enter} ip address add ${settings.addresses[0]} dev ${device.name}
${enter} ip address add ${settings.addresses[1]} dev ${device.name} nodad
${enter} ip link set dev ${device.name} up
${enter} ip route add default dev ${device.name}
${enter} ip -6 route add default dev ${device.name}`)
const ingress = new TunIngress(settings, { client, dns: null, logger: silentLogger, random: new SeededRandom(Date.now() & 0xffff_ffff) })
ingress.attach(await adoptTun(device), settings.addresses)
console.log(JSON.stringify({ socks }))
