import { existsSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, test } from 'vitest'
import { read, repositoryFiles, root } from '../support/repository.ts'

/** The core, where every export states its contract. */
const core = [
  'base',
  'crypto',
  'packet',
  'dns',
  'onion',
  'netstack',
  'directory',
  'path',
  'link',
  'store',
  'tun',
  'geo',
  'relaying',
  'client',
  'ingress',
  'egress',
  'discovery',
  'nat',
  'node',
  'control',
]

const doors = repositoryFiles().filter((file) => core.some((room) => file === `src/${room}/index.ts`))

/** The files whose exports a door passes on, with the names (null: all). */
function passedOn(door: string): { file: string; names: string[] | null }[] {
  const found: { file: string; names: string[] | null }[] = []
  for (const [, list, from] of read(door).matchAll(/export\s+(?:type\s+)?(?:\*|\{([^}]*)\})\s+from\s+'([^']+)'/g)) {
    const file = normalize(join(dirname(door), from!))
    if (!existsSync(join(root, file))) continue
    found.push({
      file,
      names:
        list === undefined
          ? null
          : list
              .split(',')
              .map((name) =>
                name
                  .replace(/\btype\b/, '')
                  .split(' as ')[0]!
                  .trim(),
              )
              .filter((name) => name !== ''),
    })
  }
  return found
}

/** Exported functions and classes of a file that have no comment above them. */
function undocumented(file: string): string[] {
  const lines = read(file).split('\n')
  const found: string[] = []
  for (const [i, line] of lines.entries()) {
    const name = /^export (?:async )?(?:abstract )?(?:function\*?|class) (\w+)/.exec(line)?.[1]
    if (name === undefined) continue
    const before = lines[i - 1]?.trim() ?? ''
    // Overloads follow each other.
    if (before.endsWith('*/') || before.startsWith('//') || new RegExp(`^export (async )?function ${name}\\b`).test(before)) continue
    found.push(name)
  }
  return found
}

describe('doors', () => {
  test('every function and class that a door of the core lets out says its contract', () => {
    const missing = doors.flatMap(passedOn).flatMap(({ file, names }) =>
      undocumented(file)
        .filter((name) => names === null || names.includes(name))
        .map((name) => `${file}: ${name} has no doc line`),
    )
    expect([...new Set(missing)]).toEqual([])
  })
})
