import { lstat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { MalformedError, nodeKey, ShallotError, silentLogger } from '../../base/index.ts'
import {
  BACKUP_BYTES_MAX,
  BACKUP_FILES,
  type Backup,
  CONFIG_FILE,
  decodeBackup,
  decodeIdentity,
  encodeBackup,
  IDENTITY_FILE,
  type Identity,
  loadConfig,
  NETWORK_FILE,
  VERSION,
} from '../../node/index.ts'
import { OnionKeyring } from '../../onion/index.ts'
import { createFile, isErrno, makeDirectory, readFileIfAny, Store } from '../../store/index.ts'
import { say, sayJson } from '../output.ts'
import { defaultDir } from '../places.ts'
import { systemSuite } from '../system-suite.ts'

export interface BackupOptions {
  readonly dir?: string
  readonly json?: boolean
}

const ONION_KEYS_FILE = 'keys/onion'

/** `shallot backup FILE`: the node may run meanwhile. `-` is standard output. */
export async function backup(file: string, options: BackupOptions): Promise<number> {
  const dir = resolve(options.dir ?? defaultDir())
  const { data, network } = await placesOf(dir)
  const files = new Map<string, Uint8Array>()
  for (const name of BACKUP_FILES) {
    const bytes = await readFileIfAny(name === NETWORK_FILE ? network : join(name === CONFIG_FILE ? dir : data, name))
    if (bytes !== null) files.set(name, bytes)
  }
  const bytes = files.get(IDENTITY_FILE)
  if (bytes === undefined) {
    throw new ShallotError('no-identity', `there is no identity in ${data}: only a node that serves others keeps one`, {
      kind: 'usage',
      retry: 'never',
    })
  }
  const { id } = identityIn(bytes)
  const text = encodeBackup({ id, madeAt: Date.now(), version: VERSION, files })
  if (file === '-') {
    process.stdout.write(text)
    return 0
  }
  await createFile(resolve(file), text)
  if (options.json) sayJson({ file: resolve(file), id, files: [...files.keys()] })
  else
    say(
      `The identity ${id} and ${files.size - 1} other files are in ${file}. Whoever has it can be this node: keep it where only you can read it.`,
    )
  return 0
}

/** `shallot restore FILE`: everything is checked before the first file is written, and none is overwritten. `-` is standard input. */
export async function restore(file: string, options: BackupOptions): Promise<number> {
  const kept = decode(await textOf(file))
  const bytes = kept.files.get(IDENTITY_FILE)
  if (bytes === undefined) throw damaged('holds no identity')
  const identity = identityIn(bytes)
  if (identity.id !== kept.id) throw damaged('holds the key of another node than it says')
  checkOnionKeys(kept, identity)
  const dir = resolve(options.dir ?? defaultDir())
  await makeDirectory(dir)
  const store = await Store.open(dir, { logger: silentLogger })
  try {
    for (const name of kept.files.keys()) if (await isThere(join(dir, name))) throw occupied(join(dir, name))
    // The identity last: a restore that was broken off is done again, and not taken for a node.
    for (const name of [...BACKUP_FILES].reverse()) {
      const content = kept.files.get(name)
      if (content === undefined) continue
      await makeDirectory(dirname(join(dir, name)))
      await createFile(join(dir, name), content)
    }
  } finally {
    await store.close()
  }
  if (options.json) sayJson({ dir, id: kept.id, madeAt: kept.madeAt, files: [...kept.files.keys()] })
  else {
    say(`${kept.id} of ${new Date(kept.madeAt).toISOString()} is in ${dir}. Start it with: shallot run --dir ${dir}`)
    await sayWhatMoved(dir)
    say('Never run it in two places at once: the network would see one node that says two things.')
  }
  return 0
}

/** A configuration that names places outside of its directory wants to be looked at where it is now. */
async function sayWhatMoved(dir: string): Promise<void> {
  const config = await loadConfig(join(dir, CONFIG_FILE)).catch(() => null)
  if (config !== null && config.dir === dir && config.networkFile === join(dir, NETWORK_FILE)) return
  say(`Look at node.network and node.data_dir in ${join(dir, CONFIG_FILE)} first: they name other places than ${dir}.`)
}

/** Where the node's state and its network file are; the directory itself where there is no configuration that can be read. */
async function placesOf(dir: string): Promise<{ readonly data: string; readonly network: string }> {
  return loadConfig(join(dir, CONFIG_FILE)).then(
    (config) => ({ data: config.dir, network: config.networkFile }),
    () => ({ data: dir, network: join(dir, NETWORK_FILE) }),
  )
}

async function textOf(file: string): Promise<string> {
  if (file !== '-') {
    const bytes = await readFileIfAny(resolve(file))
    if (bytes === null) throw new ShallotError('read-failed', `there is no file ${file}`, { kind: 'usage', retry: 'never' })
    if (bytes.length > BACKUP_BYTES_MAX) throw damaged('is too long to be one')
    return Buffer.from(bytes).toString('utf8')
  }
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of process.stdin) {
    length += (chunk as Buffer).length
    if (length > BACKUP_BYTES_MAX) throw damaged('is too long to be one')
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function decode(text: string): Backup {
  try {
    return decodeBackup(text)
  } catch (error) {
    if (error instanceof MalformedError) throw damaged(error.message, error)
    throw error
  }
}

function identityIn(bytes: Uint8Array): Identity {
  try {
    return decodeIdentity(systemSuite(), bytes)
  } catch (error) {
    if (error instanceof MalformedError) throw damaged(error.message, error)
    throw error
  }
}

function checkOnionKeys({ files }: Backup, { id }: Identity): void {
  const bytes = files.get(ONION_KEYS_FILE)
  if (bytes === undefined) return
  try {
    OnionKeyring.restore(systemSuite(), nodeKey(id), bytes)
  } catch (error) {
    if (error instanceof MalformedError) throw damaged(error.message, error)
    throw error
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false
    throw error
  }
}

function damaged(why: string, cause?: unknown): ShallotError {
  return new ShallotError('backup-invalid', `the backup can't be used: ${why}`, { kind: 'usage', retry: 'never', cause })
}

function occupied(path: string): ShallotError {
  return new ShallotError('file-exists', `${path} exists already and is not overwritten; name an empty directory with --dir`, {
    kind: 'usage',
    retry: 'never',
  })
}
