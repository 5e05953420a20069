import { lstat, open, readFile, readlink, rename, rm, symlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { isErrno } from '../store/index.ts'
import { vpnError } from './errors.ts'
import { vpnLimits } from './limits.ts'

/** A file as it was, in a form for JSON. */
export type OriginalFile = { readonly path: string } & (
  | { readonly kind: 'absent' }
  | { readonly kind: 'link'; readonly target: string }
  | {
      readonly kind: 'file'
      readonly base64: string
      readonly mode: number
      readonly uid: number
      readonly gid: number
      /** Milliseconds since 1970. */
      readonly modifiedAt: number
    }
)

const MARK = "# The Shallot VPN is up: names are asked through the mesh, by the tunnel's resolver."
const PLACE_IN_USE = ['EBUSY', 'EXDEV', 'EPERM', 'EACCES', 'EROFS', 'ENOTDIR']

/** The file that names the tunnel's resolver. Circuits take longer than a LAN, and no search list leaves the machine. */
export function resolvConfText(servers: readonly string[], id: string): string {
  return [
    `${MARK} (${id})`,
    '# `shallot vpn down` brings back what was here; `shallot vpn repair` does so after a crash.',
    ...servers.map((server) => `nameserver ${server}`),
    'options edns0 timeout:10 attempts:2',
    '',
  ].join('\n')
}

/** Whether the text is one of ours. @param id of that VPN, and no other */
export function isOurs(text: string, id?: string): boolean {
  return text.startsWith(id === undefined ? MARK : `${MARK} (${id})`)
}

/** /etc/resolv.conf, or the file that stands for it: looked at, taken, given back. */
export class ResolvConf {
  readonly path: string

  constructor(path = '/etc/resolv.conf') {
    this.path = path
  }

  /** What a program that opens it reads; '' where there is nothing. */
  async text(): Promise<string> {
    return readFile(this.path, 'utf8').catch(() => '')
  }

  /** The target of a symbolic link; null when it is none. */
  async linkTarget(): Promise<string | null> {
    return readlink(this.path).catch(() => null)
  }

  /** The file as it is, to be given back later. @throws ShallotError 'vpn-dns-not-taken' */
  async original(): Promise<OriginalFile> {
    const { path } = this
    try {
      const facts = await lstat(path)
      if (facts.isSymbolicLink()) return { path, kind: 'link', target: await readlink(path) }
      if (!facts.isFile() || facts.size > vpnLimits.resolvConfBytes)
        throw vpnError('vpn-dns-not-taken', `${path} is no file of a few lines: it is left as it is`)
      const base64 = (await readFile(path)).toString('base64')
      return { path, kind: 'file', base64, mode: facts.mode & 0o7777, uid: facts.uid, gid: facts.gid, modifiedAt: facts.mtimeMs }
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return { path, kind: 'absent' }
      throw notTaken(path, error)
    }
  }

  /** Puts ours in its place; a crash leaves the one or the other. @throws ShallotError 'vpn-dns-not-taken' */
  async take(servers: readonly string[], id: string): Promise<void> {
    const text = resolvConfText(servers, id)
    try {
      await this.#replace(Buffer.from(text), { mode: 0o644 })
    } catch (error) {
      throw notTaken(this.path, error)
    }
  }

  /**
   * Gives the original back, unless somebody else has put a file of theirs there since: that one stays.
   * @returns whether it was ours to give back. @throws ShallotError 'vpn-not-undone'
   */
  async restore(original: OriginalFile, id: string): Promise<boolean> {
    try {
      await rm(this.#temporary, { force: true }).catch(() => {})
      if (!isOurs(await this.text(), id)) return false
      switch (original.kind) {
        case 'absent':
          await rm(this.path, { force: true })
          break
        case 'link':
          await symlink(original.target, this.#temporary)
          await rename(this.#temporary, this.path)
          break
        case 'file': {
          const { mode, uid, gid, modifiedAt } = original
          await this.#replace(Buffer.from(original.base64, 'base64'), { mode, uid, gid, modifiedAt })
        }
      }
      return true
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      throw vpnError(
        'vpn-not-undone',
        `${this.path} can't be given back (${code ?? String(error)}); what was in it stands in the state file`,
        {
          retry: 'later',
          cause: error,
        },
      )
    }
  }

  get #temporary(): string {
    return join(dirname(this.path), `.${basename(this.path)}.shallot`)
  }

  async #replace(
    bytes: Uint8Array,
    facts: { readonly mode: number; readonly uid?: number; readonly gid?: number; readonly modifiedAt?: number },
  ): Promise<void> {
    try {
      await rm(this.#temporary, { force: true })
      const file = await open(this.#temporary, 'wx', facts.mode)
      try {
        await file.writeFile(bytes)
        if (facts.uid !== undefined && facts.gid !== undefined) await file.chown(facts.uid, facts.gid)
        await file.chmod(facts.mode)
        if (facts.modifiedAt !== undefined) await file.utimes(new Date(), facts.modifiedAt / 1000)
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(this.#temporary, this.path)
    } catch (error) {
      await rm(this.#temporary, { force: true }).catch(() => {})
      if (!isErrno(error, ...PLACE_IN_USE)) throw error
      await this.#overwrite(bytes, facts.modifiedAt, error)
    }
  }

  /** Where the name itself can't be given to another file: a container's bind mount, a folder that is not ours. A link's target is others' and is left. */
  async #overwrite(bytes: Uint8Array, modifiedAt: number | undefined, why: unknown): Promise<void> {
    if (!(await lstat(this.path)).isFile()) throw why
    const file = await open(this.path, 'r+').catch(() => {
      throw why
    })
    try {
      // In one call: a reader in between sees the one or the other, as far as the file system has it.
      await file.write(bytes, 0, bytes.length, 0)
      await file.truncate(bytes.length)
      if (modifiedAt !== undefined) await file.utimes(new Date(), modifiedAt / 1000)
      await file.sync()
    } finally {
      await file.close()
    }
  }
}

function notTaken(path: string, error: unknown): Error {
  const { code } = error as NodeJS.ErrnoException
  if (code?.startsWith('vpn-')) return error as Error
  const why = code === 'EPERM' ? 'the file or its folder may be immutable (lsattr), or belong to another user' : (code ?? String(error))
  return vpnError('vpn-dns-not-taken', `${path} can't be changed: ${why}`, { cause: error })
}
