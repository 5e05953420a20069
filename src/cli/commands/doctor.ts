import { stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { messageOf, ShallotError } from '../../base/index.ts'
import { type ControlClient, runningNodes } from '../../control/index.ts'
import { CONFIG_FILE, loadConfig, type NodeConfig } from '../../node/index.ts'
import { type ClockFacts, clockFinding } from '../doctor/clock.ts'
import { type Finding, fail, ok } from '../doctor/finding.ts'
import { type DirectoryFacts, directoryFacts, machineFacts } from '../doctor/machine.ts'
import { directoryFindings, machineFindings, nodeFindings } from '../doctor/machine-checks.ts'
import { bootstrapFacts, bootstrapFinding, statusFindings, versionFinding } from '../doctor/network-checks.ts'
import { portFacts, portFindings, wantedPorts } from '../doctor/ports.ts'
import { say, sayJson, styled, visible, wrap } from '../output.ts'
import { defaultDir, findNode, type NodeChoice } from '../places.ts'

const VIEW_FILE = 'view'
const marks = { ok: 'ok', note: 'note', warn: 'WARN', fail: 'FAIL' } as const
const colours = { ok: 'green', note: 'dim', warn: 'yellow', fail: 'red' } as const
/** Where a message begins, and how wide it is. */
const INDENT = ' '.repeat(20)
const MESSAGE_WIDTH = 60

/** `shallot doctor`: of a node that runs and of one that does not. Exit code 1 when something fails or soon may. */
export async function doctor(options: NodeChoice & { readonly json?: boolean }): Promise<number> {
  const findings = await examine(options)
  const isWell = findings.every(({ result }) => result === 'ok' || result === 'note')
  if (options.json) sayJson({ well: isWell, findings })
  else sayFindings(findings)
  return isWell ? 0 : 1
}

function sayFindings(findings: readonly Finding[]): void {
  for (const { check, result, message, advice } of findings) {
    const lines = wrap(visible(message), MESSAGE_WIDTH)
    say(`${styled(colours[result], marks[result].padEnd(5))} ${check.padEnd(13)} ${lines.join(`\n${INDENT}`)}`)
    if (advice === null) continue
    for (const [i, line] of wrap(visible(advice), MESSAGE_WIDTH - 2).entries())
      say(`${INDENT}${styled('dim', i === 0 ? '> ' : '  ')}${line}`)
  }
  const count = (wanted: Finding['result']): number => findings.filter(({ result }) => result === wanted).length
  const parts = [count('fail') > 0 ? `${count('fail')} wrong` : '', count('warn') > 0 ? `${count('warn')} to look at` : ''].filter(Boolean)
  const isRunning = findings.some(({ check, result }) => check === 'node' && result === 'ok')
  say(parts.length > 0 ? `\n${parts.join(', ')}.` : isRunning ? '\nNothing is wrong.' : '\nNothing is in the way of starting it.')
}

async function examine(options: NodeChoice): Promise<Finding[]> {
  const node = await findNode(options).catch((error) => {
    if (error instanceof ShallotError && error.code === 'node-not-running') return null
    throw error
  })
  const status = (await node?.status()) ?? null
  const dir = await directoryOf(options, node)
  const { config, finding } = await configOf(dir)
  const directory = await directoryFacts(config?.dir ?? dir)
  const machine = await machineFacts(status?.pid ?? process.pid)
  const findings = [...nodeFindings(status, dir, process.getuid?.() ?? null, directory.ownerUid), finding]
  if (config !== null) findings.push(...directoryFindings(config.dir, directory))
  findings.push(...machineFindings(machine, config))
  if (status === null && config !== null) findings.push(...portFindings(await portFacts(wantedPorts(config))))
  if (status !== null) findings.push(...statusFindings(status, machine.hasNetwork))
  const triedInVain = status?.warnings.some(({ code }) => code === 'no-way-in') ?? false
  const isOutside = status === null ? config !== null && !(await hasView(config)) : status.view.known.total === 0 && machine.hasNetwork
  if (config !== null && isOutside)
    findings.push(bootstrapFinding(await bootstrapFacts(config, { hasNetwork: machine.hasNetwork, triedInVain })))
  const relays = node === null || status === null ? null : (await node.relays()).filter(({ id }) => id !== status.id)
  const rules = config?.network.descriptors
  findings.push(
    clockFinding({
      now: Date.now(),
      notBefore: newestDate(config, directory, dir),
      network: status && {
        publishedAt: (relays ?? []).map(({ publishedAt }) => publishedAt),
        syncedAt: status.view.syncedAt,
        // A node of an older version does not tell.
        refused: status.view.refused ?? { future: 0, expired: 0 },
        republishMs: rules?.republishMs ?? 3_600_000,
        toleranceMs: rules?.clockToleranceMs ?? 600_000,
      },
    }),
  )
  findings.push(versionFinding(config?.network.protocols ?? null, relays?.map(({ software }) => software) ?? null, status?.version ?? null))
  return findings
}

/** The directory of the node that answers; else the one that is named or usual. */
async function directoryOf({ dir }: NodeChoice, node: ControlClient | null): Promise<string> {
  const running = node === null ? undefined : (await runningNodes()).find(({ address }) => address === node.address)
  return running?.dir ?? resolve(dir ?? defaultDir())
}

function newestDate(config: NodeConfig | null, { newestAt }: DirectoryFacts, dir: string): ClockFacts['notBefore'] {
  const issued = config?.signature?.issued
  const dates = [
    ...(issued ? [{ what: "the network file's signature", at: Date.parse(issued) }] : []),
    ...(newestAt === null ? [] : [{ what: `a file in ${dir}`, at: newestAt }]),
  ]
  return dates.reduce<ClockFacts['notBefore']>((newest, one) => (newest === null || one.at > newest.at ? one : newest), null)
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
