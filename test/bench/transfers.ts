import { cpuSeconds, descendantsOf, isAlive } from '../support/proc.ts'
import { Program } from '../support/processes.ts'
import type { Network, Pids, Position } from './network.ts'
import { positions } from './network.ts'
import { fileSizesMb, type Origin } from './origin.ts'
import { round, type Spread, spread } from './stats.ts'

export interface TransferPlan {
  readonly up: boolean
  readonly streams: number
  /** Each stream with a SOCKS user, so a circuit, of its own. */
  readonly ownCircuits: boolean
  readonly runs: number
  /** About how long one transfer may take. */
  readonly seconds: number
  /** A fixed size, one of `fileSizesMb`, in place of one that fits `seconds`. */
  readonly mb?: number
}

export interface TransferResult {
  readonly mbPerSecond: Spread
  /** Downloads of one stream: without the time to the first byte. */
  readonly afterFirstByte: Spread | null
  readonly mb: number
  readonly streams: number
  readonly all: readonly number[]
  readonly cpuSecondsPerGb: Readonly<Partial<Record<Position | 'server' | 'relaysTogether', number>>>
}

/** Bulk transfers by curl through the network's SOCKS port, and what they cost each process. MB and GB are 10^6 and 10^9 bytes. */
export async function measureTransfers(network: Network, origin: Origin, plan: TransferPlan): Promise<TransferResult> {
  const users = Array.from({ length: plan.streams }, (_, i) => (plan.ownCircuits ? `bulk${i}` : 'bulk'))
  let pids: Pids | null = null
  for (const user of new Set(users)) pids = await network.path(user)

  const mb = plan.mb ?? (await fittingSize(network, origin, plan, users))
  // A relay lives for months, and V8 compiles its hot path during the first few hundred megabytes: those are not counted.
  for (let i = 0; i < WARM_RUNS; i++) await transferOnce(network, origin, plan, users, mb)
  // The circuit may have been retired meanwhile: the path is asked for last.
  if (!plan.ownCircuits) pids = await network.path(users[0]!)
  const serverPids = origin.pids.flatMap((pid) => [pid, ...descendantsOf(pid)])
  const watched = [...new Set([...network.allPids, ...serverPids])].filter(isAlive)
  const before = new Map(watched.map((pid) => [pid, cpuSeconds(pid)]))
  const done: Transfer[] = []
  for (let i = 0; i < plan.runs; i++) done.push(await transferOnce(network, origin, plan, users, mb))
  const gb = (plan.runs * plan.streams * mb) / 1000
  const cost = (pid: number): number => (before.has(pid) && isAlive(pid) ? cpuSeconds(pid) - before.get(pid)! : 0)
  const sum = (list: readonly number[]): number => round(list.reduce((total, pid) => total + cost(pid), 0) / gb)
  const client = pids!.client
  return {
    mbPerSecond: spread(done.map((transfer) => transfer.mbPerSecond)),
    afterFirstByte: plan.up || plan.streams > 1 ? null : spread(done.map((transfer) => transfer.afterFirstByte)),
    mb,
    streams: plan.streams,
    all: done.map((transfer) => round(transfer.mbPerSecond)),
    cpuSecondsPerGb: {
      ...(plan.ownCircuits
        ? { client: sum([client]), relaysTogether: sum(network.allPids.filter((pid) => pid !== client)) }
        : Object.fromEntries(positions.map((position) => [position, sum([pids![position]])]))),
      server: sum(serverPids),
    },
  }
}

/** Transfers before the counted ones. */
const WARM_RUNS = 3

/** The largest file that takes about `plan.seconds`, found by two short transfers. */
async function fittingSize(network: Network, origin: Origin, plan: TransferPlan, users: readonly string[]): Promise<number> {
  const first = await transferOnce(network, origin, plan, users, 2)
  const second = await transferOnce(network, origin, plan, users, first.mbPerSecond > 10 ? 10 : 2)
  const rate = Math.max(first.mbPerSecond, second.mbPerSecond)
  return fileSizesMb.findLast((size) => size * plan.streams <= rate * plan.seconds) ?? fileSizesMb[0]
}

interface Transfer {
  readonly mbPerSecond: number
  readonly afterFirstByte: number
}

/** One transfer by curl's own clock, or several at once taken together. */
async function transferOnce(network: Network, origin: Origin, plan: TransferPlan, users: readonly string[], mb: number): Promise<Transfer> {
  const began = performance.now()
  const written = '%{http_code} %{time_total} %{time_starttransfer}'
  const curls = users.map((user) => {
    const args = ['-sS', '-o', '/dev/null', '--max-time', '120', '-w', written, '-x', `socks5h://${user}:x@${network.socks}`]
    args.push(...(plan.up ? ['-T', origin.file(mb), '-H', 'Expect:', `http://${origin.sink}/up`] : [`http://${origin.web}/${mb}m`]))
    return Program.start('curl', args)
  })
  for (const curl of curls) {
    const { code } = await curl.waitForExit(130_000)
    if (code !== 0 || !curl.stdout.startsWith('200 ')) throw new Error(`curl through the ${network.name} failed: ${code} ${curl.tail(500)}`)
  }
  const wallSeconds = (performance.now() - began) / 1000
  const [, total, firstByte] = curls[0]!.stdout.split(' ').map(Number)
  if (curls.length > 1) return { mbPerSecond: (users.length * mb) / wallSeconds, afterFirstByte: Number.NaN }
  return { mbPerSecond: mb / total!, afterFirstByte: mb / (total! - firstByte!) }
}
