import { messageOf } from '../base/index.ts'
import type { VpnFacts } from './facts.ts'
import { KillSwitch } from './kill-switch.ts'
import { type RunProgram, runProgram } from './programs.ts'
import { isClean, VpnStateFile } from './state.ts'

/**
 * What can be said of a node's VPN while the node does not run: 'blocked' when it left its block, or when another node's stands, as far as
 * this user may see. Never throws.
 * @param stateDir the node's directory
 */
export async function vpnWithoutNode(stateDir: string, wall: number, run: RunProgram = runProgram): Promise<VpnFacts> {
  const file = new VpnStateFile(stateDir, () => '')
  const problems: string[] = []
  let left = false
  try {
    left = (await file.load()) && !isClean(file.current)
    if (left)
      problems.push(
        file.current.wanted
          ? 'the node does not run, and its VPN is to be up: the block stands and nothing leaves this machine. `shallot run` takes it over, `shallot vpn down` lifts it'
          : 'the node ended while it took its VPN down: `shallot vpn repair` finishes that',
      )
  } catch (error) {
    left = true
    problems.push(messageOf(error))
  }
  if (!left && (await isBlocked(run))) {
    left = true
    problems.push(
      'no node runs here, and the VPN of another Shallot node stands on this machine: name its directory with --dir; `shallot vpn repair --force` lifts what a node that is gone has left',
    )
  }
  return {
    state: left ? 'blocked' : 'down',
    since: wall,
    device: null,
    allowed: [],
    serving: [],
    bypass: [],
    localNetwork: false,
    dns: null,
    counts: null,
    problems,
  }
}

/** Whether a kill switch stands, whosever it is. Who may not ask sees none. */
async function isBlocked(run: RunProgram): Promise<boolean> {
  try {
    return (await new KillSwitch(run).owner()) !== null
  } catch {
    return false
  }
}
