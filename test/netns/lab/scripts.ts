/** Makes a namespace, without duplicate address detection: in a net this small it only costs a second. */
export function linkScript(namespace: string): string {
  return `ip netns add ${namespace}
nsenter --net=/run/netns/${namespace} sh -e <<'END'
${quietIpv6}
ip link set lo up
END`
}

/** Before the first interface comes up. */
export const quietIpv6 = `
echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
echo 0 > /proc/sys/net/ipv6/conf/default/accept_ra
`

export interface Joining {
  readonly device: string
  /** With their prefix lengths. */
  readonly addresses: readonly string[]
  readonly gateways: readonly string[]
  /** "PREFIX via GATEWAY". */
  readonly routes?: readonly string[]
}

/** (Again, if it has them already) gives an interface its addresses and the namespace its way out. */
export function joinScript(namespace: string, { device, addresses, gateways, routes = [] }: Joining): string {
  const lines = [
    `link set lo up`,
    ...addresses.map((address) => `address replace ${address} dev ${device}${address.includes(':') ? ' nodad' : ''}`),
    `link set ${device} up`,
    ...[...gateways.map((gateway) => `default via ${gateway}`), ...routes].map((route) => `route replace ${route}`),
  ]
  return `ip -n ${namespace} -batch - <<'END'\n${lines.map((line) => `${line}\n`).join('')}END`
}
