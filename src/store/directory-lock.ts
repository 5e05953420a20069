import { link, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { ShallotError } from '../base/index.ts'
import { isErrno, storeError } from './errors.ts'
import { ownName, PRIVATE_FILE_MODE } from './files.ts'
import { isProcessAlive, processMark } from './process-life.ts'

const LOCK_FILE = 'lock'
/** A lock that changes hands this often while we try belongs to somebody else. */
const MAX_TRIES = 50
const TAKEOVER_WAIT_MS = 10
const TAKEOVER_LIMIT_MS = 10_000

/** Holds a directory for this process. */
export interface DirectoryLock {
  /** Gives the directory free. */
  release(): Promise<void>
}

/**
 * Takes the directory: `lock` holds the process id and its start, so that neither a dead process nor a new one with the same id keeps it.
 * @throws ShallotError 'directory-in-use' with the pid of the holder; 'directory-unwritable'
 */
export async function lockDirectory(dir: string): Promise<DirectoryLock> {
  const path = join(dir, LOCK_FILE)
  const own = ownName(path)
  const content = `${process.pid} ${(await processMark(process.pid)) ?? '-'}\n`
  try {
    await writeFile(own, content, { flag: 'wx', mode: PRIVATE_FILE_MODE })
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      try {
        // A hard link appears whole and only where nothing is: the one step that two starts cannot both take.
        await link(own, path)
        return { release: () => rm(path, { force: true }) }
      } catch (error) {
        if (!isErrno(error, 'EEXIST')) throw error
      }
      const holder = await readFile(path, 'utf8').catch(() => null)
      if (holder === null) continue
      const pid = Number.parseInt(holder, 10)
      if (await isHeld(holder)) {
        throw new ShallotError(
          'directory-in-use',
          `${dir} is in use by another Shallot node (process ${pid}). Stop it, or choose another directory`,
          {
            kind: 'process',
            retry: 'later',
          },
        )
      }
      await removeStale(path, own, holder)
    }
    throw new ShallotError('directory-in-use', `${dir} is being taken by another Shallot node`, { kind: 'process', retry: 'later' })
  } catch (error) {
    throw storeError(path, error)
  } finally {
    await rm(own, { force: true }).catch(() => {})
  }
}

/**
 * Removes a dead lock. Only one start does so at a time, and it looks again first: another may have taken the directory between reading
 * and now, and its lock must stay.
 */
async function removeStale(path: string, own: string, judged: string): Promise<void> {
  const guard = `${path}.takeover`
  try {
    await link(own, guard)
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error
    const since = await stat(guard).then(
      (facts) => facts.ctimeMs,
      () => Date.now(),
    )
    // A guard is held for a moment; an old one was left by a start that was killed just then.
    if (Date.now() - since > TAKEOVER_LIMIT_MS) await rm(guard, { force: true })
    else await setTimeout(TAKEOVER_WAIT_MS)
    return
  }
  try {
    if ((await readFile(path, 'utf8').catch(() => null)) === judged) await rm(path, { force: true })
  } finally {
    await rm(guard, { force: true })
  }
}

function isHeld(holder: string): Promise<boolean> {
  const [pid = '', mark = '-'] = holder.trim().split(' ')
  return isProcessAlive(Number(pid), mark)
}
