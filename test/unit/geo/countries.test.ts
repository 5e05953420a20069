import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { parseIp, silentLogger } from '../../../src/base/index.ts'
import { Countries, CountryTable, shippedCountries } from '../../../src/geo/index.ts'

afterEach(() => shippedCountries.release())

const of = (countries: Countries, address: string): string | null => countries.countryOf(parseIp(address))

async function withFile<T>(text: string, use: (file: string) => Promise<T>): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), 'shallot-geo-'))
  try {
    const file = join(dir, 'countries')
    await writeFile(file, text)
    return await use(file)
  } finally {
    await rm(dir, { recursive: true })
  }
}

describe('the data of the program', () => {
  test('knows addresses of registries that stay where they are, of both families', async () => {
    const countries = await Countries.open('', silentLogger)
    // RIPE NCC's and ARIN's own.
    expect(of(countries, '193.0.6.139')).toBe('NL')
    expect(of(countries, '192.149.252.75')).toBe('US')
    expect(of(countries, '2001:67c:2e8::1')).toBe('NL')
    expect(of(countries, '::ffff:193.0.6.139')).toBe('NL')
  })

  test('knows nothing of addresses that are nowhere', async () => {
    const countries = await Countries.open('', silentLogger)
    for (const address of ['127.0.0.1', '10.1.2.3', '0.0.0.0', '255.255.255.255', '::1', 'fe80::1', 'ff02::1'])
      expect(of(countries, address), address).toBeNull()
  })

  test('is read at the first look-up, by family, and can be let go of', async () => {
    const countries = await Countries.open('', silentLogger)
    expect(shippedCountries.held).toEqual([])
    of(countries, '193.0.6.139')
    expect(shippedCountries.held).toEqual([4])
    of(countries, '2001:67c:2e8::1')
    expect(shippedCountries.held).toEqual([4, 6])
    shippedCountries.release()
    expect(shippedCountries.held).toEqual([])
    expect(of(countries, '193.0.6.139')).toBe('NL')
  })
})

describe('a file of countries', () => {
  test('comes before the data, and the smallest network decides', async () => {
    const text = '# mine\n193.0.0.0/16 SE\n193.0.6.0/24, FI  # there\r\n193.0.6.7\t-\n\n2001:67c::/32 NO\n127.1.0.0/16 DE\n'
    await withFile(text, async (file) => {
      const countries = await Countries.open(file, silentLogger)
      expect(of(countries, '193.0.1.1')).toBe('SE')
      expect(of(countries, '193.0.6.139')).toBe('FI')
      expect(of(countries, '193.0.6.7')).toBeNull()
      expect(of(countries, '2001:67c:2e8::1')).toBe('NO')
      expect(of(countries, '127.1.0.1')).toBe('DE')
      expect(shippedCountries.held).toEqual([])
      expect(of(countries, '192.149.252.75')).toBe('US')
    })
  })

  test.each([
    ['192.0.2.0/24', 'line 1: not of the form NETWORK COUNTRY'],
    ['192.0.2.0/24 DE FR', 'line 1: not of the form NETWORK COUNTRY'],
    ['192.0.2.0/24 DE\n\nhere DE', 'line 3: IP address: not an IPv4 or IPv6 address'],
    ['192.0.2.0/33 DE', 'line 1: network: prefix length is not 0 to 32'],
    ['192.0.2.0/24 de', 'line 1: not a country: two capital letters'],
    ['192.0.2.0/24 UK', 'line 1: not the code of a country: GB is meant'],
    ['192.0.2.0/24 DE\n192.0.2.9/24 FR', 'line 2: the network is named twice'],
  ])('is refused with its line: %j', async (text, problem) => {
    expect(() => CountryTable.parse(text)).toThrow(problem)
    await withFile(text, (file) =>
      expect(Countries.open(file, silentLogger)).rejects.toMatchObject({ code: 'countries-invalid', kind: 'config' }),
    )
  })

  test('that is not there is a configuration mistake', async () => {
    await expect(Countries.open('/nowhere/countries', silentLogger)).rejects.toMatchObject({ code: 'countries-unreadable', kind: 'config' })
  })
})
