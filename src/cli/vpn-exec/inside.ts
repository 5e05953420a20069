import { spawn, spawnSync } from 'node:child_process'
import { closeSync, existsSync, realpathSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { messageOf, ShallotError } from '../../base/index.ts'
import { createTun, offerDescriptor, type TunDevice } from '../../tun/index.ts'
import { COMMAND_STDERR, type InsideMessage, type InsideTask } from './messages.ts'

/**
 * Runs within the new namespaces, started by `runInside`: makes the device, hands it to the node, and becomes the parent of the command.
 * The network namespace has nothing but this device, so that there is no other way out.
 */

/** Services of the machine outside that look names up for programs, over sockets in the file system: from inside they are not to be had. */
const NAME_SERVICES = ['/run/nscd', '/run/systemd/resolve', '/run/avahi-daemon', '/run/dbus']

const task = JSON.parse(process.argv[2]!) as InsideTask

main().catch((error: unknown) => {
  const known = error instanceof ShallotError
  say({ type: 'failed', code: known ? error.code : 'internal', message: messageOf(error) })
  process.exitCode = 1
  process.disconnect()
})

async function main(): Promise<void> {
  say({ type: 'running' })
  const device = await makeDevice()
  takeOverNames()
  const go = new Promise((resolve) => process.once('message', resolve))
  await offerDescriptor(task.socket, device.fd, { ready: () => say({ type: 'offered' }) })
  closeSync(device.fd)
  await go
  runCommand()
}

/** The device and the routes into it. Where this machine has no IPv6 there is none inside either. */
async function makeDevice(): Promise<TunDevice> {
  const hasIpv6 = existsSync('/proc/sys/net/ipv6/conf/all/disable_ipv6')
  const addresses = hasIpv6 ? task.addresses : task.addresses.filter((text) => !text.includes(':'))
  const device = await createTun({ name: task.device, mtu: task.mtu, addresses })
  try {
    ip('link', 'set', 'dev', 'lo', 'up')
    ip('-4', 'route', 'add', 'default', 'dev', device.name)
    if (hasIpv6) ip('-6', 'route', 'add', 'default', 'dev', device.name)
    // So that ping needs no privileges: every group of this namespace.
    allowPing()
    return device
  } catch (error) {
    closeSync(device.fd)
    throw error
  }
}

function ip(...args: string[]): void {
  run('ip', args)
}

function allowPing(): void {
  try {
    writeFileSync('/proc/sys/net/ipv4/ping_group_range', '0 0')
  } catch {
    // An older kernel, or a read-only /proc: ping asks for its own rights then.
  }
}

/** Names are asked for at the resolver behind the device, whatever the machine outside does. */
function takeOverNames(): void {
  const file = existsSync('/etc/resolv.conf') ? realpathSync('/etc/resolv.conf') : null
  for (const service of NAME_SERVICES) {
    if (existsSync(service)) run('mount', ['-t', 'tmpfs', '-o', 'size=64k,mode=755', 'tmpfs', service])
  }
  if (file === null)
    throw new ShallotError('no-resolv-conf', 'there is no /etc/resolv.conf to put another in the place of: make an empty one', {
      kind: 'host',
      retry: 'never',
    })
  writeFileSync(task.resolvConf, `nameserver ${task.resolver}\noptions edns0\n`)
  // systemd-resolved's file was in one of the folders that are hidden now.
  if (!existsSync(file)) writeFileSync(file, '')
  run('mount', ['--bind', task.resolvConf, file])
}

function run(program: string, args: readonly string[]): void {
  const { status, error, stderr } = spawnSync(program, args, { encoding: 'utf8' })
  if (status === 0) return
  const why = error ? messageOf(error) : stderr.trim().split('\n')[0]
  throw new ShallotError('namespace-not-set-up', `${program} ${args.join(' ')}: ${why}`, { kind: 'host', retry: 'never' })
}

function runCommand(): void {
  const [program, ...args] = task.command
  const user = task.asUser
  // In a user namespace of its own the command is who its user is, and no root of anything.
  const [file, given] =
    user === null ? [program!, args] : ['unshare', ['--user', `--map-user=${user.uid}`, `--map-group=${user.gid}`, '--', program!, ...args]]
  const command = spawn(file, given, { stdio: ['inherit', 'inherit', COMMAND_STDERR] })
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) process.on(signal, () => {})
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => command.kill(signal))
  // Who started this is gone, and the node's end of the device with it.
  process.on('disconnect', () => command.kill('SIGHUP'))
  command.on('error', (error: NodeJS.ErrnoException) => {
    const missing = error.code === 'ENOENT'
    const code = missing ? 'command-not-found' : 'command-not-run'
    say({ type: 'failed', code, message: `${program}: ${missing ? 'there is no such program' : messageOf(error)}` })
    process.exit(missing ? 127 : 126)
  })
  command.on('close', (code, signal) => process.exit(code ?? 128 + constants.signals[signal!]))
}

function say(message: InsideMessage): void {
  process.send?.(message)
}
