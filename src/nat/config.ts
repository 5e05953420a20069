import { z } from 'zod'
import { dialBackConfig } from './dial-back/config.ts'
import { mappingConfig } from './mapping/config.ts'
import { punchingConfig } from './punch/index.ts'
import { reservationsConfig } from './relay/index.ts'
import { stunProbeConfig, stunServerConfig } from './stun/index.ts'

/** How a node that others connect to finds out how they reach it, and helps itself to be reached. A pure client has none of this. */
export const natConfig = z.strictObject({
  enabled: z
    .boolean()
    .default(true)
    .describe(
      'whether this node finds out by itself how others reach it. false: it is announced at node.advertise or link.listen, unchecked, and reached nowhere else',
    ),
  stun: stunProbeConfig
    .extend({ server: stunServerConfig.prefault({}).describe('the STUN server of a bootstrap node') })
    .prefault({})
    .describe('finding out the public address and the kind of NAT'),
  mapping: mappingConfig.prefault({}).describe('having the router forward the port'),
  dialBack: dialBackConfig.prefault({}).describe('being dialled from outside to see whether that works, and doing it for others'),
  relays: reservationsConfig.prefault({}).describe('being reached through relays while nothing better works'),
  punching: punchingConfig.prefault({}).describe('direct links with nodes that are behind NAT too'),
})
export type NatConfig = z.output<typeof natConfig>
