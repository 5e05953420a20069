import { setTimeout as wait } from 'node:timers/promises'
import { messageOf, ShallotError } from '../../base/index.ts'
import type { ControlClient } from '../../control/index.ts'
import { say, sayJson } from '../output.ts'
import { findNode, type NodeChoice } from '../places.ts'
import { pageLines } from '../top/page.ts'
import { type Rates, ratesBetween, type Snapshot } from '../top/rates.ts'
import { ESCAPE, Screen } from '../top/screen.ts'

/** Between two looks where nobody watches: rates need two. */
const ONE_SHOT_MS = 1_000
const CTRL_C = '\x03'
const KEYS = 'q quit   n new circuit   space stop and go'

export interface TopOptions extends NodeChoice {
  /** Seconds between two looks. */
  readonly interval: number
  readonly once?: boolean
  readonly json?: boolean
}

/** `shallot top`: live on a terminal; elsewhere one look, as plain text. */
export async function top(options: TopOptions): Promise<number> {
  const node = await findNode(options)
  const isLive = process.stdout.isTTY === true && !options.once && !options.json && process.env.TERM !== 'dumb'
  if (isLive) return live(node, options.interval * 1000)
  const first = await look(node)
  await wait(ONE_SHOT_MS)
  const second = await look(node)
  const rates = ratesBetween(first, second)
  if (options.json) sayJson(jsonOf(second, rates))
  else {
    const width = process.stdout.isTTY ? process.stdout.columns || 80 : 200
    for (const line of pageLines(
      second,
      rates,
      { width, height: Number.POSITIVE_INFINITY },
      { now: Date.now(), trouble: null, keys: null },
    ))
      say(line)
  }
  return 0
}

async function look(node: ControlClient): Promise<Snapshot> {
  const [status, circuits, streams] = await Promise.all([node.status(), node.circuits(false), node.streams()])
  return { at: performance.now(), status, circuits, streams }
}

/** Until a key or a signal ends it; a node that goes away is waited for. */
async function live(node: ControlClient, everyMs: number): Promise<number> {
  let shown: Snapshot | null = null
  let rates: Rates | null = null
  let trouble: string | null = null
  let paused = false
  const ended = new AbortController()
  const draw = (): void => {
    if (shown === null || rates === null) screen.draw(trouble === null ? ['asking the node ...'] : [trouble, '', KEYS])
    else screen.draw(pageLines(shown, rates, screen.size, { now: Date.now(), trouble, keys: paused ? `${KEYS}   (stopped)` : KEYS }))
  }
  const key = (pressed: string): void => {
    if (pressed === 'q' || pressed === 'Q' || pressed === CTRL_C || pressed === ESCAPE) ended.abort()
    else if (pressed === ' ') {
      paused = !paused
      draw()
    } else if (pressed === 'n') {
      node.newCircuit().catch((error) => {
        trouble = messageOf(error)
        draw()
      })
    }
  }
  const screen = new Screen(process.stdout, process.stdin, key, draw)
  const end = (): void => ended.abort()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, end)
  try {
    while (!ended.signal.aborted) {
      if (!paused) {
        try {
          const now = await look(node)
          rates = ratesBetween(shown, now)
          shown = now
          trouble = null
        } catch (error) {
          // A wrong token will not become right.
          if (error instanceof ShallotError && error.code === 'control-refused') throw error
          trouble = `${messageOf(error)} (asked again every ${everyMs / 1000} s)`
        }
      }
      if (!ended.signal.aborted) draw()
      await wait(everyMs, undefined, { signal: ended.signal }).catch(() => {})
    }
    return 0
  } finally {
    screen.leave()
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, end)
  }
}

function jsonOf({ status, circuits, streams }: Snapshot, rates: Rates): unknown {
  return {
    status,
    rates: { client: rates.client, forwarded: rates.forwarded },
    circuits: circuits.map((circuit) => ({ ...circuit, rate: rates.circuits.get(circuit.id) })),
    streams: streams.map((stream) => ({ ...stream, rate: rates.streams.get(`${stream.circuit ?? '-'}/${stream.id}`) })),
  }
}
