import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { networkRules } from '../../src/directory/index.ts'
import { exampleOverrides } from '../../src/node/config-examples.ts'
import { configSchema, defaultsOf, parseConfig, roleProfiles, rolesOfSection } from '../../src/node/index.ts'
import { briefToml } from '../../src/node/toml-example.ts'
import { bareSchema, helpOf, tomlKey } from '../../src/node/toml-schema.ts'
import { examples, generatedFiles } from '../support/generated-files.ts'
import { read } from '../support/repository.ts'

const bootstrap = 'bootstrap = ["/ip4/198.51.100.1/tcp/4460/p2p/12D3KooWKktysxBH5AU7yAvm5J3Eq7q6UJrSXiX9BUSeq8n15EPw"]'
const parse = (text: string) => parseConfig(text, '/x/shallot.toml', async () => bootstrap)

const files = await generatedFiles()

/** Every key of a schema of sections, "link.limits.maxLinks", with its schema. */
function keysOf(schema: z.ZodType, path: string[] = []): { path: string[]; schema: z.ZodType }[] {
  const bare = bareSchema(schema)
  if (!(bare instanceof z.ZodObject)) return [{ path, schema }]
  return Object.entries(bare.shape as Record<string, z.ZodType>).flatMap(([key, inner]) => keysOf(inner, [...path, key]))
}

describe('configuration', () => {
  test.each(files)('$path is what the schemas say (write it anew: sh bin/tool node test/support/generated-files.ts)', ({ path, text }) => {
    expect(read(path)).toBe(text)
  })

  test.each(examples)('$path is complete and equal to the defaults of its roles', async ({ path, roles }) => {
    const text = read(path)
    const example = await parse(text)
    expect(example).toEqual(await parse(briefToml(configSchema, exampleOverrides(roles), '')))
    const missing = keysOf(configSchema)
      .filter(
        (key) => rolesOfSection(key.path[0] as keyof typeof configSchema.shape)?.some((role) => (roles as string[]).includes(role)) ?? true,
      )
      .filter((key) => !new RegExp(`^(# )?${tomlKey(key.path.at(-1)!)} =`, 'm').test(text))
    expect(missing.map((key) => key.path.map(tomlKey).join('.'))).toEqual([])
  })

  test('the examples together show every key', () => {
    const all = examples.map(({ path }) => read(path)).join('\n')
    expect(
      keysOf(configSchema)
        .filter((key) => !new RegExp(`^(# )?${tomlKey(key.path.at(-1)!)} =`, 'm').test(all))
        .map((key) => key.path.join('.')),
    ).toEqual([])
  })

  test('every key has help and a default', () => {
    for (const schema of [configSchema, networkRules]) {
      expect(
        keysOf(schema)
          .filter((key) => helpOf(key.schema) === '')
          .map((key) => `${key.path.join('.')} has no .describe()`),
      ).toEqual([])
      expect(schema.safeParse({}).success).toBe(true)
    }
  })

  test('every role has a profile that its own configuration accepts', async () => {
    for (const role of Object.keys(roleProfiles) as (keyof typeof roleProfiles)[]) {
      expect(roleProfiles[role].role).toBe(role)
      const overrides = defaultsOf([role])
      expect((await parse(briefToml(configSchema, { ...overrides, node: exampleOverrides([role]).node }, ''))).node.roles).toEqual([role])
    }
  })
})
