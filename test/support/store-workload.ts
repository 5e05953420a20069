import { silentLogger } from '../../src/base/index.ts'
import { Store } from '../../src/store/index.ts'

/** All that a node does to its directory, in one life: takes it, writes keys and state over and over, gives it back. The directory is the argument. */

/** What a file holds in its nth edition: whole or not, it can be told. */
export function edition(name: string, n: number): Uint8Array {
  return Buffer.from(`${name} ${n} ${'x'.repeat(5_000)} ${name} ${n}\n`)
}

export const FILES = ['keys/identity', 'keys/onion', 'view', 'publisher'] as const
export const EDITIONS = 2

if (process.argv[1] === import.meta.filename) {
  const store = await Store.open(process.argv[2]!, { logger: silentLogger })
  for (let n = 1; n <= EDITIONS; n++) for (const name of FILES) await store.write(name, edition(name, n))
  await store.close()
}
