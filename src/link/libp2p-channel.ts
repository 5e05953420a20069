import type { NodeId } from '../base/index.ts'
import type { ChannelEnd } from '../onion/index.ts'
import { CellStream, type CellStreamOptions } from './cell-stream.ts'
import type { CellChannel } from './channel.ts'

/** One libp2p stream of this protocol is one channel: cells back to back, nothing else. docs/spec/link.md §6 */
export const CIRCUIT_PROTOCOL = '/shallot/circuit/1'

export interface Libp2pChannelOptions extends CellStreamOptions {
  readonly peer: NodeId
  readonly remoteAddress: string | null
  /** Called once, when the stream is over. */
  readonly over: (channel: Libp2pChannel) => void
}

/** A channel over one libp2p stream: works wherever libp2p connects, relayed and browser transports included. */
export class Libp2pChannel extends CellStream implements CellChannel {
  readonly kind = 'libp2p'
  readonly peer: NodeId
  readonly remoteAddress: string | null
  readonly #options: Libp2pChannelOptions
  #state: 'open' | 'closing' | 'ended' = 'open'

  constructor(options: Libp2pChannelOptions) {
    super(options)
    this.#options = options
    this.peer = options.peer
    this.remoteAddress = options.remoteAddress
  }

  protected get isOpen(): boolean {
    return this.#state === 'open'
  }

  protected get isClosing(): boolean {
    return this.#state === 'closing'
  }

  protected get isWritten(): boolean {
    return this.#state === 'ended'
  }

  protected get isRead(): boolean {
    return this.#state === 'ended'
  }

  protected get isOver(): boolean {
    return this.#state === 'ended' && this.inbox.isEnded
  }

  close(): void {
    if (this.#state === 'ended') this.#stopSoon('fin')
    if (this.#state !== 'open') return
    this.#state = 'closing'
    this.closeInput()
  }

  protected sent(): void {
    this.stream.close({ signal: AbortSignal.timeout(this.#options.closeTimeoutMs) }).then(
      () => this.fail('fin'),
      () => this.fail('reset'),
    )
    this.#state = 'ended'
  }

  protected peerEnded(): void {
    const isClosing = this.#state === 'closing'
    const how: ChannelEnd = this.isReset ? 'reset' : this.received.bytes > 0 ? 'violation' : 'fin'
    this.#end()
    if (how === 'fin' && !isClosing) this.inbox.finish('fin')
    else this.inbox.stop(how)
    if (how === 'fin') {
      this.resetLater()
      this.stream.close().catch(() => {})
    } else {
      this.stream.abort(new Error('the channel ended'))
    }
  }

  protected streamClosed(): void {
    if (this.#state === 'ended' || this.isWhole) return
    this.#end()
    this.inbox.stop('reset')
  }

  protected over(): void {
    this.#options.over(this)
  }

  protected fail(how: ChannelEnd): void {
    this.#end()
    this.#stopSoon(how)
    if (how !== 'fin') this.stream.abort(new Error('the channel was aborted'))
  }

  /** Ends this side after the caller's turn of work; what is queued here is lost now. */
  #stopSoon(how: ChannelEnd): void {
    this.inbox.close()
    queueMicrotask(() => {
      this.inbox.stop(how)
      this.measure()
    })
  }

  #end(): void {
    this.#state = 'ended'
    this.dropAll()
  }
}
