import { type CommandModel, everyCommand, type OptionModel, type ValueModel } from './command-model.ts'

/** Completions for zsh: one function for each command, over `_arguments`. */
export function zshCompletion(program: CommandModel): string {
  const [name] = program.path
  const functions = everyCommand(program).map(functionOf).join('\n')
  return `#compdef ${name}
# zsh completion for ${name}; made by \`${name} completion zsh\`
${functions}
if [[ $funcstack[1] == _${name} ]]; then
  _${name} "$@"
else
  compdef _${name} ${name}
fi
`
}

function functionOf(command: CommandModel): string {
  const specs = command.options.map(optionSpec)
  const own = functionName(command.path)
  if (command.commands.length === 0) {
    for (const argument of command.arguments)
      specs.push(
        `'${argument.variadic ? '*' : ''}${argument.required || argument.variadic ? '' : ':'}:${quoted(argument.name)}:${action(argument)}'`,
      )
    // A program and its own arguments: what comes after is completed as a command line.
    const list = command.arguments.some(({ kind }) => kind === 'program')
      ? [...command.options.map(optionSpec), `'(-)1:program:_command_names -e'`, `'*::arguments:_normal'`]
      : specs
    return `${own}() {\n  _arguments -s ${list.join(' \\\n    ')}\n}`
  }
  const choices = command.commands.map((one) => `'${quoted(one.path.at(-1)!, ':')}:${quoted(one.description)}'`)
  return `${own}() {
  local curcontext="$curcontext" state line
  _arguments -C -s ${[...specs, `'1: :->command'`, `'*:: :->rest'`].join(' \\\n    ')}
  case $state in
    command)
      local -a commands=(
        ${choices.join('\n        ')}
      )
      _describe -t commands command commands
      ;;
    rest)
      local next=${own}_\${words[1]//-/_}
      (( $+functions[$next] )) && $next
      ;;
  esac
}`
}

function functionName(path: readonly string[]): string {
  return `_${path.join('_').replaceAll('-', '_')}`
}

function optionSpec({ flags, description, value }: OptionModel): string {
  const what = `[${quoted(description, '[]')}]${value === null ? '' : `:${quoted(value.name, ':')}:${action(value)}`}`
  return flags.length === 1 ? `'${flags[0]}${what}'` : `'(${flags.join(' ')})'{${flags.join(',')}}'${what}'`
}

function action({ kind, choices }: ValueModel): string {
  if (choices.length > 0) return `(${choices.join(' ')})`
  if (kind === 'file') return '_files'
  if (kind === 'directory') return '_files -/'
  return ' '
}

/** Inside single quotes, with some characters escaped for `_arguments`. */
function quoted(text: string, special = ''): string {
  const escaped = [...text].map((character) => (special.includes(character) || character === '\\' ? `\\${character}` : character)).join('')
  return escaped.replaceAll("'", "'\\''")
}
