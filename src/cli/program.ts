import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import packageJson from '../../package.json' with { type: 'json' }
import { messageOf, ShallotError } from '../base/index.ts'
import type { Role, ServingRole } from '../directory/index.ts'
import { keepingCommands } from './keeping-commands.ts'
import { networkCommands } from './network-commands.ts'
import { complain } from './output.ts'
import { settingsCommands } from './settings-commands.ts'
import { terminalCommands } from './terminal-commands.ts'

/** The roles a node can have, spelled here so that `shallot --help` loads nothing else. A test holds them to the configuration's. */
const roleNames: readonly Role[] = ['client', 'guard', 'middle', 'exit', 'relay', 'bootstrap']

const help = `
Shallot carries a program's traffic through three relays of a mesh without a
centre.

Try a whole mesh on this machine, then send something through it:
  $ shallot testnet
  $ curl --proxy socks5h://127.0.0.1:PORT ...   (it prints the exact line)

Join a network as a client, with a file from whoever runs it:
  $ shallot init --network network.toml
  $ shallot run
  $ shallot status

Send everything this machine sends through it (docs/vpn.md):
  $ shallot vpn up

Run a relay (see relay/README.md and exit/README.md first):
  $ shallot init --role guard --role middle --network network.toml --dir DIR
  $ shallot run --dir DIR

Commands that ask a running node find it by themselves: the one in the default
directory ($SHALLOT_DIR or ~/.local/share/shallot), else the only client of
yours that runs. --dir and --control name another.
Exit codes: 0 done, 1 failed, 2 the command line is wrong.`

/** Runs the command line; the result is the exit code. Never throws. */
export async function runCommandLine(args: readonly string[]): Promise<number> {
  let code = 0
  const program = buildProgram((result) => {
    code = result
  })
  try {
    refuseUnknownTopic(program, args)
    await program.parseAsync(args, { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    if (error instanceof ShallotError) {
      for (const line of error.message.split('\n')) complain(`shallot: ${line}`)
      return error.kind === 'usage' ? 2 : 1
    }
    complain(`shallot: internal error: ${error instanceof Error ? (error.stack ?? error.message) : messageOf(error)}`)
    return 1
  }
}

type Done = (code: number) => void

/** commander shows the whole help for `shallot help TYPO`. */
function refuseUnknownTopic(program: Command, [first, topic]: readonly string[]): void {
  if (first !== 'help' || topic === undefined || topic.startsWith('-') || topic === 'help') return
  if (program.commands.some((command) => command.name() === topic)) return
  throw new ShallotError('usage', `there is no command ${JSON.stringify(topic)}; shallot --help lists all`, {
    kind: 'usage',
    retry: 'never',
  })
}

/** The command line. What `shallot --help`, the completions and the manual say is made of it. @param done told the exit code of the command that ran */
export function buildProgram(done: Done): Command {
  const program: Command = new Command('shallot')
    .description('A decentralised onion-routing mesh: three post-quantum hops, no directory authority.')
    .helpOption('-h, --help', 'show this, or the help of a command')
    .addHelpText('after', help)
    .showSuggestionAfterError(true)
    .enablePositionalOptions()
    .exitOverride()
    .configureHelp({ helpWidth: 80 })
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'shallot: ')) })
  program.version(packageJson.version, '-V, --version', 'show the version')
  nodeCommands(program, done)
  askingCommands(program, done)
  vpnCommands(program, done)
  networkCommands(program, done)
  terminalCommands(program, done)
  keepingCommands(program, done)
  settingsCommands(program, done)
  // Settings such as exitOverride and the help's width are inherited only by commands made with .command(), as these are.
  return program
}

/** Commands that are, make or check a node. */
function nodeCommands(program: Command, done: Done): void {
  program
    .command('testnet')
    .description('run a whole mesh on this machine, with a client, until it is stopped')
    .option('--relays <n>', 'relays, exits included', count(3, 200), 6)
    .option('--exits <n>', 'how many of them are exits', count(1, 198), 2)
    .option('--processes', 'give every node a process of its own (default: all in one)')
    .option('--socks <address:port>', "the client's SOCKS5 proxy; port 0: any free one", address, '127.0.0.1:0')
    .option('--http <address:port>', "the client's HTTP proxy", address, '127.0.0.1:0')
    .option('--dns <address:port>', "the client's DNS listener", address, '127.0.0.1:0')
    .option('--control <address:port>', "the client's control API", address, '127.0.0.1:0')
    .option('--dashboard <address:port>', "the client's dashboard", address, '127.0.0.1:0')
    .option('--dir <dir>', 'keep configurations, keys and logs here (default: a temporary directory)')
    .option('--relay-config <file>', 'TOML sections for every relay, such as [relaying] or [exit], to try limits')
    .option('--countries <file>', 'lines NETWORK COUNTRY: in which country each node is to be (default: made-up ones)')
    .option('--json', 'print one line of JSON when the mesh can carry traffic')
    .addHelpText(
      'after',
      `
Every node listens on 127.x.0.1 with another x, so that all rules about
addresses run as in the world. What a testnet changes (ages, proof of work,
private addresses) stands in its network.toml and in \`shallot status\`.

  $ shallot testnet --relays 9 --exits 3 --processes

With --countries the nodes are spread over the networks of a file such as
  127.0.0.0/9 DE
  127.128.0.0/9 FR
so that path.exit_countries and path.exclude_countries can be tried.`,
    )
    .action(async (options) => done(await (await import('./commands/testnet.ts')).testnet(options)))

  program
    .command('init')
    .description('write the configuration and keys of a new node')
    .addOption(rolesOption())
    .option('--network <file>', "the network's network.toml, which is copied")
    .option('--publisher <key>', 'who must have signed it (default: whoever did, if anybody)')
    .option('--bootstrap <addresses...>', 'instead of a file: /ip4/ADDRESS/tcp/PORT/p2p/ID of bootstrap nodes')
    .option('--listen <addresses...>', 'where a serving node listens: /ip4/ADDRESS/tcp/PORT')
    .option('--advertise <addresses...>', 'what the others are told, where that differs')
    .option('--dir <dir>', 'the directory of the node')
    .option('--json', 'print what was written as JSON')
    .addHelpText(
      'after',
      `
A client:
  $ shallot init --network network.toml
A relay:
  $ shallot init --role guard --role middle --network network.toml \\
      --listen /ip4/0.0.0.0/tcp/4460 --advertise /ip4/198.51.100.7/tcp/4460
A new network, whose network.toml you then give to the others:
  $ shallot init --role bootstrap --listen /ip4/198.51.100.7/tcp/4460`,
    )
    .action(async (options) => done(await (await import('./commands/init.ts')).init(options)))

  program
    .command('run')
    .description('run a node until it is stopped')
    .option('--config <file>', 'its configuration (default: shallot.toml in the directory)')
    .option('--dir <dir>', 'the directory of the node')
    .option('--json', 'print a line of JSON when it has started and when it is ready')
    .addOption(new Option('--until-stdin-ends', 'stop when standard input ends').hideHelp())
    .action(async (options) => done(await (await import('./commands/run.ts')).run(options)))

  program
    .command('check-config')
    .description('say what is wrong with a configuration, and with the network file it names')
    .argument('<file>', 'a shallot.toml')
    .option('--json', 'print the result as JSON')
    .action(async (file, options) => done(await (await import('./commands/check-config.ts')).checkConfig(file, options)))

  program
    .command('version')
    .description('show the version of this program and what it runs on')
    .option('--json', 'print it as JSON')
    .action(async (options) => done(await (await import('./commands/version.ts')).version(options)))
}

/** Commands that ask a running node. */
function askingCommands(program: Command, done: Done): void {
  asking(program, 'status', 'what the node is and how it is doing').action(async (options) =>
    done(await (await import('./commands/status.ts')).status(options)),
  )
  asking(program, 'circuits', 'the circuits of this client')
    .option('--why', 'say why each path was chosen')
    .action(async (options) => done(await (await import('./commands/lists.ts')).circuits(options)))
  asking(program, 'relays', 'the relays this node knows')
    .addOption(new Option('--role <role>', 'only those with this role').choices(roleNames.filter((role) => role !== 'client')))
    .option('--country <code>', 'only those in this country: DE; ?? where it is not known', country)
    .action(async (options: { role?: ServingRole; country?: string }) => done(await (await import('./commands/lists.ts')).relays(options)))
  asking(program, 'streams', 'the streams open now').action(async (options) =>
    done(await (await import('./commands/lists.ts')).streams(options)),
  )
  asking(program, 'ui', 'open the dashboard of a node in the browser')
    .option('--print', 'only print the link')
    .addHelpText(
      'after',
      `
The link works once, within two minutes. Without a desktop it is printed; from
another machine, forward the port first: ssh -L 9290:127.0.0.1:9290 HOST

  $ shallot ui`,
    )
    .action(async (options) => done(await (await import('./commands/ui.ts')).ui(options)))
  asking(program, 'netcheck', 'how others reach this node, and what would make it better')
    .option('--peer <id>', 'reach for this node of the view, and say how that went')
    .option('--probe', 'ask STUN servers from here, without any node')
    .addHelpText(
      'after',
      `
Public, mapped, punchable or relayed, and why: addresses, the kind of NAT, the
router's port mapping, relays, what the node can serve. When no node runs, the
STUN servers of the network in the configuration are asked from here.

  $ shallot netcheck
  $ shallot netcheck --peer 12D3KooW...`,
    )
    .action(async (options) => done(await (await import('./commands/netcheck.ts')).netcheck(options)))
  asking(program, 'new-circuit', 'let what follows go over fresh circuits').action(async (options) =>
    done(await (await import('./commands/lists.ts')).newCircuit(options)),
  )
  asking(program, 'fetch', 'fetch a URL through the mesh')
    .argument('<url>', 'http:// or https://')
    .option('-o, --output <file>', 'write the body to this file instead of standard output')
    .option('--user <name:password>', "credentials of the node's SOCKS5 proxy, where it asks for some")
    .addHelpText('after', '\n  $ shallot fetch https://example.com/ -o page.html')
    .action(async (url, options) => done(await (await import('./commands/fetch.ts')).fetchUrl(url, options)))
}

/** The whole machine through the mesh, or one program. */
function vpnCommands(program: Command, done: Done): void {
  const vpn = program
    .command('vpn')
    .description('send everything this machine sends through the mesh, or nowhere')
    .addHelpText(
      'after',
      `
  $ shallot vpn up
  $ shallot vpn status
  $ shallot vpn down

The node needs CAP_NET_ADMIN for it. While it is up nothing goes around, whether
the node runs or not; \`down\` gives the machine back as it was. See docs/vpn.md.
Exit codes of status: 0 up, 3 down, 4 blocked or on the way.`,
    )
  asking(vpn, 'up', 'everything through the mesh from now on')
    .option('--cut-ssh', 'even if that ends the SSH session which this is typed in')
    .action(async (options) => done(await (await import('./commands/vpn.ts')).vpnUp(options)))
  asking(vpn, 'down', 'the machine as it was before; works without the node too').action(async (options) =>
    done(await (await import('./commands/vpn.ts')).vpnDown(options)),
  )
  asking(vpn, 'status', 'whether it is up, what may go around it, and what is wrong').action(async (options) =>
    done(await (await import('./commands/vpn.ts')).vpnStatus(options)),
  )
  vpn
    .command('exec')
    .description('run one program whose traffic goes through the mesh, whatever the rest of the machine does')
    .argument('<command...>', 'the program and its arguments')
    .option('--dir <dir>', "the node's directory, or a testnet's")
    .option('--control <address>', "the node's control API: ADDRESS:PORT or unix:PATH")
    .option('--pcap <file>', "record the program's packets, for Wireshark")
    .option('--bypass', 'the other way: outside the mesh while a VPN is up; for root')
    .passThroughOptions()
    .addHelpText(
      'after',
      `
The program runs in a network namespace of its own, which an ordinary user may
make too, and which has no other way out: when the node ends, nothing leaves.

  $ shallot vpn exec -- curl https://example.com/
  $ shallot vpn exec -- bash
  $ sudo shallot vpn exec --bypass -- apt-get update`,
    )
    .action(async (command, options) => done(await (await import('./commands/vpn-exec.ts')).vpnExec(command, options)))
  vpn
    .command('repair')
    .description('undo what a node that is gone has left')
    .option('--dir <dir>', "the node's directory")
    .option('--force', "what another node's VPN left too, or what no state file tells of")
    .option('--json', 'print what was undone as JSON')
    .action(async (options) => done(await (await import('./commands/vpn.ts')).vpnRepair(options)))
}

function asking(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option('--dir <dir>', "the node's directory, or a testnet's")
    .option('--control <address>', "the node's control API: ADDRESS:PORT or unix:PATH")
    .option('--json', 'print the facts as JSON')
}

function count(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (!/^\d+$/.test(text) || value < least || value > most)
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`)
    return value
  }
}

function country(text: string): string {
  if (!/^([a-z]{2}|\?\?)$/i.test(text)) throw new InvalidArgumentError('It must be the two letters of a country, such as DE, or ??.')
  return text.toUpperCase()
}

function address(text: string): string {
  const match = /^(?:\[[0-9a-fA-F:.]+\]|\d+\.\d+\.\d+\.\d+):(\d{1,5})$/.exec(text)
  if (!match || Number(match[1]) > 65_535)
    throw new InvalidArgumentError('It must be ADDRESS:PORT, such as 127.0.0.1:9250 (port 0: any free one).')
  return text
}

/** Its words complete; several are taken with commas, which `choices` would refuse. */
function rolesOption(): Option {
  const option = new Option('--role <role>', 'what the node does; give it again, or with commas, for more roles (default: client)')
  option.argParser(collectRoles).argChoices = [...roleNames]
  return option
}

function collectRoles(text: string, before: readonly Role[] | undefined): readonly Role[] {
  const roles = [...(before ?? [])]
  for (const name of text.split(',')) {
    const role = roleNames.find((known) => known === name.trim())
    if (role === undefined) throw new InvalidArgumentError(`The roles are ${roleNames.join(', ')}.`)
    if (!roles.includes(role)) roles.push(role)
  }
  return roles
}
