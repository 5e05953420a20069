import { messageOf, ShallotError } from '../base/index.ts'

/** Whether the error is a system error of this code ("ENOENT"). */
export function isErrno(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code))
}

/** The typed form of a failed file operation. A ShallotError passes through. */
export function storeError(path: string, error: unknown, doing: 'write' | 'read' = 'write'): ShallotError {
  if (error instanceof ShallotError) return error
  if (isErrno(error, 'EEXIST')) {
    return new ShallotError('file-exists', `${path} exists already and is not overwritten`, { kind: 'usage', retry: 'never', cause: error })
  }
  if (isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'ENOENT')) {
    return doing === 'write'
      ? new ShallotError(
          'directory-unwritable',
          `${path} cannot be written: ${reason(error)}. Give this user write permission, or choose another directory`,
          {
            kind: 'host',
            retry: 'never',
            cause: error,
          },
        )
      : new ShallotError('read-failed', `${path} cannot be read: ${reason(error)}`, { kind: 'host', retry: 'never', cause: error })
  }
  return new ShallotError(`${doing}-failed`, `${path} cannot be ${doing === 'write' ? 'written' : 'read'}: ${reason(error)}`, {
    kind: 'host',
    retry: 'later',
    cause: error,
  })
}

const reasons: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  EROFS: 'the file system is read-only',
  ENOTDIR: 'a part of the path is not a directory',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  EISDIR: 'it is a directory',
  ENOENT: 'no such file or directory',
}

function reason(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return reasons[code] ?? messageOf(error)
}
