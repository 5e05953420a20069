import { messageOf } from '../base/index.ts'
import { vpnError } from './errors.ts'
import type { KillSwitch } from './kill-switch.ts'
import type { Names } from './names.ts'
import type { Routing } from './routing.ts'
import type { VpnStateFile } from './state.ts'

/** What undoing needs. */
export interface UndoTools {
  readonly state: VpnStateFile
  readonly names: Names
  readonly routing: Routing
  readonly killSwitch: KillSwitch
}

/** What was there and has been undone. 'dns-removed': a resolv.conf of ours whose original nobody knows any more. */
export type Undone = 'dns' | 'dns-removed' | 'routing' | 'kill-switch'

/**
 * Undoes whatever the state file says may have been done, in reverse order, the kill switch last. Each part may be there or not; one that
 * can't be undone does not keep the later ones from it, and stays in the state file.
 * @param closeDevice called when nothing leads into the device any more
 * @throws ShallotError 'vpn-not-undone' that says all that is left
 */
export async function undoAll(tools: UndoTools, closeDevice: () => Promise<void> = async () => {}): Promise<readonly Undone[]> {
  const { state, names, routing, killSwitch } = tools
  const undone: Undone[] = []
  const failures: string[] = []
  const attempt = async (act: () => Promise<void>): Promise<void> => {
    try {
      await act()
    } catch (error) {
      failures.push(messageOf(error))
    }
  }
  await attempt(async () => {
    if (await names.release()) undone.push('dns')
  })
  const { id } = state.current
  let owner: string | null = null
  await attempt(async () => {
    if (state.current.killSwitch || state.current.routing !== null) owner = await killSwitch.owner()
  })
  // After a restart of the machine another node may have set up its own: that is not ours to undo.
  const anothers = owner !== null && owner !== id
  await attempt(async () => {
    const { routing: set } = state.current
    if (set === null) return
    if (!anothers && (await routing.remove(set.table))) undone.push('routing')
    await state.save({ routing: null })
  })
  await attempt(closeDevice)
  await attempt(async () => {
    if (!state.current.killSwitch) return
    if (owner === id) {
      await killSwitch.remove()
      undone.push('kill-switch')
    }
    await state.save({ killSwitch: false })
  })
  if (failures.length > 0)
    throw vpnError('vpn-not-undone', `not everything could be undone; \`shallot vpn repair\` tries again: ${failures.join('; ')}`, {
      retry: 'later',
    })
  return undone
}
