import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sha256OfBytes } from '../support/web-server.ts'
import { Lab, reasonAgainstLab } from './lab/index.ts'
import { LabMesh } from './support/lab-mesh.ts'

const reason = await reasonAgainstLab()
const webProgram = fileURLToPath(new URL('support/web.ts', import.meta.url))
const megabyte = 1_048_576

describe.skipIf(reason !== null)('a client at home, with no setting,', () => {
  let lab: Lab
  let mesh: LabMesh
  let web: string

  beforeAll(async () => {
    const relays = ['guard', 'middle', 'exit'] as const
    lab = await Lab.build({
      hosts: Object.fromEntries(['boot', 'web', ...relays].map((name) => [name, {}])),
      homes: {
        symmetric: { nat: 'symmetric' },
        carrier: { nat: 'port-restricted', carrier: 'symmetric', wire: { delayMs: 25, loss: 0.002, bitsPerSecond: 40e6 } },
        'six-only': { nat: null, ipv6: 'firewalled' },
      },
    })
    web = `http://${lab.host('web').address}`
    await lab
      .host('web')
      .startNode(webProgram, [lab.host('web').address, '80'])
      .waitFor(/^ready/m, 10_000)
    mesh = LabMesh.plan(lab, [
      { name: 'boot', on: lab.host('boot'), roles: ['bootstrap'] },
      { name: 'guard', on: lab.host('guard'), roles: ['guard', 'middle'] },
      { name: 'middle', on: lab.host('middle'), roles: ['middle'] },
      { name: 'exit', on: lab.host('exit'), roles: ['exit'] },
      ...lab.homes.map((home) => ({ name: `client-${home.name}`, on: home.machine(), roles: ['client'] as const })),
    ])
    await mesh.start()
  })
  afterAll(async () => {
    await mesh?.stop()
    await lab?.remove()
  })

  for (const home of ['symmetric', 'carrier', 'six-only']) {
    test(`fetches pages from behind: ${home}`, async () => {
      const client = mesh.node(`client-${home}`)
      expect(await client.curl(`${web}/hello`)).toMatchObject({ code: 0, out: 'hello from the web server: /hello\n' })
      const size = 5 * megabyte
      const file = await client.curl(`${web}/bytes/${size}`, '-o', `${client.dir}/fetched`, '-w', '%{size_download}')
      expect(file).toMatchObject({ code: 0, out: String(size) })
      const [sum] = (await client.machine.runOk('sha256sum', [`${client.dir}/fetched`])).split(' ')
      expect(sum).toBe(sha256OfBytes(size))
    })
  }
})
