import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { parseIp } from '../../../src/base/index.ts'
import { openTun } from '../../../src/tun/index.ts'
import { enterOwnNetwork, shellOk } from '../../support/own-network.ts'
import { Program } from '../../support/processes.ts'
import { median, round } from '../stats.ts'
import { endInKernel, endInNetstack } from './ends.ts'
import { kernelTrick } from './kernel-trick.ts'

/** MB/s of one connection, by family and way. */
export interface NetstackAgainstKernel {
  readonly mtu: number
  readonly rows: readonly {
    readonly family: 4 | 6
    readonly way: 'down' | 'up'
    readonly netstack: number
    readonly kernel: number
    /** Of the medians of runs beside each other. */
    readonly ratio: number
  }[]
}

const own = { 4: '10.83.104.2', 6: 'fd73:6861:6c6c:6f74::2' } as const
const peer = { 4: '10.83.104.1', 6: 'fd73:6861:6c6c:6f74::1' } as const
/** Two places outside, by the same device's routes, so that both ways run in turn with nothing changed between them. */
const server = { 4: '11.0.0.1', 6: '2a0b::1' } as const

/**
 * A program's TCP connection over a TUN device of this process, ended by our netstack or by the kernel (the trick), in turn. Needs root; runs in a network
 * namespace of its own: `node test/bench/tun/netstack-against-kernel.ts [--runs N] [--mb N]` prints one JSON line.
 */
async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '5' },
      mb: { type: 'string', default: '200' },
      mtu: { type: 'string', default: '1420' },
      only: { type: 'string', default: '' },
    },
  })
  const reason = enterOwnNetwork()
  if (reason !== null) throw new Error(reason)
  const mtu = Number(values.mtu)
  const bytes = Number(values.mb) * 1e6
  const rates = new Map<string, number[]>()
  const kinds = ['netstack', 'kernel'].filter((kind) => values.only === '' || values.only === kind)
  for (let run = 0; run <= Number(values.runs); run++) {
    for (const kind of kinds) {
      const port = await openTun({ name: 'bench%d', mtu, addresses: [`${own[4]}/30`, `${own[6]}/64`] })
      shellOk(`ip route add 11.0.0.0/8 dev ${port.name}; ip -6 route add 2a0b::/16 dev ${port.name}`)
      const servers = kind === 'kernel' ? await Promise.all([endInKernel(own[4]), endInKernel(own[6])]) : []
      if (kind === 'netstack') endInNetstack(port)
      else {
        const [port4, port6] = servers.map((one) => (one.address() as AddressInfo).port)
        const bytesOf = (text: string): Uint8Array => parseIp(text).bytes
        kernelTrick(port, {
          own4: bytesOf(own[4]),
          own6: bytesOf(own[6]),
          peer4: bytesOf(peer[4]),
          peer6: bytesOf(peer[6]),
          port4: port4!,
          port6: port6!,
        })
      }
      for (const family of [4, 6] as const) {
        for (const way of ['down', 'up'] as const) {
          const program = Program.node(join(import.meta.dirname, 'peer.ts'), [way, server[family], '80', String(bytes)])
          const { code } = await program.waitForExit(120_000)
          if (code !== 0) throw new Error(`the peer failed: ${program.tail(500)}`)
          // The first round is for the compiler.
          if (run === 0) continue
          const key = `${family} ${way} ${kind}`
          rates.set(key, [...(rates.get(key) ?? []), Number(program.stdout)])
        }
      }
      for (const one of servers) one.close()
      port.close()
    }
  }
  const rows = ([4, 6] as const).flatMap((family) =>
    (['down', 'up'] as const).map((way) => {
      const [netstack, kernel] = ['netstack', 'kernel'].map((kind) => round(median(rates.get(`${family} ${way} ${kind}`) ?? [0])))
      return { family, way, netstack: netstack!, kernel: kernel!, ratio: round(netstack! / kernel!) }
    }),
  )
  const result: NetstackAgainstKernel = { mtu, rows }
  console.log(JSON.stringify(result))
  process.exit(0)
}

if (import.meta.main) await main()
