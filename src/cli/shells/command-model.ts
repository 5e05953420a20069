import type { Argument, Command, Help, Option } from 'commander'

/** What stands for a value: how a shell finds candidates for it. */
export type ValueKind = 'file' | 'directory' | 'program' | 'text'

export interface ValueModel {
  /** As help names it: "file", "address:port". */
  readonly name: string
  readonly kind: ValueKind
  /** The only values it may have; empty where any is possible. */
  readonly choices: readonly string[]
}

export interface OptionModel {
  /** "-o", "--output": short before long. */
  readonly flags: readonly string[]
  readonly description: string
  /** The same with its choices and its default. */
  readonly help: string
  /** Null for an option that takes none. */
  readonly value: ValueModel | null
}

export interface ArgumentModel extends ValueModel {
  readonly description: string
  readonly required: boolean
  readonly variadic: boolean
}

/** A command as help shows it: what completions and the manual are made of. */
export interface CommandModel {
  /** From the program on: ["shallot", "vpn", "up"]. */
  readonly path: readonly string[]
  readonly description: string
  readonly options: readonly OptionModel[]
  readonly arguments: readonly ArgumentModel[]
  readonly commands: readonly CommandModel[]
  /** What help says after the options; lines that begin with two blanks are as they stand. */
  readonly more: string
}

/** The commands of a program: those, and of those what, that help shows. */
export function modelOf(command: Command, path: readonly string[] = [command.name()]): CommandModel {
  const help: Help = command.createHelp()
  return {
    path,
    description: command.description(),
    options: help.visibleOptions(command).map((option) => ({ ...optionOf(option), help: help.optionDescription(option) })),
    arguments: help.visibleArguments(command).map(argumentOf),
    commands: help
      .visibleCommands(command)
      // `help` shows what --help shows.
      .filter((one) => one.name() !== 'help')
      .map((one) => modelOf(one, [...path, one.name()])),
    more: textAfter(command),
  }
}

/** The command and all below it, itself first. */
export function everyCommand(model: CommandModel): CommandModel[] {
  return [model, ...model.commands.flatMap(everyCommand)]
}

function optionOf(option: Option): Omit<OptionModel, 'help'> {
  const value = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1]
  return {
    flags: [option.short, option.long].filter((flag) => flag != null),
    description: option.description,
    value: value === undefined ? null : valueModel(value, option.argChoices),
  }
}

function argumentOf(argument: Argument): ArgumentModel {
  return {
    ...valueModel(argument.name(), argument.argChoices),
    description: argument.description,
    required: argument.required,
    variadic: argument.variadic,
  }
}

function valueModel(text: string, choices: readonly string[] | undefined): ValueModel {
  const name = text.replace(/\.\.\.$/, '')
  const kind = name === 'file' ? 'file' : name === 'dir' ? 'directory' : name === 'command' ? 'program' : 'text'
  return { name, kind, choices: choices ?? [] }
}

type Emitter = Pick<import('node:events').EventEmitter, 'emit'>

/** What `addHelpText('after', …)` adds. */
function textAfter(command: Command): string {
  let text = ''
  // A Command is an EventEmitter, which its types do not say.
  ;(command as unknown as Emitter).emit('afterHelp', {
    error: false,
    command,
    write: (more: string) => {
      text += more
    },
  })
  return text.trim() === '' ? '' : text.replace(/^\n+|\s+$/g, '')
}
