import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { NodeStatus } from '../../src/node/index.ts'
import { Control } from '../support/control.ts'
import { type ExtraNode, projectRoot, runOk, startNode, temporaryFolder, until } from '../support/processes.ts'
import { sha256OfBytes } from '../support/web-server.ts'
import {
  asVersion,
  commandsInHead,
  commandsOf,
  DebianMachine,
  installed,
  type Kit,
  KitMachine,
  Layer,
  makePackage,
  operatorsHome,
  type Package,
  reasonAgainstDebian,
  withValues,
} from './debian/index.ts'
import { Lab, reasonAgainstLab } from './lab/index.ts'

// The deploy kits as an operator meets them: fresh Debians with an old Node, made by debootstrap and booted with their own systemd, on which the guides'
// commands are typed word for word. The tarball is the real one; the units are started by a real service manager.

const reason = (await reasonAgainstLab()) ?? (await reasonAgainstDebian())
const webProgram = fileURLToPath(new URL('support/web.ts', import.meta.url))
const bytes = 3_000_000
const newer = '0.2.0'

describe.skipIf(reason !== null)(`the deploy kits on fresh machines${reason === null ? '' : ` (${reason})`}`, () => {
  const folder = temporaryFolder('kits')
  const clients: ExtraNode[] = []
  const kits = {} as Record<'bootstrap' | 'guard' | 'middle' | 'relay' | 'exit' | 'atHome', KitMachine>
  let fresh: Layer
  let made: Package
  let system: Layer
  let lab: Lab

  beforeAll(async () => {
    ;[fresh, made] = await Promise.all([Layer.fresh(), makePackage()])
    system = await installed(fresh, made)
    lab = await Lab.build({
      hosts: Object.fromEntries(['bootstrap', 'guard', 'middle', 'relay', 'exit', 'web', 'client', 'spare'].map((name) => [name, {}])),
      homes: { home: { nat: 'symmetric' } },
    })
    const { address, ipv6 } = lab.host('web')
    await Promise.all(
      [address, ipv6!].map((host) =>
        lab
          .host('web')
          .startNode(webProgram, [host, '80'])
          .waitFor(/^ready/m, 10_000),
      ),
    )
    // Between these two only the relay's way is open.
    const apart = lab.home('home').publicAddress
    await lab.host('guard').shell(`nft add table ip apart
nft add chain ip apart out '{ type filter hook output priority 0 ; }'
nft add chain ip apart in '{ type filter hook input priority 0 ; }'
nft add rule ip apart out ip daddr ${apart} drop
nft add rule ip apart in ip saddr ${apart} drop`)
    kits.bootstrap = await KitMachine.start(system, lab.host('bootstrap'), 'bootstrap', { network: null })
    const network = kits.bootstrap.debian.read('/var/lib/shallot/network.toml')
    writeFileSync(join(folder.path, 'network.toml'), network)
    const start = async (name: keyof typeof kits, kit: Kit, place: string, roles?: string): Promise<void> => {
      kits[name] = await KitMachine.start(system, lab.host(place), kit, { network, ...(roles === undefined ? {} : { roles }) })
    }
    await Promise.all([
      start('guard', 'relay', 'guard', '--role guard'),
      start('middle', 'relay', 'middle', '--role middle'),
      start('relay', 'relay', 'relay', '--role relay'),
      start('exit', 'exit', 'exit'),
    ])
    kits.atHome = await KitMachine.start(system, lab.home('home').machine(), 'relay', {
      network,
      roles: '--role middle',
      listen: '/ip4/0.0.0.0/tcp/4460',
    })
  }, 600_000)

  afterAll(async () => {
    await Promise.all(Object.values(kits).map((kit) => kit.debian.stop()))
    await lab?.remove()
    made?.remove()
    fresh?.remove()
    folder.remove()
  }, 60_000)

  // Without circuits a drain is soon over.
  afterEach(async () => {
    for (const client of clients.splice(0)) await client.stop()
  })

  const web = (): string => `http://${lab.host('web').address}`

  /** A client of this clone, on the lab's machine for clients. */
  async function client(name: string, more: readonly string[]): Promise<{ control: Control; fetched(): Promise<string>; node: ExtraNode }> {
    const dir = join(folder.path, name)
    mkdirSync(dir)
    const config = join(dir, 'shallot.toml')
    const ports = ['socks', 'http', 'dns'].flatMap((ingress) => [`[ingress.${ingress}]`, 'listen = ["127.0.0.1:0"]'])
    writeFileSync(config, ['[node]', `network = "${join(folder.path, 'network.toml')}"`, ...ports, ...more, ''].join('\n'))
    const node = await startNode(config, { wrapper: lab.host('client').wrapper })
    clients.push(node)
    const proxied = ['-q', '-sSf', '-m', '60', '--socks5-hostname', node.ready.socks!]
    return {
      node,
      control: new Control(join(dir, 'control.sock'), dir),
      fetched: async () => {
        const file = join(dir, 'fetched')
        await lab.host('client').runOk('curl', [...proxied, `${web()}/bytes/${bytes}`, '-o', file], { timeoutMs: 70_000 })
        expect((await runOk('sha256sum', [file])).split(' ')[0]).toBe(sha256OfBytes(bytes))
        return lab.host('client').runOk('curl', [...proxied, `${web()}/seen`])
      },
    }
  }

  test('each unit runs under the manager, as its user, within its restrictions', async () => {
    for (const [name, kit] of Object.entries(kits)) {
      expect(await kit.debian.property('shallot', 'ActiveState'), name).toBe('active')
      expect(await kit.debian.property('shallot', 'StatusText'), name).not.toBe('')
      const user = (await kit.debian.runOk('id -u shallot')).trim()
      const { pid, status } = await kit.process()
      expect(status).toMatch(new RegExp(`^Uid:\t${user}\t${user}`, 'm'))
      for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) expect(status).toMatch(new RegExp(`^${set}:\t0+$`, 'm'))
      expect(status).toMatch(/^NoNewPrivs:\t1$/m)
      expect(status).toMatch(/^Seccomp:\t2$/m)
      const mounts = await kit.debian.runOk(`cat /proc/${pid}/mounts`)
      expect(mounts).toMatch(/^\S+ \/ \S+ ro[, ]/m)
      expect(mounts).toMatch(/^\S+ \/var\/lib\/shallot \S+ rw[, ]/m)
    }
  })

  test('guard, middle and exit kits carry a transfer, which the server sees come from the exit', async () => {
    const inside = await client('plain', ['[path]', `exclude_nodes = ["${kits.atHome.id}"]`])
    await known(inside.control, ['guard', 'middle', 'exit'])
    expect(await inside.fetched()).toBe(lab.host('exit').address)
    expect(await pathOf(inside.control)).toEqual([kits.guard.id, kits.middle.id, kits.exit.id])
  })

  test('the kit of a NAT relay lets a middle at home be reached, and a transfer goes through both', async () => {
    const inside = await client('to-home', ['[path]', `exclude_nodes = ["${kits.middle.id}"]`])
    await known(inside.control, ['guard', 'atHome', 'exit'])
    expect(await inside.fetched()).toBe(lab.host('exit').address)
    expect(await pathOf(inside.control)).toEqual([kits.guard.id, kits.atHome.id, kits.exit.id])
    const { natRelay } = await statusOf(kits.relay)
    expect(natRelay!.reservations.open).toBeGreaterThan(0)
    expect(natRelay!.bytes.fromReserved).toBeGreaterThan(bytes)
  })

  test("pings leave by the netstack of an exit's kit", async () => {
    await kits.exit.debian.runOk('sysctl -qw net.ipv4.ping_group_range="0 2147483647"')
    expect((await kits.exit.process()).status).toMatch(/^CapEff:\t0+$/m)
    await pings('by-netstack')
  })

  test("pings and a transfer leave by the kernel of an exit's kit with its drop-in, behind the kit's firewall", async () => {
    const { debian } = kits.exit
    const [toml] = /(?<=For `"tun"`[^`]*`[^`]*`\n\n```toml\n)[\s\S]*?(?=^```)/m.exec(
      readFileSync(join(projectRoot, 'exit/README.md'), 'utf8'),
    )!
    await debian.runOk(`cat >>/var/lib/shallot/shallot.toml <<'END'\n${withValues(toml, { '"eth0"': '"wan"' })}END`)
    await debian.runOk(commandsInHead('exit/shallot-exit-tun.conf'))
    await debian.runOk(`sed 's/"eth0"/"wan"/' /opt/shallot/exit/nftables.conf >/etc/nftables.conf; systemctl restart nftables`)
    const { status } = await kits.exit.process()
    expect(status).toMatch(/^CapEff:\t0000000000001000$/m)
    expect(status).toMatch(/^CapBnd:\t0000000000001000$/m)
    expect((await debian.runOk('nft list tables')).trim().split('\n').sort()).toEqual(['table inet host', 'table inet shallot_exit'])
    await pings('by-kernel')
    const packets = await debian.runOk('cat /sys/class/net/shallot-exit/statistics/tx_packets')
    expect(Number(packets)).toBeGreaterThan(0)
    const inside = await client('behind-firewall', [])
    await known(inside.control, ['guard', 'exit'])
    expect(await inside.fetched()).toBe(lab.host('exit').address)
  })

  test('what the tarball brings is there: the command, its manual page, completions, countries, the pages of the dashboard', async () => {
    const { debian } = kits.middle
    expect(await debian.runOk('shallot version')).toContain('Node.js   v24.')
    expect(await debian.runOk('node --version')).toMatch(/^v18\./)
    expect(await debian.runOk('cat /usr/local/share/man/man1/shallot.1')).toContain('.TH SHALLOT 1')
    await debian.runOk('bash -n /etc/bash_completion.d/shallot')
    await debian.runOk('test ! -e /opt/shallot/node_modules/vitest; test ! -e /opt/shallot/test')
    const relays = await controlOf(kits.middle).relays()
    expect(relays.length).toBeGreaterThan(3)
    expect(relays.every((relay) => 'country' in relay)).toBe(true)
    // The page is for a client unless told so; it counts from the next start.
    await controlOf(kits.middle).ask('PATCH', '/v1/settings', { set: { 'dashboard.enabled': true } })
    await debian.runOk('systemctl restart shallot')
    const link = (await debian.runOk('shallot ui --print --dir /var/lib/shallot')).trim().split('\n').at(-1)!
    const page = await debian.runOk(`curl -sSf '${link.split('#')[0]}'`)
    const script = /src="([^"]+\.js)"/.exec(page)![1]!
    expect(await debian.runOk(`curl -sSf '${new URL(script, link).href}' | wc -c`)).not.toBe('0\n')
    const doctor = await debian.run('shallot doctor --dir /var/lib/shallot')
    expect([0, 1], doctor.log).toContain(doctor.code)
  })

  test('a setting that is changed while the unit runs is written to the file, and a reload takes one that was written there', async () => {
    const control = controlOf(kits.middle)
    const before = await kits.middle.debian.property('shallot', 'MainPID')
    const changed = await control.ask<{ applied: string[] }>('PATCH', '/v1/settings', { set: { 'log.level': 'debug' } })
    expect(changed.applied).toEqual(['log.level'])
    const toml = kits.middle.debian.read('/var/lib/shallot/shallot.toml')
    expect(toml).toMatch(/^level = "debug"$/m)
    kits.middle.debian.write('/var/lib/shallot/shallot.toml', toml.replace('level = "debug"', 'level = "info"'))
    await kits.middle.debian.runOk('systemctl reload shallot')
    await until('the file is in force', 10_000, async () => /log\.level/.test(await journal(kits.middle)))
    expect(await kits.middle.debian.property('shallot', 'MainPID')).toBe(before)
  })

  test('a second node stands beside the first, in a unit of its own', async () => {
    const { debian, id } = kits.middle
    const [commands] = commandsOf('docs/operating.md', 'Several nodes on one machine')
    await debian.runOk(withValues(commands!, { '198.51.100.7': lab.host('middle').address }))
    const other = JSON.parse(await debian.runOk('shallot status --json --dir /var/lib/shallot-2')) as NodeStatus
    expect(other.ready).toBe(true)
    expect(other.id).not.toBe(id)
    await debian.runOk('systemctl disable --now shallot-2')
  })

  test('a node that is killed is started again by the manager, and is who it was', async () => {
    const { debian, id } = kits.middle
    await debian.runOk('kill -9 $(systemctl show --value --property MainPID shallot)')
    await until(
      'it runs again',
      60_000,
      async () => (await debian.property('shallot', 'NRestarts')) === '1' && (await debian.property('shallot', 'ActiveState')) === 'active',
    )
    expect((await statusOf(kits.middle)).id).toBe(id)
  })

  test('an upgrade keeps who the node is, and so does the way back', async () => {
    const { debian, id } = kits.middle
    const later = await asVersion(made, newer)
    for (const file of [later.file, `${later.file}.sha256`]) cpSync(join(later.folder, file), debian.path(`${operatorsHome}/${file}`))
    later.remove()
    const [forward, back] = commandsOf('docs/operating.md', 'Upgrade')
    await debian.runOk(withValues(forward!, { '0.2.0': newer }))
    expect(await debian.runOk('shallot version')).toMatch(new RegExp(`^shallot +${newer}$`, 'm'))
    expect([(await statusOf(kits.middle)).id, (await statusOf(kits.middle)).version]).toEqual([id, newer])
    await debian.runOk(back!)
    expect([(await statusOf(kits.middle)).id, (await statusOf(kits.middle)).version]).toEqual([id, made.version])
  })

  test('a stop drains, and a backup makes the relay again on another machine', async () => {
    const { debian, id } = kits.guard
    const [backup, restore] = commandsOf('docs/operating.md', 'Keys and backups')
    // What encrypts asks a person at a terminal.
    await debian.runOk(withValues(backup!, { '| age -p >': '>' }))
    const kept = debian.read(`${operatorsHome}/relay.backup.age`)
    await debian.runOk('systemctl stop shallot')
    expect(await journal(kits.guard)).toContain('leaving:')
    expect(await debian.property('shallot', 'Result')).toBe('success')
    await debian.stop()
    const next = await DebianMachine.boot(system.child(), lab.host('guard'))
    kits.guard = Object.assign(Object.create(KitMachine.prototype), { debian: next, kit: 'relay', id }) as KitMachine
    next.write(`${operatorsHome}/relay.backup.age`, kept)
    await next.runOk(withValues(restore!, { 'age -d relay.backup.age': 'cat relay.backup.age' }))
    expect((await statusOf(kits.guard)).id).toBe(id)
    const inside = await client('after', [])
    await known(inside.control, ['guard', 'exit'])
    expect(await inside.fetched()).toBe(lab.host('exit').address)
  })

  const controlOf = (kit: KitMachine): Control =>
    new Control(kit.debian.path('/var/lib/shallot/control.sock'), kit.debian.path('/var/lib/shallot'))
  const statusOf = (kit: KitMachine): Promise<NodeStatus> => controlOf(kit).status()
  const journal = (kit: KitMachine): Promise<string> => kit.debian.runOk('journalctl --no-pager --unit shallot')

  async function known(control: Control, names: readonly (keyof typeof kits)[]): Promise<void> {
    await until(`${names.join(', ')} can be used`, 60_000, async () => {
      const usable = new Set((await control.relays()).flatMap((relay) => (relay.eligible ? [relay.id as string] : [])))
      return names.every((name) => usable.has(kits[name].id))
    })
  }

  /** The path of the circuit that carried most. */
  async function pathOf(control: Control): Promise<readonly string[]> {
    const circuits = await control.circuits()
    const [most] = [...circuits].sort((a, b) => b.bytesReceived - a.bytesReceived)
    return most!.path.map((hop) => hop.id)
  }

  async function pings(name: string): Promise<void> {
    const inside = await client(name, [])
    await known(inside.control, ['guard', 'exit'])
    const args = [
      join(projectRoot, 'bin/shallot'),
      'vpn',
      'exec',
      '--dir',
      join(folder.path, name),
      '--',
      'ping',
      '-c',
      '3',
      '-W',
      '20',
      lab.host('web').address,
    ]
    await until('a ping comes back', 60_000, async () => {
      const { stdout, log } = await lab.host('client').run('sh', args, { timeoutMs: 90_000 })
      if (!/[123] received/.test(stdout)) throw new Error(log)
      return true
    })
  }
})
