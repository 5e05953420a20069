import { ShallotError } from '../../base/index.ts'

/**
 * Why the TUN backend can't be had here; the message says what to do.
 * - 'exit-tun-not-on-this-platform': it needs Linux
 * - 'exit-tun-not-permitted': CAP_NET_ADMIN or /dev/net/tun is missing
 * - 'exit-tun-unavailable': the kernel or the device lacks something
 * - 'exit-tun-no-nft': the program nft is missing, or its kernel part
 * - 'exit-tun-forwarding-off': the kernel does not forward packets
 * - 'exit-tun-network-in-use': a network of this machine overlaps the lease networks
 */
export type TunNatErrorCode =
  | 'exit-tun-not-on-this-platform'
  | 'exit-tun-not-permitted'
  | 'exit-tun-unavailable'
  | 'exit-tun-no-nft'
  | 'exit-tun-forwarding-off'
  | 'exit-tun-network-in-use'

/** One of the above. */
export function tunNatError(code: TunNatErrorCode, message: string, retry: 'later' | 'never' = 'never', cause?: unknown): ShallotError {
  return new ShallotError(code, message, { kind: code === 'exit-tun-network-in-use' ? 'config' : 'host', retry, cause })
}
