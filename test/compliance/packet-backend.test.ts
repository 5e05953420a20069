import { describe, it } from 'vitest'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { netstackExit } from '../support/packet-exit.ts'
import { startPacketServers } from '../support/packet-servers.ts'
import { packetBackendCompliance } from './packet-backend.ts'

const reason = enterOwnNetwork()
if (reason !== null) describe.skip(`packet backend: netstack (${reason})`, () => it('is skipped'))
else {
  // Addresses of the public internet, as far as anybody here knows.
  shellOk(`ip address add 11.0.0.1/32 dev lo
    ip address add 2a00:11::1/128 dev lo nodad
    sysctl -qw net.ipv4.ping_group_range="0 2147483647"`)
  const hosts = ['11.0.0.1', '2a00:11::1'] as const
  packetBackendCompliance('netstack', async () => {
    const stopServers = await startPacketServers(hosts)
    const { exit, stop } = await netstackExit()
    return {
      exit,
      server4: hosts[0],
      server6: hosts[1],
      stop: async () => {
        stopServers()
        await stop()
      },
    }
  })
}
