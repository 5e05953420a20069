import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { MalformedError, nodeIdFromKey } from '../../../src/base/index.ts'
import { decodeCertificate, ed25519PublicKey, makeCertificate, verifyCertificate } from '../../../src/link/certificate.ts'

const now = Date.UTC(2026, 10, 20)
const seed = new Uint8Array(32).fill(7)
const vectors = JSON.parse(readFileSync(new URL('../../vectors/libp2p-tls/certificates.json', import.meta.url), 'utf8')) as {
  valid: { peer: string; certificate: string }[]
  refused: { why: string; certificate: string }[]
}

describe('the certificate of a link', () => {
  it('proves the identity it was made for', () => {
    const { certificate, certificatePem } = makeCertificate(seed, now)
    expect(verifyCertificate(certificate, now)).toBe(nodeIdFromKey(ed25519PublicKey(seed)))
    expect(new X509Certificate(certificatePem).raw).toEqual(certificate)
  })

  it('is another one each time, and fits into one packet', () => {
    const one = makeCertificate(seed, now).certificate
    const other = makeCertificate(seed, now).certificate
    expect(one).not.toEqual(other)
    expect(one.length).toBeLessThan(600)
  })

  it('is accepted and refused as the libp2p specification says', () => {
    for (const { peer, certificate } of vectors.valid) expect(verifyCertificate(Buffer.from(certificate, 'hex'), now)).toBe(peer)
    for (const { why, certificate } of vectors.refused) {
      expect(() => verifyCertificate(Buffer.from(certificate, 'hex'), now), why).toThrow(MalformedError)
    }
  })

  it('is valid from an hour before it was made, for a hundred years', () => {
    const { certificate } = makeCertificate(seed, now)
    const { notBefore, notAfter } = decodeCertificate(certificate)
    expect(now - notBefore).toBe(60 * 60 * 1000)
    expect(notAfter - now).toBe(100 * 365 * 24 * 60 * 60 * 1000)
    expect(() => verifyCertificate(certificate, notBefore - 1)).toThrow('not valid at this time')
    expect(() => verifyCertificate(certificate, notAfter + 1)).toThrow('not valid at this time')
  })

  it('is refused with any one byte changed', () => {
    const { certificate } = makeCertificate(seed, now)
    const id = nodeIdFromKey(ed25519PublicKey(seed))
    for (let at = 0; at < certificate.length; at++) {
      const changed = Uint8Array.from(certificate)
      changed[at]! ^= 0x01
      let proven: string | null = null
      try {
        proven = verifyCertificate(changed, now)
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedError)
      }
      expect(proven, `byte ${at}`).toBeNull()
      expect(proven).not.toBe(id)
    }
  })

  it('is refused when cut or longer', () => {
    const { certificate } = makeCertificate(seed, now)
    for (let length = 0; length < certificate.length; length += 7) {
      expect(() => verifyCertificate(certificate.subarray(0, length), now)).toThrow(MalformedError)
    }
    expect(() => verifyCertificate(Buffer.concat([certificate, Uint8Array.of(0)]), now)).toThrow(MalformedError)
    expect(() => verifyCertificate(new Uint8Array(5000), now)).toThrow(MalformedError)
  })
})
