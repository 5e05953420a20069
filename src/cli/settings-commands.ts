import type { Command } from 'commander'

/** Commands that show and change the configuration of a running node. */
export function settingsCommands(program: Command, done: (code: number) => void): void {
  asking(program, 'settings', 'the configuration of a running node, key by key')
    .argument('[part]', 'only keys that have this in their name, such as path or log.level')
    .option('--set-only', 'only what the file says, not the defaults')
    .addHelpText(
      'after',
      `
At the end of a line: "live", a change counts at once; "restart", from the next
start; "waits", the file says something else already.`,
    )
    .action(async (part, options) => done(await (await import('./commands/settings.ts')).settings(part ?? '', options)))
  asking(program, 'set', 'change a key of the configuration of a running node')
    .argument('<key>', 'as the file spells it: path.exit_countries')
    .argument('[value]', 'as the file has it, or a list with commas')
    .option('--default', 'take the key out of the file: its default counts')
    .option('--check', 'only say whether it would be right')
    .addHelpText(
      'after',
      `
  $ shallot set path.exit_countries DE,NL
  $ shallot set log.level debug
  $ shallot set log.level --default`,
    )
    .action(async (key, value, options) => done(await (await import('./commands/settings.ts')).set(key, value ?? null, options)))
  asking(program, 'reload', 'let a running node read its configuration again, as SIGHUP does').action(async (options) =>
    done(await (await import('./commands/settings.ts')).reload(options)),
  )
}

function asking(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option('--dir <dir>', "the node's directory, or a testnet's")
    .option('--control <address>', "the node's control API: ADDRESS:PORT or unix:PATH")
    .option('--json', 'print the facts as JSON')
}
