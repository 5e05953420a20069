import type { Logger, NodeId } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import type { View } from '../directory/index.ts'
import type { CellChannel, ChannelDialer } from '../link/index.ts'
import { type BatchMemory, createClientCircuit } from '../onion/index.ts'
import type { GuardSample } from '../path/index.ts'
import type { CircuitEnd } from './circuit-facts.ts'
import { hasAnswered } from './has-answered.ts'
import type { LivenessOptions } from './liveness.ts'
import type { StreamTold } from './open-streams.ts'
import { OwnCircuit } from './own-circuit.ts'
import { StreamError } from './stream-error.ts'

export interface CircuitBuilderModules {
  readonly suite: CryptoSuite
  readonly view: View
  readonly guards: GuardSample
  readonly dialer: ChannelDialer
  /** The link's memory of large batches. */
  readonly memory: BatchMemory
  readonly now: () => number
  readonly wall: () => number
  readonly logger: Logger
  readonly liveness: LivenessOptions
}

export interface CircuitBuild {
  /** Guard first. */
  readonly path: readonly NodeId[]
  readonly timeoutMs: number
  /** The client stops: a failure after this is nobody's. */
  readonly stopped: AbortSignal
  /** The guard's channel is open; the hops follow. */
  readonly begun: (circuit: OwnCircuit) => void
  readonly streamEnded: () => void
  readonly streamTold: StreamTold
  readonly doubted: () => void
  readonly closed: (end: CircuitEnd) => void
}

/**
 * Opens a channel to the guard and extends hop by hop. What becomes of the first hop is told to the guard sample.
 * @throws ShallotError of the link, CircuitBuildError, or StreamError when a relay has left the view meanwhile
 */
export async function buildCircuit(modules: CircuitBuilderModules, build: CircuitBuild): Promise<void> {
  const { guards, view, now, wall } = modules
  const [guard] = build.path as [NodeId]
  const channel = await openGuardChannel(modules, build, guard)
  const { suite, memory, logger, liveness } = modules
  const { streamEnded, streamTold, doubted, closed } = build
  const machine = createClientCircuit({ suite, memory })
  const circuit = new OwnCircuit({ machine, channel, memory, liveness, now, logger, streamEnded, streamTold, doubted, closed })
  build.begun(circuit)
  for (const [index, id] of build.path.entries()) {
    const relay = view.get(id)
    if (!relay) {
      circuit.close('requested')
      throw new StreamError('no-circuit', 'a relay of the path has left the view')
    }
    try {
      await circuit.extend({ id, onionKey: relay.descriptor.onionKey, addresses: relay.descriptor.addresses })
    } catch (error) {
      if (index === 0 && !build.stopped.aborted) guards.noteFailure(guard, guards.networkProven(now()), now())
      throw error
    }
    if (index === 0) guards.noteSuccess(guard, now(), wall())
  }
}

async function openGuardChannel(modules: CircuitBuilderModules, build: CircuitBuild, id: NodeId): Promise<CellChannel> {
  const { guards, view, dialer, now } = modules
  const guard = view.get(id)
  if (!guard) throw new StreamError('no-circuit', 'the guard has left the view')
  // Paths never begin with one behind NAT; it may have gone there since the path was chosen. A client dials nobody through a NAT relay.
  if (guard.descriptor.reach.kind !== 'direct') throw new StreamError('no-circuit', 'the guard is behind NAT now')
  const deadline = AbortSignal.any([build.stopped, AbortSignal.timeout(build.timeoutMs)])
  try {
    return await dialer.openChannel(id, guard.descriptor.addresses, deadline)
  } catch (error) {
    if (!build.stopped.aborted) guards.noteFailure(id, hasAnswered(error) || guards.networkProven(now()), now())
    throw error
  }
}
