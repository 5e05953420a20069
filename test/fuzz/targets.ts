import type { FuzzTarget } from './fuzzer.ts'
import { directoryTargets } from './targets/directory.ts'
import { dnsTargets } from './targets/dns.ts'
import { egressTargets } from './targets/egress.ts'
import { ingressTargets } from './targets/ingress.ts'
import { linkTargets } from './targets/link.ts'
import { natTargets } from './targets/nat.ts'
import { onionTargets } from './targets/onion.ts'
import { packetTargets } from './targets/packet.ts'
import { stunTargets } from './targets/stun.ts'

/** Every decoder of bytes from the outside. A room lists its own in a file of `targets/`, and has one line here. */
export const targets: readonly FuzzTarget[] = [
  ...linkTargets,
  ...onionTargets,
  ...directoryTargets,
  ...dnsTargets,
  ...ingressTargets,
  ...stunTargets,
  ...natTargets,
  ...packetTargets,
  ...egressTargets,
]
