import type { IpAddress } from '../base/index.ts'
import type { IcmpErrorKind } from '../packet/index.ts'
import type { Endpoint } from './endpoint.ts'
import type { Listener } from './listeners.ts'
import type { TcpConnection } from './tcp/connection.ts'
import type { CloseReason } from './tcp/host.ts'

/** A UDP datagram, its payload the receiver's own. */
export interface Datagram {
  readonly from: Endpoint
  readonly to: Endpoint
  readonly data: Uint8Array
}

/** An ICMP echo, either way; the data are the receiver's own. */
export interface Echo {
  readonly from: IpAddress
  readonly to: IpAddress
  readonly identifier: number
  readonly sequence: number
  readonly data: Uint8Array
}

/** What a stack tells its application. Those of one connection come in the order of this list; several 'readable' become one. */
export type StackEvent =
  /** A SYN to a listener: `accept` or `refuse` it. `connection.local` is where it wanted to go. */
  | { readonly type: 'incoming'; readonly connection: TcpConnection; readonly listener: Listener }
  | { readonly type: 'connected'; readonly connection: TcpConnection }
  /** There is more to read than when it was last told. */
  | { readonly type: 'readable'; readonly connection: TcpConnection }
  /** After `write` took less than it was given: half of the send buffer is free. */
  | { readonly type: 'drained'; readonly connection: TcpConnection }
  /** The peer writes no more; what it wrote may still be to be read. */
  | { readonly type: 'remote-end'; readonly connection: TcpConnection }
  /** The last one of a connection. After 'done' everything was read. */
  | { readonly type: 'closed'; readonly connection: TcpConnection; readonly reason: CloseReason }
  | ({ readonly type: 'datagram' } & Datagram)
  | ({ readonly type: 'echo-request' } & Echo)
  | ({ readonly type: 'echo-reply' } & Echo)
  /** Somebody says that a datagram or an echo from `from` to `to` did not arrive; ports are 0 for echoes. Unproven: a hint. */
  | {
      readonly type: 'undelivered'
      readonly kind: IcmpErrorKind
      readonly protocol: 'udp' | 'icmp'
      readonly from: Endpoint
      readonly to: Endpoint
      readonly reporter: IpAddress
      /** Of 'packet-too-big', else 0. */
      readonly mtu: number
    }
