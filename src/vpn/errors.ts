import { type ErrorKind, type Retry, ShallotError } from '../base/index.ts'

/** Codes of this folder's errors. */
export type VpnErrorCode =
  | 'vpn-not-on-this-platform'
  | 'vpn-not-permitted'
  | 'vpn-program-missing'
  | 'vpn-system-refused'
  | 'vpn-in-use'
  | 'vpn-nothing-to-undo'
  | 'vpn-not-undone'
  | 'vpn-dns-not-taken'
  | 'vpn-allow-list-full'
  | 'vpn-state-damaged'
  | 'vpn-no-control-groups'
  | 'vpn-stopped'

/** A failure of this machine, unless it is told otherwise. */
export function vpnError(
  code: VpnErrorCode,
  message: string,
  facts: { readonly kind?: ErrorKind; readonly retry?: Retry; readonly cause?: unknown } = {},
): ShallotError {
  return new ShallotError(code, message, { kind: facts.kind ?? 'host', retry: facts.retry ?? 'never', cause: facts.cause })
}
