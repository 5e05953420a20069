import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { projectRoot } from '../../support/processes.ts'

/**
 * The commands of a guide, word for word: the `sh` blocks below a heading, in order.
 * @param heading the text of a heading; fails when the guide has none such, or no block below it
 */
export function commandsOf(guide: string, heading: string): readonly string[] {
  const text = readFileSync(join(projectRoot, guide), 'utf8')
  const [, below] = text.split(new RegExp(`^#+ ${heading}$`, 'm'))
  if (below === undefined) throw new Error(`${guide} has no heading "${heading}"`)
  const section = below.split(/^#+ /m)[0]!
  const blocks = [...section.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block!)
  if (blocks.length === 0) throw new Error(`${guide}, "${heading}", has no commands`)
  return blocks
}

/** The commands in the head of a file, word for word: its lines that begin with `#   `. */
export function commandsInHead(file: string): string {
  const lines = readFileSync(join(projectRoot, file), 'utf8').split('\n')
  const commands = lines.filter((line) => line.startsWith('#   ')).map((line) => line.slice(4).replace(/\s{2,}\(.*\)$/, ''))
  if (commands.length === 0) throw new Error(`${file} has no commands in its head`)
  return commands.join('\n')
}

/** A text with each name replaced by its value. Fails where a name does not occur: the guide says something else then. */
export function withValues(text: string, values: Readonly<Record<string, string>>): string {
  return Object.entries(values).reduce((done, [name, value]) => {
    if (!done.includes(name)) throw new Error(`the guide does not say "${name}":\n${text}`)
    return done.replaceAll(name, value)
  }, text)
}
