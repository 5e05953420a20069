export { type GeoConfig, geoConfig } from './config.ts'
export { Countries } from './countries.ts'
export { shippedCountries } from './country-data.ts'
export { CountryTable } from './country-table.ts'
