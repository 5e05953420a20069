import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { projectRoot, run, runOk, temporaryFolder } from '../support/processes.ts'

const script = join(projectRoot, 'bin/package')
const { version } = JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8')) as { version: string }
const file = `shallot-${version}.tar.gz`

describe('the tarball of npm run package', () => {
  const one = temporaryFolder('package-one')
  const other = temporaryFolder('package-other')

  beforeAll(async () => {
    await runOk('sh', [script, one.path])
    // Another time zone, language, mask of modes and folder to begin in.
    const env = { TZ: 'Asia/Kathmandu', LC_ALL: 'C.UTF-8', HOME: other.path }
    await runOk('sh', ['-c', 'umask 077; exec sh "$0" "$1"', script, other.path], { env, cwd: '/' })
  })

  afterAll(() => {
    one.remove()
    other.remove()
  })

  test('has the same bytes wherever it is made', () => {
    expect(readFileSync(join(other.path, file)).equals(readFileSync(join(one.path, file)))).toBe(true)
  })

  test('comes with its checksum, which a changed byte breaks', async () => {
    const check = (cwd: string) => run('sha256sum', ['-c', `${file}.sha256`], { cwd })
    expect((await check(one.path)).code).toBe(0)
    await runOk('sh', ['-c', `printf x >>${file}`], { cwd: other.path })
    expect((await check(other.path)).code).toBe(1)
  })

  test('holds what a node needs in one folder, for everybody to read, and nothing that only makes or checks it', async () => {
    const listed = (await runOk('tar', ['-tvzf', join(one.path, file), '--numeric-owner'])).trim().split('\n')
    const names = listed.map((line) => line.split(/\s+/)[5]!.replace(/^shallot-[^/]+\//, ''))
    expect(listed.every((line) => line.includes(` shallot-${version}/`))).toBe(true)
    expect(listed.filter((line) => !/^(-rw-r--r--|-rwxr-xr-x|drwxr-xr-x) 0\/0 /.test(line))).toEqual([])
    for (const wanted of [
      'bin/shallot',
      'src/cli/main.ts',
      'dist/dashboard/index.html',
      'man/shallot.1',
      'package-lock.json',
      'Dockerfile',
    ])
      expect(names).toContain(wanted)
    for (const role of ['bootstrap', 'relay', 'exit'])
      for (const wanted of ['README.md', 'shallot.service', 'compose.yaml', 'alerts.yml', 'grafana.json', 'shallot.example.toml'])
        expect(names).toContain(`${role}/${wanted}`)
    expect(names.filter((name) => /^(test|simulations|\.ci|\.git|node_modules|src\/dashboard)\//.test(name))).toEqual([])
  })
})
