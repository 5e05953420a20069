import { spawn } from 'node:child_process'
import { vpnError } from './errors.ts'
import { vpnLimits } from './limits.ts'

/** How a program ended. */
export interface ProgramResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program of the system to its end. @throws ShallotError 'vpn-program-missing' | 'vpn-system-refused' when it can't be run or takes too long */
export type RunProgram = (program: string, args: readonly string[], input?: string) => Promise<ProgramResult>

const packages: Readonly<Record<string, string>> = { ip: 'iproute2', nft: 'nftables', resolvectl: 'systemd-resolved' }

/** In the network namespace of this process, in the C locale, with the folders of system programs in the path. */
export const runProgram: RunProgram = (program, args, input = '') =>
  new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin` }
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env, timeout: vpnLimits.programMs, killSignal: 'SIGKILL' })
    const said = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const)
      child[name].setEncoding('utf8').on('data', (text: string) => {
        if (said[name].length < vpnLimits.programOutputBytes) said[name] += text
      })
    child.on('error', (error) => {
      const { code } = error as NodeJS.ErrnoException
      const wanted = code === 'ENOENT' ? `: install ${packages[program] ?? program}` : ''
      reject(vpnError('vpn-program-missing', `the program ${program} can't be run (${code})${wanted}`, { cause: error }))
    })
    child.on('close', (code) => {
      if (code === null)
        reject(
          vpnError('vpn-system-refused', `the program ${program} did not end within ${vpnLimits.programMs / 1000} s`, { retry: 'later' }),
        )
      else resolve({ code, ...said })
    })
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })

/** Runs it and wants success. @param what for people: "the kill switch can't be set". @throws ShallotError as `RunProgram`, 'vpn-not-permitted' too */
export async function mustRun(run: RunProgram, what: string, program: string, args: readonly string[], input?: string): Promise<string> {
  const { code, stdout, stderr } = await run(program, args, input)
  if (code === 0) return stdout
  throw refusal(what, program, code, stderr)
}

/** The typed form of a program's complaint. */
export function refusal(what: string, program: string, code: number, stderr: string): Error {
  const why = stderr.trim().split('\n')[0] ?? ''
  if (/Operation not permitted|you must be root/i.test(stderr)) return notPermitted(`${what} (${why})`)
  return vpnError('vpn-system-refused', `${what}: ${program} says: ${why || `exit code ${code}`}`, { retry: 'later' })
}

/** What capability is missing, and how to get it. */
export function notPermitted(what: string): Error {
  return vpnError(
    'vpn-not-permitted',
    `${what}: the VPN needs CAP_NET_ADMIN, in the node and in the programs ip and nft that it runs. Run the node as root, or by systemd as its own user with AmbientCapabilities=CAP_NET_ADMIN`,
  )
}
