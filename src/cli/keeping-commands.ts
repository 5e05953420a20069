import { Argument, type Command, InvalidArgumentError, Option } from 'commander'

const LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const

/** Commands by which a node is kept for months: leaving, keys in a safe place, troubles. */
export function keepingCommands(program: Command, done: (code: number) => void): void {
  program
    .command('drain')
    .description('let a serving node leave: no new circuits, and it stops when the last has ended')
    .option('--limit <time>', 'stop at the latest after this long: 30s, 10m, 2h (default: 10m)', duration)
    .option('--dir <dir>', "the node's directory, or a testnet's")
    .option('--control <address>', "the node's control API: ADDRESS:PORT or unix:PATH")
    .option('--json', 'print the facts as JSON')
    .action(async (options) => done(await (await import('./commands/drain.ts')).drain(options)))
  program
    .command('backup')
    .description('write the keys and the configuration of a relay to one file')
    .argument('<file>', 'a file that is not there yet; - for standard output')
    .option('--dir <dir>', 'the directory of the node')
    .option('--json', 'print what was written as JSON')
    .addHelpText(
      'after',
      `
The node may run meanwhile. Whoever has the file can be the relay:
  $ shallot backup - --dir DIR | age -p > relay.backup.age
  $ age -d relay.backup.age | shallot restore - --dir DIR`,
    )
    .action(async (file, options) => done(await (await import('./commands/backup.ts')).backup(file, options)))
  program
    .command('restore')
    .description('make a directory of a backup again; nothing is overwritten')
    .argument('<file>', 'what `shallot backup` wrote; - for standard input')
    .option('--dir <dir>', 'the directory of the node')
    .option('--json', 'print what was written as JSON')
    .action(async (file, options) => done(await (await import('./commands/backup.ts')).restore(file, options)))
  program
    .command('logs')
    .description('the last lines of the log of a node')
    .addOption(new Option('--level <level>', 'this level and above').choices(LEVELS))
    .option('--sub <name>', 'one part of the node only, such as link')
    .option('--lines <n>', 'how many at most', lines, 100)
    .option('-f, --follow', 'go on with what comes')
    .option('--dir <dir>', "the node's directory, or a testnet's")
    .option('--control <address>', "the node's control API: ADDRESS:PORT or unix:PATH")
    .option('--json', 'a JSON object for each line')
    .action(async (options) => done(await (await import('./commands/logs.ts')).logs(options)))
  program
    .command('log-level')
    .description('what a node writes to its log; with a level, another choice until it ends')
    .addArgument(
      new Argument('[level]', 'the least important lines to write; default: as the configuration of a new node').choices([
        ...LEVELS,
        'default',
      ]),
    )
    .argument('[part]', 'for this part of the node only, such as link')
    .option('--dir <dir>', "the node's directory, or a testnet's")
    .option('--control <address>', "the node's control API: ADDRESS:PORT or unix:PATH")
    .option('--json', 'print the levels as JSON')
    .addHelpText(
      'after',
      `
  $ shallot log-level debug link     what the part "link" does, in detail
  $ shallot logs --follow --sub link
  $ shallot log-level default link   as everything else again
Lasting: log.level and log.subsystems in shallot.toml. At debug and trace
addresses and targets may show.`,
    )
    .action(async (level, part, options) => done(await (await import('./commands/logs.ts')).logLevel(level ?? null, part ?? null, options)))
  program
    .command('doctor')
    .description('look for the usual troubles of a node, and say what to do')
    .option('--dir <dir>', 'the directory of the node, running or not')
    .option('--control <address>', "the node's control API: ADDRESS:PORT or unix:PATH")
    .option('--json', 'print the findings as JSON')
    .addHelpText('after', '\nExit codes: 0 nothing is wrong, 1 something fails or soon may.')
    .action(async (options) => done(await (await import('./commands/doctor.ts')).doctor(options)))
}

/** How many lines a node remembers at most. */
const MAX_LINES = 2_000

function lines(text: string): number {
  const count = Number(text)
  if (!/^\d{1,4}$/.test(text) || count < 1 || count > MAX_LINES)
    throw new InvalidArgumentError(`It must be a number from 1 to ${MAX_LINES}.`)
  return count
}

/** Milliseconds of "30s", "10m", "2h", "1d". */
function duration(text: string): number {
  const match = /^(\d{1,6})(s|m|h|d)$/.exec(text)
  const ms =
    match === null ? Number.NaN : Number(match[1]) * { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[match[2] as 's' | 'm' | 'h' | 'd']
  if (!(ms <= 7 * 86_400_000)) throw new InvalidArgumentError('It must be a time such as 30s, 10m or 2h; at most 7d.')
  return ms
}
