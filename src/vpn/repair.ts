import { randomBytes } from 'node:crypto'
import { rm, stat } from 'node:fs/promises'
import { silentLogger } from '../base/index.ts'
import { isErrno, Store } from '../store/index.ts'
import type { VpnConfig } from './config.ts'
import { defaultVpnConfig } from './config.ts'
import { vpnError } from './errors.ts'
import { KillSwitch } from './kill-switch.ts'
import { Names } from './names.ts'
import { checkPrivileges } from './privileges.ts'
import { type RunProgram, runProgram } from './programs.ts'
import { isOurs, ResolvConf } from './resolv-conf.ts'
import { Resolved } from './resolved.ts'
import { Routing } from './routing.ts'
import { VpnStateFile } from './state.ts'
import { type Undone, undoAll } from './undo.ts'

export interface RepairOptions {
  /** Also what another node's VPN left, or what no state file tells of. */
  readonly force?: boolean
  readonly config?: Pick<VpnConfig, 'routingTable'>
  readonly run?: RunProgram
  readonly resolvConf?: ResolvConf
}

/**
 * Undoes what a VPN left that no node runs any more, from its state file. What cannot be told to be ours is left, unless forced.
 * @param stateDir the node's directory. @returns what was undone
 * @throws ShallotError 'vpn-nothing-to-undo', 'vpn-in-use' (another node's stands), 'directory-in-use' (the node runs), 'vpn-not-undone',
 * 'vpn-state-damaged', 'vpn-not-permitted', 'vpn-program-missing', 'vpn-not-on-this-platform'
 */
export async function repair(stateDir: string, options: RepairOptions = {}): Promise<readonly Undone[]> {
  const { force = false, run = runProgram, resolvConf = new ResolvConf() } = options
  await checkPrivileges()
  const isThere = await stat(stateDir).then(
    () => true,
    (error) => !isErrno(error, 'ENOENT'),
  )
  // Holds the directory, so that no node starts meanwhile.
  const store = isThere ? await Store.open(stateDir, { logger: silentLogger }) : null
  try {
    const state = new VpnStateFile(stateDir, () => randomBytes(8).toString('hex'))
    const killSwitch = new KillSwitch(run)
    const routing = new Routing(run)
    let known = false
    try {
      known = isThere && (await state.load())
    } catch (error) {
      if (!force) throw error
    }
    const undone: Undone[] = []
    if (known) {
      await state.save({ wanted: false })
      const { path } = state.current.resolvConf ?? resolvConf
      const names = new Names({
        how: 'auto',
        state,
        resolvConf: resolvConf.path === path ? resolvConf : new ResolvConf(path),
        resolved: new Resolved(run),
        nsswitch: '/etc/nsswitch.conf',
      })
      undone.push(...(await undoAll({ state, names, routing, killSwitch })))
    }
    const owner = await killSwitch.owner()
    if (owner !== null && !force) {
      if (undone.length > 0) return undone
      throw vpnError(
        'vpn-in-use',
        'the VPN of another Shallot node stands here: take it down there, or, when it is a leftover of a node that is gone, `shallot vpn repair --force`',
      )
    }
    if (force) {
      if (isOurs(await resolvConf.text())) {
        await rm(resolvConf.path, { force: true })
        undone.push('dns-removed')
      }
      if (await routing.remove((options.config ?? defaultVpnConfig).routingTable)) undone.push('routing')
      if (owner !== null) {
        await killSwitch.remove()
        undone.push('kill-switch')
      }
    }
    if (undone.length === 0 && !known)
      throw vpnError('vpn-nothing-to-undo', 'there is nothing to undo: no VPN of this node stands', { kind: 'usage' })
    return [...new Set(undone)]
  } finally {
    await store?.close()
  }
}
