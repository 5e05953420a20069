import type { Logger as Libp2pLogger, Stream } from '@libp2p/interface'
import { AbstractMultiaddrConnection } from '@libp2p/utils'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { Uint8ArrayList } from 'uint8arraylist'

/** A stream to a relay as the wire that libp2p upgrades (encrypts, then multiplexes) to a connection with whoever is behind the relay. */
export class RelayedWire extends AbstractMultiaddrConnection {
  readonly #stream: Stream
  #isResuming = false
  #isPauseDue = false

  /** @param stream paused; what it holds is the wire's first bytes */
  constructor(stream: Stream, direction: 'inbound' | 'outbound', remoteAddr: Multiaddr, localAddr: Multiaddr, log: Libp2pLogger) {
    super({ direction, remoteAddr, localAddr, log })
    this.#stream = stream
    stream.addEventListener('message', (event) => {
      if (this.readStatus !== 'closed' && this.readStatus !== 'closing') this.onData(event.data)
    })
    stream.addEventListener('drain', () => this.safeDispatchEvent('drain'))
    // Nothing on top half-closes a wire.
    stream.addEventListener('end', () => this.#ended())
    stream.addEventListener('close', (event) => this.onTransportClosed(event.error))
    if (stream.status !== 'open') queueMicrotask(() => this.onTransportClosed())
    else if (stream.readableEnded) queueMicrotask(() => this.#ended())
    else this.#resume()
  }

  sendData(data: Uint8ArrayList): { sentBytes: number; canSendMore: boolean } {
    return { sentBytes: data.byteLength, canSendMore: this.#stream.send(data) }
  }

  async sendClose(options?: { signal?: AbortSignal }): Promise<void> {
    await this.#stream.close(options)
  }

  sendReset(error: Error): void {
    this.#stream.abort(error)
  }

  sendPause(): void {
    if (this.#isResuming) this.#isPauseDue = true
    else if (this.#stream.readStatus === 'readable') this.#stream.pause()
  }

  sendResume(): void {
    // Resuming hands on what was held, and whoever got that may have paused again.
    if (this.readStatus !== 'paused') this.#resume()
  }

  /** A stream that is paused while it resumes goes on granting window: it is paused afterwards. */
  #resume(): void {
    if (this.#stream.readStatus !== 'paused') return
    this.#isResuming = true
    this.#isPauseDue = false
    this.#stream.resume()
    this.#isResuming = false
    if (this.#isPauseDue) this.sendPause()
  }

  #ended(): void {
    this.onRemoteCloseWrite()
    this.close({ signal: AbortSignal.timeout(CLOSE_TIMEOUT_MS) }).catch((error) => this.abort(error))
  }
}

const CLOSE_TIMEOUT_MS = 5000
