/** Limits and times of the VPN, by name. */
export const vpnLimits = {
  /** Places outside the tunnel at once: each is a routing rule, which the kernel looks at one by one. */
  allowedPeers: 512,
  /** How long a place stays allowed after it was asked for, unless the node says that it is still needed. */
  allowedForMs: 120_000,
  /** Serving ports at once. */
  servingPorts: 64,
  /** How long `ip`, `nft` or `resolvectl` may take. */
  programMs: 20_000,
  /** The longest output of a program that is read. */
  programOutputBytes: 4 << 20,
  /** How often it is looked at whether what was set up still stands. */
  watchMs: 10_000,
  /** How long `up` waits for the mesh to carry packets before it says that they are blocked for now. */
  readyMs: 45_000,
  /** After a failure that leaves the block standing: the first and the longest wait before the next try. */
  retryMs: 1_000,
  retryMostMs: 30_000,
  /** The largest resolv.conf that is kept. */
  resolvConfBytes: 65_536,
  /** How often in a row resolv.conf is taken back from another program that writes it. */
  resolvConfRetakes: 16,
} as const

/** Our table in nftables, of the family inet. */
export const NFT_TABLE = 'shallot_vpn'
/** Marks our rules and routes for the kernel (rtnetlink(7), rtm_protocol), so that nobody else's is ever removed. No other program uses it. */
export const ROUTE_PROTOCOL = 158
/** Sockets of programs that are to go around the tunnel (`shallot vpn exec --bypass`) have this mark from their making; only CAP_NET_ADMIN can give it. */
export const BYPASS_MARK = 0x5348_4c00
