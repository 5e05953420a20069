import { createHash } from 'node:crypto'
import { z } from 'zod'
import { MalformedError } from '../base/index.ts'

/** What makes a relay the one it is, in one file: to be it again on another disk. Everything else is found anew. */
export interface Backup {
  readonly id: string
  /** Wall-clock ms. */
  readonly madeAt: number
  /** Version of the program that made it. */
  readonly version: string
  /** By name in the node's directory. */
  readonly files: ReadonlyMap<string, Uint8Array>
}

/** The files of a node's directory that a backup may hold. */
export const BACKUP_FILES = ['keys/identity', 'keys/onion', 'publisher', 'shallot.toml', 'network.toml'] as const
/** A backup is some kilobytes; what is longer is none. */
export const BACKUP_BYTES_MAX = 4 << 20

const kind = 'shallot backup 1'
const schema = z.strictObject({
  kind: z.literal(kind),
  id: z.string(),
  madeAt: z.int(),
  version: z.string(),
  files: z.array(z.strictObject({ name: z.enum(BACKUP_FILES), data: z.base64(), sha256: z.string() })).max(BACKUP_FILES.length),
})

/** JSON text of one object: each file in base64, with its SHA-256. Secret: it holds the node's identity. */
export function encodeBackup({ id, madeAt, version, files }: Backup): string {
  const list = [...files].map(([name, bytes]) => ({ name, data: Buffer.from(bytes).toString('base64'), sha256: sha256(bytes) }))
  return `${JSON.stringify({ kind, id, madeAt, version, files: list }, null, 1)}\n`
}

/** @throws MalformedError when it is no backup, or was damaged */
export function decodeBackup(text: string): Backup {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new MalformedError('backup', 'is not JSON')
  }
  const parsed = schema.safeParse(value)
  if (!parsed.success) throw new MalformedError('backup', `is not of the form of a backup: ${z.prettifyError(parsed.error).split('\n')[0]}`)
  const files = new Map<string, Uint8Array>()
  for (const { name, data, sha256: wanted } of parsed.data.files) {
    const bytes = new Uint8Array(Buffer.from(data, 'base64'))
    if (sha256(bytes) !== wanted) throw new MalformedError('backup', `${name} is damaged: its checksum is another`)
    if (files.has(name)) throw new MalformedError('backup', `holds ${name} twice`)
    files.set(name, bytes)
  }
  const { id, madeAt, version } = parsed.data
  return { id, madeAt, version, files }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
