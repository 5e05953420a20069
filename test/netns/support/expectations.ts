import type { NatKind } from '../lab/index.ts'

/**
 * What two NATs allow: `met`: both sides begin, from the ports that the other was told, and it is one link; `from-symmetric`: the port that the
 * symmetric side sends from cannot be told, yet the other NAT lets it in, since ports do not matter to it; `relayed`: nothing direct.
 */
export function possibleLink(a: NatKind, b: NatKind): 'met' | 'from-symmetric' | 'relayed' {
  if (a !== 'symmetric' && b !== 'symmetric') return 'met'
  const other = a === 'symmetric' ? b : a
  return other === 'full-cone' || other === 'address-restricted' ? 'from-symmetric' : 'relayed'
}
