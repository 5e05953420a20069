import { readFile } from 'node:fs/promises'
import { isErrno } from './errors.ts'

/** States of a process that has ended (proc_pid_stat(5), field 3): a zombie waits for its parent alone, and holds nothing. */
const ENDED = ['Z', 'X', 'x']

/** Which process a pid meant: the same number is given again. Null where /proc cannot tell. */
export async function processMark(pid: number): Promise<string | null> {
  const fields = await statOf(pid)
  const start = fields?.[19]
  if (start === undefined) return null
  // Ticks are counted from the boot: after another one the same number means another moment.
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')
  return boot === '' ? start : `${start}/${boot.trim()}`
}

/** Whether a process runs, and is the one that had this mark. @param mark null or '-': whichever it is */
export async function isProcessAlive(pid: number, mark: string | null): Promise<boolean> {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false
  try {
    process.kill(pid, 0)
  } catch (error) {
    if (isErrno(error, 'ESRCH')) return false
  }
  const state = (await statOf(pid))?.[0]
  if (state !== undefined && ENDED.includes(state)) return false
  const now = await processMark(pid)
  if (mark === null || mark === '-' || now === null) return true
  // A mark of an earlier version of the program has no boot.
  return now === mark || (!mark.includes('/') && now.split('/')[0] === mark)
}

/** The fields of /proc/PID/stat from the third on; null where there is none. */
async function statOf(pid: number): Promise<readonly string[] | null> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null)
  // The second field is the program's name in parentheses, which may hold spaces and parentheses.
  return stat === null ? null : stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}
