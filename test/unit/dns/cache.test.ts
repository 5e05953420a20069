import { describe, expect, it } from 'vitest'
import { cacheKey, DnsCache, type DnsCacheLimits, decodeMessage, Flag } from '../../../src/dns/index.ts'
import { rawMessage, soa } from './support.ts'

const limits: DnsCacheLimits = {
  maxEntries: 100,
  maxBytes: 1_000_000,
  minTtlSeconds: 0,
  maxTtlSeconds: 3600,
  maxNegativeTtlSeconds: 100,
  failureTtlSeconds: 0,
}
const make = (changes: Partial<DnsCacheLimits> = {}): DnsCache => new DnsCache({ ...limits, ...changes })
const four = (ttl: number, name?: string) => ({ type: 1, ttl, data: new Uint8Array(4), ...(name === undefined ? {} : { name }) })
const answer = (...ttls: number[]) => decodeMessage(rawMessage({ id: 9, answers: ttls.map((ttl) => four(ttl)) }))
const ttls = (bytes: Uint8Array | null): number[] | null => bytes && decodeMessage(bytes).records.map(({ ttl }) => ttl)

describe('what is remembered', () => {
  it('counts down, without an id, until the first record is over', () => {
    const cache = make()
    cache.put('k', answer(30, 90), 1000)
    expect(ttls(cache.get('k', 1000))).toEqual([30, 90])
    expect(ttls(cache.get('k', 11_999))).toEqual([20, 80])
    expect(decodeMessage(cache.get('k', 12_000)!).id).toBe(0)
    expect(ttls(cache.get('k', 30_999))).toEqual([1, 61])
    expect(cache.get('k', 31_000)).toBeNull()
    expect(cache).toMatchObject({ size: 0, bytes: 0 })
  })

  it("is nobody's to change", () => {
    const cache = make()
    const given = answer(30)
    cache.put('k', given, 0)
    given.bytes.fill(0)
    cache.get('k', 0)!.fill(0xff)
    expect(ttls(cache.get('k', 0))).toEqual([30])
  })

  it('holds at least and at most as long as the limits say, and says so', () => {
    const cache = make({ minTtlSeconds: 60, maxTtlSeconds: 300 })
    cache.put('short', answer(1), 0)
    cache.put('long', answer(100_000), 0)
    cache.put('never', decodeMessage(rawMessage({ answers: [four(0x9000_0000)] })), 0)
    expect([ttls(cache.get('short', 0)), ttls(cache.get('long', 0)), ttls(cache.get('never', 0))]).toEqual([[60], [300], [60]])
    expect(cache.get('long', 299_999)).not.toBeNull()
    expect(cache.get('long', 300_000)).toBeNull()
  })

  it('is not what lives for no time, is truncated, or is an error', () => {
    const cache = make()
    cache.put('zero', answer(0), 0)
    cache.put('cut', decodeMessage(rawMessage({ flags: Flag.response | Flag.truncated, answers: [four(60)] })), 0)
    for (const rcode of [1, 2, 4, 5])
      cache.put(`e${rcode}`, decodeMessage(rawMessage({ flags: Flag.response | rcode, authorities: [soa(60, 60)] })), 0)
    expect(cache.size).toBe(0)
  })

  it('is a failure for as long as is said', () => {
    const cache = make({ failureTtlSeconds: 5 })
    cache.put('k', decodeMessage(rawMessage({ flags: Flag.response | 2 })), 0)
    expect(cache.get('k', 4999)).not.toBeNull()
    expect(cache.get('k', 5000)).toBeNull()
  })

  it.each([
    ['no such name', 3, 50, 20, 20],
    ['no such name', 3, 20, 50, 20],
    ['no such name', 3, 5000, 5000, 100],
    ['nothing of the type', 0, 50, 30, 30],
  ])('is a negative answer (%s, code %i) as its SOA says: %i and %i make %i s', (_, rcode, ttl, minimum, seconds) => {
    const cache = make()
    cache.put('k', decodeMessage(rawMessage({ flags: Flag.response | rcode, authorities: [soa(ttl, minimum)] })), 0)
    expect(cache.get('k', seconds * 1000 - 1)).not.toBeNull()
    expect(cache.get('k', seconds * 1000)).toBeNull()
  })

  it('is no negative answer without SOA, or with a broken one', () => {
    const cache = make()
    cache.put('k', decodeMessage(rawMessage({ flags: Flag.response | 3 })), 0)
    cache.put('k', decodeMessage(rawMessage({ flags: Flag.response | 3, authorities: [{ type: 6, data: new Uint8Array(3) }] })), 0)
    // An alias that leads nowhere, of which nobody says for how long.
    cache.put('k', decodeMessage(rawMessage({ answers: [{ type: 5, data: Uint8Array.of(0) }] })), 0)
    expect(cache.size).toBe(0)
    cache.put('k', decodeMessage(rawMessage({ answers: [{ type: 5, ttl: 8, data: Uint8Array.of(0) }], authorities: [soa(60, 60)] })), 0)
    expect(cache.get('k', 7999)).not.toBeNull()
    expect(cache.get('k', 8000)).toBeNull()
  })
})

describe('its bounds', () => {
  it('are entries: what was used longest ago goes', () => {
    const cache = make({ maxEntries: 2 })
    cache.put('a', answer(60), 0)
    cache.put('b', answer(60), 0)
    cache.get('a', 1)
    cache.put('c', answer(60), 2)
    expect([cache.get('a', 3), cache.get('b', 3), cache.get('c', 3)].map((one) => one !== null)).toEqual([true, false, true])
  })

  it('are bytes, and hold against a flood', () => {
    const cache = make({ maxEntries: 1_000_000, maxBytes: 50_000 })
    for (let i = 0; i < 10_000; i++) cache.put(`k${i}`, answer(60, 60, 60), 0)
    expect(cache.bytes).toBeLessThanOrEqual(50_000)
    expect(cache.size).toBeGreaterThan(10)
    expect(cache.get('k9999', 0)).not.toBeNull()
    cache.put('huge', decodeMessage(rawMessage({ answers: [{ type: 16, data: new Uint8Array(60_000) }] })), 0)
    expect(cache.get('huge', 0)).toBeNull()
    expect(cache.get('k9999', 0)).not.toBeNull()
    cache.clear()
    expect(cache).toMatchObject({ size: 0, bytes: 0 })
  })

  it('count an answer once that comes again', () => {
    const cache = make()
    cache.put('k', answer(60), 0)
    const { bytes } = cache
    cache.put('k', answer(90), 0)
    expect(cache.bytes).toBe(bytes)
    expect(ttls(cache.get('k', 0))).toEqual([90])
  })

  it('may be none at all', () => {
    const cache = make({ maxEntries: 0 })
    cache.put('k', answer(60), 0)
    expect(cache.size).toBe(0)
  })
})

it('a key tells isolation, name, type, class, DO and CD apart, and nothing else', () => {
  const { question } = decodeMessage(rawMessage({ name: 'A.example' }))
  const other = decodeMessage(rawMessage({ name: 'a.EXAMPLE' })).question
  const none = { dnssecOk: false, checkingDisabled: false }
  const keys = [
    cacheKey('i', question!, none),
    cacheKey('j', question!, none),
    cacheKey('i', { ...question!, type: 2 }, none),
    cacheKey('i', { ...question!, name: 'b' }, none),
    cacheKey('i', question!, { ...none, dnssecOk: true }),
    cacheKey('i', question!, { ...none, checkingDisabled: true }),
  ]
  expect(new Set(keys).size).toBe(keys.length)
  expect(cacheKey('i', other!, none)).toBe(keys[0])
})
