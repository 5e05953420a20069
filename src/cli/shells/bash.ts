import { type CommandModel, everyCommand, type ValueModel } from './command-model.ts'

/** Completions for bash 4 and later, without the package bash-completion. */
export function bashCompletion(program: CommandModel): string {
  const all = everyCommand(program)
  const [name] = program.path
  const moves = all.flatMap(({ path, commands }) => commands.map((one) => `'${path.join(' ')}:${one.path.at(-1)}'`))
  const taking = all.flatMap(({ path, options }) =>
    options.flatMap(({ flags, value }) => (value === null ? [] : flags.map((flag) => ({ pattern: `'${path.join(' ')}:${flag}'`, value })))),
  )
  return `# bash completion for ${name}; made by \`${name} completion bash\`
_${name}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} path=${name} pending= given=0 word i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ -n $pending ]]; then
      pending=
      continue
    fi
    case "$path:$word" in
      ${moves.join(' | ')}) path="$path $word" ;;
      ${taking.map(({ pattern }) => pattern).join(' | ')}) pending="$path:$word" ;;
      *:-*) ;;
      *) given=$((given + 1)) ;;
    esac
  done
  case "$pending" in
${grouped(taking.map(({ pattern, value }) => [pattern, reply(value)]))}
  esac
  case "$path" in
${all.map((command) => `    '${command.path.join(' ')}')\n${offers(command)}\n      ;;`).join('\n')}
  esac
}
complete -F _${name} ${name}
`
}

/** What a command offers where no option waits for its value. */
function offers({ options, commands, arguments: args }: CommandModel): string {
  const flags = `COMPREPLY=($(compgen -W '${options.flatMap((option) => option.flags).join(' ')}' -- "$cur"))`
  const lines = [`      if [[ $cur == -* ]]; then ${flags}`]
  if (commands.length > 0)
    lines.push(`      else COMPREPLY=($(compgen -W '${commands.map(({ path }) => path.at(-1)).join(' ')}' -- "$cur"))`)
  for (const [i, argument] of args.entries())
    lines.push(`      elif ((given ${argument.variadic ? '>=' : '=='} ${i})); then ${reply(argument)}`)
  return `${lines.join('\n')}\n      fi`
}

function reply({ kind, choices }: ValueModel): string {
  if (choices.length > 0) return `COMPREPLY=($(compgen -W '${choices.join(' ')}' -- "$cur"))`
  if (kind === 'file') return 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur")'
  if (kind === 'directory') return 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur")'
  if (kind === 'program') return 'mapfile -t COMPREPLY < <(compgen -c -- "$cur")'
  return ':'
}

/** Options whose values are found in the same way share a branch. */
function grouped(branches: readonly (readonly [pattern: string, action: string])[]): string {
  const by = new Map<string, string[]>()
  for (const [pattern, action] of branches) by.set(action, [...(by.get(action) ?? []), pattern])
  return [...by].map(([action, patterns]) => `    ${patterns.join(' | ')})\n      ${action}\n      return\n      ;;`).join('\n')
}
