import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'

/** The repository as the architecture tests see it: the files that are or will be tracked. */

export const root = resolve(import.meta.dirname, '../..')

/** Paths from the root, of tracked files and of new ones that are not ignored. */
export function repositoryFiles(): string[] {
  const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  })
  return listed.split('\0').filter((file) => file !== '' && existsSync(join(root, file)) && statSync(join(root, file)).isFile())
}

/** The text of a file, or null when it is not text. */
export function textOf(file: string): string | null {
  const bytes = readFileSync(join(root, file))
  return bytes.subarray(0, 8000).includes(0) ? null : bytes.toString('utf8')
}

/** The text of a file that is there. */
export function read(file: string): string {
  return readFileSync(join(root, file), 'utf8')
}

export interface Import {
  /** Where it is written, from the root. */
  readonly file: string
  readonly line: number
  /** As written. */
  readonly specifier: string
  /** The file it names, from the root; null for packages and node: modules. */
  readonly target: string | null
  readonly typeOnly: boolean
}

/** Every static and dynamic import and re-export of a TypeScript file. */
export function importsOf(file: string): Import[] {
  const text = read(file)
  const found: Import[] = []
  const pattern =
    /(?:^|[\n;])\s*(?:import|export)(\s+type)?\s(?:[^'";]*?\sfrom\s*)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)|^\s*import\s*['"]([^'"]+)['"]/gm
  for (const match of text.matchAll(pattern)) {
    const specifier = match[2] ?? match[3] ?? match[4]!
    const target = specifier.startsWith('.') ? relative(root, resolve(root, dirname(file), specifier)) : null
    const line = text.slice(0, match.index + match[0].indexOf(specifier)).split('\n').length
    found.push({ file, line, specifier, target, typeOnly: match[1] !== undefined })
  }
  return found
}

/** Source text with comments and the contents of strings blanked out, lines kept. */
export function codeOf(file: string): string {
  const blank = (text: string): string => text.replace(/[^\n]/g, ' ')
  return read(file).replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/g, (match) =>
    match.startsWith('/') ? blank(match) : `'${blank(match.slice(1, -1))}'`,
  )
}
