import type { CountryCode, CountryOf } from '../base/index.ts'
import type { Descriptor } from '../directory/index.ts'
import { addressOf } from '../path/index.ts'

/** In which country a relay is, for people: that of its first address whose country is known. Looked up once for each descriptor. */
export class RelayCountries {
  readonly #countryOf: CountryOf
  readonly #known = new WeakMap<Descriptor, CountryCode | null>()

  constructor(countryOf: CountryOf) {
    this.#countryOf = countryOf
  }

  /** Null where it is not known, or no descriptor is at hand. */
  of(descriptor: Descriptor | undefined): CountryCode | null {
    if (descriptor === undefined) return null
    const known = this.#known.get(descriptor)
    if (known !== undefined) return known
    const country = this.#lookUp(descriptor)
    this.#known.set(descriptor, country)
    return country
  }

  #lookUp({ addresses }: Descriptor): CountryCode | null {
    for (const text of addresses) {
      const address = addressOf(text)
      const country = address && this.#countryOf(address)
      if (country) return country
    }
    return null
  }
}
