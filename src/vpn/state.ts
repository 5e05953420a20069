import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf, ShallotError } from '../base/index.ts'
import { readFileIfAny, replaceFile } from '../store/index.ts'
import { vpnError } from './errors.ts'
import type { OriginalFile } from './resolv-conf.ts'

/** In the node's directory. */
export const VPN_STATE_FILE = 'vpn.json'
const VERSION = 1

/** What a crash at any moment may leave behind: each part is written before the act, and taken out after it is undone. */
export interface VpnState {
  readonly version: typeof VERSION
  /** 16 hex digits; the kill switch bears them too. */
  readonly id: string
  /** Whether it is to be up: also when the node starts the next time. */
  readonly wanted: boolean
  readonly killSwitch: boolean
  /** The routing table that is used, null while none is. */
  readonly routing: { readonly table: number } | null
  /** The file that names the resolver, as it was; null while it is not ours. */
  readonly resolvConf: OriginalFile | null
  /** The device that systemd-resolved was told of. */
  readonly resolved: { readonly device: string } | null
}

/** Nothing set up. */
export function freshState(id: string): VpnState {
  return { version: VERSION, id, wanted: false, killSwitch: false, routing: null, resolvConf: null, resolved: null }
}

/** Whether there is anything to undo. */
export function isClean({ killSwitch, routing, resolvConf, resolved }: VpnState): boolean {
  return !killSwitch && routing === null && resolvConf === null && resolved === null
}

/** The state on the disk, read once and written before every act. */
export class VpnStateFile {
  readonly path: string
  readonly #makeId: () => string
  #state: VpnState | null = null

  constructor(dir: string, makeId: () => string) {
    this.path = join(dir, VPN_STATE_FILE)
    this.#makeId = makeId
  }

  /** After `load`. */
  get current(): VpnState {
    this.#state ??= freshState(this.#makeId())
    return this.#state
  }

  /** @returns whether there is a file. @throws ShallotError 'vpn-state-damaged' | 'read-failed' */
  async load(): Promise<boolean> {
    const bytes = await readFileIfAny(this.path)
    this.#state = bytes === null ? freshState(this.#makeId()) : decode(this.path, bytes)
    return bytes !== null
  }

  /** On the disk before it resolves; clean and not wanted is no file. @throws ShallotError of the store */
  async save(change: Partial<VpnState>): Promise<void> {
    const next = { ...this.current, ...change }
    if (isClean(next) && !next.wanted) await rm(this.path, { force: true })
    else await replaceFile(this.path, `${JSON.stringify(next, null, 1)}\n`)
    this.#state = next
  }
}

function decode(path: string, bytes: Uint8Array): VpnState {
  try {
    const value = JSON.parse(Buffer.from(bytes).toString('utf8')) as VpnState
    if (value.version !== VERSION) throw new Error(`version ${String(value.version)} is not ${VERSION}`)
    if (!/^[0-9a-f]{16}$/.test(value.id)) throw new Error('it has no id')
    const { wanted, killSwitch, routing, resolvConf, resolved } = value
    if (
      typeof wanted !== 'boolean' ||
      typeof killSwitch !== 'boolean' ||
      [routing, resolvConf, resolved].some((part) => part === undefined)
    )
      throw new Error('a part is missing')
    return value
  } catch (error) {
    if (error instanceof ShallotError) throw error
    throw vpnError(
      'vpn-state-damaged',
      `${path} is damaged (${messageOf(error)}): restore resolv.conf by hand if it names the tunnel's resolver, then \`shallot vpn repair --force\``,
      { kind: 'process', cause: error },
    )
  }
}
