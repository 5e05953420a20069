import type { Ground } from './ground.ts'

/** What an exit may connect to besides public addresses where the network's rules allow private destinations. */
const PRIVATE_NETWORKS = ['127.0.0.0/8', '::1/128', '10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7']

/** The private networks that exits of this network serve. */
export function privateDestinations({ config }: Pick<Ground, 'config'>): readonly string[] {
  return config.network.privateDestinations ? PRIVATE_NETWORKS : []
}
