import { formatIp, type IpAddress } from '../base/index.ts'

/** What a listener takes: null is any. */
export interface ListenOn {
  readonly address: IpAddress | null
  readonly port: number | null
}

/** Takes the SYNs to an address and port, or to any. */
export class Listener {
  readonly on: ListenOn
  readonly #close: (listener: Listener) => void

  constructor(on: ListenOn, close: (listener: Listener) => void) {
    this.on = on
    this.#close = close
  }

  /** No more are taken; those that were stay. */
  close(): void {
    this.#close(this)
  }
}

/** Who listens where. The most exact one is found: address and port, then port, then address, then everything. */
export class Listeners {
  readonly #byKey = new Map<string, Listener>()
  /** Those with an address of their own. */
  #exact = 0

  get size(): number {
    return this.#byKey.size
  }

  /** Null when it is taken. */
  add(on: ListenOn): Listener | null {
    const key = keyOf(on.address, on.port)
    if (this.#byKey.has(key)) return null
    const listener = new Listener(on, (closed) => {
      if (this.#byKey.get(key) !== closed) return
      this.#byKey.delete(key)
      if (on.address !== null) this.#exact--
    })
    this.#byKey.set(key, listener)
    if (on.address !== null) this.#exact++
    return listener
  }

  find(address: () => IpAddress, port: number): Listener | null {
    const one = this.#exact === 0 ? null : address()
    return (
      (one === null ? undefined : this.#byKey.get(keyOf(one, port))) ??
      this.#byKey.get(keyOf(null, port)) ??
      (one === null ? undefined : this.#byKey.get(keyOf(one, null))) ??
      this.#byKey.get(keyOf(null, null)) ??
      null
    )
  }
}

function keyOf(address: IpAddress | null, port: number | null): string {
  return `${address === null ? '*' : formatIp(address)} ${port ?? '*'}`
}
