import { type CommandModel, everyCommand, type OptionModel, type ValueModel } from './command-model.ts'

/** Completions for fish 3 and later. */
export function fishCompletion(program: CommandModel): string {
  const all = everyCommand(program)
  const [name] = program.path
  const moves = all.flatMap(({ path, commands }) => commands.map((one) => `'${path.join(' ')}:${one.path.at(-1)}'`))
  const taking = all.flatMap(({ path, options }) =>
    options.flatMap(({ flags, value }) => (value === null ? [] : flags.map((flag) => `'${path.join(' ')}:${flag}'`))),
  )
  return `# fish completion for ${name}; made by \`${name} completion fish\`
function __${name}_at
  set -l path ${name}
  set -l pending 0
  for word in (commandline -opc)[2..]
    if test $pending = 1
      set pending 0
      continue
    end
    switch "$path:$word"
      case ${moves.join(' ')}
        set path "$path $word"
      case ${taking.join(' ')}
        set pending 1
    end
  end
  test "$path" = "$argv"
end
complete -c ${name} -f
${all.flatMap(linesOf).join('\n')}
`
}

function linesOf({ path, options, commands, arguments: args }: CommandModel): string[] {
  const [name] = path
  const start = `complete -c ${name} -n '__${name}_at ${path.join(' ')}'`
  return [
    ...commands.map((one) => `${start} -a ${one.path.at(-1)} -d '${quoted(one.description)}'`),
    ...options.map((option) => `${start} ${flagsOf(option)} -d '${quoted(option.description)}'`),
    ...args.flatMap((argument) => {
      const found = candidates(argument)
      return found === '' ? [] : [`${start} ${found}`]
    }),
  ]
}

function flagsOf({ flags, value }: OptionModel): string {
  const names = flags.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`)).join(' ')
  if (value === null) return names
  // -r: it takes a value; -f: that is no file.
  return `${names} -r${value.kind === 'file' && value.choices.length === 0 ? '' : 'f'} ${candidates(value)}`.trimEnd()
}

function candidates({ kind, choices }: ValueModel): string {
  if (choices.length > 0) return `-a '${choices.join(' ')}'`
  if (kind === 'file') return '-F'
  if (kind === 'directory') return "-a '(__fish_complete_directories)'"
  if (kind === 'program') return "-a '(__fish_complete_subcommand)'"
  return ''
}

function quoted(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")
}
