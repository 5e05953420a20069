import { silentLogger } from '../../src/base/index.ts'
import { createExitService, createResolver, type ExitModules, exitConfig, KernelBackend } from '../../src/egress/index.ts'
import { TunNatBackend } from '../../src/egress/tun-nat/index.ts'
import type { PacketWorld } from '../compliance/packet-backend.ts'
import { shellOk } from './own-network.ts'
import { Program } from './processes.ts'

/** Addresses of the servers, of the public internet as far as the exit knows. */
export const beyondHosts = ['11.0.0.2', '2a00:11::2'] as const
const servers = new URL('packet-servers.ts', import.meta.url).pathname

/**
 * A machine beyond this one, on which `startPacketServers` listens, for a test file in a namespace of its own. The default routes of this machine lead
 * there; what nobody is at there is not answered.
 */
export async function startBeyond(): Promise<Program> {
  const beyond = Program.start('unshare', [
    '--net',
    'sh',
    '-c',
    `ip link set lo up; echo up; until ip link show dev eth0 >/dev/null 2>&1; do sleep 0.02; done
     sysctl -qw net.ipv6.conf.eth0.accept_dad=0
     ip address add ${beyondHosts[0]}/24 dev eth0; ip address add ${beyondHosts[1]}/64 dev eth0 nodad; ip link set eth0 up
     ip route add default via 11.0.0.1; ip -6 route add default via 2a00:11::1
     exec ${process.execPath} ${servers} ${beyondHosts.join(' ')}`,
  ])
  await beyond.waitFor(/^up$/m, 10_000)
  shellOk(`sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
    ip link add wan type veth peer name eth0 netns ${beyond.pid}
    ip address add 11.0.0.1/24 dev wan; ip address add 2a00:11::1/64 dev wan nodad; ip link set wan up
    ip route add default via ${beyondHosts[0]}; ip -6 route add default via ${beyondHosts[1]}`)
  await beyond.waitFor(/ready/, 10_000)
  return beyond
}

/** An exit with the TUN backend, and the servers of `startBeyond`. */
export async function tunNatWorld(keys: Record<string, unknown> = {}, modules: Partial<ExitModules> = {}): Promise<PacketWorld> {
  const config = exitConfig.parse({ families: 'both', packets: 'tun', connectTimeoutMs: 3000, attemptTimeoutMs: 2000, ...keys })
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
    ...modules,
  })
  return {
    exit,
    server4: beyondHosts[0],
    server6: beyondHosts[1],
    stop: async () => {
      exit.close()
      await packets.stop()
    },
  }
}
