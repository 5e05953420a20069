import { type ChildProcess, spawn } from 'node:child_process'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { messageOf, ShallotError } from '../../base/index.ts'
import type { ControlClient } from '../../control/index.ts'
import { COMMAND_STDERR, type InsideMessage, type InsideTask } from './messages.ts'

/** The device of a program that is run inside; the second address of the IPv4 network is the resolver that it is told. */
const INSIDE = {
  device: 'shallot0',
  mtu: 1420,
  addresses: ['10.213.7.1/30', 'fd5a:6c7e:31d4::1/126'],
  resolver: '10.213.7.2',
} as const
/** What is kept of what went wrong before the command ran. */
const MAX_SAID = 2000

/**
 * Runs a program in network, mount and (for an ordinary user) user namespaces of its own, whose only way out is a TUN device that the running node
 * reads. Whatever becomes of the node, nothing of the program goes another way.
 * @param pcap file that the node records the program's packets in
 * @returns the program's exit code; 128 and the signal's number when a signal ended it
 * @throws ShallotError 'namespaces-not-permitted', 'vpn-not-on-this-platform', and those of the node and of making the device
 */
export async function runInside(node: ControlClient, command: readonly string[], pcap: string | null = null): Promise<number> {
  if (process.platform !== 'linux')
    throw failure('vpn-not-on-this-platform', `network namespaces are Linux'; \`vpn exec\` is not built for ${process.platform} yet`)
  const dir = await mkdtemp(join(tmpdir(), 'shallot-exec-'))
  const over = new AbortController()
  let inside: Inside | null = null
  try {
    // The node may be another user's: it must reach the socket, whose name nobody can guess.
    await chmod(dir, 0o711)
    const uid = process.getuid!()
    const task: InsideTask = {
      ...INSIDE,
      command,
      socket: join(dir, crypto.randomUUID()),
      resolvConf: join(dir, 'resolv.conf'),
      asUser: uid === 0 ? null : { uid, gid: process.getgid!() },
    }
    inside = new Inside(task)
    await inside.offered
    const device = { descriptor: task.socket, mtu: INSIDE.mtu, addresses: INSIDE.addresses }
    const session = node.vpnSession(pcap === null ? device : { ...device, pcap }, over.signal)
    // The first thing that the node says is that it has the device. When it ends, the program has no network any more.
    await Promise.race([session.next(), inside.failed])
    inside.go()
    void ignore(session)
    return await inside.ended
  } finally {
    over.abort()
    inside?.kill()
    await rm(dir, { recursive: true, force: true })
  }
}

/** The process within the namespaces. */
class Inside {
  /** The device waits to be taken. */
  readonly offered: Promise<void>
  /** Never resolves; rejects when there will be no command, or it could not be run. */
  readonly failed: Promise<never>
  readonly ended: Promise<number>
  readonly #child: ChildProcess

  constructor(task: InsideTask) {
    const namespaces = task.asUser === null ? ['--net', '--mount'] : ['--user', '--map-root-user', '--net', '--mount']
    const stdio: ('inherit' | 'pipe' | 'ipc' | number)[] = ['inherit', 'inherit', 'pipe', 'ipc']
    stdio[COMMAND_STDERR] = 2
    const child = spawn('unshare', [...namespaces, '--', process.execPath, join(import.meta.dirname, 'inside.ts'), JSON.stringify(task)], {
      stdio,
      env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` },
    })
    this.#child = child
    let said = ''
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(0, MAX_SAID)
    })
    let isRunning = false
    const failed = Promise.withResolvers<never>()
    const offered = Promise.withResolvers<void>()
    const ended = Promise.withResolvers<number>()
    child.on('message', (message: InsideMessage) => {
      if (message.type === 'running') isRunning = true
      else if (message.type === 'offered') offered.resolve()
      else failed.reject(refused(message.code, message.message))
    })
    child.on('error', (error) =>
      failed.reject(failure('namespaces-not-permitted', `the program unshare can't be run: ${messageOf(error)}`)),
    )
    child.on('close', (code, signal) => {
      ended.resolve(code ?? 128 + constants.signals[signal!])
      failed.reject(isRunning ? refused('internal', said.trim() || 'it ended early') : notPermitted(said.trim()))
    })
    this.failed = failed.promise
    this.offered = Promise.race([offered.promise, failed.promise])
    this.ended = Promise.race([failed.promise, ended.promise])
    // Each is somebody's to wait for, or nobody's.
    for (const promise of [this.failed, this.offered, this.ended]) promise.catch(() => {})
    // A terminal sends these to every process of the group: the program decides what they mean.
    for (const name of ['SIGINT', 'SIGQUIT'] as const) process.on(name, () => {})
    for (const name of ['SIGTERM', 'SIGHUP'] as const) process.on(name, () => child.kill(name))
  }

  go(): void {
    this.#child.send('go')
  }

  kill(): void {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGKILL')
  }
}

async function ignore(session: AsyncIterable<unknown>): Promise<void> {
  try {
    for await (const _ of session);
  } catch {
    // The node has ended. The program finds out as it does when a cable is pulled.
  }
}

function refused(code: string, message: string): ShallotError {
  return code === 'tun-not-permitted' ? notPermitted(message) : failure(code, message)
}

function notPermitted(said: string): ShallotError {
  return failure(
    'namespaces-not-permitted',
    `this system does not let this user make network namespaces of its own with a TUN device${said === '' ? '' : ` (${said})`}: ` +
      'user namespaces must be allowed (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0) ' +
      'and /dev/net/tun must be writable for this user (mode 666); or run this as root',
  )
}

function failure(code: string, message: string): ShallotError {
  return new ShallotError(code, message, { kind: 'host', retry: 'never' })
}
