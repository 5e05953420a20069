import type { IpAddress } from '../base/index.ts'

/** An address and a port of TCP or UDP. */
export interface Endpoint {
  readonly address: IpAddress
  readonly port: number
}

/** The key words of two addresses: `remote`'s, then `local`'s (see Flow). */
export function addressWords(remote: Uint8Array, local: Uint8Array): Int32Array {
  const words = new Int32Array(remote.length / 2)
  let at = 0
  for (const bytes of [remote, local])
    for (let i = 0; i < bytes.length; i += 4) words[at++] = (bytes[i]! << 24) | (bytes[i + 1]! << 16) | (bytes[i + 2]! << 8) | bytes[i + 3]!
  return words
}
