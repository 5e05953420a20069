import { messageOf, type NodeId } from '../../base/index.ts'
import type { CellChannel, Host } from '../../link/index.ts'
import type { ReachFacts } from '../facts.ts'
import { type CurrentLink, currentLink, hasRelayed } from './current-link.ts'

/** Who is told when something about a peer has changed. */
export interface ReachWatch {
  readonly changed: (peer: NodeId) => void
}

/** Milliseconds. */
export interface ReachTiming {
  /** The peer begins, and takes its time: after this without a sign of it, the link stays as it is. */
  readonly beginWaitMs: number
  /** Between the ways that are tried there may be a pause; and a peer that only has to dial does so at once. */
  readonly quietMs: number
}

export interface ReachModules {
  readonly host: Host
  /** Monotonic ms. */
  readonly now: () => number
  readonly timing: ReachTiming
  /** Whether there will be an upgrade at all. */
  readonly isEnabled: boolean
  /** Whether this node is behind NAT: then nobody dials it. */
  readonly isHidden: boolean
  /** Whether the two are being brought together just now. */
  readonly isBusy: () => boolean
  /** Whether they were, without success, so that there is no hurry to try again. */
  readonly hasFailed: () => boolean
  /** What was tried. */
  readonly steps: () => readonly string[]
  /** Returns what ends the watch. */
  readonly watch: (watch: ReachWatch) => () => void
}

const LOOK_MS = 250

/** Opens a channel, and waits until the link is as good as it gets: a direct one, or nothing tries to make it so. */
export async function reach(id: NodeId, addresses: readonly string[], signal: AbortSignal, modules: ReachModules): Promise<ReachFacts> {
  const { host, now } = modules
  const startedAt = now()
  const before = currentLink(host, id)
  let channel: CellChannel
  try {
    channel = await host.dialer.openChannel(id, addresses, signal)
  } catch (error) {
    return { peer: id, how: 'unreachable', reachedMs: null, upgradedMs: null, steps: [messageOf(error)] }
  }
  try {
    const reachedMs = Math.round(now() - startedAt)
    const first = currentLink(host, id)
    const steps = firstSteps(first, before?.kind === first?.kind, id, modules)
    if (first !== null && isBest(first)) return { peer: id, how: howOf(first), reachedMs, upgradedMs: reachedMs, steps }
    if (!modules.isEnabled) steps.push('hole punching is turned off')
    const last = modules.isEnabled ? await settled(id, signal, modules) : first
    if (first?.kind !== 'stream') steps.push(...modules.steps())
    if (last?.kind !== first?.kind) steps.push(last === null ? GONE : laterStep(last))
    const bettered = last?.kind === first?.kind ? reachedMs : Math.round(now() - startedAt)
    return { peer: id, how: howOf(last), reachedMs, upgradedMs: last === null || last.kind === 'relayed' ? null : bettered, steps }
  } finally {
    channel.abort()
  }
}

/** Nothing better is to come. */
function isBest({ kind }: CurrentLink): boolean {
  return kind === 'direct' || kind === 'udp'
}

function howOf(link: CurrentLink | null): ReachFacts['how'] {
  if (link === null) return 'unreachable'
  if (link.kind === 'relayed') return 'relayed'
  if (link.openedBy === 'met') return link.kind === 'udp' ? 'punched-udp' : 'punched-tcp'
  return link.openedBy === 'us' ? 'direct' : 'reversed'
}

const GONE = 'the connection was lost again'

/** How the channel came about. @param wasThere whether the link was there before */
function firstSteps(link: CurrentLink | null, wasThere: boolean, id: NodeId, { host, steps }: ReachModules): string[] {
  if (link === null) return [GONE]
  if (wasThere || link.kind === 'relayed' || link.openedBy === 'us') return [firstStep(link, wasThere)]
  // It came up while the channel was being opened another way.
  return hasRelayed(host, id) ? ['through a relay', ...steps(), laterStep(link)] : [laterStep(link)]
}

function firstStep({ kind, openedBy }: CurrentLink, wasThere: boolean): string {
  if (kind === 'relayed') return 'through a relay'
  if (openedBy === 'met')
    return kind === 'udp' ? 'over UDP, which had been punched before' : 'over a direct link that had been punched before'
  const what = kind === 'direct' ? 'direct link' : 'connection'
  if (openedBy === 'peer') return `over a ${what} that the peer had opened`
  return wasThere ? `over a ${what} that was there` : `over a ${what} that was dialled`
}

function laterStep({ kind, openedBy }: CurrentLink): string {
  if (kind === 'relayed') return 'only the connection through a relay was left'
  if (openedBy === 'met') return kind === 'udp' ? 'both sides opened a connection over UDP' : 'both sides opened a direct link'
  return `${openedBy === 'us' ? 'this node' : 'the peer'} opened a ${kind === 'direct' ? 'direct link' : 'connection'}`
}

/** The link once nothing tries to better it. */
function settled(id: NodeId, signal: AbortSignal, modules: ReachModules): Promise<CurrentLink | null> {
  const { host, now, timing, isBusy, hasFailed, isHidden, watch } = modules
  return new Promise((resolve) => {
    let lastBusyAt: number | null = null
    const since = now()
    /** For a sign of the peer. */
    const patienceMs = (link: CurrentLink | null): number => {
      if (link?.kind === 'relayed') return hasFailed() ? timing.quietMs : timing.beginWaitMs
      return isHidden ? 0 : timing.quietMs
    }
    const settle = (): void => {
      clearInterval(timer)
      stopWatching()
      signal.removeEventListener('abort', settle)
      resolve(currentLink(host, id))
    }
    const look = (): void => {
      if (isBusy()) lastBusyAt = now()
      const link = currentLink(host, id)
      const isQuiet = lastBusyAt === null ? now() - since >= patienceMs(link) : now() - lastBusyAt > timing.quietMs
      if (signal.aborted || (link !== null && isBest(link)) || isQuiet) settle()
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
