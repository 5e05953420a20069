import { messageOf, ShallotError } from '../base/index.ts'
import { type NetworkSignature, type PublisherKey, readNetworkSignature } from '../directory/index.ts'

/**
 * Holds a network file to its signature, and to the publisher that is wanted.
 * @param file how messages name it
 * @param wanted the publisher's key; '' where a file of anybody will do, a signed one that was changed still not
 * @returns who signed it; null when nobody did and nobody had to
 * @throws ShallotError 'network-signature-wrong', 'network-not-signed', 'network-publisher-differs'
 */
export async function verifyNetwork(text: string, file: string, wanted: PublisherKey | ''): Promise<NetworkSignature | null> {
  const signature = await signatureOf(text, file)
  if (wanted === '') return signature
  if (signature === null) throw refused('network-not-signed', `${file} is not signed, and its publisher is to be ${wanted}`)
  if (signature.publisher !== wanted)
    throw refused('network-publisher-differs', `${file} is signed by ${signature.publisher}, and its publisher is to be ${wanted}`)
  return signature
}

async function signatureOf(text: string, file: string): Promise<NetworkSignature | null> {
  // Few files are signed, and reading a configuration is to stay quick: the primitives are loaded for those alone.
  if (!/signature/i.test(text)) return null
  const { chooseSuite } = await import('../crypto/index.ts')
  try {
    return readNetworkSignature(chooseSuite().suite, text)
  } catch (error) {
    throw refused('network-signature-wrong', `${file} is refused: ${messageOf(error).replace(/^network file: /, '')}`, error)
  }
}

function refused(code: string, message: string, cause?: unknown): ShallotError {
  return new ShallotError(code, message, { kind: 'config', retry: 'never', cause })
}
