import { describe, expect, test } from 'vitest'
import { read, repositoryFiles } from '../support/repository.ts'

/** The table of docs/glossary.md, a word to a row: "guard, middle, exit" is three. In the order of reading, not of the alphabet. */
const rows = read('docs/glossary.md')
  .split('\n')
  .filter((line) => line.startsWith('| ') && !line.startsWith('| ---') && !line.startsWith('| word '))
  .map((line) => line.split('|').map((cell) => cell.trim()))
const words = rows.flatMap(([, names]) => names!.split(', '))

/** What others call these things, and what we call them. Each of these names is right somewhere else, and two names here would be two things. */
const otherNames: readonly (readonly [string, string])[] = [
  ['entry node', 'guard'],
  ['entry guard', 'guard'],
  ['guard node', 'guard'],
  ['middle node', 'middle'],
  ['exit node', 'exit'],
  ['onion router', 'relay'],
  ['onion proxy', 'client'],
  ['router descriptor', 'descriptor'],
  ['microdescriptor', 'descriptor'],
  ['circuit key', 'layer'],
  ['routing cell', 'cell'],
  ['relay server', 'NAT relay'],
  ['relay node', 'relay, or NAT relay'],
  ['network view', 'view'],
  ['isolation token', 'isolation key'],
]

const texts = repositoryFiles()
  .filter((file) => /^(src|docs|bootstrap|relay|exit)\/.*\.(tsx?|md)$|^README\.md$/.test(file))
  .filter((file) => file !== 'docs/glossary.md' && !file.startsWith('docs/decisions/'))
  .map((file) => ({ file, text: read(file) }))

/** Where `name` or its plural stands, in words: not within code's camelCase. */
function placesOf(name: string): string[] {
  const pattern = new RegExp(`\\b${name.replaceAll(' ', '\\s+')}s?\\b`, 'gi')
  return texts.flatMap(({ file, text }) =>
    [...text.matchAll(pattern)].map((match) => `${file}:${text.slice(0, match.index).split('\n').length}`),
  )
}

describe('the glossary', () => {
  test('says of every word what it means, once', () => {
    expect(words.length).toBeGreaterThan(20)
    expect(rows.filter(([, names, meaning, ...rest]) => !names || !meaning || rest.length !== 1)).toEqual([])
    const lower = words.map((word) => word.toLowerCase())
    expect(lower.filter((word, i) => lower.indexOf(word) !== i)).toEqual([])
  })

  test('has no word that nothing is called by', () => {
    expect(words.filter((word) => placesOf(word).length === 0)).toEqual([])
  })

  test('is kept to: nothing goes by another name', () => {
    const found = otherNames.flatMap(([name, ours]) => placesOf(name).map((place) => `${place} says "${name}": here it is ${ours}`))
    expect(found).toEqual([])
  })

  test('the test finds a word over a line break and in the plural', () => {
    expect(placesOf('isolation key').length).toBeGreaterThan(0)
    expect(placesOf('descriptor').length).toBeGreaterThan(placesOf('descriptor of a').length)
  })
})
