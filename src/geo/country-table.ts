import { type CountryCode, countryProblem, type IpAddress, MalformedError, messageOf, networkKey, parseNetwork } from '../base/index.ts'

/** Lines of a file that say something; the whole of the world's networks by country has some 500,000. */
const MAX_ENTRIES = 1_000_000

/**
 * Networks and their countries, as a person writes them:
 *
 *   # a comment
 *   192.0.2.0/24 DE
 *   2001:db8::/32, FR
 *   198.51.100.7 -          (not known, whatever other data says)
 *
 * The smallest network that holds an address decides.
 */
export class CountryTable {
  /** By family and length of prefix: the country of each network's key. */
  readonly #networks: Readonly<Record<4 | 6, ReadonlyMap<number, ReadonlyMap<string, CountryCode | null>>>>
  readonly size: number

  private constructor(networks: Record<4 | 6, Map<number, Map<string, CountryCode | null>>>, size: number) {
    const longestFirst = (of: Map<number, Map<string, CountryCode | null>>) => new Map([...of].sort(([a], [b]) => b - a))
    this.#networks = { 4: longestFirst(networks[4]), 6: longestFirst(networks[6]) }
    this.size = size
  }

  /** @throws MalformedError that names the first line which is wrong */
  static parse(text: string): CountryTable {
    const networks = { 4: new Map<number, Map<string, CountryCode | null>>(), 6: new Map<number, Map<string, CountryCode | null>>() }
    let size = 0
    for (const [index, line] of text.split('\n').entries()) {
      const words = line
        .replace(/#.*/, '')
        .split(/[\s,]+/)
        .filter((word) => word !== '')
      if (words.length === 0) continue
      const fail = (problem: string): never => {
        throw new MalformedError('countries', `line ${index + 1}: ${problem}`)
      }
      const [networkText, country] = words
      if (words.length !== 2) fail('not of the form NETWORK COUNTRY, as in 192.0.2.0/24 DE')
      const problem = country === '-' ? null : countryProblem(country!)
      if (problem !== null) fail(problem)
      if (++size > MAX_ENTRIES) fail(`more than ${MAX_ENTRIES} networks`)
      const { address, bits } = networkOf(networkText!, fail)
      const of = networks[address.family]
      if (!of.has(bits)) of.set(bits, new Map())
      const countries = of.get(bits)!
      const key = networkKey(address, bits)
      if (countries.has(key)) fail('the network is named twice')
      countries.set(key, country === '-' ? null : country!)
    }
    return new CountryTable(networks, size)
  }

  /** Undefined where no network of the table holds the address. */
  countryOf(address: IpAddress): CountryCode | null | undefined {
    for (const [bits, countries] of this.#networks[address.family]) {
      const country = countries.get(networkKey(address, bits))
      if (country !== undefined) return country
    }
    return undefined
  }
}

function networkOf(text: string, fail: (problem: string) => never): ReturnType<typeof parseNetwork> {
  try {
    return parseNetwork(text)
  } catch (error) {
    return fail(messageOf(error))
  }
}
