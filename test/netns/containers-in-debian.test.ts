import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Program, projectRoot, runOk, temporaryFolder, until } from '../support/processes.ts'
import { sha256OfBytes } from '../support/web-server.ts'
import { type Container, firstChildOf, Image, Layer, makePackage, nodeImage, parseDockerfile, reasonAgainstDebian } from './debian/index.ts'
import { Lab, reasonAgainstLab } from './lab/index.ts'
import { LabMesh, type LabNode } from './support/lab-mesh.ts'

// No Docker runs here. The Dockerfile's steps are taken one by one in a root that debootstrap made, and its entry point is started as the compose files
// say; what of Docker itself remains unseen is its reading of the files.

const reason = (await reasonAgainstLab()) ?? (await reasonAgainstDebian())
const webProgram = fileURLToPath(new URL('support/web.ts', import.meta.url))
const KITS = ['bootstrap', 'relay', 'exit'] as const
const bytes = 3_000_000
const megabyte = 1 << 20

describe('the compose file of a', () => {
  test.each(KITS)('%s builds the image, and gives it what the test of the image gives it', (kit) => {
    const text = readFileSync(join(projectRoot, kit, 'compose.yaml'), 'utf8')
    for (const line of [
      'build: ..',
      'image: shallot',
      'network_mode: host',
      'read_only: true',
      'cap_drop: [ALL]',
      '- no-new-privileges:true',
    ])
      expect(text).toContain(line)
    expect(text).toMatch(/volumes:\n +- shallot:\/var\/lib\/shallot$/m)
    expect(text).toMatch(/tmpfs:\n +- \/tmp$/m)
    expect(text).toMatch(/nofile: 65536$/m)
    expect(text).toContain('max-size: 10m')
  })

  test('kit has no Dockerfile of its own: one image serves every role', () => {
    expect(KITS.flatMap((kit) => readdirSync(join(projectRoot, kit)).filter((file) => file === 'Dockerfile'))).toEqual([])
  })

  test('an instruction that the tests do not take is refused', () => {
    expect(() => parseDockerfile('FROM a\nADD b /c')).toThrow('ADD b /c')
    expect(() => parseDockerfile('FROM a\nRUN --mount=type=cache x')).toThrow('--mount')
  })
})

describe.skipIf(reason !== null)(`the image of the Dockerfile${reason === null ? '' : ` (${reason})`}`, () => {
  const folder = temporaryFolder('image')
  let fresh: Layer
  let image: Image
  let container: Container
  let lab: Lab
  let mesh: LabMesh
  let running: Program

  beforeAll(async () => {
    const [root, made] = await Promise.all([Layer.fresh(), makePackage()])
    fresh = root
    await runOk('tar', ['-C', folder.path, '-xzf', join(made.folder, made.file)])
    made.remove()
    image = await Image.build(join(folder.path, `shallot-${made.version}`), { name: 'node:24-bookworm-slim', layer: nodeImage(fresh) })
    lab = await Lab.build({
      hosts: Object.fromEntries(['boot', 'guard', 'middle', 'container', 'web', 'client'].map((name) => [name, {}])),
    })
    const { address } = lab.host('web')
    await lab
      .host('web')
      .startNode(webProgram, [address, '80'])
      .waitFor(/^ready/m, 10_000)
    mesh = LabMesh.plan(lab, [
      { name: 'boot', on: lab.host('boot'), roles: ['bootstrap'] },
      { name: 'guard', on: lab.host('guard'), roles: ['guard'] },
      { name: 'middle', on: lab.host('middle'), roles: ['middle'] },
      { name: 'client', on: lab.host('client'), roles: ['client'] },
    ])
    await mesh.startAll(mesh.nodes.filter(({ id }) => id !== null))
    const volume = join(folder.path, 'volume')
    mkdirSync(volume)
    await image.newVolume(volume)
    container = { volume, place: lab.host('container') }
  }, 300_000)

  afterAll(async () => {
    await running?.stop('SIGKILL')
    await mesh?.stop()
    await lab?.remove()
    fresh?.remove()
    folder.remove()
  })

  test('holds the program, the pages, the countries and the packages, no second Node, no cache of npm, and is no larger for it', async () => {
    const files = await image.files('/opt/shallot')
    for (const wanted of ['dist/dashboard/index.html', 'man/shallot.1', 'src/cli/main.ts', 'bin/shallot', 'node_modules/@ip-location-db'])
      expect(files).toContain(`/opt/shallot/${wanted}`)
    expect(files.filter((file) => /node_modules\/(node-linux|vitest|vite|typescript)/.test(file))).toEqual([])
    expect((await image.files('/root /home /tmp')).filter((file) => /\.npm|_cacache/.test(file))).toEqual([])
    expect(await image.addedBytes()).toBeLessThan(160 * megabyte)
  })

  test('its entry point makes a node, runs it as its user with nothing to write but the volume, and is healthy', async () => {
    const network = join(container.volume, 'network-to-join.toml')
    await runOk('install', ['-m', '0644', join(mesh.dir, 'network.toml'), network])
    const listen = `/ip4/${container.place.address}/tcp/4460`
    const init = await image.run(container, [
      'init',
      '--role',
      'exit',
      '--network',
      '/var/lib/shallot/network-to-join.toml',
      '--listen',
      listen,
    ])
    expect(init.code, init.log).toBe(0)
    running = await image.start(container)
    await running.waitFor(/^Ready\.$/m, 60_000)
    const health = await image.health(running)
    expect(health.code, health.log).toBe(0)
    const pid = firstChildOf(running.pid)!
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    expect(status).toMatch(/^Uid:\t970\t970/m)
    for (const set of ['CapEff', 'CapBnd', 'CapPrm', 'CapAmb']) expect(status).toMatch(new RegExp(`^${set}:\t0+$`, 'm'))
    expect(status).toMatch(/^NoNewPrivs:\t1$/m)
    expect(readFileSync(`/proc/${pid}/mounts`, 'utf8')).toMatch(/^\S+ \/ \S+ ro[, ]/m)
  })

  test('carries a transfer, which the server sees come from the container', async () => {
    const client: LabNode = mesh.node('client')
    await client.start()
    const web = `http://${lab.host('web').address}`
    await until('the container is an exit', 60_000, async () => (await client.curl(`${web}/`)).code === 0)
    const fetched = await client.curl(`${web}/bytes/${bytes}`, '-o', join(folder.path, 'fetched'))
    expect(fetched.code, fetched.log).toBe(0)
    expect((await runOk('sha256sum', [join(folder.path, 'fetched')])).split(' ')[0]).toBe(sha256OfBytes(bytes))
    expect((await client.curl(`${web}/seen`)).out).toBe(lab.host('container').address)
  })

  test('a stop is a drain', async () => {
    // Of the namespaces' process 1, which is the node, as Docker's stop is.
    expect(image.stopSignal).toBe('SIGTERM')
    process.kill(firstChildOf(running.pid)!, image.stopSignal)
    expect((await running.waitForExit(40_000)).code).toBe(0)
    expect(running.log).toContain('leaving:')
  })
})
