import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  verify,
  X509Certificate,
} from 'node:crypto'
import {
  assert,
  concatBytes,
  equalBytes,
  MalformedError,
  NODE_KEY_BYTES,
  type NodeId,
  nodeIdFromKey,
  Reader,
  ShallotError,
  utf8Bytes,
} from '../base/index.ts'
import { DerReader, der, derOid, Tag } from './der.ts'

/**
 * The libp2p TLS certificate: a self-signed one of a fresh key, with an extension in which the node's Ed25519 identity
 * signs that key. libp2p TLS handshake specification; docs/spec/link.md §2
 */
const LIBP2P_EXTENSION = derOid('1.3.6.1.4.1.53594.1.1')
const ECDSA_WITH_SHA256 = der(Tag.sequence, derOid('1.2.840.10045.4.3.2'))
const COMMON_NAME = derOid('2.5.4.3')
const SIGNED_PREFIX = utf8Bytes('libp2p-tls-handshake:')
/** PublicKey { type: Ed25519, data: 32 bytes } as libp2p's protobuf. */
const PUBLIC_KEY_PREFIX = Uint8Array.of(0x08, 0x01, 0x12, NODE_KEY_BYTES)
const SIGNATURE_BYTES = 64
/** RFC 8410 §7 and §4: the DER before a raw Ed25519 seed or key. */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex')
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex')
/** Bounds of what we parse at all; an honest one has about 400. */
const MAX_CERTIFICATE_BYTES = 4096
const BACKDATED_MS = 60 * 60 * 1000
const VALID_MS = 100 * 365 * 24 * 60 * 60 * 1000

export interface LinkCertificate {
  /** DER. */
  readonly certificate: Buffer
  readonly certificatePem: string
  readonly keyPem: string
}

/** The Ed25519 key of a seed as node:crypto wants it. @param seed 32 bytes, borrowed */
export function ed25519PrivateKey(seed: Uint8Array): KeyObject {
  assert(seed.length === NODE_KEY_BYTES, 'an Ed25519 seed has 32 bytes')
  return createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, seed]), format: 'der', type: 'pkcs8' })
}

/** The raw Ed25519 public key of a seed, 32 bytes. */
export function ed25519PublicKey(seed: Uint8Array): Uint8Array {
  const spki = createPublicKey(ed25519PrivateKey(seed)).export({ format: 'der', type: 'spki' })
  return new Uint8Array(spki.subarray(SPKI_PREFIX.length))
}

/**
 * Makes a fresh P-256 key and its certificate for a node.
 * @param seed the node's Ed25519 seed, 32 bytes, borrowed
 * @param now wall-clock ms
 */
export function makeCertificate(seed: Uint8Array, now: number): LinkCertificate {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const spki = publicKey.export({ format: 'der', type: 'spki' })
  const proof = sign(null, concatBytes(SIGNED_PREFIX, spki), ed25519PrivateKey(seed))
  const identity = concatBytes(PUBLIC_KEY_PREFIX, ed25519PublicKey(seed))
  const signedKey = der(Tag.sequence, der(Tag.octetString, identity), der(Tag.octetString, proof))
  // A positive INTEGER of 8 bytes whose first is neither zero nor above 0x7f.
  const serial = randomBytes(8)
  serial[0] = (serial[0]! & 0x3f) | 0x40
  // The same words in every certificate: nothing here tells nodes apart but the key.
  const name = der(Tag.sequence, der(Tag.set, der(Tag.sequence, COMMON_NAME, der(Tag.utf8String, utf8Bytes('libp2p')))))
  const tbs = der(
    Tag.sequence,
    der(0xa0, der(Tag.integer, Uint8Array.of(2))), // version 3
    der(Tag.integer, serial),
    ECDSA_WITH_SHA256,
    name,
    der(Tag.sequence, time(now - BACKDATED_MS), time(now + VALID_MS)),
    name,
    spki,
    der(0xa3, der(Tag.sequence, der(Tag.sequence, LIBP2P_EXTENSION, der(Tag.octetString, signedKey)))),
  )
  const signature = sign('sha256', tbs, { key: privateKey, dsaEncoding: 'der' })
  const certificate = der(Tag.sequence, tbs, ECDSA_WITH_SHA256, der(Tag.bitString, Uint8Array.of(0), signature))
  return { certificate, certificatePem: pem(certificate), keyPem: privateKey.export({ format: 'pem', type: 'pkcs8' }) as string }
}

/**
 * The identity that a certificate proves. Checks form, validity, self-signature, key type, and the extension's signature.
 * @param certificate DER, borrowed
 * @param now wall-clock ms
 * @throws MalformedError
 */
export function verifyCertificate(certificate: Uint8Array, now: number): NodeId {
  const { spki, notBefore, notAfter, extension } = decodeCertificate(certificate)
  if (now < notBefore || now > notAfter) throw malformed('not valid at this time')
  let parsed: X509Certificate
  let key: KeyObject
  try {
    parsed = new X509Certificate(certificate)
    key = parsed.publicKey
  } catch {
    throw malformed('not an X.509 certificate')
  }
  if (key.asymmetricKeyType !== 'ec' || key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw malformed('its key is not of P-256')
  if (!parsed.verify(key)) throw malformed('not signed by its own key')
  const { identity, signature } = decodeSignedKey(extension)
  const identityKey = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, identity]), format: 'der', type: 'spki' })
  if (!verify(null, concatBytes(SIGNED_PREFIX, spki), identityKey, signature)) throw malformed('the identity did not sign its key')
  return nodeIdFromKey(identity)
}

/** What the signature checks need of a certificate. All bytes are borrowed views. @throws MalformedError */
export function decodeCertificate(certificate: Uint8Array): {
  spki: Uint8Array
  notBefore: number
  notAfter: number
  extension: Uint8Array
} {
  if (certificate.length > MAX_CERTIFICATE_BYTES) throw malformed(`has more than ${MAX_CERTIFICATE_BYTES} bytes`)
  const file = new DerReader(certificate)
  const outer = file.enter(Tag.sequence)
  file.end()
  const tbs = outer.enter(Tag.sequence)
  tbs.take(0xa0)
  tbs.take(Tag.integer)
  const algorithm = tbs.takeWhole(Tag.sequence)
  if (!equalBytes(algorithm, ECDSA_WITH_SHA256)) throw malformed('not signed with ECDSA and SHA-256')
  tbs.take(Tag.sequence) // issuer
  const validity = tbs.enter(Tag.sequence)
  const notBefore = readTime(validity)
  const notAfter = readTime(validity)
  validity.end()
  tbs.take(Tag.sequence) // subject
  const spki = tbs.takeWhole(Tag.sequence)
  const list = tbs.enter(0xa3)
  tbs.end()
  const extension = findExtension(list.enter(Tag.sequence))
  list.end()
  if (!equalBytes(outer.takeWhole(Tag.sequence), algorithm)) throw malformed('names two algorithms')
  outer.take(Tag.bitString)
  outer.end()
  return { spki, notBefore, notAfter, extension }
}

/** The libp2p extension's value; any other critical extension is refused, as RFC 5280 §4.2 wants. */
function findExtension(extensions: DerReader): Uint8Array {
  let found: Uint8Array | null = null
  while (!extensions.isAtEnd) {
    const entry = extensions.enter(Tag.sequence)
    const oid = entry.takeWhole(Tag.oid)
    const critical = entry.nextTag === Tag.boolean ? entry.take(Tag.boolean)[0] !== 0 : false
    const value = entry.take(Tag.octetString)
    entry.end()
    if (equalBytes(oid, LIBP2P_EXTENSION)) {
      if (found !== null) throw malformed('has the libp2p extension twice')
      found = value
    } else if (critical) {
      throw malformed('has an unknown critical extension')
    }
  }
  if (found === null) throw malformed('lacks the libp2p extension')
  return found
}

function decodeSignedKey(extension: Uint8Array): { identity: Uint8Array; signature: Uint8Array } {
  const value = new DerReader(extension)
  const signedKey = value.enter(Tag.sequence)
  value.end()
  const publicKey = signedKey.take(Tag.octetString)
  const signature = signedKey.take(Tag.octetString)
  signedKey.end()
  const reader = new Reader('certificate', publicKey)
  if (!equalBytes(reader.bytes(PUBLIC_KEY_PREFIX.length), PUBLIC_KEY_PREFIX)) throw malformed('its identity is not an Ed25519 key')
  const identity = reader.bytes(NODE_KEY_BYTES)
  reader.end()
  if (signature.length !== SIGNATURE_BYTES) throw malformed('its identity signature does not have 64 bytes')
  return { identity, signature }
}

/** RFC 5280 §4.1.2.5: UTCTime until 2049, GeneralizedTime from 2050 on. */
function time(ms: number): Buffer {
  const text = new Date(ms).toISOString().replace(/[-:T]/g, '').slice(0, 14)
  return text < '2050' ? der(Tag.utcTime, utf8Bytes(`${text.slice(2)}Z`)) : der(Tag.generalizedTime, utf8Bytes(`${text}Z`))
}

function readTime(reader: DerReader): number {
  const isUtc = reader.nextTag === Tag.utcTime
  const text = Buffer.from(reader.take(isUtc ? Tag.utcTime : Tag.generalizedTime)).toString('latin1')
  const digits = isUtc ? `${Number(text.slice(0, 2)) < 50 ? '20' : '19'}${text}` : text
  const parts = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(digits)
  if (parts === null) throw malformed('its validity is not a time')
  const [, year, month, day, hour, minute, second] = parts
  const ms = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
  if (Number.isNaN(ms)) throw malformed('its validity is not a time')
  return ms
}

function pem(certificate: Uint8Array): string {
  const base64 = Buffer.from(certificate).toString('base64').replace(/.{64}/g, '$&\n')
  return `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`
}

function malformed(problem: string): MalformedError {
  return new MalformedError('certificate', problem)
}

/** The typed refusal of a peer that is not who it should be. */
export function identityMismatch(): ShallotError {
  return new ShallotError('identity-mismatch', 'the peer at this address proved another identity than the wanted one', {
    kind: 'link',
    retry: 'elsewhere',
  })
}
