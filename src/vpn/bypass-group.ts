import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { endianness, tmpdir } from 'node:os'
import { join } from 'node:path'
import { getSystemErrorName } from 'node:util'
import { messageOf, type ShallotError } from '../base/index.ts'
import { vpnError } from './errors.ts'
import { BYPASS_MARK } from './limits.ts'

// Linux' numbers (uapi/linux/bpf.h; bpf(2) has no name in libc).
const BPF_PROG_LOAD = 5
const BPF_PROG_ATTACH = 8
const BPF_PROG_TYPE_CGROUP_SOCK = 9
const BPF_CGROUP_INET_SOCK_CREATE = 2
const BPF_F_ALLOW_MULTI = 2
const SYSTEM_CALL: Readonly<Record<string, number>> = { x64: 321, arm64: 280 }
/** `mark` in struct bpf_sock. */
const MARK_OFFSET = 16
const INSTRUCTION_BYTES = 8

/** r2 = mark; *(u32 *)(r1 + 16) = r2; r0 = 1; exit: whoever makes a socket may, and it has the mark before anything asks for a route. */
function markingProgram(mark: number): Uint8Array {
  const code: readonly (readonly [number, number, number, number, number])[] = [
    [0xb7, 2, 0, 0, mark],
    [0x63, 1, 2, MARK_OFFSET, 0],
    [0xb7, 0, 0, 0, 1],
    [0x95, 0, 0, 0, 0],
  ]
  const bytes = new Uint8Array(code.length * INSTRUCTION_BYTES)
  const view = new DataView(bytes.buffer)
  for (const [i, [operation, to, from, offset, value]] of code.entries()) {
    const at = i * INSTRUCTION_BYTES
    view.setUint8(at, operation)
    view.setUint8(at + 1, to | (from << 4))
    view.setInt16(at + 2, offset, true)
    view.setInt32(at + 4, value, true)
  }
  return bytes
}

/**
 * A control group whose programs go around the tunnel: all their sockets carry `BYPASS_MARK` from their making, so that routes, source addresses and
 * the kill switch take them for what they are. It goes with its last program.
 */
export class BypassGroup {
  readonly #path: string
  readonly #before: string

  readonly #mount: string | null

  private constructor(path: string, before: string, mount: string | null) {
    this.#path = path
    this.#before = before
    this.#mount = mount
  }

  /**
   * Makes the group and moves this process into it: what it starts from now on is in it too.
   * @throws ShallotError 'vpn-not-permitted', 'vpn-no-control-groups'
   */
  static async enter(mark = BYPASS_MARK): Promise<BypassGroup> {
    if (process.getuid?.() !== 0)
      throw vpnError(
        'vpn-not-permitted',
        'to run a program outside the VPN is for root: it shows who this machine is. Use sudo, and inside it `sudo -u NAME` to be yourself again',
      )
    if (endianness() !== 'LE') throw unavailable('not built for this byte order yet')
    const root = controlGroups()
    const own = /^0::(\/.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/'
    const path = join(root.path, `shallot-around-${process.pid}`)
    const group = new BypassGroup(path, join(root.path, own), root.isOurs ? root.path : null)
    try {
      mkdirSync(path)
      await attach(path, mark)
      writeFileSync(join(path, 'cgroup.procs'), `${process.pid}`)
      return group
    } catch (error) {
      group.leave()
      throw (error as ShallotError).code === 'vpn-no-control-groups' ? error : unavailable(messageOf(error), error)
    }
  }

  /** Moves this process back to where it was. The group is gone at once, or with the last program that is still in it when the system cleans up. */
  leave(): void {
    try {
      writeFileSync(join(this.#before, 'cgroup.procs'), `${process.pid}`)
      rmdirSync(this.#path)
    } catch {
      // Programs that went on in the background are still in it.
    }
    if (this.#mount !== null) unmount(this.#mount)
  }
}

/** Where the control groups are to be seen: where the system has them, or, where that place is hidden (in a container's /sys), in a place of our own. */
function controlGroups(): { readonly path: string; readonly isOurs: boolean } {
  for (const [, path] of readFileSync('/proc/self/mountinfo', 'utf8').matchAll(/ (\/\S+) [^-\n]*- cgroup2 /g)) {
    if (existsSync(join(path!, 'cgroup.procs'))) return { path: path!, isOurs: false }
  }
  const path = mkdtempSync(join(tmpdir(), 'shallot-groups-'))
  const { status, stderr, error } = spawnSync('mount', ['-t', 'cgroup2', 'none', path], { encoding: 'utf8' })
  if (status === 0) return { path, isOurs: true }
  rmdirSync(path)
  throw unavailable(`control groups of version 2 are not mounted, and can't be: ${error ? messageOf(error) : stderr.trim()}`)
}

function unmount(path: string): void {
  spawnSync('umount', ['-l', path])
  try {
    rmdirSync(path)
  } catch {
    // Still mounted: an empty folder in the temporary directory.
  }
}

async function attach(path: string, mark: number): Promise<void> {
  const number = SYSTEM_CALL[process.arch]
  if (number === undefined) throw unavailable(`not built for ${process.arch} yet`)
  const koffi = (await import('koffi')).default
  const libc = koffi.load(null)
  const load = koffi.struct({
    type: 'uint32_t',
    count: 'uint32_t',
    program: 'uint8_t *',
    license: 'const char *',
    logLevel: 'uint32_t',
    logBytes: 'uint32_t',
    log: 'uint8_t *',
    kernel: 'uint32_t',
    flags: 'uint32_t',
    name: koffi.array('uint8_t', 16),
    device: 'uint32_t',
    attachType: 'uint32_t',
  })
  const join = koffi.struct({ group: 'uint32_t', program: 'uint32_t', attachType: 'uint32_t', flags: 'uint32_t' })
  const call = (what: string, command: number, attributes: object, type: ReturnType<typeof koffi.struct>): number => {
    const bpf = libc.func('syscall', 'long', ['long', 'int', koffi.pointer(type), 'unsigned int'])
    const result = Number(bpf(number, command, attributes, koffi.sizeof(type)))
    if (result < 0) throw unavailable(`${what}: ${getSystemErrorName(-koffi.errno())}`)
    return result
  }
  const code = markingProgram(mark)
  const program = call(
    'the kernel does not take the program that marks sockets',
    BPF_PROG_LOAD,
    {
      type: BPF_PROG_TYPE_CGROUP_SOCK,
      count: code.length / INSTRUCTION_BYTES,
      program: code,
      license: 'MIT',
      logLevel: 0,
      logBytes: 0,
      log: null,
      kernel: 0,
      flags: 0,
      name: new Array(16).fill(0),
      device: 0,
      attachType: BPF_CGROUP_INET_SOCK_CREATE,
    },
    load,
  )
  const group = openSync(path, 'r')
  try {
    const wanted = { group, program, attachType: BPF_CGROUP_INET_SOCK_CREATE, flags: BPF_F_ALLOW_MULTI }
    call('the control group does not take it', BPF_PROG_ATTACH, wanted, join)
  } finally {
    closeSync(group)
    closeSync(program)
  }
}

function unavailable(why: string, cause?: unknown): ShallotError {
  return vpnError('vpn-no-control-groups', `a program can't be run outside the VPN here: ${why}`, { cause })
}
