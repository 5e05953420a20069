import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { resolve } from 'node:path'
import { messageOf, ShallotError } from '../../base/index.ts'
import { BypassGroup } from '../../vpn/index.ts'
import { complain } from '../output.ts'
import { findNode, type NodeChoice } from '../places.ts'
import { runInside } from '../vpn-exec/outside.ts'

export interface VpnExecOptions extends NodeChoice {
  readonly bypass?: boolean
  readonly pcap?: string
}

/** Exit codes for a command that never ran, as the shell has them (POSIX.1-2017, shell command language 2.8.2). */
const NOT_RUN_CODES: Readonly<Record<string, number>> = { 'command-not-found': 127, 'command-not-run': 126 }

/** `shallot vpn exec [--bypass] -- COMMAND…`: the command's own exit code. */
export async function vpnExec(command: readonly string[], options: VpnExecOptions): Promise<number> {
  try {
    return await execute(command, options)
  } catch (error) {
    const code = error instanceof ShallotError ? NOT_RUN_CODES[error.code] : undefined
    if (code === undefined) throw error
    complain(`shallot: ${messageOf(error)}`)
    return code
  }
}

async function execute(command: readonly string[], options: VpnExecOptions): Promise<number> {
  if (options.bypass) {
    if (options.pcap !== undefined)
      throw new ShallotError('usage', '--pcap records what goes through the mesh; with --bypass nothing does', {
        kind: 'usage',
        retry: 'never',
      })
    return runAround(command)
  }
  const node = await findNode(options)
  return runInside(node, command, options.pcap === undefined ? null : resolve(options.pcap))
}

/** No node is asked: the kernel knows the mark while a VPN is up, and nobody minds it while none is. */
async function runAround([program, ...args]: readonly string[]): Promise<number> {
  const group = await BypassGroup.enter()
  try {
    return await new Promise((resolve, reject) => {
      const child = spawn(program!, args, { stdio: 'inherit' })
      for (const signal of ['SIGINT', 'SIGQUIT'] as const) process.on(signal, () => {})
      for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal))
      child.on('error', (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT')
          reject(new ShallotError('command-not-found', `${program}: there is no such program`, { kind: 'usage', retry: 'never' }))
        else reject(new ShallotError('command-not-run', `${program}: ${messageOf(error)}`, { kind: 'host', retry: 'never', cause: error }))
      })
      child.on('close', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]))
    })
  } finally {
    group.leave()
  }
}
