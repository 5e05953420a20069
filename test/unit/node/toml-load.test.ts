import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { exampleToml } from '../../../src/node/toml-example.ts'
import { ConfigError, loadToml, nearest } from '../../../src/node/toml-load.ts'
import { describeType, helpOf, tomlKey } from '../../../src/node/toml-schema.ts'

const schema = z.strictObject({
  alpha: z
    .strictObject({
      idleTimeoutMs: z.int().min(1).max(100).default(10).describe('how long'),
      name: z.string().default('x').describe('a name'),
      mode: z.enum(['on', 'off']).default('on').describe('a mode'),
      ratio: z.number().min(0).default(0.5).describe('a ratio'),
      list: z
        .array(z.strictObject({ userName: z.string(), password: z.string() }))
        .default([])
        .describe('people'),
      levels: z
        .record(z.string(), z.enum(['low', 'high']))
        .default({})
        .describe('levels'),
      inner: z
        .strictObject({ deepKey: z.boolean().default(false).describe('deep') })
        .prefault({})
        .describe('inside'),
    })
    .prefault({}),
})

function problems(text: string): string[] {
  try {
    loadToml(text, 'f.toml', schema)
    return []
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError)
    return (error as ConfigError).message.split('\n')
  }
}

describe('a right file', () => {
  test('gives camelCase keys, defaults for the rest, and is frozen all the way down', () => {
    const { value } = loadToml(
      '[alpha]\nidle_timeout_ms = 3\nlist = [{ user_name = "a", password = "b" }]\n[alpha.levels]\n"Strange Name" = "high"\n[alpha.inner]\ndeep_key = true\n',
      'f',
      schema,
    )
    expect(value.alpha).toMatchObject({
      idleTimeoutMs: 3,
      name: 'x',
      list: [{ userName: 'a', password: 'b' }],
      levels: { 'Strange Name': 'high' },
      inner: { deepKey: true },
    })
    expect(Object.isFrozen(value.alpha.list[0])).toBe(true)
    expect(() => {
      ;(value.alpha.inner as { deepKey: boolean }).deepKey = false
    }).toThrow(TypeError)
  })

  test('an empty file is all defaults', () => {
    expect(loadToml('', 'f', schema).value).toEqual(schema.parse({}))
  })

  test('its example reads back as the defaults', () => {
    expect(loadToml(exampleToml(schema, {}, 'An example'), 'f', schema).value).toEqual(schema.parse({}))
  })
})

describe('a wrong file', () => {
  test.each([
    ['[alpha]\nidle_timeout_ms = "soon"', 'f.toml:2: alpha.idle_timeout_ms is "soon"; it must be a whole number from 1 to 100'],
    ['[alpha]\nidle_timeout_ms = 0', 'f.toml:2: alpha.idle_timeout_ms is 0; it must be a whole number from 1 to 100'],
    ['[alpha]\nidle_timeout_ms = 101', 'f.toml:2: alpha.idle_timeout_ms is 101; it must be a whole number from 1 to 100'],
    ['[alpha]\nidle_timeout_ms = 1.5', 'f.toml:2: alpha.idle_timeout_ms is 1.5; it must be a whole number from 1 to 100'],
    ['[alpha]\nidle_timeout = 1', 'f.toml:2: unknown key alpha.idle_timeout; did you mean alpha.idle_timeout_ms?'],
    ['[alpha]\nidleTimeoutMs = 1', 'f.toml:2: unknown key alpha.idleTimeoutMs; did you mean alpha.idle_timeout_ms?'],
    ['[alhpa]\nx = 1', 'f.toml:1: unknown section [alhpa]; did you mean [alpha]?'],
    [
      '[alpha]\nwhatever_is_this = 1',
      'f.toml:2: unknown key alpha.whatever_is_this; known here: idle_timeout_ms, name, mode, ratio, list, levels, inner',
    ],
    ['[alpha]\nname = 3', 'f.toml:2: alpha.name is 3; it must be text'],
    ['[alpha]\n\n\nmode = "maybe"', 'f.toml:4: alpha.mode is "maybe"; it must be one of "on", "off"'],
    ['[alpha]\nratio = -1', 'f.toml:2: alpha.ratio is -1; it must be a number, at least 0'],
    ['[alpha.levels]\nlink = "loud"', 'f.toml:2: alpha.levels.link is "loud"; it must be one of "low", "high"'],
    ['[alpha]\ninner = 5', 'f.toml:2: alpha.inner is 5; it must be a table with deep_key'],
    ['[alpha.inner]\ndeep_key = 1', 'f.toml:2: alpha.inner.deep_key is 1; it must be true or false'],
    [
      'alpha = 1979-05-27T07:32:00Z',
      'f.toml:1: alpha is "1979-05-27T07:32:00.000Z"; it must be a table with idle_timeout_ms, name, mode, ratio, list, levels, inner',
    ],
    ['[[alpha.list]]\nuser_name = "a"\npassword = 5', 'f.toml:3: alpha.list[0].password is (hidden); it must be text'],
    [
      '[[alpha.list]]\nuser_name = "a"\npassword = "b"\n[[alpha.list]]\nuser_name = "c"',
      'f.toml:4: alpha.list[1].password is missing; it must be text',
    ],
    [
      '[alpha]\nname = """\nidle_timeout_ms = 7\n"""\nidle_timeout_ms = 500',
      'f.toml:5: alpha.idle_timeout_ms is 500; it must be a whole number from 1 to 100',
    ],
    ['__proto__ = 1', expect.stringMatching(/^f\.toml/)],
    ['[alpha]\nname = "a"\nname = "b"', expect.stringMatching(/^f\.toml:3: not valid TOML, at column \d+: /)],
    ['[alpha\nname = 1', expect.stringMatching(/^f\.toml:1: not valid TOML/)],
    ['\u0000', expect.stringMatching(/^f\.toml:1: not valid TOML/)],
  ])('%j', (text, message) => {
    expect(problems(text)).toEqual([message])
  })

  test('is told all at once, in order of its lines', () => {
    expect(problems('[alpha]\nmode = 1\nfoo = 2\nidle_timeout_ms = 0').map((line) => line.slice(0, 8))).toEqual([
      'f.toml:2',
      'f.toml:3',
      'f.toml:4',
    ])
  })

  test('shows long values short', () => {
    expect(problems(`[alpha]\nmode = "${'x'.repeat(5000)}"`)[0]!.length).toBeLessThan(200)
  })
})

test('keys are spelled mechanically', () => {
  expect(tomlKey('maxLibp2pConnections')).toBe('max_libp2p_connections')
  expect(tomlKey('perNet24')).toBe('per_net24')
})

test('only near words are suggested', () => {
  expect(nearest('rols', ['roles', 'listen'])).toBe('roles')
  expect(nearest('banana', ['roles', 'listen'])).toBeNull()
})

test('types are told as a person would', () => {
  expect(describeType(z.array(z.enum(['a', 'b'])).default([]))).toBe('a list; each entry: one of "a", "b"')
  expect(describeType(z.union([z.literal('auto'), z.int().min(1)]))).toBe('"auto"; or a whole number, at least 1')
})

test.each([
  ['how long', 'How long.'],
  ['unix:PATH or ADDRESS:PORT', 'unix:PATH or ADDRESS:PORT.'],
  ['data_dir and below', 'data_dir and below.'],
])('help is a sentence, and what is to be typed stays as it is: %s', (given, shown) => {
  expect(helpOf(z.string().describe(given))).toBe(shown)
})
