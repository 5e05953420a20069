import type { Command } from 'commander'
import { bashCompletion } from '../shells/bash.ts'
import { modelOf } from '../shells/command-model.ts'
import { fishCompletion } from '../shells/fish.ts'
import { zshCompletion } from '../shells/zsh.ts'

/** Shells whose completions can be made. */
export const SHELLS = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion } as const

/** `shallot completion SHELL` */
export async function completion(shell: keyof typeof SHELLS, program: Command): Promise<number> {
  process.stdout.write(SHELLS[shell](modelOf(program)))
  return 0
}
