import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isErrno, storeError } from './errors.ts'
import { isProcessAlive } from './process-life.ts'

/** Only the owner reads or writes. */
export const PRIVATE_FILE_MODE = 0o600
export const PRIVATE_DIR_MODE = 0o700

/**
 * Makes a directory, private, and those above it that are missing. One that is there already is left as it is.
 * @throws ShallotError 'directory-unwritable', 'write-failed'
 */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: PRIVATE_DIR_MODE })
  } catch (error) {
    if (isErrno(error, 'EEXIST') && (await stat(path)).isDirectory()) return
    const parent = dirname(path)
    // Not `recursive`: where a file system answers ENOENT though the parent is there (/proc does), Node's own never ends.
    if (!isErrno(error, 'ENOENT') || parent === path || (await isThere(parent))) throw storeError(path, error)
    await makeDirectory(parent)
    await mkdir(path, { mode: PRIVATE_DIR_MODE }).catch((again) => {
      if (!isErrno(again, 'EEXIST')) throw storeError(path, again)
    })
  }
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

/**
 * A name beside a file that no other writer has, in this life or another: in a container every life has the same process id. `removeLeftovers` knows
 * it by its form.
 */
export function ownName(path: string): string {
  return `${path}.${process.pid}-${randomBytes(6).toString('hex')}`
}

const leftoverForm = /\.(\d+)-[0-9a-f]{1,12}(?:\.tmp)?$/

/** Removes what a writer that was killed left in a directory and the folders in it: half a file, perhaps of a key. What a living process writes now stays. */
export async function removeLeftovers(dir: string): Promise<void> {
  const startedAt = Date.now() - process.uptime() * 1000
  const entries = await readdir(dir, { withFileTypes: true }).catch(() => [])
  for (const entry of entries) {
    const path = join(dir, entry.name)
    const pid = Number(leftoverForm.exec(entry.name)?.[1] ?? 0)
    if (entry.isDirectory()) await removeLeftovers(path)
    else if (entry.isFile() && pid > 0 && !(await isBeingWritten(path, pid, startedAt))) await rm(path, { force: true }).catch(() => {})
  }
}

async function isBeingWritten(path: string, pid: number, startedAt: number): Promise<boolean> {
  if (pid === process.pid) return ((await stat(path).catch(() => null))?.mtimeMs ?? 0) >= startedAt
  return isProcessAlive(pid, null)
}

/**
 * Replaces a file whole: after a crash at any moment it holds either the old or the new bytes. The bytes are borrowed until it resolves.
 * @param mode permissions of the new file; private unless told otherwise
 * @throws ShallotError 'directory-unwritable', 'write-failed'
 */
export async function replaceFile(path: string, bytes: Uint8Array | string, mode: number = PRIVATE_FILE_MODE): Promise<void> {
  const temporary = `${ownName(path)}.tmp`
  try {
    const file = await open(temporary, 'wx', mode)
    try {
      await file.writeFile(bytes)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {})
    throw storeError(path, error)
  }
  await syncDirectory(dirname(path))
}

/** Writes a file that must not exist yet. @throws ShallotError 'file-exists', 'directory-unwritable', 'write-failed' */
export async function createFile(path: string, bytes: Uint8Array | string, mode: number = PRIVATE_FILE_MODE): Promise<void> {
  try {
    const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, mode)
    try {
      await file.writeFile(bytes)
      await file.sync()
    } finally {
      await file.close()
    }
  } catch (error) {
    throw storeError(path, error)
  }
  await syncDirectory(dirname(path))
}

/** The file's bytes, or null when there is no such file. @throws ShallotError 'read-failed' */
export async function readFileIfAny(path: string): Promise<Uint8Array | null> {
  try {
    return await readFile(path)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return null
    throw storeError(path, error, 'read')
  }
}

/** Takes group's and others' permissions away. Returns whether there were any. */
export async function makePrivate(path: string): Promise<boolean> {
  const file = await open(path, 'r')
  try {
    const { mode } = await file.stat()
    if ((mode & 0o077) === 0) return false
  } finally {
    await file.close()
  }
  await chmod(path, PRIVATE_FILE_MODE)
  return true
}

/** A rename is only lasting once its directory is on the disk. Some file systems cannot sync a directory: that is not an error. */
async function syncDirectory(path: string): Promise<void> {
  try {
    const directory = await open(path, 'r')
    try {
      await directory.sync()
    } finally {
      await directory.close()
    }
  } catch {}
}
