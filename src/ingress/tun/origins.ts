import { formatIp, type IpAddress } from '../../base/index.ts'
import type { Endpoint } from '../../netstack/index.ts'
import { isolationKey } from '../isolation.ts'
import type { TunConfig } from './config.ts'
import type { DeviceAddresses } from './device-addresses.ts'

/** Keys remembered: each costs a hash to make anew. */
const REMEMBERED = 1024

/** The isolation keys of a device's traffic, by the rules of its configuration. */
export class Origins {
  readonly #listener: string
  readonly #byClient: boolean
  readonly #byAddress: boolean
  readonly #byPort: boolean
  readonly #addresses: DeviceAddresses
  readonly #keys = new Map<string, string>()
  readonly #machine: string

  /** @param listener whose traffic it is: 'tun', or a name for each program that has a device of its own */
  constructor(listener: string, rules: TunConfig['isolateBy'], addresses: DeviceAddresses) {
    this.#listener = listener
    this.#byClient = rules.includes('client-address')
    this.#byAddress = rules.includes('destination-address')
    this.#byPort = rules.includes('destination-port')
    this.#addresses = addresses
    this.#machine = isolationKey({ listener })
  }

  /** Of a stream or an association. */
  readonly flow = (from: Endpoint, to: Endpoint): string => {
    const client = this.#client(from.address)
    if (!this.#byAddress && !this.#byPort) return this.#key(client, null)
    return this.#key(client, `${this.#byAddress ? formatIp(to.address) : ''} ${this.#byPort ? to.port : ''}`)
  }

  /** Of questions, which are of the whole origin: where they were to go says nothing. */
  readonly questions = (from: Endpoint): string => this.#key(this.#client(from.address), null)

  /** Of raw packets, which go anywhere. @param client null: the machine itself */
  readonly packets = (client: string | null): string => this.#key(this.#byClient ? client : null, null)

  /** Null: the machine itself, whatever its address. */
  #client(address: IpAddress): string | null {
    return !this.#byClient || this.#addresses.isOwn(address.bytes, 0, address.bytes.length) ? null : formatIp(address)
  }

  #key(client: string | null, destination: string | null): string {
    if (client === null && destination === null) return this.#machine
    const text = `${client ?? ''}|${destination ?? ''}`
    const known = this.#keys.get(text)
    if (known !== undefined) return known
    const key = isolationKey({ listener: this.#listener, clientAddress: client ?? undefined, destination: destination ?? undefined })
    if (this.#keys.size >= REMEMBERED) this.#keys.clear()
    this.#keys.set(text, key)
    return key
  }
}
