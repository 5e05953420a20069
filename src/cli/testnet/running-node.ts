import type { Api } from '../../control/index.ts'
import type { PlannedNode } from './plan.ts'

/** A node of the testnet that runs, in this process or in one of its own. */
export interface RunningTestnetNode {
  readonly plan: PlannedNode
  readonly id: string
  readonly pid: number
  /** "ADDRESS:PORT"; null where it has none. */
  readonly socks: string | null
  readonly http: string | null
  readonly control: string | null
  readonly dashboard: string | null
  /** Resolves when it does what its roles say. @throws ShallotError when it ended before */
  ready(): Promise<void>
  /** Its circuits, with reasons. */
  circuits(): Promise<readonly Api.Circuit[]>
  /** Resolves when it has ended, with words for how, or null when it was told to. */
  readonly ended: Promise<string | null>
  stop(): Promise<void>
}

/** Starts one node of a testnet. @throws ShallotError when it does not start */
export type NodeStarter = (plan: PlannedNode) => Promise<RunningTestnetNode>
