import { parse } from 'smol-toml'
import { describe, expect, test } from 'vitest'
import { editToml } from '../../../src/node/toml-edit.ts'

const file = `# who I am
[node]
roles = ["client"] # just me
# family = []

[path] # where to
# Relays I do not want.
exclude_nodes = [
  "a", # not "b" = 1
  "]",
]
exclude_networks = ['192.0.2.0/24']

[[list]]
name = """
[path]
exclude_nodes = 1
"""
[log]
level="info"`

describe('an edit of a TOML text', () => {
  test.each([
    ['a value on one line, and keeps the comment behind it', ['node', 'roles'], '["client", "guard"]'],
    ['a list over several lines', ['path', 'exclude_nodes'], '[]'],
    ['a value in the last line, which has no end', ['log', 'level'], '"debug"'],
    ['a key that was not there', ['path', 'exit_nodes'], '["x"]'],
    ['a key of a table that was not there', ['ingress', 'socks', 'listen'], '["127.0.0.1:1"]'],
  ])('sets %s', (_, path, value) => {
    const edited = editToml(file, path, value)
    const expected = parse(file) as Record<string, unknown>
    const table = path.slice(0, -1).reduce<Record<string, unknown>>((at, step) => {
      at[step] ??= {}
      return at[step] as Record<string, unknown>
    }, expected)
    table[path.at(-1)!] = (parse(`x = ${value}`) as { x: unknown }).x
    expect(parse(edited)).toEqual(expected)
    for (const comment of ['# who I am', '# just me', '# where to', '# Relays I do not want.']) expect(edited).toContain(comment)
  })

  test('changes nothing but the value', () => {
    expect(editToml(file, ['log', 'level'], '"debug"')).toBe(file.replace('"info"', '"debug"'))
    expect(editToml(file, ['node', 'roles'], '["exit"]')).toBe(file.replace('["client"]', '["exit"]'))
  })

  test('puts a new key where a comment holds its place', () => {
    expect(editToml(file, ['node', 'family'], '["x"]')).toContain('# family = []\nfamily = ["x"]\n')
  })

  test('takes a key away with its lines, and says nothing of one that is not there', () => {
    const edited = editToml(file, ['path', 'exclude_nodes'], null)
    expect(edited).toContain('# Relays I do not want.\nexclude_networks')
    expect((parse(edited).path as Record<string, unknown>).exclude_nodes).toBeUndefined()
    expect(editToml(file, ['path', 'exit_nodes'], null)).toBe(file)
    expect(editToml(file, ['exit', 'policy'], null)).toBe(file)
  })

  test('writes into an empty file', () => {
    expect(parse(editToml('', ['log', 'level'], '"debug"'))).toEqual({ log: { level: 'debug' } })
  })

  test('finds keys with dots and quotes', () => {
    expect(parse(editToml('a . "b c".d = "x\\"]" # y\n', ['a', 'b c', 'd'], '2'))).toEqual({ a: { 'b c': { d: 2 } } })
  })
})
