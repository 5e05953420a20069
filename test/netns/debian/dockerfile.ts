import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** One step of a Dockerfile. */
export type Step =
  | { readonly kind: 'FROM'; readonly image: string; readonly as: string | null }
  | { readonly kind: 'WORKDIR' | 'USER' | 'VOLUME' | 'STOPSIGNAL'; readonly value: string }
  | { readonly kind: 'COPY'; readonly from: string | null; readonly sources: readonly string[]; readonly to: string }
  | { readonly kind: 'ENV'; readonly values: Readonly<Record<string, string>> }
  | { readonly kind: 'RUN'; readonly script: string }
  | { readonly kind: 'HEALTHCHECK' | 'ENTRYPOINT' | 'CMD'; readonly words: readonly string[] }

/**
 * The steps of a Dockerfile that says what ours says: the other instructions and flags, and the shell form where ours has the list, are refused rather
 * than passed over, so that the Dockerfile can't come to hold what no test has run.
 */
export function parseDockerfile(text: string): readonly Step[] {
  const lines = text
    .split('\n')
    .filter((line) => !/^\s*(#|$)/.test(line))
    .join('\n')
    .replace(/\\\n/g, ' ')
    .split('\n')
  return lines.map((line) => {
    const [, kind, rest] = /^(\w+)\s+(.*)$/.exec(line) ?? []
    const step = kind === undefined ? null : stepOf(kind, rest!.trim())
    if (step === null) throw new Error(`not an instruction that is known here: ${line}`)
    return step
  })
}

function stepOf(kind: string, rest: string): Step | null {
  switch (kind) {
    case 'FROM': {
      const [, image, as] = /^(\S+)(?: AS (\S+))?$/.exec(rest) ?? []
      return image === undefined ? null : { kind, image, as: as ?? null }
    }
    case 'COPY': {
      const [, from, paths] = /^(?:--from=(\S+) )?([^-].*)$/.exec(rest) ?? []
      const words = paths?.split(/\s+/) ?? []
      return words.length < 2 ? null : { kind, from: from ?? null, sources: words.slice(0, -1), to: words.at(-1)! }
    }
    case 'ENV':
      return /^(\w+=\S+ ?)+$/.test(rest) ? { kind, values: Object.fromEntries(rest.split(' ').map((pair) => pair.split('='))) } : null
    case 'RUN':
      return rest.startsWith('[') || rest.startsWith('--') ? null : { kind, script: rest }
    case 'ENTRYPOINT':
    case 'CMD':
      return rest.startsWith('[') ? { kind, words: JSON.parse(rest) as string[] } : null
    case 'HEALTHCHECK': {
      const [, list] = /^(?:--(?:interval|timeout|start-period)=\d+s )*CMD (\[.*\])$/.exec(rest) ?? []
      return list === undefined ? null : { kind, words: JSON.parse(list) as string[] }
    }
    case 'WORKDIR':
    case 'USER':
    case 'VOLUME':
    case 'STOPSIGNAL':
      return /^\S+$/.test(rest) ? { kind, value: rest } : null
    default:
      return null
  }
}

/** What a build of this context would not be given: the lines of its .dockerignore, as paths. */
export function ignoredBy(context: string): (path: string) => boolean {
  const file = join(context, '.dockerignore')
  const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n') : []
  const patterns = lines.filter((line) => !/^\s*(#|$)/.test(line))
  return (path) => {
    let ignored = false
    for (const pattern of patterns) {
      const [negated, plain] = pattern.startsWith('!') ? [true, pattern.slice(1)] : [false, pattern]
      const matches = new RegExp(`^${plain.replaceAll('.', '\\.').replaceAll('*', '[^/]*')}(/|$)`).test(path)
      if (matches) ignored = !negated
    }
    return ignored
  }
}
