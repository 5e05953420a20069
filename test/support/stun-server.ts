import { parseIp } from '../../src/base/index.ts'
import { StunServer, stunListen, stunServerConfig } from '../../src/nat/stun/index.ts'

/** A STUN server of its own process, for tests in network namespaces: `stun-server.ts /ip4/ADDRESS/udp/PORT...`, two addresses make it complete. */
async function main(listen: string[]): Promise<void> {
  const config = stunServerConfig.parse({ listen })
  const server = new StunServer({
    config,
    listen: stunListen(config, []),
    ownAddresses: (process.env.OWN_ADDRESSES ?? '').split(' ').filter(Boolean).map(parseIp),
  })
  await server.start()
  console.log('ready')
  process.once('SIGTERM', () => {
    console.log(JSON.stringify(server.stats()))
    void server.stop()
  })
}

await main(process.argv.slice(2))
