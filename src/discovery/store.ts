/** Where discovery keeps what it wants to find again; the node's store is one. Names are file names. */
export interface DiscoveryStore {
  /** Null when there is nothing, or nothing that `decode` takes (it is set aside then). */
  loadState<T>(name: string, decode: (bytes: Uint8Array) => T): Promise<T | null>
  /** Replaces the whole of it. The bytes pass on. */
  write(name: string, bytes: Uint8Array): Promise<void>
}

/** Keeps in memory: for tests, and for nodes that are to leave nothing behind. */
export class MemoryDiscoveryStore implements DiscoveryStore {
  readonly files = new Map<string, Uint8Array>()

  async loadState<T>(name: string, decode: (bytes: Uint8Array) => T): Promise<T | null> {
    const bytes = this.files.get(name)
    if (!bytes) return null
    try {
      return decode(bytes)
    } catch {
      this.files.delete(name)
      return null
    }
  }

  async write(name: string, bytes: Uint8Array): Promise<void> {
    this.files.set(name, bytes)
  }
}
