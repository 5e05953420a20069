import { Argument, type Command, InvalidArgumentError } from 'commander'

/** Commands for whoever sits at a terminal. */
export function terminalCommands(program: Command, done: (code: number) => void): void {
  program
    .command('top')
    .description('watch circuits, streams and rates')
    .option('--interval <seconds>', 'between two looks', seconds, 1)
    .option('--once', 'one look, as plain text, on a terminal too')
    .option('--dir <dir>', "the node's directory, or a testnet's")
    .option('--control <address>', "the node's control API: ADDRESS:PORT or unix:PATH")
    .option('--json', 'one look, as JSON')
    .addHelpText(
      'after',
      `
Where standard output is no terminal, one look is taken. Keys: q quits, n lets
new streams take fresh circuits, space stops the page and lets it go on.`,
    )
    .action(async (options) => done(await (await import('./commands/top.ts')).top(options)))
  program
    .command('completion')
    .description('print what lets a shell complete these commands')
    .addArgument(new Argument('<shell>', 'your shell').choices(['bash', 'zsh', 'fish']))
    .addHelpText(
      'after',
      `
  $ shallot completion bash > ~/.local/share/bash-completion/completions/shallot
  $ shallot completion zsh > "\${fpath[1]}/_shallot"
  $ shallot completion fish > ~/.config/fish/completions/shallot.fish
For this shell only:
  $ . <(shallot completion bash)`,
    )
    .action(async (shell) => done(await (await import('./commands/completion.ts')).completion(shell, program)))
}

function seconds(text: string): number {
  const value = Number(text)
  if (!/^\d+(\.\d+)?$/.test(text) || value < 0.2 || value > 60)
    throw new InvalidArgumentError('It must be a number of seconds from 0.2 to 60.')
  return value
}
