import { spawn } from 'node:child_process'
import { formatIp, type IpNetwork } from '../base/index.ts'
import { notPermitted, unavailable } from './system.ts'
import { tunLimits } from './tun-port.ts'

/** What a device is to be. */
export interface TunSetUp {
  readonly name: string
  readonly mtu: number
  readonly queuePackets: number
  readonly addresses: readonly IpNetwork[]
}

/** The lines for `ip -batch`: the address first, so that the device is never up without. */
export function setUpLines({ name, mtu, queuePackets, addresses }: TunSetUp): readonly string[] {
  return [
    // Without addresses of its own making the kernel asks for no routers over the device.
    `link set dev ${name} mtu ${mtu} txqueuelen ${queuePackets} addrgenmode none`,
    ...addresses.map(
      ({ address, bits }) => `address replace ${formatIp(address)}/${bits} dev ${name}${address.family === 6 ? ' nodad' : ''}`,
    ),
    `link set dev ${name} up`,
  ]
}

/**
 * Runs the system's `ip` program, which knows netlink and which operators know, in the network namespace of this process.
 * @throws ShallotError 'tun-not-permitted' | 'tun-unavailable' with what it said
 */
export function setUpDevice(setUp: TunSetUp, program = 'ip'): Promise<void> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` }
    const child = spawn(program, ['-batch', '-'], { stdio: ['pipe', 'ignore', 'pipe'], env, timeout: tunLimits.setUpMs })
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(0, 500)
    })
    child.on('error', (error) =>
      reject(
        unavailable(
          `the program ip, which sets the device up, can't be run (${(error as NodeJS.ErrnoException).code}): install iproute2`,
          'never',
          error,
        ),
      ),
    )
    child.on('close', (code) => {
      const why = said.split('\n')[0] ?? ''
      if (code === 0) resolve()
      else if (/Operation not permitted/.test(said)) reject(notPermitted(`${setUp.name} can't be set up (${why})`))
      else if (/Permission denied/.test(said) && setUp.addresses.some(({ address }) => address.family === 6))
        reject(
          unavailable(
            `${setUp.name} can't have an IPv6 address (${why}): IPv6 is switched off here (sysctl net.ipv6.conf.default.disable_ipv6=0)`,
          ),
        )
      else reject(unavailable(`${setUp.name} can't be set up: ${why || 'the program ip took too long'}`, 'later'))
    })
    child.stdin.on('error', () => {})
    child.stdin.end(`${setUpLines(setUp).join('\n')}\n`)
  })
}
