import { describe, it } from 'vitest'
import { openTun, type TunPort } from '../../src/tun/index.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { packetPortCompliance } from './packet-port.ts'

const reason = enterOwnNetwork()
if (reason !== null) describe.skip(`packet port: TUN (${reason})`, () => it('is skipped'))
else
  packetPortCompliance('TUN', () => {
    const ports: TunPort[] = []
    return {
      // The device's queue is the medium's: it drops.
      holdsBack: false,
      mostQueued: 1000,
      // Two devices, and the kernel routes what comes out of one into the other.
      async start() {
        for (const name of ['tun-a', 'tun-b']) ports.push(await openTun({ name }))
        shellOk(`echo 1 > /proc/sys/net/ipv4/ip_forward
          for d in all tun-a tun-b; do echo 0 > /proc/sys/net/ipv4/conf/$d/rp_filter; done
          ip rule add iif tun-a lookup 101; ip route add default dev tun-b table 101
          ip rule add iif tun-b lookup 102; ip route add default dev tun-a table 102`)
        return { port: ports[0]!, other: ports[1]! }
      },
      async stop() {
        for (const port of ports) port.close()
        shellOk('ip rule del iif tun-a; ip rule del iif tun-b')
      },
    }
  })
