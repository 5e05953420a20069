import type { Logger } from '../base/index.ts'
import type { PacketPort } from '../packet/index.ts'
import type { TunOptions } from '../tun/index.ts'
import type { VpnConfig } from './config.ts'
import type { AllowedPeer, ServingPort } from './facts.ts'
import type { RunProgram } from './programs.ts'
import type { ResolvConf } from './resolv-conf.ts'

/** What carries the device's packets. */
export interface DataPath {
  /** Flows open now. */
  counts(): { readonly tcpFlows: number; readonly udpFlows: number }
  /** After it nothing is sent to the port. The port itself is closed by the VPN. */
  stop(): Promise<void> | void
}

/** What the VPN is made of. */
export interface VpnModules {
  readonly config: VpnConfig
  /** The device that is to be; addresses as ADDRESS/BITS. */
  readonly device: { readonly name: string; readonly mtu: number; readonly addresses: readonly string[] }
  /** The node's directory, which it holds the lock of. */
  readonly dir: string
  readonly logger: Logger
  /** Milliseconds of a clock that only goes forward. */
  readonly now: () => number
  /** Milliseconds since 1970. */
  readonly wall: () => number
  /** Fresh random bytes. */
  readonly random: (length: number) => Uint8Array

  /** The places that the node needs outside the tunnel now, most important first: guards, bootstrap nodes, and whoever it has a connection to. */
  readonly allowed: () => readonly AllowedPeer[]
  /** The ports it serves others at now. */
  readonly serving: () => readonly ServingPort[]
  /** Calls the listener whenever one of the two may have changed, until the returned function is called. */
  readonly onNeedsChange: (listener: () => void) => () => void

  /** Starts the data path over the device, which is up and has these addresses. */
  readonly attach: (port: PacketPort, addresses: readonly string[]) => Promise<DataPath> | DataPath
  /** Whether the data path answers questions to port 53 of any address. */
  readonly answersNames: boolean
  /** Whether packets can be carried now. */
  readonly canCarry: () => boolean
  /** Resolves when they can be. @throws when the signal is aborted first */
  readonly whenReady: (signal: AbortSignal) => Promise<void>

  /** Given in tests. */
  readonly openDevice?: (options: TunOptions) => Promise<PacketPort>
  readonly run?: RunProgram
  readonly resolvConf?: ResolvConf
  readonly nsswitch?: string
  /** The user whose packets may go to the allowed places; null: everybody's. Default: who runs this process. */
  readonly uid?: number | null
}
