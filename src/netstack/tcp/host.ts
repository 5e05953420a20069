import type { Random } from '../../base/index.ts'
import type { IcmpErrorKind } from '../../packet/index.ts'
import type { TcpSettings } from '../limits.ts'
import type { MemoryBudget } from '../memory-budget.ts'
import type { TcpConnection } from './connection.ts'

/** Why a connection is over. */
export type CloseReason =
  | 'done' // both directions ended in order, and all was acknowledged
  | 'reset' // the peer sent RST
  | 'refused' // RST in answer to our SYN
  | 'unreachable' // ICMP said so while we were connecting
  | 'timeout' // nothing came back, or keep-alive probes were not answered
  | 'aborted' // by us: `abort`, `refuse`, or data came after `release`
  | 'overloaded' // a limit of the stack was reached

/** How an asked connection is turned down. 'ignore' says nothing. */
export type Refusal =
  | 'reset'
  | 'ignore'
  | Extract<IcmpErrorKind, 'net-unreachable' | 'host-unreachable' | 'port-unreachable' | 'prohibited'>

/** What the application is told of a connection. Bits; several may wait at once. */
export const Notice = { incoming: 1, connected: 2, readable: 4, drained: 8, remoteEnd: 16, closed: 32 } as const

/** What a connection needs of its stack. */
export interface ConnectionHost {
  readonly settings: TcpSettings
  readonly budget: MemoryBudget
  readonly random: Random
  /** The connection has something to send. */
  wantsOutput(connection: TcpConnection): void
  /** The connection's deadline may have changed. */
  touch(connection: TcpConnection): void
  notify(connection: TcpConnection, notice: number): void
  /** A segment was sent again. */
  countRetransmission(): void
  /** The connection has left the half-open state, one way or the other. */
  leftHalfOpen(connection: TcpConnection): void
  /** The connection is over for TCP: it leaves the table, for TIME-WAIT or for good. */
  detach(connection: TcpConnection, timeWait: boolean, now: number): void
  /** Sends a RST. */
  reset(connection: TcpConnection, sequence: number, acknowledgment: number | null): void
  /** Sends an ICMP error for the SYN of an asked connection. */
  refuse(connection: TcpConnection, kind: IcmpErrorKind): void
}
