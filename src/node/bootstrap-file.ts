import { messageOf } from '../base/index.ts'
import { parseBootstrapAddress } from '../directory/index.ts'
import type { BootstrapSource } from '../discovery/index.ts'

/** What is wrong with the address of a bootstrap node, or null. */
export function bootstrapProblem(text: string): string | null {
  try {
    parseBootstrapAddress(text)
    return null
  } catch (error) {
    return messageOf(error)
  }
}

/**
 * A file of bootstrap nodes: an address a line, `#` begins a comment.
 * @param name how people call it
 * @param most addresses it may hold
 * @returns the source, or in words what is wrong with it
 */
export function parseBootstrapFile(text: string, name: string, most: number): BootstrapSource | string {
  const addresses: string[] = []
  for (const [index, line] of text.split('\n').entries()) {
    const address = line.replace(/#.*/, '').trim()
    if (address === '') continue
    const problem = bootstrapProblem(address)
    if (problem !== null) return `${name}:${index + 1}: ${problem}; it should be like /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…`
    if (addresses.length === most) return `${name}:${index + 1}: more than ${most} addresses`
    addresses.push(address)
  }
  return { name, addresses }
}
