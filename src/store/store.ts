import { rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type Logger, messageOf, ShallotError } from '../base/index.ts'
import { type DirectoryLock, lockDirectory } from './directory-lock.ts'
import { storeError } from './errors.ts'
import { makeDirectory, makePrivate, readFileIfAny, removeLeftovers, replaceFile } from './files.ts'

/** Something about a file that the person who runs the node should know. */
export interface StoreWarning {
  readonly code: 'state-corrupt' | 'permissions'
  readonly message: string
}

export interface StoreOptions {
  readonly logger: Logger
  /** Told of everything a person should know, besides the log. */
  readonly warn?: (warning: StoreWarning) => void
}

/**
 * A node's directory: files that are replaced whole, private to their owner, held by one process at a time.
 * Names are relative paths ("view", "keys/identity"); folders on the way are made.
 */
export class Store {
  readonly dir: string
  readonly #lock: DirectoryLock
  readonly #logger: Logger
  readonly #warn: (warning: StoreWarning) => void
  /** What is being written, and the newest bytes that wait behind it, by name. */
  readonly #writing = new Map<string, Promise<void>>()
  readonly #waiting = new Map<string, Uint8Array>()

  private constructor(dir: string, lock: DirectoryLock, options: StoreOptions) {
    this.dir = dir
    this.#lock = lock
    this.#logger = options.logger
    this.#warn = options.warn ?? (() => {})
  }

  /**
   * Makes the directory if there is none, takes its lock, and removes what a life that was killed had half written.
   * @throws ShallotError 'directory-in-use', 'directory-unwritable', 'write-failed'
   */
  static async open(dir: string, options: StoreOptions): Promise<Store> {
    await makeDirectory(dir)
    const lock = await lockDirectory(dir)
    await removeLeftovers(dir)
    return new Store(dir, lock, options)
  }

  path(name: string): string {
    return join(this.dir, name)
  }

  /** Null when there is no such file. @throws ShallotError 'read-failed' */
  read(name: string): Promise<Uint8Array | null> {
    return readFileIfAny(this.path(name))
  }

  /**
   * Replaces the file. Calls for one name are done in order, and of those that wait only the newest is written: a caller may
   * write at every change. The bytes pass to the store. Resolves when they, or newer ones, are on the disk.
   * @throws ShallotError 'directory-unwritable', 'write-failed'
   */
  write(name: string, bytes: Uint8Array): Promise<void> {
    this.#waiting.set(name, bytes)
    const before = this.#writing.get(name) ?? Promise.resolve()
    const done = before
      .catch(() => {})
      .then(() => this.#writeNewest(name))
      .finally(() => {
        if (this.#writing.get(name) === done) this.#writing.delete(name)
      })
    this.#writing.set(name, done)
    return done
  }

  /**
   * Reads state that the node can do without. When `decode` throws, the file is kept aside as `NAME.corrupt-TIME`, a warning names it, and
   * the result is null, as when there is no file.
   */
  async loadState<T>(name: string, decode: (bytes: Uint8Array) => T): Promise<T | null> {
    const bytes = await this.read(name)
    if (bytes === null) return null
    try {
      return decode(bytes)
    } catch (error) {
      const aside = `${name}.corrupt-${new Date().toISOString().replaceAll(':', '')}`
      await rename(this.path(name), this.path(aside)).catch((cause) => {
        throw storeError(this.path(name), cause)
      })
      const message = `${this.path(name)} is damaged (${messageOf(error)}); it is kept as ${this.path(aside)} and the node goes on without it`
      this.#logger.warn('a state file is damaged and was set aside', { file: name, keptAs: aside, problem: messageOf(error) })
      this.#warn({ code: 'state-corrupt', message })
      return null
    }
  }

  /**
   * Reads a key that the node must not lose silently: when `decode` throws, the file stays where it is and the node refuses to start,
   * because a fresh key would make it another relay, without the old one's age and standing.
   * @throws ShallotError 'key-corrupt', 'read-failed'
   */
  async loadKey<T>(name: string, decode: (bytes: Uint8Array) => T): Promise<T | null> {
    const bytes = await this.read(name)
    if (bytes === null) return null
    if (await makePrivate(this.path(name)).catch(() => false)) {
      const message = `${this.path(name)} could be read by other users of this machine; now only its owner can. Consider the key known to them`
      this.#logger.warn('a key file was readable by others', { file: name })
      this.#warn({ code: 'permissions', message })
    }
    try {
      return decode(bytes)
    } catch (error) {
      throw new ShallotError(
        'key-corrupt',
        `${this.path(name)} is damaged (${messageOf(error)}). Restore it from a copy, or move it away to start as a new relay with a new identity`,
        { kind: 'process', retry: 'never', cause: error },
      )
    }
  }

  /** Waits for the writes under way and gives the directory free. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#writing.values())
    await this.#lock.release()
  }

  async #writeNewest(name: string): Promise<void> {
    const bytes = this.#waiting.get(name)
    if (bytes === undefined) return
    this.#waiting.delete(name)
    const path = this.path(name)
    await makeDirectory(dirname(path))
    await replaceFile(path, bytes)
  }
}
