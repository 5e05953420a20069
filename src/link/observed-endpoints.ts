import type { Connection, IdentifyResult, Libp2p } from '@libp2p/interface'
import type { NodeId } from '../base/index.ts'
import type { ObservedEndpoint } from './host-types.ts'
import { tryTcpAddress } from './multiaddrs.ts'

/** Endpoints kept, the newest. */
const MAX_OBSERVED = 64

/** How peers see the port that this node dials them from: by libp2p's identify, which names the address that a connection comes from. */
export class ObservedEndpoints {
  readonly #localPorts: WeakMap<Connection, number> = new WeakMap()
  #seen: readonly { readonly connection: Connection; readonly endpoint: ObservedEndpoint }[] = []
  #stop: () => void = () => {}

  get endpoints(): readonly ObservedEndpoint[] {
    return this.#seen.filter(({ connection }) => connection.status === 'open').map(({ endpoint }) => endpoint)
  }

  start(libp2p: Libp2p): void {
    const onIdentify = (event: CustomEvent<IdentifyResult>): void => this.#identified(event.detail)
    libp2p.addEventListener('peer:identify', onIdentify)
    this.#stop = () => libp2p.removeEventListener('peer:identify', onIdentify)
  }

  stop(): void {
    this.#stop()
  }

  /** A connection that was dialled from a listening port. */
  dialled(connection: Connection, localPort: number): void {
    this.#localPorts.set(connection, localPort)
  }

  #identified({ connection, observedAddr, peerId }: IdentifyResult): void {
    const localPort = this.#localPorts.get(connection)
    const seen = observedAddr === undefined ? null : tryTcpAddress(observedAddr.toString())
    if (localPort === undefined || seen === null) return
    const observer = peerId.toString() as NodeId
    const others = this.#seen.filter(
      ({ connection: other, endpoint }) => other.status === 'open' && (endpoint.observer !== observer || endpoint.localPort !== localPort),
    )
    const { host, port } = seen
    this.#seen = [...others, { connection, endpoint: { host, port, localPort, observer, at: Date.now() } }].slice(-MAX_OBSERVED)
  }
}
