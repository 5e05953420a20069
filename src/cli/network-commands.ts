import type { Command } from 'commander'

/** `shallot network …`: the file that a whole network shares. */
export function networkCommands(program: Command, done: (code: number) => void): void {
  const network = program
    .command('network')
    .description('make, sign, check and take the file that a whole network shares')
    .addHelpText(
      'after',
      `
Who publishes a network signs its network.toml, and tells everybody the key:
  $ shallot network keygen publisher.key
  $ shallot network sign network.toml --key publisher.key

Who joins holds to that key, at once and with every later file:
  $ shallot init --network network.toml --publisher KEY
  $ shallot network update newer-network.toml`,
    )
  network
    .command('keygen')
    .description('make the key of a publisher')
    .argument('<file>', 'where the secret goes: a file that is not there yet')
    .option('--json', 'print the public key as JSON')
    .action(async (file, options) => done(await (await import('./commands/network.ts')).keygen(file, options)))
  network
    .command('sign')
    .description("put the publisher's signature at the end of a network file")
    .argument('<file>', 'a network.toml')
    .requiredOption('--key <file>', 'what `keygen` wrote')
    .option('-o, --output <file>', 'write the signed file here (default: in its place)')
    .option('--json', 'print what was signed as JSON')
    .action(async (file, options) => done(await (await import('./commands/network.ts')).sign(file, options)))
  network
    .command('check')
    .description('say whether a network file and its signature are right')
    .argument('<file>', 'a network.toml')
    .option('--publisher <key>', 'whose signature it must have (default: anybody, or nobody)')
    .option('--json', 'print the result as JSON')
    .action(async (file, options) => done(await (await import('./commands/network.ts')).check(file, options)))
  network
    .command('show')
    .description('show what a network file says and who signed it')
    .argument('<file>', 'a network.toml')
    .option('--json', 'print it as JSON')
    .action(async (file, options) => done(await (await import('./commands/network.ts')).show(file, options)))
  network
    .command('update')
    .description("take a newer network file, if it is the same publisher's")
    .argument('<file>', 'a network.toml')
    .option('--dir <dir>', 'the directory of the node')
    .option('--json', 'print what was changed as JSON')
    .action(async (file, options) => done(await (await import('./commands/network.ts')).update(file, options)))
}
