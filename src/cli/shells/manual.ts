import { type ArgumentModel, type CommandModel, everyCommand, type OptionModel } from './command-model.ts'

/**
 * The manual page, in the macros of man(7), made of what --help shows.
 * @param date of the version: YYYY-MM-DD
 */
export function manualPage(program: CommandModel, version: string, date: string): string {
  const name = program.path[0]!
  const below = everyCommand(program).slice(1)
  return [
    `.\\" Made of the same source as ${name} \\-\\-help: test/support/generated-files.ts writes it.`,
    `.TH ${name.toUpperCase()} 1 "${date}" "${name} ${version}" "User Commands"`,
    '.SH NAME',
    `${name} \\- ${escaped(lowerFirst(program.description.replace(/\.$/, '')))}`,
    '.SH SYNOPSIS',
    `.B ${name}`,
    '.I command',
    '[\\fIoptions\\fR] [\\fIarguments\\fR]',
    '.SH DESCRIPTION',
    ...prose(program.more),
    '.SH OPTIONS',
    ...program.options.flatMap(optionLines),
    '.SH COMMANDS',
    ...below.flatMap(commandLines),
    '.SH ENVIRONMENT',
    ...entry('SHALLOT_DIR', "The directory of this user's node, in place of the one below."),
    ...entry('XDG_DATA_HOME', 'Where that directory is, in place of ~/.local/share.'),
    ...entry('NO_COLOR', 'When it is set to anything, no colours are shown; none are where the output is no terminal.'),
    ...entry('SHALLOT_NODE', 'The Node.js to run on, in place of the one that is found.'),
    '.SH FILES',
    ...entry('~/.local/share/shallot', 'The directory of a node of this user, when no other is named.'),
    ...entry('shallot.toml', "In that directory: the node's configuration. Every key is in docs/configuration.md."),
    ...entry('network.toml', 'What the whole network shares: see \\fBshallot network\\fR.', true),
    ...entry('control.sock, control-token', 'Where a running node is asked, and what for.'),
    '.SH EXIT STATUS',
    ...entry('0', 'It was done.'),
    ...entry('1', 'It failed; standard error says why.'),
    ...entry('2', 'The command line is wrong.'),
    'Commands with others say so above.',
    '.SH SEE ALSO',
    '.BR curl (1),',
    '.BR torsocks (1),',
    '.BR systemd (1)',
    '',
  ].join('\n')
}

function commandLines(command: CommandModel): string[] {
  const takesOptions = command.options.length > 0
  const words = [
    `\\fB${escaped(command.path.join(' '))}\\fR`,
    ...(command.commands.length > 0 ? ['\\fIcommand\\fR'] : []),
    ...(takesOptions ? ['[\\fIoptions\\fR]'] : []),
    ...command.arguments.map(argumentText),
  ]
  return [
    `.SS ${escaped(command.path.slice(1).join(' '))}`,
    words.join(' '),
    '.PP',
    `${escaped(upperFirst(command.description))}.`,
    ...command.arguments
      .filter(({ description }) => description !== '')
      .flatMap((argument) => ['.TP', argumentText(argument), escaped(upperFirst(argument.description))]),
    // --help is said of the program.
    ...command.options.filter(({ flags }) => !flags.includes('--help')).flatMap(optionLines),
    ...(command.more === '' ? [] : ['.PP', ...prose(command.more)]),
  ]
}

function optionLines({ flags, help, value }: OptionModel): string[] {
  const names = flags.map((flag) => `\\fB${escaped(flag)}\\fR`).join(', ')
  return ['.TP', value === null ? names : `${names} \\fI${escaped(value.name)}\\fR`, escaped(upperFirst(help))]
}

function argumentText({ name, required, variadic }: ArgumentModel): string {
  const text = `\\fI${escaped(name)}\\fR${variadic ? ' ...' : ''}`
  return required ? text : `[${text}]`
}

/** Paragraphs; lines that are indented stand as they are. */
function prose(text: string): string[] {
  const out: string[] = []
  let isFixed = false
  for (const line of text.split('\n')) {
    const wasFixed = isFixed
    if (line.trim() === '') {
      if (wasFixed) out.push('.fi')
      isFixed = false
      out.push('.PP')
      continue
    }
    isFixed = line.startsWith('  ')
    if (isFixed && !wasFixed) out.push('.PP', '.nf')
    if (!isFixed && wasFixed) out.push('.fi', '.PP')
    out.push(escaped(line))
  }
  if (isFixed) out.push('.fi')
  // A paragraph begins once.
  return out.filter((line, i) => line !== '.PP' || (i > 0 && out[i - 1] !== '.PP'))
}

/** @param isRoff when the text is marked up already */
function entry(name: string, text: string, isRoff = false): string[] {
  return ['.TP', `.B ${escaped(name)}`, isRoff ? text : escaped(text)]
}

/** Text that roff sets as it stands. */
function escaped(text: string): string {
  const plain = text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('~', '\\(ti')
    .replaceAll('^', '\\(ha')
    .replaceAll('`', '\\(ga')
  return /^[.']/.test(plain) ? `\\&${plain}` : plain
}

function upperFirst(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1)
}
