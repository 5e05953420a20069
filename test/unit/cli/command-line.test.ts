import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { chooseSuite } from '../../../src/crypto/index.ts'
import { decodeIdentity, loadConfig } from '../../../src/node/index.ts'
import { Program, projectRoot, run, shallot, temporaryFolder, until } from '../../support/processes.ts'

let folder: { path: string; remove(): void }
let env: Record<string, string | undefined>
beforeEach(() => {
  folder = temporaryFolder('cli')
  env = { XDG_RUNTIME_DIR: join(folder.path, 'run'), XDG_DATA_HOME: join(folder.path, 'data'), SHALLOT_DIR: undefined, NO_COLOR: '1' }
  mkdirSync(join(folder.path, 'run'))
})
afterEach(() => folder.remove())

const cli = (...args: string[]) => shallot(args, { env, cwd: folder.path })
const id = '12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw'
const bootstrap = `/ip4/198.51.100.1/tcp/4460/p2p/${id}`

describe('wrong use ends with 2 and says what is wrong', () => {
  test.each<[string[], RegExp]>([
    [[], /Usage: shallot/],
    [['statsu'], /unknown command 'statsu'\s+\(Did you mean status\?\)/],
    [['status', '--jsno'], /unknown option '--jsno'\s+\(Did you mean --json\?\)/],
    [['status', 'extra'], /too many arguments/],
    [['fetch'], /missing required argument 'url'/],
    [['fetch', 'gopher://x'], /is not a URL that begins with http/],
    [['fetch', 'http://x/', '--json'], /--json needs -o FILE/],
    [['help', 'statsu'], /there is no command "statsu"/],
    [['relays', '--country', 'Germany'], /two letters of a country/],
    [['relays', '--role', 'client'], /Allowed choices are guard, middle, exit, relay, bootstrap/],
    [['init', '--role', 'entry', '--bootstrap', bootstrap], /The roles are client, guard/],
    [['init'], /say which network this is/],
    [['init', '--network', 'x', '--bootstrap', bootstrap], /not both/],
    [['run', '--config', 'a', '--dir', 'b'], /not both/],
    [['testnet', '--relays', '2'], /whole number from 3 to 200/],
    [['testnet', '--relays', 'many'], /whole number from 3 to 200/],
    [['testnet', '--exits', '0'], /whole number from 1/],
    [['testnet', '--relays', '4', '--exits', '3'], /leaves 1 for guard and middle/],
    [['testnet', '--socks', 'localhost'], /ADDRESS:PORT/],
    [['testnet', '--socks', '127.0.0.1:99999'], /ADDRESS:PORT/],
  ])('%j', async (args, message) => {
    const { code, stdout, log } = await cli(...args)
    expect(log).toMatch(message)
    expect(code).toBe(2)
    expect(stdout).toBe('')
  })
})

describe('help', () => {
  test('teaches, fits 80 columns, and ends with 0', async () => {
    for (const args of [['--help'], ['testnet', '--help'], ['init', '--help'], ['help', 'fetch']]) {
      const { code, stdout } = await cli(...args)
      expect(code).toBe(0)
      expect(stdout).toContain('Usage: shallot')
      expect(stdout.split('\n').filter((line) => line.length > 80)).toEqual([])
    }
    expect((await cli('--help')).stdout).toMatch(/\$ shallot testnet/)
  })

  test('names every role that a configuration knows', async () => {
    const { ROLES } = await import('../../../src/node/index.ts')
    const { log } = await cli('init', '--role', 'nothing')
    expect(log).toContain(`The roles are ${ROLES.join(', ')}.`)
  })
})

describe('version', () => {
  test('says what runs', async () => {
    const known = JSON.parse((await cli('version', '--json')).stdout)
    expect(known.version).toBe(JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8')).version)
    expect(Number(known.node.slice(1).split('.')[0])).toBeGreaterThanOrEqual(24)
    expect((await cli('--version')).stdout.trim()).toBe(known.version)
  })
})

describe('init', () => {
  test('makes a client without a lasting identity, in the default directory', async () => {
    const { code } = await cli('init', '--bootstrap', bootstrap)
    expect(code).toBe(0)
    const dir = join(folder.path, 'data/shallot')
    expect(readdirSync(dir).sort()).toEqual(['network.toml', 'shallot.toml'])
    expect(statSync(join(dir, 'shallot.toml')).mode & 0o777).toBe(0o600)
    const config = await loadConfig(join(dir, 'shallot.toml'))
    expect(config.node.roles).toEqual(['client'])
    expect(config.network.bootstrap).toEqual([bootstrap])
  })

  test('gives its numbers to this machine alone, at the address of its own that it has there', async () => {
    const metricsOf = async (name: string, ...args: string[]): Promise<readonly string[]> => {
      const dir = join(folder.path, name)
      await cli('init', '--bootstrap', bootstrap, '--dir', dir, ...args)
      return (await loadConfig(join(dir, 'shallot.toml'))).metrics.listen
    }
    expect(await metricsOf('quiet')).toEqual([])
    expect(await metricsOf('all', '--role', 'middle', '--listen', '/ip4/0.0.0.0/tcp/4460')).toEqual(['127.0.0.1:9297'])
    expect(await metricsOf('tried', '--role', 'middle', '--listen', '/ip4/127.9.0.1/tcp/4460')).toEqual(['127.9.0.1:9297'])
    expect(await metricsOf('six', '--role', 'middle', '--listen', '/ip6/::1/tcp/4460')).toEqual(['[::1]:9297'])
  })

  test('makes a relay whose key is private', async () => {
    const dir = join(folder.path, 'relay')
    const made = JSON.parse(
      (
        await cli(
          'init',
          '--role',
          'guard',
          '--role',
          'middle,exit',
          '--bootstrap',
          bootstrap,
          '--listen',
          '/ip4/198.51.100.9/tcp/4460',
          '--dir',
          dir,
          '--json',
        )
      ).stdout,
    )
    expect(made.roles).toEqual(['guard', 'middle', 'exit'])
    const key = join(dir, 'keys/identity')
    expect(statSync(key).mode & 0o777).toBe(0o600)
    expect(statSync(join(dir, 'keys')).mode & 0o777).toBe(0o700)
    expect(decodeIdentity(chooseSuite().suite, readFileSync(key)).id).toBe(made.id)
    const config = await loadConfig(join(dir, 'shallot.toml'))
    expect(config.link.listen).toEqual(['/ip4/198.51.100.9/tcp/4460'])
    expect(config.metrics.listen).toEqual(['127.0.0.1:9297'])
    expect((await cli('check-config', join(dir, 'shallot.toml'))).code).toBe(0)
  })

  test('makes every role without a word about addresses', async () => {
    for (const role of ['guard', 'middle', 'exit', 'relay', 'bootstrap', 'client']) {
      const dir = join(folder.path, role)
      const { code, log } = await cli('init', '--role', role, '--bootstrap', bootstrap, '--dir', dir)
      expect(log).not.toMatch(/shallot: /)
      expect(code).toBe(0)
      await loadConfig(join(dir, 'shallot.toml'))
    }
  })

  test('founds a network with a bootstrap node, which others then join by its file', async () => {
    const first = join(folder.path, 'first')
    const made = JSON.parse(
      (await cli('init', '--role', 'bootstrap', '--listen', '/ip4/198.51.100.3/tcp/4460', '--dir', first, '--json')).stdout,
    )
    expect(made.addresses).toEqual([`/ip4/198.51.100.3/tcp/4460/p2p/${made.id}`])
    expect((await cli('init', '--network', join(first, 'network.toml'), '--dir', 'second')).code).toBe(0)
    expect((await loadConfig(join(folder.path, 'second/shallot.toml'))).network.bootstrap).toEqual(made.addresses)
  })

  test('overwrites nothing', async () => {
    const dir = join(folder.path, 'node')
    mkdirSync(dir)
    writeFileSync(join(dir, 'shallot.toml'), 'mine')
    const { code, log } = await cli('init', '--bootstrap', bootstrap, '--dir', dir)
    expect(code).not.toBe(0)
    expect(log).toContain('exists already and is not overwritten')
    expect(readdirSync(dir)).toEqual(['shallot.toml'])
    expect(readFileSync(join(dir, 'shallot.toml'), 'utf8')).toBe('mine')
  })

  test.each<[string, string[], RegExp]>([
    ['a bootstrap address without an id', ['--bootstrap', '/ip4/198.51.100.1/tcp/4460'], /bootstrap\[0\]/],
    ['a network file that is not there', ['--network', 'nowhere.toml'], /nowhere\.toml, cannot be read/],
    ['a listening address that is a name', ['--role', 'exit', '--bootstrap', bootstrap, '--listen', '/dns4/x/tcp/1'], /link\.listen\[0\]/],
    ['a client that listens', ['--bootstrap', bootstrap, '--listen', '/ip4/198.51.100.1/tcp/1'], /a client listens on nothing/],
    ['a directory that cannot be made', ['--bootstrap', bootstrap, '--dir', 'file/x'], /file/],
  ])('writes nothing for %s', async (_, args, message) => {
    writeFileSync(join(folder.path, 'file'), '')
    const { code, log } = await cli('init', ...args, ...(args.includes('--dir') ? [] : ['--dir', 'new']))
    expect(log).toMatch(message)
    expect(code).toBe(1)
    expect(existsSync(join(folder.path, 'new'))).toBe(false)
  })
})

describe('check-config', () => {
  test('says everything that is wrong, with file and line, and ends with 1', async () => {
    writeFileSync(join(folder.path, 'bad.toml'), '[node]\nrolse = ["exit"]\n[path]\nmax_building = "many"\n')
    const { code, log } = await cli('check-config', 'bad.toml')
    expect(code).toBe(1)
    expect(log).toBe(
      'bad.toml:2: unknown key node.rolse; did you mean node.roles?\nbad.toml:4: path.max_building is "many"; it must be a whole number from 1 to 256\n',
    )
    const problems = JSON.parse((await cli('check-config', 'bad.toml', '--json')).stdout)
    expect(problems).toMatchObject({
      valid: false,
      problems: [
        { key: 'node.rolse', line: 2 },
        { key: 'path.max_building', line: 4 },
      ],
    })
  })

  test('says of a right one what it means', async () => {
    writeFileSync(join(folder.path, 'network.toml'), `bootstrap = ["${bootstrap}"]\n[work]\nbits = 3\n`)
    writeFileSync(join(folder.path, 'good.toml'), '')
    const { code, stdout } = await cli('check-config', 'good.toml')
    expect(code).toBe(0)
    expect(stdout).toContain('work.bits = 3 (usually 24)')
  })
})

describe('run', () => {
  test('without a node says how to make one', async () => {
    const { code, log } = await cli('run')
    expect(code).toBe(1)
    expect(log).toMatch(/shallot\.toml, cannot be read: there is no such file\. Make a node with `shallot init`/)
  })
})

describe('run of a node that names a file which is not there', () => {
  test('says which, and not that there is no node', async () => {
    await cli('init', '--bootstrap', bootstrap, '--dir', 'node')
    renameSync(join(folder.path, 'node', 'network.toml'), join(folder.path, 'node', 'elsewhere.toml'))
    const { code, log } = await cli('run', '--dir', 'node')
    expect(log).toContain('network.toml, cannot be read: there is no such file')
    expect(log).not.toContain('shallot init')
    expect(code).toBe(1)
  })
})

describe('asking', () => {
  test.each(['status', 'circuits', 'relays', 'streams', 'new-circuit'])('%s says that nothing runs, and ends with 1', async (name) => {
    const { code, log, stdout } = await cli(name)
    expect(code).toBe(1)
    expect(log).toContain('no node of this user is running')
    expect(stdout).toBe('')
  })

  test.skipIf(process.getuid?.() !== 0)("another user's directory is not taken for one without a node (root)", async () => {
    const dir = join(folder.path, 'theirs')
    mkdirSync(dir, { mode: 0o700 })
    chmodSync(folder.path, 0o755)
    const asked = await shallot(['status', '--dir', dir], {
      env: { ...env, XDG_RUNTIME_DIR: undefined },
      wrapper: ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'],
    })
    expect(asked.log).toContain(`${dir} belongs to another user: run this as the user who runs the node, or with sudo`)
    expect(asked.code).toBe(1)
  })

  test('a directory without a running node is named', async () => {
    const { code, log } = await cli('status', '--dir', 'nowhere')
    expect(code).toBe(1)
    expect(log).toMatch(/no node runs in .*nowhere/)
  })
})

describe('standard output', () => {
  const launcher = join(projectRoot, 'bin', 'shallot')

  test.skipIf(!existsSync('/dev/full'))('that takes nothing more is no success', async () => {
    await cli('init', '--role', 'middle', '--bootstrap', bootstrap, '--dir', 'relay')
    const { code, log } = await run('sh', ['-c', `sh ${launcher} backup - --dir relay > /dev/full`], { env, cwd: folder.path })
    expect(log).toContain('shallot: standard output cannot be written: ENOSPC')
    expect(code).toBe(1)
  })

  test('that nobody reads ends no node', async () => {
    await cli('init', '--bootstrap', `/ip4/127.0.0.1/tcp/9/p2p/${id}`, '--dir', 'unread')
    const quiet =
      '[ingress]\nsocks.listen = ["127.0.0.1:0"]\nhttp.listen = ["127.0.0.1:0"]\ndns.listen = []\n[dashboard]\nenabled = false\n'
    writeFileSync(join(folder.path, 'unread', 'shallot.toml'), quiet, { flag: 'a' })
    const node = Program.start('sh', ['-c', `(sh ${launcher} run --dir unread; echo "ended with $?" >&2) | true`], {
      env,
      cwd: folder.path,
    })
    try {
      const facts = await until('the node is there', 20_000, async () => {
        const { code, stdout } = await cli('status', '--dir', 'unread', '--json')
        return code === 0 ? (JSON.parse(stdout) as { pid: number }) : undefined
      })
      process.kill(facts.pid, 'SIGTERM')
      await until('it has ended in order', 20_000, () => node.log.includes('ended with 0'))
      expect(node.log).not.toContain('EPIPE')
    } finally {
      await node.stop()
    }
  })
})

describe('the launcher', () => {
  test('works through chains of symbolic links, from anywhere', async () => {
    mkdirSync(join(folder.path, 'a'))
    symlinkSync(join(projectRoot, 'bin/shallot'), join(folder.path, 'a/one'))
    symlinkSync('a/one', join(folder.path, 'two'))
    expect((await run(join(folder.path, 'two'), ['--version'], { cwd: '/' })).code).toBe(0)
  })

  test('never runs on an older Node', async () => {
    const old = join(folder.path, 'node')
    writeFileSync(old, '#!/bin/sh\n[ "$1" = -v ] && echo v20.20.2 && exit 0\necho "ran: $*"\n', { mode: 0o755 })
    const { code, stdout, log } = await shallot(['--version'], { env: { ...env, SHALLOT_NODE: old } })
    expect(code).toBe(1)
    expect(stdout).toBe('')
    expect(log).toContain('which is not a Node.js of version 24 or later')
  })

  test('runs on the Node it is told', async () => {
    const own = join(folder.path, 'node24')
    symlinkSync(process.execPath, own)
    expect((await shallot(['--version'], { env: { ...env, SHALLOT_NODE: own } })).code).toBe(0)
  })
})
