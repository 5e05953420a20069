import { durationText, say, sayJson } from '../output.ts'
import { findNode, type NodeChoice } from '../places.ts'

/** `shallot drain`: asks, and doesn't wait for the end. */
export async function drain(options: NodeChoice & { readonly limit?: number; readonly json?: boolean }): Promise<number> {
  const facts = await (await findNode(options)).drain(options.limit === undefined ? {} : { limitMs: options.limit })
  if (options.json) sayJson(facts)
  else {
    const circuits = facts.circuitsLeft === 1 ? '1 circuit' : `${facts.circuitsLeft} circuits`
    say(`The node takes no new circuits and tells the network that it is leaving. It waits for ${circuits},`)
    say(`at most ${durationText(Math.max(0, facts.until - Date.now()))}, and stops.`)
  }
  return 0
}
