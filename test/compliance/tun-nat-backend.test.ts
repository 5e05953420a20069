import { afterAll, beforeAll, describe, it } from 'vitest'
import { silentLogger } from '../../src/base/index.ts'
import { createExitService, createResolver, exitConfig, KernelBackend, TunNatBackend } from '../../src/egress/index.ts'
import { Namespace } from '../support/namespace.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { Program } from '../support/processes.ts'
import { packetBackendCompliance } from './packet-backend.ts'

const reason = (await Namespace.reasonAgainst()) ?? enterOwnNetwork()
if (reason !== null) describe.skip(`packet backend: tun (${reason})`, () => it('is skipped'))
else {
  const hosts = ['11.0.0.2', '2a00:11::2'] as const
  const servers = new URL('../support/packet-servers.ts', import.meta.url).pathname
  let beyond: Program

  // The servers' machine is beyond the exit's: what arrives there was forwarded and translated.
  beforeAll(async () => {
    beyond = Program.start('unshare', [
      '--net',
      'sh',
      '-c',
      `ip link set lo up; echo up; until ip link show dev eth0 >/dev/null 2>&1; do sleep 0.02; done
       sysctl -qw net.ipv6.conf.eth0.accept_dad=0
       ip address add ${hosts[0]}/24 dev eth0; ip address add ${hosts[1]}/64 dev eth0 nodad; ip link set eth0 up
       exec ${process.execPath} ${servers} ${hosts.join(' ')}`,
    ])
    await beyond.waitFor(/^up$/m, 10_000)
    shellOk(`sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
      ip link add wan type veth peer name eth0 netns ${beyond.pid}
      ip address add 11.0.0.1/24 dev wan; ip address add 2a00:11::1/64 dev wan nodad; ip link set wan up
      ip route add default via ${hosts[0]}; ip -6 route add default via ${hosts[1]}`)
    await beyond.waitFor(/ready/, 10_000)
  })
  afterAll(async () => {
    await beyond.stop('SIGKILL')
  })

  packetBackendCompliance('tun', async () => {
    const config = exitConfig.parse({ families: 'both', packets: 'tun', connectTimeoutMs: 3000, attemptTimeoutMs: 2000 })
    const now = (): number => performance.now()
    const common = { config, privateDestinations: [], now, logger: silentLogger }
    const packets = new TunNatBackend({ ...common, families: [4, 6], ownAddresses: () => [] })
    await packets.start()
    const exit = createExitService({
      ...common,
      backend: new KernelBackend(config),
      packets,
      resolver: createResolver({ config, now }),
      isRelayAddress: () => false,
      isOwnAddress: () => false,
    })
    return {
      exit,
      server4: hosts[0],
      server6: hosts[1],
      stop: async () => {
        exit.close()
        await packets.stop()
      },
    }
  })
}
