import { stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { messageOf, ShallotError } from '../../base/index.ts'
import { CONFIG_FILE, loadConfig, type NodeConfig } from '../../node/index.ts'
import { type Finding, fail, ok } from '../doctor/finding.ts'
import { directoryFacts, machineFacts } from '../doctor/machine.ts'
import { directoryFindings, machineFindings } from '../doctor/machine-checks.ts'
import { bootstrapFinding, clockFinding, portFindings, statusFindings, versionFinding } from '../doctor/network-checks.ts'
import { say, sayJson, styled, visible, wrap } from '../output.ts'
import { defaultDir, findNode, type NodeChoice } from '../places.ts'

const VIEW_FILE = 'view'
const marks = { ok: 'ok', note: 'note', warn: 'WARN', fail: 'FAIL' } as const
const colours = { ok: 'green', note: 'dim', warn: 'yellow', fail: 'red' } as const

/** `shallot doctor`: of a node that runs and of one that does not. Exit code 1 when something fails or soon may. */
export async function doctor(options: NodeChoice & { readonly json?: boolean }): Promise<number> {
  const findings = await examine(options)
  const isWell = findings.every(({ result }) => result === 'ok' || result === 'note')
  if (options.json) sayJson({ well: isWell, findings })
  else {
    for (const { check, result, message, advice } of findings) {
      const lines = wrap(visible(message), 60)
      say(`${styled(colours[result], marks[result].padEnd(5))} ${check.padEnd(13)} ${lines.join(`\n${' '.repeat(20)}`)}`)
      if (advice !== null) for (const line of wrap(visible(advice), 58)) say(`${' '.repeat(20)}${styled('dim', '> ')}${line}`)
    }
    say(
      isWell
        ? '\nNothing is wrong.'
        : `\n${findings.filter(({ result }) => result === 'warn' || result === 'fail').length} things need you.`,
    )
  }
  return isWell ? 0 : 1
}

async function examine(options: NodeChoice): Promise<Finding[]> {
  const node = await findNode(options).catch((error) => {
    if (error instanceof ShallotError && error.code === 'node-not-running') return null
    throw error
  })
  const status = (await node?.status()) ?? null
  const dir = resolve(options.dir ?? defaultDir())
  const findings: Finding[] = []
  const { config, finding } = await configOf(dir)
  // A node that was found without its directory (a testnet's) has its configuration elsewhere.
  if (config !== null || status === null || options.dir !== undefined) findings.push(finding)
  if (config !== null) findings.push(...directoryFindings(config.dir, await directoryFacts(config.dir)))
  const machine = await machineFacts(status?.pid ?? process.pid)
  findings.push(...machineFindings(machine, config))
  if (node !== null && status !== null) {
    findings.push(...statusFindings(status))
    const relays = (await node.relays()).filter(({ id }) => id !== status.id)
    findings.push(clockFinding(relays, config?.network.descriptors.republishMs ?? 3_600_000, status.view.syncedAt, Date.now()))
    findings.push(versionFinding(config, relays))
    if (config !== null && status.view.known.total === 0) findings.push(await bootstrapFinding(config, machine.hasNetwork))
  } else if (config !== null) {
    findings.push(...(await portFindings(config)), versionFinding(config, []))
    if (!(await hasView(config))) findings.push(await bootstrapFinding(config, machine.hasNetwork))
  }
  return findings
}

async function configOf(dir: string): Promise<{ readonly config: NodeConfig | null; readonly finding: Finding }> {
  const file = join(dir, CONFIG_FILE)
  try {
    return { config: await loadConfig(file), finding: ok('configuration', `${file} can be used`) }
  } catch (error) {
    const isMissing = error instanceof ShallotError && error.code === 'config-unreadable'
    const advice = isMissing
      ? 'make a node with `shallot init`, or name its directory with --dir'
      : 'correct these lines; `shallot check-config` says the same'
    return { config: null, finding: fail('configuration', messageOf(error), advice) }
  }
}

async function hasView(config: NodeConfig): Promise<boolean> {
  return stat(join(config.dir, VIEW_FILE)).then(
    () => true,
    () => false,
  )
}
