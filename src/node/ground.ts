import type { Logger } from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import type { View } from '../directory/index.ts'
import type { Countries } from '../geo/index.ts'
import type { BatchPool, ByteMeter } from '../link/index.ts'
import type { Store } from '../store/index.ts'
import type { NodeConfig } from './config.ts'
import type { Clocks } from './facts.ts'
import type { LiveConfig } from './live-config.ts'
import type { NodeLogs } from './log-book.ts'
import type { Module } from './roles.ts'
import type { Warnings } from './warnings.ts'

/** What is needed before any part, and how each part is stopped. */
export interface Ground {
  /** What the node was started with. */
  readonly config: NodeConfig
  /** What is in force. */
  readonly live: LiveConfig
  readonly modules: ReadonlySet<Module>
  readonly logger: Logger
  readonly logs: NodeLogs
  readonly store: Store
  readonly suite: CryptoSuite
  readonly clocks: Clocks
  readonly warnings: Warnings
  readonly meter: ByteMeter
  /** Memory of large batches, shared by all links and circuits. */
  readonly memory: BatchPool
  readonly view: View
  readonly countries: Countries
  /** Stops, in the order of the starts. */
  readonly stops: (() => Promise<void> | void)[]
}
