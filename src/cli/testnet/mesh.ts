import { messageOf } from '../../base/index.ts'
import type { PlannedNode } from './plan.ts'
import type { NodeStarter, RunningTestnetNode } from './running-node.ts'

/** How many nodes start at the same time: more only take each other's processor. */
const STARTING_AT_ONCE = 3

/** The running nodes of a testnet, in the plan's order: bootstrap first, client last. */
export class Mesh {
  readonly nodes: RunningTestnetNode[] = []
  #stopping: Promise<void> | null = null

  get client(): RunningTestnetNode {
    return this.nodes.at(-1)!
  }

  /** Starts the nodes in the plan's order, some at a time. @throws ShallotError after which `stop` must be called */
  async start(plans: readonly PlannedNode[], start: NodeStarter, signal: AbortSignal): Promise<void> {
    const queue = [...plans]
    const workers = Array.from({ length: STARTING_AT_ONCE }, async () => {
      for (let plan = queue.shift(); plan !== undefined; plan = queue.shift()) {
        signal.throwIfAborted()
        try {
          this.nodes.push(await start(plan))
        } catch (error) {
          queue.length = 0
          throw error
        }
      }
    })
    // All are waited for, so that none starts after a failure of another has been dealt with.
    const failed = (await Promise.allSettled(workers)).find((result) => result.status === 'rejected')
    this.nodes.sort((a, b) => plans.indexOf(a.plan) - plans.indexOf(b.plan))
    if (failed !== undefined) throw failed.reason
  }

  /** Stops every node, the client first, so that nothing tries to repair circuits meanwhile. */
  stop(): Promise<void> {
    this.#stopping ??= (async () => {
      const nodes = [...this.nodes].reverse()
      const client = nodes.find((node) => node.plan.address === null)
      const quietly = (node: RunningTestnetNode): Promise<void> =>
        node.stop().catch((error) => console.error(`shallot: ${node.plan.name}: ${messageOf(error)}`))
      if (client !== undefined) await quietly(client)
      await Promise.all(nodes.filter((node) => node !== client).map(quietly))
    })()
    return this.#stopping
  }
}
