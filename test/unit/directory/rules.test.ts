import { describe, expect, test } from 'vitest'
import { SeededRandom } from '../../../src/base/index.ts'
import {
  leadingZeroBits,
  networkId,
  networkRules,
  parseRules,
  ruleDifferences,
  solveWork,
  testnetRules,
  WorkSearch,
  workHash,
  workPeriod,
} from '../../../src/directory/index.ts'
import { START, suite, testRelay } from './support.ts'

describe('the rules of a network', () => {
  test('are complete by default', () => {
    const rules = parseRules({})
    expect(rules.work.bits).toBe(24)
    expect(rules.admission.privateAddresses).toBe(false)
    expect(ruleDifferences(rules)).toEqual([])
  })

  test('list what a testnet changes, all of it', () => {
    const differences = ruleDifferences(parseRules(testnetRules))
    const keys = differences.map(({ key }) => key)
    expect(keys).toContain('privateDestinations')
    expect(keys).toContain('work.bits')
    expect(keys).toContain('eligibility.guardMinAgeMs')
    expect(differences.find(({ key }) => key === 'work.bits')).toEqual({ key: 'work.bits', value: testnetRules.work.bits, normal: 24 })
    const changed = Object.entries(testnetRules).flatMap(([group, value]) =>
      typeof value === 'object' ? Object.keys(value).map((key) => `${group}.${key}`) : group === 'name' ? [] : [group],
    )
    expect(keys.sort()).toEqual(changed.sort())
  })

  test('refuse bootstrap addresses with names or without an identity', () => {
    const result = networkRules.safeParse({ bootstrap: ['/dns4/a.example/tcp/1/p2p/12D3KooW', '/ip4/192.0.2.1/tcp/1'] })
    expect(result.success).toBe(false)
    expect(result.error?.issues.map(({ path }) => path)).toEqual([
      ['bootstrap', 0],
      ['bootstrap', 1],
    ])
  })

  test('have help for every key', () => {
    const walk = (schema: unknown, path: string): void => {
      const inner = unwrap(schema)
      if (path !== '') expect((schema as { description?: string }).description, path).toBeTruthy()
      if (inner.shape) for (const [key, child] of Object.entries(inner.shape)) walk(child, `${path}.${key}`)
    }
    walk(networkRules, '')
  })
})

describe('a proof of work', () => {
  const relay = testRelay(new SeededRandom(3))
  const subject = { networkId: networkId(suite, { name: 'a' }), id: relay.id, period: 12 }

  test('is found in slices as it is in one go', () => {
    const search = new WorkSearch(suite, subject, 10)
    let nonce: Uint8Array | null = null
    while (!nonce) nonce = search.run(17)
    expect(nonce).toEqual(solveWork(suite, subject, 10))
    expect(leadingZeroBits(workHash(suite, subject, nonce))).toBeGreaterThanOrEqual(10)
    expect(Buffer.from(nonce).readBigUInt64BE()).toBe(BigInt(search.attempts - 1))
  })

  test('is worth nothing for another identity, period or network', () => {
    const nonce = solveWork(suite, subject, 12)
    const others = [
      { ...subject, id: testRelay(new SeededRandom(4)).id },
      { ...subject, period: 13 },
      { ...subject, networkId: networkId(suite, { name: 'b' }) },
    ]
    for (const other of others) expect(leadingZeroBits(workHash(suite, other, nonce))).toBeLessThan(12)
  })

  test('counts leading zero bits', () => {
    expect(leadingZeroBits(Uint8Array.of(0xff))).toBe(0)
    expect(leadingZeroBits(Uint8Array.of(0x01, 0))).toBe(7)
    expect(leadingZeroBits(Uint8Array.of(0, 0x10))).toBe(11)
    expect(leadingZeroBits(new Uint8Array(4))).toBe(32)
  })

  test('belongs to the period of a moment', () => {
    expect(workPeriod(START, 1_000)).toBe(START / 1_000)
    expect(workPeriod(START + 999, 1_000)).toBe(START / 1_000)
  })
})

function unwrap(schema: unknown): { shape?: Record<string, unknown> } {
  let at = schema as { shape?: Record<string, unknown>; def?: { innerType?: unknown } }
  while (!at.shape && at.def?.innerType) at = at.def.innerType as typeof at
  return at
}
