import { join } from 'node:path'
import { Program } from '../../support/processes.ts'
import type { PacketsAgainstSocks } from '../packets/packets-against-socks.ts'
import { type Row, table } from '../report.ts'
import { type Limit, limit } from '../tor.ts'
import type { NetstackAgainstKernel } from './netstack-against-kernel.ts'
import type { TunAgainstSocks } from './tun-against-socks.ts'

/** The sections that need a network namespace of their own, so root. */
export const deviceSections = ['netstack', 'tun', 'packets'] as const

export interface DeviceResult {
  readonly netstack: NetstackAgainstKernel | null
  readonly tun: TunAgainstSocks | null
  readonly packets: PacketsAgainstSocks | null
}

/** Runs those of the sections that are asked for, each in a process and a network namespace of its own; null when none is, or none can be. */
export async function measureDevices(
  sections: readonly string[],
  options: { readonly runs: number; readonly seconds: number },
  say: (text: string) => void,
): Promise<DeviceResult | null> {
  const wanted = deviceSections.filter((section) => sections.includes(section))
  if (wanted.length === 0) return null
  if (process.getuid?.() !== 0) {
    say(`left out, for want of root: ${wanted.join(', ')}`)
    return null
  }
  const measure = async <Result>(
    section: (typeof deviceSections)[number],
    file: string,
    args: readonly string[],
  ): Promise<Result | null> => {
    if (!wanted.includes(section)) return null
    say(`${section}: in a namespace of its own`)
    const program = Program.node(join(import.meta.dirname, file), ['--runs', String(options.runs), ...args])
    const { code } = await program.waitForExit(1_200_000)
    if (code !== 0) throw new Error(`the section ${section} failed:\n${program.tail(4000)}`)
    return JSON.parse(program.stdout.trim().split('\n').at(-1)!) as Result
  }
  return {
    netstack: await measure<NetstackAgainstKernel>('netstack', 'netstack-against-kernel.ts', []),
    tun: await measure<TunAgainstSocks>('tun', 'tun-against-socks.ts', ['--seconds', String(options.seconds)]),
    packets: await measure<PacketsAgainstSocks>('packets', '../packets/packets-against-socks.ts', ['--seconds', String(options.seconds)]),
  }
}

/** What has to hold of them. */
export function deviceLimits({ netstack, tun, packets }: DeviceResult): readonly Limit[] {
  return [
    ...(netstack?.rows.map(({ family, way, ratio }) => limit(`netstack / kernel trick, IPv${family} ${way}`, ratio, { atLeast: 0.7 })) ??
      []),
    ...(tun?.rows.map(({ way, ratio }) => limit(`TUN / SOCKS, ${way}`, ratio, { atLeast: 0.7 })) ?? []),
    ...(packets?.rows.map(({ way, ratio }) => limit(`netstack exit / kernel-socket exit, ${way}`, ratio, { atLeast: 0.6 })) ?? []),
  ]
}

export function deviceTables({ netstack, tun, packets }: DeviceResult): readonly string[] {
  const tables: string[] = []
  if (netstack) {
    const rows = netstack.rows.map((one): Row => [`IPv${one.family} ${one.way}`, one.netstack, one.kernel, one.ratio])
    const title = `A program's TCP over a TUN device, ended by our netstack and by the kernel (MTU ${netstack.mtu}): MB/s`
    tables.push(table(title, ['', 'netstack', 'kernel trick', 'ratio'], rows))
  }
  if (tun) {
    const rows = tun.rows.map((one): Row => [one.way, one.tun, one.socks, one.ratio, one.tunClientCpu, one.socksClientCpu])
    const head: Row = ['', 'TUN MB/s', 'SOCKS MB/s', 'ratio', "client's CPU s/GB, TUN", 'SOCKS']
    tables.push(table('One TCP stream through three hops, by the TUN device and by SOCKS', head, rows))
  }
  if (packets) {
    const rows = packets.rows.map((one): Row => [one.way, one.packets, one.socks, one.ratio, one.packetsExitCpu, one.socksExitCpu])
    const head: Row = ['', 'packets MB/s', 'SOCKS MB/s', 'ratio', "exit's CPU s/GB, packets", 'SOCKS']
    tables.push(
      table("One TCP stream through three hops, by raw packets to the exit's netstack and by SOCKS to its kernel sockets", head, rows),
    )
  }
  return tables
}
