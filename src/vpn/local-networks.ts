/**
 * What `local_network = true` lets through, by destination: private and link-local addresses (RFC 1918, 3927, 4193, 4291), the link's
 * multicast and broadcast, and what organisations use within (RFC 2365, 4291 §2.7). A network of public addresses on the link is not in
 * it: an access point could give itself any such addresses to see the traffic to them.
 */
export const localNetworks = {
  4: ['10.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.168.0.0/16', '224.0.0.0/24', '239.0.0.0/8', '255.255.255.255/32'],
  6: ['fc00::/7', 'fe80::/10', 'ff02::/16', 'ff05::/16'],
} as const
