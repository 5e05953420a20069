import { describe, expect, test } from 'vitest'
import { ShallotError } from '../../../src/base/index.ts'
import { type ConfigError, loadConfig, parseConfig } from '../../../src/node/index.ts'

const id = '12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw'
const goodNetwork = `bootstrap = ["/ip4/198.51.100.1/tcp/4460/p2p/${id}"]`

function parse(text: string, network = goodNetwork) {
  return parseConfig(text, '/srv/node/shallot.toml', async (file) => {
    expect(file).toBe('/srv/node/network.toml')
    return network
  })
}

async function problems(text: string, network?: string): Promise<string[]> {
  const error = await parse(text, network).then(
    () => null,
    (thrown: ConfigError) => thrown,
  )
  return error === null ? [] : error.message.split('\n')
}

describe('a configuration', () => {
  test('that is empty is a client with everything at its default', async () => {
    const config = await parse('')
    expect(config.node.roles).toEqual(['client'])
    expect(config.dir).toBe('/srv/node')
    expect(config.link.listen).toEqual([])
    expect(config.network.bootstrap).toHaveLength(1)
    expect(Object.isFrozen(config.network.admission)).toBe(true)
  })

  test('may combine roles freely', async () => {
    const roles = ['client', 'guard', 'middle', 'exit', 'relay', 'bootstrap']
    const config = await parse(
      `[node]\nroles = ${JSON.stringify(roles)}\ndata_dir = "/var/x"\n[link]\nlisten = ["/ip4/127.3.0.1/tcp/4460", "/ip6/2001:db8::1/tcp/4460"]`,
    )
    expect(config.node.roles).toEqual(roles)
    expect(config.dir).toBe('/var/x')
  })

  const serving = (more: string): string => `[node]\nroles = ["exit"]\n${more}`
  const listen = '[link]\nlisten = ["/ip4/198.51.100.7/tcp/4460"]\n'
  test.each([
    ['no role', '[node]\nroles = []', /:2: node\.roles needs at least 1 entry/],
    ['a role twice', '[node]\nroles = ["exit", "exit"]', /:2: node\.roles is \["exit","exit"\]: a role is named twice/],
    ['an unknown role', '[node]\nroles = ["entry"]', /:2: node\.roles\[0\] is "entry"; it must be one of "client"/],
    ['an exit that listens nowhere', serving(''), /:2: node\.roles holds "exit".*link\.listen is empty; add an address such as/],
    ['a client that listens', listen, /:2: link\.listen is set, but node\.roles is only \["client"\]/],
    ['a client that advertises', '[node]\nadvertise = ["/ip4/198.51.100.7/tcp/1"]', /:2: node\.advertise is set, but/],
    [
      'a wildcard that says nothing to others',
      serving('[link]\nlisten = ["/ip4/0.0.0.0/tcp/4460"]\n[nat]\nenabled = false'),
      /:4: link\.listen holds "\/ip4\/0\.0\.0\.0\/tcp\/4460", which others cannot connect to/,
    ],
    ['a wildcard told to others', serving(`advertise = ["/ip6/::/tcp/4"]\n${listen}`), /:3: node\.advertise holds "\/ip6\/::\/tcp\/4"/],
    [
      'no port told to others',
      serving(`advertise = ["/ip4/198.51.100.7/tcp/0"]\n${listen}`),
      /:3: node\.advertise\[0\] is .*not an address others can connect to/,
    ],
    ['a name to listen on', serving('[link]\nlisten = ["/dns4/example.com/tcp/1"]'), /:4: link\.listen\[0\] is "\/dns4/],
    ['a port that is none', serving('[link]\nlisten = ["/ip4/198.51.100.7/tcp/70000"]'), /:4: link\.listen\[0\]/],
    ['a family member that is no id', serving(`family = ["bob"]\n${listen}`), /:3: node\.family\[0\] is "bob": not a node id/],
    [
      'proxies without a client',
      serving(`${listen}[ingress.socks]\nlisten = ["127.0.0.1:1"]`),
      /:5: \[ingress\] is set, but it only matters to the role "client"/,
    ],
    ['an exit policy without an exit', '[exit]\nmax_streams = 5', /:1: \[exit\] is set, but it only matters to the role "exit"/],
    [
      'relay limits without a relay',
      '[relaying]\nmax_circuits = 5',
      /:1: \[relaying\] is set, but it only matters to the roles "guard", "middle", "exit"/,
    ],
    [
      'proxies open to the world without credentials',
      '[ingress.socks]\nlisten = ["0.0.0.0:9250"]',
      /:2: ingress\.socks\.listen\[0\] .*credentials/,
    ],
    ['control open to the world', '[control]\nlisten = "0.0.0.0:1"', /:2: control\.listen is "0\.0\.0\.0:1"; only this machine/],
    ['control nowhere', '[control]\nlisten = "here"', /:2: control\.listen is "here": neither unix:PATH nor ADDRESS:PORT/],
    ...['keys/identity', 'keys/x.sock', 'shallot.toml', '../node/shallot.toml', '/srv/node/lock', 'control-token', 'anything', '.'].map(
      (path): [string, string, RegExp] => [
        `control on ${path}`,
        `[control]\nlisten = "unix:${path}"`,
        /:2: control\.listen is "unix:.*", which is a place for the node's own files; name a socket such as unix:control\.sock/,
      ],
    ),
    [
      'two listeners in one place',
      '[ingress.socks]\nlisten = ["127.0.0.1:7"]\n[ingress.http]\nlisten = ["127.0.0.1:7"]',
      /:4: ingress\.http\.listen and ingress\.socks\.listen are both "127\.0\.0\.1:7"/,
    ],
    [
      'an exit wanted and excluded',
      `[path]\nexit_nodes = ["${id}"]\nexclude_nodes = ["${id}"]`,
      /:2: path\.exit_nodes and path\.exclude_nodes both hold/,
    ],
    [
      'more guards in use than primary',
      '[path]\nguards_in_use = 3\nguards_primary = 2',
      /:2: path\.guards_in_use is 3, more than path\.guards_primary \(2\)/,
    ],
    [
      'a longer time under pressure',
      serving(`${listen}[relaying]\nstall_timeout_ms = 1000`),
      /relaying\.pressed_stall_timeout_ms is 10000, more than relaying\.stall_timeout_ms \(1000\)/,
    ],
    ['a log level that is none', '[log]\nlevel = "loud"', /:2: log\.level is "loud"; it must be one of "error"/],
  ])('is refused with %s', async (_, text, message) => {
    const found = await problems(text)
    expect(found.join('\n')).toMatch(message)
    for (const line of found) expect(line).toMatch(/^\/srv\/node\/shallot\.toml(:\d+)?: \S/)
  })
})

test('control may be a socket in the directory, in a folder of it, and anywhere else', async () => {
  for (const path of ['control.sock', 'run/a.socket', '/run/shallot/control', '../control'])
    expect(await problems(`[control]\nlisten = "unix:${path}"`)).toEqual([])
})

describe('a file of bootstrap nodes that is not there', () => {
  const text = '[node]\nbootstrap_files = ["more.txt"]'
  const read = (network: string) => async (file: string, what?: string) => {
    if (file === '/srv/node/network.toml') return network
    throw new ShallotError('config-unreadable', `${what}, ${file}, cannot be read`, { kind: 'config', retry: 'never' })
  }

  test('is a caution where there is another way in', async () => {
    const config = await parseConfig(text, '/srv/node/shallot.toml', read(goodNetwork))
    expect(config.cautions).toEqual(['the file of bootstrap nodes, /srv/node/more.txt, cannot be read'])
    expect(config.bootstrap).toHaveLength(1)
  })

  test('ends the start where there is none', async () => {
    await expect(parseConfig(text, '/srv/node/shallot.toml', read(''))).rejects.toMatchObject({
      code: 'config-unreadable',
      message: 'the file of bootstrap nodes, /srv/node/more.txt, cannot be read',
    })
  })
})

describe('a network file', () => {
  test.each([
    ['an unknown rule', `${goodNetwork}\n[work]\nbit = 3`, /network\.toml:3: unknown key work\.bit; did you mean work\.bits\?/],
    ['a wrong rule', `${goodNetwork}\n[work]\nbits = 99`, /network\.toml:3: work\.bits is 99; it must be a whole number from 0 to 40/],
    ['a bootstrap address without an id', 'bootstrap = ["/ip4/198.51.100.1/tcp/4460"]', /network\.toml:1: bootstrap\[0\] is .*\/p2p\//],
    ['a bootstrap name', `bootstrap = ["/dns4/example.com/tcp/4460/p2p/${id}"]`, /network\.toml:1: bootstrap\[0\]/],
    ['nobody to find', 'name = "lonely"', /shallot\.toml(:\d+)?: .*network\.toml names no bootstrap address/],
  ])('is refused with %s', async (_, network, message) => {
    expect((await problems('', network)).join('\n')).toMatch(message)
  })

  test('may name nobody for a bootstrap node', async () => {
    expect(await problems('[node]\nroles = ["bootstrap"]\n[link]\nlisten = ["/ip4/198.51.100.7/tcp/4460"]', '')).toEqual([])
  })
})

test('a file that is not there is named', async () => {
  await expect(loadConfig('/nowhere/shallot.toml')).rejects.toMatchObject({
    code: 'config-unreadable',
    message: expect.stringContaining('/nowhere/shallot.toml, cannot be read: there is no such file'),
  })
})
