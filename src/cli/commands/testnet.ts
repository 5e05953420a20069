import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { messageOf, ShallotError, silentLogger } from '../../base/index.ts'
import { ControlClient, TOKEN_FILE } from '../../control/index.ts'
import { makeDirectory, Store } from '../../store/index.ts'
import { giveBackIdleMemory } from '../idle-memory.ts'
import { complain, say, sayJson, shortId, styled } from '../output.ts'
import { watchForEnd } from '../serve.ts'
import { type DemoPage, startDemoPage } from '../testnet/demo-page.ts'
import { startInProcess } from '../testnet/in-process.ts'
import { Mesh } from '../testnet/mesh.ts'
import { type ClientPorts, clearTestnet, MADE_UP_COUNTRIES, type PlannedNode, planTestnet } from '../testnet/plan.ts'
import { startInOwnProcess } from '../testnet/processes.ts'
import type { RunningTestnetNode } from '../testnet/running-node.ts'

/** In a testnet's directory: which nodes it wrote there. */
const MARK_FILE = 'testnet.json'
/** A mesh that cannot carry traffic by then never will. */
const READY_LIMIT_MS = 120_000
/** How long, and how often, the printed link to the dashboard may be used. */
const LINK_MS = 86_400_000
const LINK_USES = 100
/** A guard and a middle besides the exit. */
const LEAST_OTHERS = 2

export interface TestnetOptions extends ClientPorts {
  readonly relays: number
  readonly exits: number
  readonly processes?: boolean
  readonly dir?: string
  readonly relayConfig?: string
  readonly countries?: string
  readonly json?: boolean
}

async function readOption(name: string, file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    throw new ShallotError('usage', `${name} ${file} cannot be read: ${messageOf(error)}`, {
      kind: 'usage',
      retry: 'never',
      cause: error,
    })
  }
}

/** `shallot testnet` */
export async function testnet(options: TestnetOptions): Promise<number> {
  if (options.relays - options.exits < LEAST_OTHERS) {
    const message = `--relays ${options.relays} --exits ${options.exits} leaves ${Math.max(0, options.relays - options.exits)} for guard and middle: a circuit needs ${LEAST_OTHERS} relays besides the exit`
    throw new ShallotError('usage', message, { kind: 'usage', retry: 'never' })
  }
  const ending = new AbortController()
  const ended = new Promise<void>((done) => ending.signal.addEventListener('abort', () => done(), { once: true }))
  watchForEnd({}, { end: () => ending.abort() })
  const dir = await testnetDirectory(options.dir)
  const mesh = new Mesh()
  let page: DemoPage | null = null
  let code = 0
  try {
    await clearTestnet(dir.path, dir.earlier)
    const relaySections = options.relayConfig === undefined ? '' : await readOption('--relay-config', options.relayConfig)
    const countries = options.countries === undefined ? MADE_UP_COUNTRIES : await readOption('--countries', options.countries)
    const { relays, exits } = options
    const plans = await planTestnet(dir.path, { relays, exits, relaySections, countries }, options)
    await dir.mark(plans)
    if (!options.json) say(`Starting ${plans.length} nodes ${options.processes ? 'in processes of their own' : 'in this process'} ...`)
    page = await startDemoPage()
    await mesh.start(plans, options.processes ? startInOwnProcess : startInProcess, ending.signal)
    for (const node of mesh.nodes) void watch(node, mesh, ending)
    await Promise.race([mesh.client.ready(), ended, tooLate()])
    if (!ending.signal.aborted) {
      giveBackIdleMemory()
      if (options.json) sayJson(readyLine(mesh, page))
      else await tell(mesh, page, dir.path, options)
      await ended
    }
    if (ending.signal.reason instanceof ShallotError) throw ending.signal.reason
  } catch (error) {
    if (!ending.signal.aborted || error instanceof ShallotError) {
      complain(`shallot: ${messageOf(error)}`)
      code = 1
    }
  } finally {
    await mesh.stop()
    await page?.close()
    await dir.release()
  }
  if (!options.json && code === 0) say('All nodes have stopped.')
  return code
}

interface TestnetDirectory {
  readonly path: string
  /** Names of what an earlier testnet left. */
  readonly earlier: readonly string[]
  mark(plans: readonly PlannedNode[]): Promise<void>
  release(): Promise<void>
}

/** A directory of one's own, or the given one when it is empty or was a testnet's. @throws ShallotError 'directory-not-empty', 'directory-in-use' */
async function testnetDirectory(given: string | undefined): Promise<TestnetDirectory> {
  if (given === undefined) {
    const path = await mkdtemp(join(tmpdir(), 'shallot-testnet-'))
    return { path, earlier: [], mark: async () => {}, release: () => rm(path, { recursive: true, force: true }) }
  }
  const path = resolve(given)
  await makeDirectory(path)
  const names = await readdir(path)
  if (names.length > 0 && !names.includes(MARK_FILE)) {
    const message = `${path} is not empty and holds no earlier testnet; give --dir a directory that is new or empty`
    throw new ShallotError('directory-not-empty', message, { kind: 'usage', retry: 'never' })
  }
  const store = await Store.open(path, { logger: silentLogger })
  const earlier = await store.loadState(MARK_FILE, (bytes) =>
    (JSON.parse(Buffer.from(bytes).toString()) as { nodes: string[] }).nodes.filter((name) => /^[a-z]+\d*$/.test(name)),
  )
  return {
    path,
    earlier: earlier ?? [],
    mark: (plans) => store.write(MARK_FILE, Buffer.from(`${JSON.stringify({ nodes: plans.map((plan) => plan.name) })}\n`)),
    release: () => store.close(),
  }
}

/** A relay may end, and the mesh goes on; without the client there is nothing left to go on for. */
async function watch(node: RunningTestnetNode, mesh: Mesh, ending: AbortController): Promise<void> {
  const how = await node.ended
  if (how === null || ending.signal.aborted) return
  const text = `${node.plan.name} (process ${node.pid}, ${node.plan.roles.join(', ')}) has ended: ${how}`
  if (node !== mesh.client) return complain(`shallot: ${text}; the mesh goes on without it`)
  ending.abort(new ShallotError('node-died', text, { kind: 'process', retry: 'later' }))
}

/** What a testnet carries is nobody's secret: its link may be used again and again. Null when there is no dashboard. */
async function dashboardLink({ control, plan }: RunningTestnetNode): Promise<string | null> {
  if (control === null) return null
  const asked = new ControlClient(control, join(plan.dir, TOKEN_FILE)).dashboardLink({ forMs: LINK_MS, uses: LINK_USES })
  return asked.then(
    ({ url }) => url,
    () => null,
  )
}

function tooLate(): Promise<never> {
  return new Promise((_, fail) => {
    const message = `the mesh cannot carry traffic after ${READY_LIMIT_MS / 1000} s; the nodes' logs may say why (keep them with --dir)`
    setTimeout(() => fail(new ShallotError('not-ready', message, { kind: 'process', retry: 'later' })), READY_LIMIT_MS).unref()
  })
}

function readyLine(mesh: Mesh, page: DemoPage): unknown {
  const { socks, http, control, dashboard } = mesh.client
  const nodes = mesh.nodes.map(({ plan, id, pid }) => ({
    id,
    roles: plan.roles,
    address: plan.address,
    country: plan.country,
    pid,
    name: plan.name,
    dir: plan.dir,
  }))
  return { ready: true, socks, http, control, dashboard, page: page.url, nodes }
}

/** What a person reads when all runs. */
async function tell(mesh: Mesh, page: DemoPage, dir: string, options: TestnetOptions): Promise<void> {
  const { client } = mesh
  const circuit = (await client.circuits()).find((one) => one.state === 'open')
  const nameOf = (id: string): string => mesh.nodes.find((node) => node.id === id)?.plan.name ?? shortId(id)
  say()
  say(styled('bold', `A mesh of ${options.relays} relays, ${options.exits} of them exits, runs on this machine.`))
  for (const node of mesh.nodes.slice(0, -1))
    say(
      `  ${node.plan.name.padEnd(10)} ${node.plan.address!.padEnd(19)} ${node.plan.country ?? '??'}  ${node.plan.roles.join(', ').padEnd(15)}${options.processes ? `process ${node.pid}` : ''}`.trimEnd(),
    )
  say(`  ${'client'.padEnd(10)} SOCKS5 ${client.socks}, HTTP proxy ${client.http}`)
  say()
  if (circuit !== undefined) {
    say('The first circuit, encrypted once for each of its three relays:')
    say(`  you -> ${circuit.path.map((hop) => `${nameOf(hop.id)} (${hop.position})`).join(' -> ')} -> the internet`)
    say()
  }
  // Without this, curl would go straight to where no_proxy says, and look just as well.
  const direct = process.env.no_proxy || process.env.NO_PROXY ? ` --noproxy ''` : ''
  const link = await dashboardLink(client)
  if (link !== null) {
    say(
      `See it in a browser${options.countries === undefined ? ' (its countries are made up)' : ''}; the link is good for as long as the mesh runs, a day at most:`,
    )
    say(styled('cyan', `  ${link}`))
    say()
  }
  say('Try it. This page is on this machine; any other address works where there is internet:')
  say(styled('cyan', `  curl${direct} --proxy socks5h://${client.socks} ${page.url}`))
  say(styled('cyan', `  curl${direct} --proxy http://${client.http} ${page.url}`))
  say()
  say(`Look inside, in another terminal:  shallot status   shallot circuits --why`)
  say(`Everything is in ${dir}${options.dir === undefined ? ' and is removed at the end' : ''}.`)
  say('Stop it with Ctrl-C.')
}
