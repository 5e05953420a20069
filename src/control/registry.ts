import { lstat, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import type { Logger } from '../base/index.ts'
import { isProcessAlive, makeDirectory, processMark, replaceFile } from '../store/index.ts'

/** Where a running node of this user can be talked to. Holds no secret: the token is in its own file. A later version may say more. */
const entrySchema = z.object({
  /** "ADDRESS:PORT" or the path of a socket. */
  address: z.string(),
  tokenFile: z.string(),
  dir: z.string(),
  pid: z.int(),
  /** Which process that is (`processMark`). */
  mark: z.string().nullable().default(null),
  roles: z.array(z.string()).readonly(),
  startedAt: z.number(),
})

export type RunningNode = z.output<typeof entrySchema>

/** Says that a node runs, in a folder of this user's; returns how to take it back. A failure costs convenience only and is logged. */
export async function announce(node: Omit<RunningNode, 'mark'>, logger: Logger): Promise<() => Promise<void>> {
  const dir = registryDir()
  const file = join(dir, `${node.pid}-${node.startedAt}-${node.address.replaceAll(/[^0-9A-Za-z.]/g, '_').slice(-64)}.json`)
  try {
    await makeDirectory(dir)
    await refuseForeign(dir)
    await replaceFile(file, JSON.stringify({ ...node, mark: await processMark(node.pid) } satisfies RunningNode))
  } catch (error) {
    logger.warn('this node cannot be found without --dir: its registry folder is not usable', { error })
    return async () => {}
  }
  return () => rm(file, { force: true }).catch(() => {})
}

/** The nodes of this user that run now, newest first. Entries of dead processes are removed. */
export async function runningNodes(): Promise<RunningNode[]> {
  const dir = registryDir()
  const found: RunningNode[] = []
  try {
    await refuseForeign(dir)
    for (const name of await readdir(dir)) {
      if (!name.endsWith('.json')) continue
      const path = join(dir, name)
      const entry = entryIn(await readFile(path, 'utf8').catch(() => ''))
      // What cannot be read may be a later version's: its name begins with the pid as well.
      const isAlive = await isProcessAlive(entry?.pid ?? Number.parseInt(name, 10), entry?.mark ?? null)
      if (!isAlive) await rm(path, { force: true })
      else if (entry !== null) found.push(entry)
    }
  } catch {
    // No folder, or not ours: no nodes that we know of.
  }
  return found.sort((a, b) => b.startedAt - a.startedAt)
}

function entryIn(text: string): RunningNode | null {
  try {
    return entrySchema.safeParse(JSON.parse(text)).data ?? null
  } catch {
    return null
  }
}

function registryDir(): string {
  const runtime = process.env.XDG_RUNTIME_DIR
  return runtime ? join(runtime, 'shallot') : join(tmpdir(), `shallot-${ownUserId()}`)
}

/** A folder in /tmp could have been made by another user, to send commands elsewhere. */
async function refuseForeign(dir: string): Promise<void> {
  const stat = await lstat(dir)
  if (!stat.isDirectory() || stat.uid !== ownUserId() || (stat.mode & 0o022) !== 0)
    throw new Error(`${dir} is not this user's own directory`)
}

/** Not `userInfo()`, which asks the system's name service: a look-up that a client must not make. */
function ownUserId(): number {
  return process.getuid?.() ?? -1
}
