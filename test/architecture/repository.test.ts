import { existsSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, test } from 'vitest'
import { read, repositoryFiles, root, textOf } from '../support/repository.ts'

const files = repositoryFiles()
const texts = files
  .filter((file) => file !== 'package-lock.json')
  .flatMap((file) => {
    const text = textOf(file)
    return text === null ? [] : [{ file, text }]
  })
const documents = texts.filter(({ file }) => file.endsWith('.md'))

/** What only makes sense on the machine it was written on. */
const traces: readonly (readonly [RegExp, string])[] = [
  [/(?:^|[\s'"`(=:])\/(?:home|Users|root|work|workspace)\/[\w.-]/, 'a path of one machine'],
  [/[A-Z]:\\Users\\/, 'a path of one machine'],
  [/\bhttps?:\/\/[\w.-]*(?:artifactory|nexus|verdaccio|registry-mirror|npm-mirror|pkgs\.dev)[\w.-]*/i, 'the host of a package registry'],
]

describe('the repository', () => {
  test('holds no trace of the machine it was made on', () => {
    const self = 'test/architecture/repository.test.ts'
    const found = texts
      .filter(({ file }) => file !== self)
      .flatMap(({ file, text }) =>
        text
          .split('\n')
          .flatMap((line, i) =>
            traces
              .filter(([pattern]) => pattern.test(line))
              .map(([, what]) => `${file}:${i + 1} holds ${what}: ${line.trim().slice(0, 80)}`),
          ),
      )
    expect(found).toEqual([])
  })

  test('takes packages from whatever registry npm is set to: the lockfile names no place', () => {
    const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, { resolved?: string }> }
    const foreign = Object.entries(lock.packages).filter(([, entry]) => entry.resolved !== undefined)
    expect(foreign.map(([path, entry]) => `${path}: ${entry.resolved}`)).toEqual([])
  })

  test('has a lockfile that `npm ci` accepts: every optional dependency of a package is in it', () => {
    // A registry that lacks a platform's package leaves a hole that npm only complains about on the next machine.
    const { packages } = JSON.parse(read('package-lock.json')) as {
      packages: Record<string, { optionalDependencies?: Record<string, string> }>
    }
    const holes = Object.entries(packages).flatMap(([path, entry]) =>
      Object.keys(entry.optionalDependencies ?? {})
        .filter((name) => packages[`node_modules/${name}`] === undefined && packages[`${path}/node_modules/${name}`] === undefined)
        .map((name) => `${path} wants ${name}, which the lockfile does not have`),
    )
    expect(holes).toEqual([])
  })

  test('pins every dependency exactly and explains it in docs/dependencies.md', () => {
    const { dependencies, devDependencies, optionalDependencies } = JSON.parse(read('package.json')) as Record<
      string,
      Record<string, string>
    >
    const all = { ...dependencies, ...devDependencies, ...optionalDependencies }
    const explained = read('docs/dependencies.md')
    expect(
      Object.entries(all)
        .filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))
        .map(([name]) => `${name} is not pinned exactly`),
    ).toEqual([])
    expect(
      Object.keys(all)
        .filter((name) => !explained.includes(`\`${name}\``))
        .map((name) => `docs/dependencies.md does not say why ${name} is here`),
    ).toEqual([])
    const named = [...explained.matchAll(/^\| `([^`]+)`/gm)].map((match) => match[1]!)
    expect(
      named.filter((name) => all[name] === undefined).map((name) => `docs/dependencies.md names ${name}, which is not a dependency`),
    ).toEqual([])
  })

  test('has no dead link in its documents', () => {
    const dead: string[] = []
    for (const { file, text } of documents) {
      const prose = text.replace(/```[\s\S]*?```/g, '')
      for (const [, target] of prose.matchAll(/\[[^\]]*\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target!)) continue
        const [path, anchor] = target!.split('#')
        const wanted = path === '' ? file : normalize(join(dirname(file), path!))
        if (!existsSync(join(root, wanted))) dead.push(`${file}: ${target}: there is no ${wanted}`)
        else if (anchor && wanted.endsWith('.md') && !headings(read(wanted)).includes(anchor))
          dead.push(`${file}: ${target}: no such heading`)
      }
      // Paths in backticks are links for people: they must lead somewhere too.
      for (const [, path] of prose.matchAll(/`((?:src|docs|test|bin|bootstrap|relay|exit|simulations)\/[\w./-]+)`/g)) {
        if (!existsSync(join(root, path!)) && !existsSync(join(root, dirname(file), path!)))
          dead.push(`${file}: \`${path}\`: there is no such file`)
      }
    }
    expect(dead).toEqual([])
  })

  test('cites only specifications that are there', () => {
    const dead = texts
      .filter(({ file }) => file.endsWith('.ts'))
      .flatMap(({ file, text }) =>
        [...text.matchAll(/docs\/[\w/-]+\.md/g)].filter(([path]) => !existsSync(join(root, path))).map(([path]) => `${file} cites ${path}`),
      )
    expect([...new Set(dead)]).toEqual([])
  })

  test('names files in kebab-case and has no folder of odds and ends', () => {
    const sources = files.filter((file) => /^(src|bootstrap|relay|exit|test|simulations)\/.*\.tsx?$/.test(file))
    expect(sources.filter((file) => !/^[a-z0-9/]+(?:[-.][a-z0-9]+|\/[a-z0-9]+)*\.tsx?$/.test(file))).toEqual([])
    expect(sources.filter((file) => /\/(utils?|helpers?|misc|common)(\/|\.tsx?$)/.test(file))).toEqual([])
  })

  test('has no file too long to read', () => {
    const longest = 500
    const sources = texts.filter(({ file }) => /^(src|bootstrap|relay|exit)\/.*\.tsx?$/.test(file))
    const long = sources.filter(({ text }) => text.split('\n').length > longest && !text.includes('Longer than 500 lines because'))
    expect(
      long.map(
        ({ file, text }) => `${file} has ${text.split('\n').length} lines; split it, or say in it "Longer than 500 lines because …"`,
      ),
    ).toEqual([])
  })
})

/** The anchors of a document's headings, as GitHub makes them. */
function headings(text: string): string[] {
  return [...text.matchAll(/^#+\s+(.+)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .trim()
      .replaceAll(' ', '-'),
  )
}
