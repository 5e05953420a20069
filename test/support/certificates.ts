import { createSign, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { isIP } from 'node:net'
import { parseIp } from '../../src/base/index.ts'

/** A certificate and its key, both PEM. ECDSA on P-256, which every program accepts. */
export interface Certificate {
  readonly certificate: string
  readonly key: string
}

export interface CertificateAuthority extends Certificate {
  /** A certificate for these names and addresses, signed by this authority. */
  issue(...names: readonly string[]): Certificate
}

/** A fresh certificate authority for a test's TLS servers. RFC 5280. */
export function certificateAuthority(name = 'Shallot test authority'): CertificateAuthority {
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const authority = signed({ subject: name, issuer: name, publicKey: keys.publicKey, signWith: keys.privateKey, names: null })
  return {
    certificate: authority,
    key: pem(keys.privateKey),
    issue(...names) {
      const own = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const certificate = signed({ subject: names[0] ?? '', issuer: name, publicKey: own.publicKey, signWith: keys.privateKey, names })
      return { certificate, key: pem(own.privateKey) }
    },
  }
}

interface Wanted {
  readonly subject: string
  readonly issuer: string
  readonly publicKey: KeyObject
  readonly signWith: KeyObject
  /** Null for an authority. */
  readonly names: readonly string[] | null
}

function signed(wanted: Wanted): string {
  const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'))
  const serial = randomBytes(16)
  serial[0] = (serial[0]! & 0x7f) | 0x40
  const day = 24 * 3600 * 1000
  const body = sequence(
    tagged(0xa0, tagged(0x02, Uint8Array.of(2))), // version 3
    tagged(0x02, serial),
    ecdsaWithSha256,
    distinguishedName(wanted.issuer),
    sequence(utcTime(Date.now() - day), utcTime(Date.now() + 30 * day)),
    distinguishedName(wanted.subject),
    wanted.publicKey.export({ type: 'spki', format: 'der' }),
    tagged(0xa3, sequence(...extensions(wanted.names))),
  )
  const signature = createSign('sha256').update(body).sign(wanted.signWith)
  const der = sequence(body, ecdsaWithSha256, tagged(0x03, Uint8Array.of(0), signature))
  const lines = Buffer.from(der)
    .toString('base64')
    .match(/.{1,64}/g)!
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

function extensions(names: readonly string[] | null): readonly Uint8Array[] {
  const critical = tagged(0x01, Uint8Array.of(0xff))
  if (names === null) return [sequence(oid('551d13'), critical, tagged(0x04, sequence(critical)))] // basicConstraints: CA
  const alternatives = names.map((name) => (isIP(name) ? tagged(0x87, parseIp(name).bytes) : tagged(0x82, Buffer.from(name))))
  return [sequence(oid('551d11'), tagged(0x04, sequence(...alternatives)))] // subjectAltName
}

function distinguishedName(commonName: string): Uint8Array {
  return sequence(tagged(0x31, sequence(oid('550403'), tagged(0x0c, Buffer.from(commonName)))))
}

function utcTime(at: number): Uint8Array {
  const digits = new Date(at).toISOString().replace(/[-:T]/g, '').slice(2, 14)
  return tagged(0x17, Buffer.from(`${digits}Z`))
}

function oid(hex: string): Uint8Array {
  return tagged(0x06, Buffer.from(hex, 'hex'))
}

function sequence(...parts: readonly Uint8Array[]): Uint8Array {
  return tagged(0x30, ...parts)
}

/** DER: tag, length, contents (X.690 §8.1). */
function tagged(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = Buffer.concat(parts)
  const length =
    content.length < 0x80
      ? [content.length]
      : content.length < 0x100
        ? [0x81, content.length]
        : [0x82, content.length >> 8, content.length & 0xff]
  return Buffer.concat([Uint8Array.of(tag, ...length), content])
}

function pem(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }) as string
}
