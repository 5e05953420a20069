import type { AllowListChange } from './allow-list.ts'
import { vpnError } from './errors.ts'
import { allowListText, type KillSwitchPlan, killSwitchRemoval, killSwitchText } from './kill-switch-text.ts'
import { NFT_TABLE } from './limits.ts'
import { mustRun, type RunProgram, refusal } from './programs.ts'

/** The kill switch in the kernel: one table of nftables, replaced whole. */
export class KillSwitch {
  readonly #run: RunProgram

  constructor(run: RunProgram) {
    this.#run = run
  }

  /** Whose kill switch stands in this network namespace: its id, '' when it names none, null when there is none. @throws ShallotError */
  async owner(): Promise<string | null> {
    const { code, stdout, stderr } = await this.#run('nft', ['--terse', 'list', 'table', 'inet', NFT_TABLE])
    if (code === 0) return /^\s*comment "shallot ([0-9a-f]+)"/m.exec(stdout)?.[1] ?? ''
    if (/No such file or directory/.test(stderr)) return null
    throw refusal("the machine's packet filter can't be read", 'nft', code, stderr)
  }

  /** In place of the one that stands, without a moment between. @throws ShallotError */
  async install(plan: KillSwitchPlan): Promise<void> {
    await mustRun(this.#run, "the kill switch can't be set", 'nft', ['-f', '-'], killSwitchText(plan))
  }

  /** @throws ShallotError 'vpn-system-refused' also when the table is gone */
  async change(change: AllowListChange): Promise<void> {
    if (change.added.length + change.removed.length === 0) return
    await mustRun(this.#run, "the VPN's allow-list can't be changed", 'nft', ['-f', '-'], allowListText(change))
  }

  /** Packets dropped since it was installed; null when it does not stand any more. @throws ShallotError */
  async dropped(): Promise<number | null> {
    const { code, stdout, stderr } = await this.#run('nft', ['--json', 'list', 'counters', 'table', 'inet', NFT_TABLE])
    if (code !== 0) {
      if (/No such file or directory/.test(stderr)) return null
      throw refusal("the kill switch can't be read", 'nft', code, stderr)
    }
    try {
      const { nftables } = JSON.parse(stdout) as { readonly nftables: readonly { readonly counter?: { readonly packets: number } }[] }
      // A table of that name without the counters is none of ours.
      if (!nftables.some(({ counter }) => counter !== undefined)) return null
      return nftables.reduce((sum, { counter }) => sum + (counter?.packets ?? 0), 0)
    } catch (error) {
      throw vpnError('vpn-system-refused', 'nft gives its counters in a form that is not known', { cause: error })
    }
  }

  /** Whether it is there or not. @throws ShallotError */
  async remove(): Promise<void> {
    await mustRun(this.#run, "the kill switch can't be removed", 'nft', ['-f', '-'], killSwitchRemoval)
  }
}
