import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { CountryResponse, Reader } from 'mmdb-lib'
import { type CountryCode, currentCountry, formatIp, type IpAddress } from '../base/index.ts'

/** The data is let go of when nobody has asked for this long: 8 MB that an idle relay does not need. */
const KEEP_MS = 60_000

const require = createRequire(import.meta.url)
const folder = '@ip-location-db/geo-whois-asn-country-mmdb'

type Data = Pick<Reader<CountryResponse>, 'get'>

/**
 * The data that the program brings: which registry gave an address to whom, and what owners say in geofeeds. One file for each family, in MaxMind's
 * format; a look-up takes some 4 µs. Read at the first look-up, synchronously (2 to 7 ms, rarely), so that whoever asks
 * never has to wait or to ask again; let go of a minute after the last.
 */
class ShippedCountries {
  readonly #data = new Map<4 | 6, Data>()
  #usedAt = 0
  #timer: NodeJS.Timeout | null = null

  /** @throws Error when the files cannot be read, or are no such data */
  countryOf(address: IpAddress): CountryCode | null {
    this.#usedAt = performance.now()
    const found = this.#of(address.family).get(formatIp(address)) as { country_code?: unknown } | null
    const code = found?.country_code
    return typeof code === 'string' && /^[A-Z]{2}$/.test(code) ? currentCountry(code) : null
  }

  /** The families whose data is in memory. */
  get held(): readonly (4 | 6)[] {
    return [...this.#data.keys()]
  }

  /** Lets go of the data. */
  release(): void {
    this.#data.clear()
    if (this.#timer) clearInterval(this.#timer)
    this.#timer = null
  }

  #of(family: 4 | 6): Data {
    const held = this.#data.get(family)
    if (held) return held
    const { Reader } = require('mmdb-lib') as typeof import('mmdb-lib')
    const data = new Reader<CountryResponse>(readFileSync(require.resolve(`${folder}/geo-whois-asn-country-ipv${family}.mmdb`)))
    if (data.metadata.ipVersion !== family) throw new Error(`the country data for IPv${family} is for IPv${data.metadata.ipVersion}`)
    this.#data.set(family, data)
    this.#timer ??= setInterval(() => {
      if (performance.now() - this.#usedAt >= KEEP_MS) this.release()
    }, KEEP_MS / 4).unref()
    return data
  }
}

/** One for all nodes of a process. */
export const shippedCountries = new ShippedCountries()
