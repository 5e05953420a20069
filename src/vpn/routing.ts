import { existsSync } from 'node:fs'
import type { AllowListChange } from './allow-list.ts'
import { vpnError } from './errors.ts'
import { ROUTE_PROTOCOL } from './limits.ts'
import { mustRun, type RunProgram, refusal } from './programs.ts'
import {
  allowListLines,
  type Family,
  foreignRulesBefore,
  ownRules,
  type RoutingPlan,
  RULE_KINDS,
  routeLines,
  routeRemovalLines,
  routesIn,
  ruleLines,
} from './routing-plan.ts'

/** The families that this machine's kernel has at all. */
export function familiesHere(): readonly Family[] {
  return existsSync('/proc/sys/net/ipv6') ? [4, 6] : [4]
}

const CANNOT = "the VPN's routes can't be set"

/** The policy routing of the VPN: sets it, changes it, looks at it, takes it away. Everything it makes bears our protocol number. */
export class Routing {
  readonly #run: RunProgram
  readonly #families: readonly Family[]
  /** Our rules as they were after our last change, by family. */
  #expected = new Map<Family, string>()

  constructor(run: RunProgram, families: readonly Family[] = familiesHere()) {
    this.#run = run
    this.#families = families
  }

  /**
   * Sets routes, then rules, in place of any of ours that stand. The kill switch stands meanwhile.
   * @throws ShallotError 'vpn-in-use' when the table or the priorities are somebody else's; 'vpn-system-refused', 'vpn-not-permitted', 'vpn-program-missing'
   */
  async install(plan: RoutingPlan): Promise<void> {
    for (const family of this.#families) {
      await this.#refuseForeign(plan, family)
      await this.#batch(family, routeLines(plan, family))
    }
    for (const family of this.#families) {
      await this.#flushRules(family)
      await this.#batch(family, ruleLines(plan, family))
    }
    await this.#remember()
  }

  /** @throws ShallotError as `install` */
  async change(plan: Pick<RoutingPlan, 'priority'>, change: AllowListChange): Promise<void> {
    for (const family of this.#families) await this.#batch(family, allowListLines(plan, change, family), true)
    await this.#remember()
  }

  /** Whether all of it is as it was left; and which rules of others come before. @throws ShallotError when that can't be told */
  async look({ table, priority, deviceFamilies }: RoutingPlan): Promise<{ readonly whole: boolean; readonly foreign: readonly number[] }> {
    let whole = true
    const foreign = new Set<number>()
    for (const family of this.#families) {
      const rules = await this.#show(family, 'rule')
      if (this.#expected.get(family) !== ownRules(rules).join('\n')) whole = false
      if (routesIn(await this.#routes(table, family)).ours < (deviceFamilies.includes(family) ? 2 : 1)) whole = false
      for (const one of foreignRulesBefore(rules, priority)) foreign.add(one)
    }
    return { whole, foreign: [...foreign].sort((a, b) => a - b) }
  }

  /** Takes all of ours away, whoever of us set it. Nothing of it need be there. @throws ShallotError */
  async remove(table: number): Promise<boolean> {
    let found = false
    for (const family of this.#families) {
      if (ownRules(await this.#show(family, 'rule')).length > 0) {
        found = true
        await this.#flushRules(family)
      }
      if (routesIn(await this.#routes(table, family)).ours > 0) {
        found = true
        await this.#batch(family, routeRemovalLines(table), true)
      }
    }
    this.#expected = new Map()
    return found
  }

  async #refuseForeign({ table, priority }: RoutingPlan, family: Family): Promise<void> {
    if (routesIn(await this.#routes(table, family)).foreign > 0)
      throw vpnError('vpn-in-use', `routing table ${table} has routes of another program: set ingress.tun.routing_table to a free number`)
    const among = foreignRulesBefore(await this.#show(family, 'rule'), priority).filter((one) => one >= priority)
    if (among.length > 0)
      throw vpnError(
        'vpn-in-use',
        `another program has a routing rule with priority ${among[0]}, and ${priority} to ${priority + RULE_KINDS - 1} are for the VPN: set ingress.tun.rule_priority to where seven in a row are free`,
      )
  }

  async #remember(): Promise<void> {
    for (const family of this.#families) this.#expected.set(family, ownRules(await this.#show(family, 'rule')).join('\n'))
  }

  async #flushRules(family: Family): Promise<void> {
    await mustRun(this.#run, "the VPN's routing rules can't be removed", 'ip', [
      `-${family}`,
      'rule',
      'flush',
      'protocol',
      `${ROUTE_PROTOCOL}`,
    ])
  }

  #show(family: Family, what: 'rule'): Promise<string> {
    return mustRun(this.#run, "the machine's routing rules can't be read", 'ip', [`-${family}`, '-json', what, 'show'])
  }

  /** A table that nothing was ever put in does not exist: it is empty. */
  async #routes(table: number, family: Family): Promise<string> {
    const { code, stdout, stderr } = await this.#run('ip', [`-${family}`, '-json', 'route', 'show', 'table', `${table}`])
    if (code === 0) return stdout.trim()
    if (/FIB table does not exist/.test(stderr)) return ''
    throw refusal("the machine's routes can't be read", 'ip', code, stderr)
  }

  /** @param again whether what is there already, or is not there any more, is as good */
  async #batch(family: Family, lines: readonly string[], again = false): Promise<void> {
    if (lines.length === 0) return
    const args = again ? [`-${family}`, '-force', '-batch', '-'] : [`-${family}`, '-batch', '-']
    const { code, stderr } = await this.#run('ip', args, `${lines.join('\n')}\n`)
    if (code === 0) return
    const complaints = stderr.split('\n').filter((line) => line !== '' && !/^Command failed/.test(line))
    if (again && complaints.every((line) => /File exists|No such (file or directory|process)/.test(line))) return
    throw refusal(CANNOT, 'ip', code, stderr)
  }
}
