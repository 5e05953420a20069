/** What the program inside is told, as JSON on its command line. */
export interface InsideTask {
  readonly command: readonly string[]
  readonly device: string
  readonly mtu: number
  /** ADDRESS/BITS, both families. */
  readonly addresses: readonly string[]
  /** The address that programs are told to ask for names. */
  readonly resolver: string
  /** Path of the UNIX socket over which the device's descriptor is handed to the node. */
  readonly socket: string
  /** Path of the file that stands for /etc/resolv.conf inside. */
  readonly resolvConf: string
  /** Whom the command runs as, within a user namespace; null: as who runs it. */
  readonly asUser: { readonly uid: number; readonly gid: number } | null
}

/** What it says over the IPC channel, in this order. The answer to 'offered' is 'go'. */
export type InsideMessage =
  /** The namespaces stand. */
  | { readonly type: 'running' }
  /** The device stands, and its descriptor waits on the socket. */
  | { readonly type: 'offered' }
  /** Nothing was run. */
  | { readonly type: 'failed'; readonly code: string; readonly message: string }

/** Descriptor under which the program inside finds the terminal's (or whatever's) standard error. */
export const COMMAND_STDERR = 4
