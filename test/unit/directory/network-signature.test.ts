import { createPublicKey, verify } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { nativeSuite, portableSuite } from '../../../src/crypto/index.ts'
import { isPublisherKey, publisherKey, readNetworkSignature, signNetworkFile, withoutSignature } from '../../../src/directory/index.ts'

const suite = nativeSuite()
const seed = new Uint8Array(32).fill(7)
const other = new Uint8Array(32).fill(8)
const text = 'name = "mesh"\nbootstrap = []\n'
const at = Date.UTC(2026, 10, 21, 10, 0, 0, 500)
const signed = signNetworkFile(suite, seed, text, at)

describe('a publisher’s signature', () => {
  test('is the last line, after its date, and tells both', () => {
    expect(signed).toMatch(
      /^name = "mesh"\nbootstrap = \[\]\n# issued: 2026-11-21T10:00:00Z\n# signature: ed25519 [0-9a-f]{64} [0-9a-f]{128}\n$/,
    )
    const publisher = publisherKey(suite, seed)
    expect(isPublisherKey(publisher)).toBe(true)
    expect(readNetworkSignature(suite, signed)).toEqual({ publisher, issued: '2026-11-21T10:00:00Z' })
    expect(readNetworkSignature(portableSuite(), signed)).toEqual({ publisher, issued: '2026-11-21T10:00:00Z' })
  })

  test('is what docs/spec/network-file.md says, to another implementation of Ed25519', () => {
    const [body, , key, signature] = /^([\s\S]*\n)# signature: (ed25519) (\S+) (\S+)\n$/.exec(signed)!.slice(1)
    const x = Buffer.from(key!, 'hex').toString('base64url')
    const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
    const message = Buffer.concat([Buffer.from('shallot network file 1\0'), Buffer.from(body!)])
    expect(verify(null, message, publicKey, Buffer.from(signature!, 'hex'))).toBe(true)
    // Ed25519 is deterministic: this is the form for good.
    expect(signature).toMatch(/^c71cc14edb69dbca/)
  })

  test('is absent where nobody signed, and then nothing is said', () => {
    expect(readNetworkSignature(suite, text)).toBeNull()
    expect(readNetworkSignature(suite, '')).toBeNull()
    expect(readNetworkSignature(suite, '# the signature of this network is a shallot\n')).toBeNull()
  })

  test('may lack the newline after it, as some editors leave it', () => {
    expect(readNetworkSignature(suite, signed.trimEnd())?.publisher).toBe(publisherKey(suite, seed))
  })

  test.each<[string, (text: string) => string]>([
    ['a value changed', (t) => t.replace('mesh', 'mash')],
    ['a comment added in front', (t) => `# hello\n${t}`],
    ['the date changed', (t) => t.replace('10:00:00', '11:00:00')],
    ['lines put behind', (t) => `${t}bootstrap = ["/ip4/192.0.2.1/tcp/1"]\n`],
    ['an empty line behind', (t) => `${t}\n`],
    ['line ends of another system', (t) => t.replaceAll('\n', '\r\n')],
    ['a second signature', (t) => `${t}${t.split('\n').at(-2)}\n`],
    ['another key put in', (t) => t.replace(publisherKey(suite, seed), publisherKey(suite, other))],
    ['a digit of the signature changed', (t) => t.replace(/(.)\n$/, (_, digit) => `${digit === '0' ? '1' : '0'}\n`)],
    ['capital digits', (t) => t.replace(/ed25519 (.*)$/m, (_, rest: string) => `ed25519 ${rest.toUpperCase()}`)],
    ['another algorithm', (t) => t.replace('ed25519', 'ed448')],
    ['a name written otherwise', (t) => t.replace('# signature:', '#Signature :')],
    ['cut in the middle of its signature', (t) => t.slice(0, -20)],
  ])('is refused with %s', (_, change) => {
    const changed = change(signed)
    expect(changed).not.toBe(signed)
    expect(() => readNetworkSignature(suite, changed)).toThrow(/network file: /)
  })

  test('of one domain is no signature of another: the message is not the bare file', () => {
    const body = `${withoutSignature(signed)}# issued: 2026-11-21T10:00:00Z\n`
    const bare = Buffer.from(suite.ed25519.sign(seed, Buffer.from(body))).toString('hex')
    expect(() => readNetworkSignature(suite, `${body}# signature: ed25519 ${publisherKey(suite, seed)} ${bare}\n`)).toThrow(/does not fit/)
  })

  test('is replaced whole when a file is signed again', () => {
    const again = signNetworkFile(suite, other, signed, at + 60_000)
    expect(readNetworkSignature(suite, again)).toEqual({ publisher: publisherKey(suite, other), issued: '2026-11-21T10:01:00Z' })
    expect(withoutSignature(again)).toBe(text)
    expect(withoutSignature('a = 1')).toBe('a = 1\n')
  })
})
