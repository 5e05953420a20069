import { messageOf, type NodeId } from '../../base/index.ts'
import type { CellChannel, Host } from '../../link/index.ts'
import type { ReachFacts } from '../facts.ts'

/** Who is told when something about a peer has changed. */
export interface ReachWatch {
  readonly changed: (peer: NodeId) => void
}

export interface ReachModules {
  readonly host: Host
  /** Monotonic ms. */
  readonly now: () => number
  /** Whether there will be an upgrade at all. */
  readonly isEnabled: boolean
  /** How the link is direct, or null while it is not. */
  readonly direct: () => Exclude<ReachFacts['how'], 'relayed' | 'unreachable'> | null
  /** Whether the two are being brought together just now. */
  readonly isBusy: () => boolean
  /** What was tried. */
  readonly steps: () => readonly string[]
  /** Returns what ends the watch. */
  readonly watch: (watch: ReachWatch) => () => void
}

/** The peer begins, and takes its time: after this without a sign of it, the link stays as it is. */
const BEGIN_WAIT_MS = 12_000
/** Between the ways that are tried there may be a pause. */
const QUIET_MS = 2_500
const LOOK_MS = 250

/** Opens a channel, and waits until the link is direct or nothing tries to make it so. */
export async function reach(id: NodeId, addresses: readonly string[], signal: AbortSignal, modules: ReachModules): Promise<ReachFacts> {
  const { host, now, direct } = modules
  const startedAt = now()
  let channel: CellChannel
  try {
    channel = await host.dialer.openChannel(id, addresses, signal)
  } catch (error) {
    return { peer: id, how: 'unreachable', reachedMs: null, upgradedMs: null, steps: [messageOf(error)] }
  }
  try {
    const reachedMs = Math.round(now() - startedAt)
    const first = direct()
    if (first !== null) return { peer: id, how: first, reachedMs, upgradedMs: reachedMs, steps: ['a direct link'] }
    const how = modules.isEnabled ? await upgraded(id, signal, modules) : null
    const steps = ['through a relay', ...(modules.isEnabled ? modules.steps() : ['hole punching is turned off'])]
    return { peer: id, how: how ?? 'relayed', reachedMs, upgradedMs: how === null ? null : Math.round(now() - startedAt), steps }
  } finally {
    channel.abort()
  }
}

function upgraded(id: NodeId, signal: AbortSignal, modules: ReachModules): Promise<ReturnType<ReachModules['direct']>> {
  const { now, direct, isBusy, watch } = modules
  return new Promise((resolve) => {
    let lastBusyAt: number | null = null
    const since = now()
    const settle = (): void => {
      clearInterval(timer)
      stopWatching()
      signal.removeEventListener('abort', settle)
      resolve(direct())
    }
    const look = (): void => {
      if (isBusy()) lastBusyAt = now()
      const isQuiet = lastBusyAt === null ? now() - since > BEGIN_WAIT_MS : now() - lastBusyAt > QUIET_MS
      if (signal.aborted || direct() !== null || isQuiet) settle()
    }
    const stopWatching = watch({
      changed: (peer) => {
        if (peer === id) look()
      },
    })
    const timer = setInterval(look, LOOK_MS)
    signal.addEventListener('abort', settle, { once: true })
    look()
  })
}
