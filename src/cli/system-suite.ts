import { type CryptoSuite, chooseSuite } from '../crypto/index.ts'

let suite: CryptoSuite | null = null

/** The crypto suite of this machine, chosen once. */
export function systemSuite(): CryptoSuite {
  suite ??= chooseSuite().suite
  return suite
}
