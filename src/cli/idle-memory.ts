import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** After the start: what was needed to load is garbage by then, and a little later what was needed to join. */
const FIRST_MS = [2_000, 12_000] as const
const EVERY_MS = 10_000
/** A share of one core below which the process counts as idle, and above which as busy. */
const IDLE_SHARE = 0.02
const BUSY_SHARE = 0.1

type Collect = (options: { type: 'major'; flavor: 'last-resort' }) => void

/**
 * Gives memory back: twice after the start, and whenever the process has become idle after having been busy. V8 collects by
 * allocation, so that a node which has nothing to do would keep its garbage; this takes some 40 MB from an idle relay
 * and costs one pause of tens of milliseconds while nothing happens. Never keeps the process alive.
 */
export function giveBackIdleMemory(): void {
  let used = process.cpuUsage()
  let wasBusy = true
  const look = (): void => {
    const since = process.cpuUsage(used)
    used = process.cpuUsage()
    const share = (since.user + since.system) / 1000 / EVERY_MS
    if (share > BUSY_SHARE) wasBusy = true
    if (!wasBusy || share > IDLE_SHARE) return
    wasBusy = false
    collect()
  }
  for (const ms of FIRST_MS) setTimeout(collect, ms).unref()
  setInterval(look, EVERY_MS).unref()
}

let gc: Collect | null = null

function collect(): void {
  if (gc === null) {
    setFlagsFromString('--expose-gc')
    gc = runInNewContext('gc') as Collect
  }
  gc({ type: 'major', flavor: 'last-resort' })
}
