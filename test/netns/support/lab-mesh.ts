import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { NodeId } from '../../../src/base/index.ts'
import { chooseSuite } from '../../../src/crypto/index.ts'
import { parseRules, type Role, testnetRules } from '../../../src/directory/index.ts'
import {
  briefToml,
  CONFIG_FILE,
  configSchema,
  createIdentity,
  encodeIdentity,
  IDENTITY_FILE,
  NETWORK_FILE,
  networkToml,
  type Overrides,
} from '../../../src/node/index.ts'
import { Control } from '../../support/control.ts'
import { type Exit, type ExtraNode, type StartOptions, startNode, temporaryFolder, until } from '../../support/processes.ts'
import type { Lab, Machine } from '../lab/index.ts'

/** The port of every node of the lab: each machine runs one. */
export const nodePort = 4460

/** A node that is to run on a machine of the lab. */
export interface LabNodePlan {
  readonly name: string
  readonly on: Machine
  readonly roles: readonly Role[]
  /** What differs from the defaults besides: sections of shallot.toml, keys in camelCase. @param idOf the id of a serving node of the plan */
  readonly more?: Overrides | ((idOf: (name: string) => NodeId) => Overrides)
}

/** Nodes that start at the same time. One behind NAT waits most of the time. */
const startingAtOnce = 12
const readyWithinMs = 60_000

/** A node of a mesh in the lab: its files, and its process while it runs. */
export class LabNode {
  readonly plan: LabNodePlan
  readonly dir: string
  /** Whether it runs on a host, with public addresses of its own. */
  readonly isOnHost: boolean
  /** Null for a pure client: it has another one at every start. */
  readonly id: NodeId | null
  #running: ExtraNode | null = null

  constructor(plan: LabNodePlan, dir: string, isOnHost: boolean, id: NodeId | null) {
    this.plan = plan
    this.isOnHost = isOnHost
    this.dir = dir
    this.id = id
  }

  get machine(): Machine {
    return this.plan.on
  }

  get running(): ExtraNode {
    if (!this.#running) throw new Error(`the node ${this.plan.name} is not running`)
    return this.#running
  }

  /** The id of a serving node. */
  get servingId(): NodeId {
    if (this.id === null) throw new Error(`${this.plan.name} is a pure client`)
    return this.id
  }

  /** The SOCKS5 proxy of a client, reachable on its machine. */
  get socks(): string {
    const { socks } = this.running.ready
    if (socks === null) throw new Error(`${this.plan.name} has no SOCKS5 proxy`)
    return socks
  }

  /** The control API, by its socket file: every network namespace reaches it. */
  get control(): Control {
    return new Control(join(this.dir, 'control.sock'), this.dir)
  }

  /** @param options more environment, or a wrapper */
  async start(options: StartOptions = {}): Promise<void> {
    const wrapper = [...this.machine.wrapper, ...(options.wrapper ?? [])]
    this.#running = await startNode(join(this.dir, CONFIG_FILE), { ...options, wrapper, readyWithinMs })
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Exit | null> {
    const running = this.#running
    this.#running = null
    if (running === null || running.program.exit !== null) return running?.program.exit ?? null
    return running.stop(signal)
  }

  /** Fetches a URL through the node's SOCKS5 proxy with curl on its own machine. */
  async curl(url: string, ...more: readonly string[]): Promise<{ code: number; out: string; log: string }> {
    const proxied = ['-q', '-sS', '-m', '60', '--socks5-hostname', this.socks, ...more, url]
    const { code, stdout, log } = await this.machine.run('curl', proxied, { timeoutMs: 70_000 })
    return { code: code ?? -1, out: stdout, log }
  }

  /** The end of what the node logged, for a failure's message. */
  tail(): string {
    return this.#running?.program.tail(2000) ?? ''
  }
}

/** Whole nodes, each a process on a machine of the lab, with the rules of a testnet but public addresses only. */
export class LabMesh {
  readonly nodes: readonly LabNode[]
  readonly dir: string
  readonly #remove: () => void

  /** Writes the files of all nodes; starts nothing. The first node has to be a bootstrap node on a public host. */
  static plan(lab: Lab, plans: readonly LabNodePlan[]): LabMesh {
    const folder = temporaryFolder('mesh')
    const suite = chooseSuite('auto').suite
    const identities = plans.map(({ roles }) => (isPureClient(roles) ? null : createIdentity(suite)))
    const bootstrap = plans.flatMap(({ on, roles }, i) =>
      roles.includes('bootstrap') ? listeningOn(lab, on).map((address) => `${address}/p2p/${identities[i]!.id}`) : [],
    )
    const rules = parseRules({ ...testnetRules, privateDestinations: false, admission: { privateAddresses: false }, bootstrap })
    writeFileSync(join(folder.path, NETWORK_FILE), networkToml(rules, 'A mesh in the lab.'))
    const idOf = (name: string): NodeId => {
      const id = identities[plans.findIndex((plan) => plan.name === name)]?.id
      if (id === undefined) throw new Error(`the mesh has no serving node ${name}`)
      return id
    }
    const nodes = plans.map((plan, i) => {
      const dir = join(folder.path, plan.name)
      const identity = identities[i] ?? null
      mkdirSync(dirname(join(dir, IDENTITY_FILE)), { recursive: true, mode: 0o700 })
      writeFileSync(join(dir, CONFIG_FILE), briefToml(configSchema, configOf(lab, plan, idOf), `Node ${plan.name} of a mesh in the lab.`), {
        mode: 0o600,
      })
      if (identity) writeFileSync(join(dir, IDENTITY_FILE), encodeIdentity(identity), { mode: 0o600 })
      return new LabNode(plan, dir, isHost(lab, plan.on), identity?.id ?? null)
    })
    return new LabMesh(nodes, folder.path, folder.remove)
  }

  private constructor(nodes: readonly LabNode[], dir: string, remove: () => void) {
    this.nodes = nodes
    this.dir = dir
    this.#remove = remove
  }

  node(name: string): LabNode {
    const found = this.nodes.find(({ plan }) => plan.name === name)
    if (!found) throw new Error(`the mesh has no node ${name}`)
    return found
  }

  /** Starts all nodes: bootstrap nodes first, then the public ones, then the rest, clients last. */
  async start(): Promise<void> {
    for (const wave of [0, 1, 2, 3]) await this.startAll(this.nodes.filter((node) => waveOf(node) === wave))
  }

  /** Starts these nodes, some at a time. */
  async startAll(nodes: readonly LabNode[]): Promise<void> {
    const queue = [...nodes]
    const started = await Promise.allSettled(
      Array.from({ length: startingAtOnce }, async () => {
        for (let node = queue.shift(); node; node = queue.shift()) await node.start()
      }),
    )
    for (const result of started) if (result.status === 'rejected') throw result.reason
  }

  /** Waits until a node's view holds all serving nodes that are named. */
  async knows(node: LabNode, others: readonly LabNode[], withinMs: number): Promise<void> {
    await until(`${node.plan.name} knows ${others.map(({ plan }) => plan.name).join(', ')}`, withinMs, async () => {
      const known = new Set((await node.control.relays()).map(({ id }) => id))
      return others.every(({ servingId }) => known.has(servingId))
    })
  }

  /** Stops these nodes and starts them again: they keep who they are and what they know. */
  async restart(nodes: readonly LabNode[]): Promise<void> {
    await Promise.all(nodes.map((node) => node.stop()))
    await this.startAll(nodes)
  }

  /** Stops all, clients first, and removes their files. */
  async stop(): Promise<void> {
    for (const wave of [3, 2, 1, 0])
      await Promise.all(this.nodes.filter((node) => waveOf(node) === wave).map((node) => node.stop().catch(() => null)))
    this.#remove()
  }
}

function configOf(lab: Lab, plan: LabNodePlan, idOf: (name: string) => NodeId): Overrides {
  const more = typeof plan.more === 'function' ? plan.more(idOf) : plan.more
  const network = `../${NETWORK_FILE}`
  if (isPureClient(plan.roles)) {
    const ingress = { socks: { listen: ['127.0.0.1:0'] }, http: { listen: ['127.0.0.1:0'] }, dns: { listen: ['127.0.0.1:0'] } }
    return merge({ node: { roles: plan.roles, network }, ingress }, more)
  }
  return merge({ node: { roles: plan.roles, network }, link: { listen: listeningOn(lab, plan.on) } }, more)
}

/** A host listens at its addresses; a machine at home does what everybody does there: on all it has. */
function listeningOn(lab: Lab, machine: Machine): string[] {
  if (!isHost(lab, machine)) return [`/ip4/0.0.0.0/tcp/${nodePort}`, ...(machine.ipv6 === null ? [] : [`/ip6/::/tcp/${nodePort}`])]
  return [
    ...machine.addresses.map((address) => `/ip4/${address}/tcp/${nodePort}`),
    ...(machine.ipv6 === null ? [] : [`/ip6/${machine.ipv6}/tcp/${nodePort}`]),
  ]
}

function isHost(lab: Lab, machine: Machine): boolean {
  return lab.ownerOf(machine.addresses[0] ?? machine.ipv6 ?? '') === machine.place
}

function isPureClient(roles: readonly Role[]): boolean {
  return roles.every((role) => role === 'client')
}

function waveOf({ plan: { roles }, isOnHost }: LabNode): number {
  if (roles.includes('bootstrap')) return 0
  if (isPureClient(roles)) return 3
  return isOnHost ? 1 : 2
}

/** Sections of both; of a section that both have, the keys of both, however deep. */
function merge(base: Overrides, more: Overrides = {}): Overrides {
  const merged = (one: unknown, other: unknown): unknown => {
    if (other === undefined) return one
    if (!isSection(one) || !isSection(other)) return other
    const keys = new Set([...Object.keys(one), ...Object.keys(other)])
    return Object.fromEntries([...keys].map((key) => [key, merged(one[key], other[key])]))
  }
  return merged(base, more) as Overrides
}

function isSection(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
