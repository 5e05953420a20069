import { readFile, stat } from 'node:fs/promises'
import { type CountryCode, type IpAddress, type Logger, messageOf, ShallotError } from '../base/index.ts'
import { shippedCountries } from './country-data.ts'
import { CountryTable } from './country-table.ts'

/** A larger file of countries is refused. */
const MAX_FILE_BYTES = 64 * 1024 * 1024

/** Where countries come from, first a file of one's own, then the data that the program brings. */
export class Countries {
  readonly #table: CountryTable | null
  readonly #logger: Logger
  #broken = false

  private constructor(table: CountryTable | null, logger: Logger) {
    this.#table = table
    this.#logger = logger
  }

  /**
   * Reads the file, where one is named; the program's own data is read only when it is asked for.
   * @param file '' for none
   * @throws ShallotError 'countries-unreadable', 'countries-invalid'
   */
  static async open(file: string, logger: Logger): Promise<Countries> {
    return new Countries(file === '' ? null : tableOf(file, await textOf(file)), logger)
  }

  /** The country of an address, null where it is not known. An arrow, so that it can be handed on as a `CountryOf`. */
  readonly countryOf = (address: IpAddress): CountryCode | null => {
    const own = this.#table?.countryOf(address)
    if (own !== undefined) return own
    if (this.#broken) return null
    try {
      return shippedCountries.countryOf(address)
    } catch (error) {
      this.#broken = true
      this.#logger.error('the country data that belongs to this program cannot be read: no country is known', { error: messageOf(error) })
      return null
    }
  }
}

function tableOf(file: string, text: string): CountryTable {
  try {
    return CountryTable.parse(text)
  } catch (error) {
    throw new ShallotError('countries-invalid', `geo.countries_file: ${file}: ${messageOf(error)}`, {
      kind: 'config',
      retry: 'never',
      cause: error,
    })
  }
}

async function textOf(file: string): Promise<string> {
  try {
    const { size } = await stat(file)
    if (size > MAX_FILE_BYTES) throw new Error(`it has ${size} bytes, more than ${MAX_FILE_BYTES}`)
    return await readFile(file, 'utf8')
  } catch (error) {
    throw new ShallotError('countries-unreadable', `geo.countries_file: ${file} cannot be read: ${messageOf(error)}`, {
      kind: 'config',
      retry: 'never',
      cause: error,
    })
  }
}
