import { resolve } from 'node:path'
import { findNode, type NodeChoice } from '../places.ts'
import { runInside } from '../vpn-exec/outside.ts'

export interface VpnExecOptions extends NodeChoice {
  readonly pcap?: string
}

/** `shallot vpn exec -- COMMAND…`: the command's own exit code. */
export async function vpnExec(command: readonly string[], options: VpnExecOptions): Promise<number> {
  const node = await findNode(options)
  return runInside(node, command, options.pcap === undefined ? null : resolve(options.pcap))
}
