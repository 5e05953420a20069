import type { IpAddress } from './ip.ts'

/** A country as ISO 3166-1 writes it: two capital letters. */
export type CountryCode = string

/** Which country an address is in; null where that is not known. */
export type CountryOf = (address: IpAddress) => CountryCode | null

/** What is wrong with a country as somebody wrote it, or null. A code that has been replaced is refused by the name of its successor. */
export function countryProblem(text: string): string | null {
  if (!/^[A-Z]{2}$/.test(text)) return 'not a country: two capital letters, as in DE (ISO 3166-1)'
  const current = currentCountry(text)
  return current === text ? null : `not the code of a country: ${current} is meant (ISO 3166-1)`
}

/** The code that stands for a country today: GB for UK, RS for YU. @param code two capital letters */
export function currentCountry(code: CountryCode): CountryCode {
  return Intl.getCanonicalLocales(`und-${code}`)[0]!.slice('und-'.length)
}
