import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { NatKind, Talker } from './lab/index.ts'
import { Lab, type LinkLabel, labelLink, missingPackages, natKinds, type Observer, reasonAgainstLab } from './lab/index.ts'
import { possibleLink } from './support/expectations.ts'

const reason = await reasonAgainstLab()
const missing = missingPackages({ python3: 'python3' })
const puncher = fileURLToPath(new URL('support/puncher.py', import.meta.url))
const reflectorPort = 4000

describe.skipIf(reason !== null || missing.length > 0)('the lab', () => {
  let lab: Lab
  let observer: Observer

  beforeAll(async () => {
    const homes = natKinds.flatMap((nat) => ['a', 'b'].map((side) => [`${nat}-${side}`, { nat }] as const))
    lab = await Lab.build({
      hosts: { plain: {} },
      homes: { ...Object.fromEntries(homes), stranger: { nat: 'port-restricted' } },
    })
    observer = await lab.observe()
    await lab
      .host('plain')
      .start('python3', [puncher, 'reflect', String(reflectorPort)])
      .waitFor(/ready/, 5000)
  })
  afterAll(() => lab?.remove())

  describe('lets two homes meet for exactly the pairs that can', () => {
    const pairs = natKinds.flatMap((a, i) => natKinds.slice(i).map((b) => [a, b] as const))
    for (const protocol of ['tcp', 'udp']) {
      test(protocol, async () => {
        const met = await Promise.all(pairs.map(([a, b], i) => meet(protocol, 5000 + i, `${a}-a`, `${b}-b`, 'meet')))
        const unexpected = pairs.flatMap(([a, b], i) => {
          const { result, label } = met[i]!
          const possible = possibleLabels(protocol, a, b)
          const right = possible.includes(label) && result === (label === 'relayed' ? 'failed' : 'linked')
          return right ? [] : [`${a} and ${b}: ${result}, ${label}, not ${possible.join(' or ')}`]
        })
        expect(unexpected).toEqual([])
      })
    }
  })

  describe('lets strangers in only through a full cone', () => {
    for (const protocol of ['tcp', 'udp']) {
      test(protocol, async () => {
        const homes = natKinds.map((kind) => `${kind}-a`)
        const met = await Promise.all(homes.map((home, i) => meet(protocol, 5100 + i, 'stranger', home, 'dial')))
        expect(met.map(({ result }) => result)).toEqual(['linked', 'failed', 'failed', 'failed', 'failed'])
        expect(met[0]!.label).toBe(protocol === 'tcp' ? 'direct' : 'punched-udp')
      })
    }
  })

  /** Of a pair whose second is the symmetric one, if one is. */
  function possibleLabels(protocol: string, a: NatKind, b: NatKind): readonly LinkLabel[] {
    const link = possibleLink(a, b)
    if (link === 'relayed') return ['relayed']
    if (protocol === 'udp') return ['punched-udp']
    if (link === 'from-symmetric') return ['reversed']
    // A full cone lets in whoever is first: then the other side has no need to begin.
    return a === 'full-cone' || b === 'full-cone' ? ['punched-tcp', 'direct', 'reversed'] : ['punched-tcp']
  }

  /** Two plain punchers, one in each home, from the same port. @param how what the first one does: `meet` (as the other does), or only `dial` */
  async function meet(protocol: string, port: number, a: string, b: string, how: 'meet' | 'dial') {
    const talkers = [a, b].map((home) =>
      lab
        .home(home)
        .machine()
        .talkTo('python3', [puncher, protocol, String(port), lab.host('plain').address, String(reflectorPort)]),
    ) as [Talker, Talker]
    try {
      const seen = await Promise.all(talkers.map((talker) => talker.hear()))
      talkers[1].say(how === 'meet' ? `meet ${seen[0]}` : 'wait')
      talkers[0].say(`${how} ${seen[1]}`)
      const results = new Set(await Promise.all(talkers.map((talker) => talker.hear())))
      const ports = seen.map((endpoint) => Number(endpoint.split(' ')[1]))
      const flows = (await observer.flows()).filter(
        (flow) => flow.protocol === protocol && (ports.includes(flow.a.port) || ports.includes(flow.b.port)),
      )
      const { label } = labelLink(flows, [lab.home(a).publicAddress], [lab.home(b).publicAddress])
      return { result: [...results].join('/'), label }
    } finally {
      for (const talker of talkers) await talker.stop()
    }
  }
})
