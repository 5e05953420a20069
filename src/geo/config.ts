import { z } from 'zod'

/** Where countries are looked up. */
export const geoConfig = z.strictObject({
  countriesFile: z
    .string()
    .default('')
    .describe(
      'A file of lines NETWORK COUNTRY (192.0.2.0/24 DE), relative to this one, that is asked before the data which the program brings; - for a country says that it is not known. Empty: none.',
    ),
})

export type GeoConfig = z.output<typeof geoConfig>
