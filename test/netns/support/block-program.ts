import { randomBytes } from 'node:crypto'
import { messageOf, ShallotError, silentLogger } from '../../../src/base/index.ts'
import type { PacketBatch, PacketPort } from '../../../src/packet/index.ts'
import {
  type AllowedPeer,
  defaultVpnConfig,
  ResolvConf,
  type RunProgram,
  runProgram,
  Vpn,
  type VpnConfig,
  type VpnModules,
} from '../../../src/vpn/index.ts'
import { places } from './block-network.ts'

/** The guards of the test's network. */
export const guards: readonly AllowedPeer[] = [
  { ip: places.guard4, protocol: 'tcp', port: places.guardPort, why: 'guard' },
  { ip: places.guard6, protocol: 'tcp', port: places.guardPort, why: 'guard' },
]

/** A data path that takes whatever comes and carries nothing. */
export function sink(
  port: PacketPort,
  seen: (batch: PacketBatch) => void = () => {},
): { counts(): { tcpFlows: number; udpFlows: number }; stop(): void } {
  port.attach({ packets: seen, drained: () => {}, ended: () => {} })
  return { counts: () => ({ tcpFlows: 0, udpFlows: 0 }), stop: () => {} }
}

/** A VPN as a node would make it. */
export function makeVpn(dir: string, resolvConf: string, config: Partial<VpnConfig> = {}, more: Partial<VpnModules> = {}): Vpn {
  return new Vpn({
    config: { ...defaultVpnConfig, dns: 'resolv.conf', ...config },
    device: { name: 'shallot0', mtu: 1420, addresses: ['10.83.104.2/30', 'fd73:6861:6c6c:6f74::2/64'] },
    dir,
    logger: silentLogger,
    now: () => performance.now(),
    wall: () => Date.now(),
    random: randomBytes,
    allowed: () => guards,
    serving: () => [],
    onNeedsChange: () => () => {},
    attach: (port) => sink(port),
    answersNames: true,
    canCarry: () => true,
    whenReady: async () => {},
    resolvConf: new ResolvConf(resolvConf),
    nsswitch: '/nonexistent',
    ...more,
  })
}

/**
 * What a test wants to die at the Nth act: a call of a program of the system, or a change of resolv.conf. `before` and `after` it. Without N it only counts.
 */
interface Death {
  readonly at: number
  readonly when: 'before' | 'after'
}

/** What was done so far: true for what changes something. */
const acts: boolean[] = []
async function act<T>(death: Death | null, changes: boolean, what: () => Promise<T>): Promise<T> {
  const own = acts.push(changes)
  if (death?.at === own && death.when === 'before') process.kill(process.pid, 'SIGKILL')
  const result = await what()
  if (death?.at === own && death.when === 'after') process.kill(process.pid, 'SIGKILL')
  return result
}

class MortalResolvConf extends ResolvConf {
  readonly #death: Death | null
  constructor(path: string, death: Death | null) {
    super(path)
    this.#death = death
  }
  override take(servers: readonly string[], id: string): Promise<void> {
    return act(this.#death, true, () => super.take(servers, id))
  }
  override restore(original: Parameters<ResolvConf['restore']>[0], id: string): Promise<boolean> {
    return act(this.#death, true, () => super.restore(original, id))
  }
}

/**
 * A program of its own with a VPN: DIR RESOLV.CONF STEPS [CONFIG as JSON] [DEATH as JSON]. Each of STEPS is protect, start, up, down, stop, wait (for its
 * end) or die; a line of JSON tells what came of it, and when. After the last one it ends.
 */
async function main(dir: string, resolvConf: string, steps: string, config = '{}', mortality = 'null'): Promise<void> {
  const death = JSON.parse(mortality) as Death | null
  const run: RunProgram = (program, args, input) =>
    act(death, input !== undefined || args.includes('flush'), () => runProgram(program, args, input))
  const vpn = makeVpn(dir, resolvConf, JSON.parse(config) as Partial<VpnConfig>, {
    run,
    resolvConf: new MortalResolvConf(resolvConf, death),
  })
  for (const step of steps.split(',')) {
    const began = Date.now()
    const say = (more: object): void =>
      console.log(JSON.stringify({ step, began, done: Date.now(), acts, state: vpn.facts().state, ...more }))
    try {
      if (step === 'wait') await new Promise((resolve) => setTimeout(resolve, 3_600_000))
      else if (step === 'die') process.kill(process.pid, 'SIGKILL')
      else await vpn[step as 'protect' | 'start' | 'up' | 'down' | 'stop']()
      say({})
    } catch (error) {
      say({ code: error instanceof ShallotError ? error.code : null, message: messageOf(error) })
    }
  }
  process.exit(0)
}

if (process.argv[1] === import.meta.filename) await main(...(process.argv.slice(2) as [string, string, string]))
