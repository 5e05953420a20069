import { describe, expect, test } from 'vitest'
import { statusText } from '../../../src/cli/commands/status.ts'
import { bytesText, durationText, facts, table, visible, wrap } from '../../../src/cli/output.ts'
import { progressLine } from '../../../src/cli/progress.ts'
import { fakeStatus } from '../../support/fake-node.ts'

describe('what a terminal shows', () => {
  test.each([
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 kB'],
    [1234, '1.2 kB'],
    [12_345, '12.3 kB'],
    [999_499, '999 kB'],
    [999_999, '1.0 MB'],
    [200_000_000, '200 MB'],
    [5e15, '5000 TB'],
  ])('%d bytes are %s', (bytes, text) => expect(bytesText(bytes)).toBe(text))

  test.each([
    [0, '0 ms'],
    [999.6, '1000 ms'],
    [1000, '1 s'],
    [61_000, '1 min 1 s'],
    [3_600_000, '1 h'],
    [90_061_000, '1 d 1 h'],
    [-172_769_239, '0 ms'],
  ])('%d ms are %s', (ms, text) => expect(durationText(ms)).toBe(text))

  test('a table fits 80 columns and cannot be broken by what is in it', () => {
    const text = table(
      ['A', 'LONG'],
      [
        ['1', 'x'.repeat(200)],
        ['two\n', '\x1b[2J'],
      ],
    )
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
    expect(text.split('\n')).toHaveLength(3)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is the point
    expect(text).not.toMatch(/[\x00-\x09\x0b-\x1f]/)
  })

  test('facts are wrapped under themselves', () => {
    const lines = facts([['name', `${'word '.repeat(30)}end`]]).split('\n')
    expect(lines.length).toBeGreaterThan(1)
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(80)
    expect(lines[1]).toMatch(/^ {6}word/)
    expect(wrap('', 10)).toEqual([''])
    expect(visible('a\u0007b')).toBe('a?b')
  })

  test.each([
    [0, 100, 1000, '[>                       ]   0 %  0 B of 100 B  0 B/s'],
    [50, 100, 1000, '[============>           ]  50 %  50 B of 100 B  50 B/s  1 s left'],
    [100, 100, 2000, '[========================] 100 %  100 B of 100 B  50 B/s  0 ms left'],
    [5_000, null, 1000, '5.0 kB  5.0 kB/s'],
  ])('progress of %s of %s after %d ms', (bytes, total, ms, text) => expect(progressLine(bytes, total, ms)).toBe(text))
})

describe('the status', () => {
  test('of a node that is older than the program is told all the same, and that it is', () => {
    const { dns: _dns, draining: _draining, onionKey: _onionKey, ...older } = fakeStatus
    const { signature: _signature, ...network } = fakeStatus.network
    const text = statusText({ ...older, network, version: '0.0.9' } as never)
    expect(text.replaceAll(/\s+/g, ' ')).toMatch(/version 0\.0\.9; this program is \d+\.\d+\.\d+: start the node again to run it/)
    expect(text).toContain(fakeStatus.id)
  })

  test('says who signed the network file, or that nobody did', () => {
    expect(statusText(fakeStatus as never)).toMatch(/signed by +nobody/)
    const signature = { publisher: 'c9'.repeat(32), issued: '2026-11-02T09:00:00Z' }
    const text = statusText({ ...fakeStatus, network: { ...fakeStatus.network, signature } } as never)
    expect(text.replaceAll(/\s+/g, ' ')).toContain(`signed by ${'c9'.repeat(32)}, issued 2026-11-02T09:00:00Z`)
  })
})
