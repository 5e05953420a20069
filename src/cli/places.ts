import { accessSync, constants, existsSync } from 'node:fs'
import { connect } from 'node:net'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { ShallotError } from '../base/index.ts'
import { ControlClient, type RunningNode, runningNodes, TOKEN_FILE } from '../control/index.ts'
import { isErrno } from '../store/index.ts'

/** Where this user's node is when nothing else is said: $SHALLOT_DIR, else the XDG data directory. */
export function defaultDir(): string {
  const { SHALLOT_DIR, XDG_DATA_HOME } = process.env
  if (SHALLOT_DIR) return resolve(SHALLOT_DIR)
  return join(XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'shallot')
}

/** Where a node's control API is when its configuration says nothing else. */
const CONTROL_SOCKET = 'control.sock'

export interface NodeChoice {
  readonly dir?: string
  readonly control?: string
}

/**
 * The running node that a command means: that of --control or --dir; else the one in the default directory; else the only client of this
 * user that runs (a testnet's, say), else the only node.
 * @throws ShallotError 'node-not-running', 'node-not-clear'
 */
export async function findNode(choice: NodeChoice): Promise<ControlClient> {
  const running = await runningNodes()
  if (choice.control !== undefined) {
    const address = choice.control.startsWith('unix:') ? resolve(choice.control.slice('unix:'.length)) : choice.control
    if (!address.startsWith('/') && !/^(\[[0-9a-f:.]+\]|[0-9.]+):\d{1,5}$/i.test(address))
      throw new ShallotError('usage', `--control is ${JSON.stringify(choice.control)}; it must be unix:PATH or ADDRESS:PORT`, {
        kind: 'usage',
        retry: 'never',
      })
    const known = running.find((node) => node.address === address)
    const tokenFile = choice.dir !== undefined ? join(resolve(choice.dir), TOKEN_FILE) : known?.tokenFile
    if (tokenFile === undefined) throw notRunning(`no node of this user says that it answers at ${address}; name its directory with --dir`)
    return new ControlClient(address, tokenFile)
  }
  if (choice.dir !== undefined) {
    const dir = resolve(choice.dir)
    // A testnet's directory stands for its client.
    const node = running.find((one) => one.dir === dir) ?? running.find((one) => one.dir === join(dir, 'client'))
    if (node !== undefined) return clientOf(node)
    // That of another user (a service's own), for whoever may read its directory: root.
    const socket = join(dir, CONTROL_SOCKET)
    if (isForbidden(socket)) throw notAllowed(dir)
    if (existsSync(socket) && (await answers(socket))) return new ControlClient(socket, join(dir, TOKEN_FILE))
    throw notRunning(`no node runs in ${dir}; start it with \`shallot run --dir ${choice.dir}\``)
  }
  const usual = running.find((node) => node.dir === defaultDir())
  if (usual !== undefined) return clientOf(usual)
  const clients = running.filter((node) => node.roles.includes('client'))
  const candidates = clients.length > 0 ? clients : running
  if (candidates.length === 1) return clientOf(candidates[0]!)
  if (candidates.length === 0)
    throw notRunning('no node of this user is running; start one with `shallot run`, or a whole mesh with `shallot testnet`')
  const list = candidates.map((node) => `\n  --dir ${node.dir}  (${node.roles.join(', ')}, process ${node.pid})`).join('')
  throw new ShallotError('node-not-clear', `${candidates.length} nodes of this user are running; say which is meant:${list}`, {
    kind: 'usage',
    retry: 'never',
  })
}

/** Whether it is this user who may not know: then what is there cannot be told from nothing. */
function isForbidden(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    return false
  } catch (error) {
    return isErrno(error, 'EACCES')
  }
}

/** Whether a node listens there: the socket of one that was killed stays. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}

function clientOf(node: RunningNode): ControlClient {
  return new ControlClient(node.address, node.tokenFile)
}

function notAllowed(dir: string): ShallotError {
  return new ShallotError('control-refused', `${dir} belongs to another user: run this as the user who runs the node, or with sudo`, {
    kind: 'host',
    retry: 'never',
  })
}

function notRunning(message: string): ShallotError {
  return new ShallotError('node-not-running', message, { kind: 'process', retry: 'later' })
}
