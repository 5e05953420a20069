import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { Namespace } from '../support/namespace.ts'
import { hasCommand, projectRoot, runOk } from '../support/processes.ts'

const missing = await Namespace.reasonAgainst()

/** Runs autonat-nodes.ts in a network namespace of its own: it accepts public addresses only. */
async function inside(...args: string[]): Promise<Record<string, unknown>> {
  const program = join(projectRoot, 'test/interop/autonat-nodes.ts')
  return JSON.parse(await runOk('unshare', ['--net', process.execPath, program, ...args]))
}

describe.skipIf(missing !== null)(`AutoNAT v2 with libp2p's own (@libp2p/autonat-v2)${missing === null ? '' : `: ${missing}`}`, () => {
  test('as a server is understood', async () => {
    expect(await inside('ask-theirs')).toEqual({
      open: ['reached', 'reached'],
      closed: ['unreachable', 'unreachable'],
      elsewhere: ['unreachable', 'unreachable'],
    })
  })

  test('as a client is served, and believes', async () => {
    expect(await inside('ask-ours')).toMatchObject({ verified: true, stats: { served: 1, reached: 1, refused: 0 } })
  })
})

const measurable = missing === null && (await hasCommand('nft'))

describe.skipIf(!measurable)(`bytes on the wire${measurable ? '' : ': needs root and nft'}`, { concurrent: true }, () => {
  test.each([
    ['node', 'own', 'reached'],
    ['silent', 'own', 'other'],
    ['hostile', 'own', 'other'],
    ['dropped', 'own', 'unreachable'],
    ['silent', 'other', 'other'],
    ['hostile', 'other', 'other'],
    ['nothing', 'other', 'unreachable'],
    ['dropped', 'other', 'unreachable'],
  ])('to an address with %s at it (%s) are fewer than the asker sent', async (target, whose, verdict) => {
    const seen = (await inside('measure', target, whose)) as { verdicts: string[]; toTarget: number; toAsker: number; fromAsker: number }
    expect(seen.verdicts).toEqual([verdict])
    expect(seen.toTarget).toBeGreaterThan(0)
    // What the documented constant allows, headers and all; an honest dial-back takes about 1,700 bytes.
    expect(seen.toTarget).toBeLessThan(7_296)
    expect(seen.toTarget).toBeLessThan(seen.fromAsker)
    // With all that the asker is answered besides.
    expect(seen.toAsker + (whose === 'own' ? 0 : seen.toTarget)).toBeLessThan(seen.fromAsker)
  })
})
