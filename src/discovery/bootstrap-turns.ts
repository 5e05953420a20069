import { type NodeId, type Random, shuffle } from '../base/index.ts'
import { parseBootstrapAddress } from '../directory/index.ts'
import type { PeerSource } from './peers.ts'

/** Addresses of nodes that may show the way into the network, from one place. */
export interface BootstrapSource {
  /** How people call it: `network.toml`, `node.bootstrap`, the name of a file. */
  readonly name: string
  /** `/ip4|ip6/A/tcp/P/p2p/ID` */
  readonly addresses: readonly string[]
}

/** The last source of all: relays that this node knew when it ran before. */
export const FROM_DISK = 'the relays known from before'

/** What became of a source's last turn. */
interface Turn {
  readonly name: string
  readonly known: number
  readonly asked: number
  readonly unreachable: number
}

interface Source {
  readonly name: string
  /** In an order of its own, so that nodes do not all ask the same ones first. */
  readonly peers: readonly PeerSource[]
  /** Where its next turn begins. */
  next: number
}

/**
 * Whose turn it is to show the way into the network. One source at a time, each with the next few of its addresses: a source that answered keeps its
 * turn, one whose addresses all failed gives it to the next, and after the last the first begins anew. Fewer learn so that this node wants to join than
 * if all were asked at once.
 */
export class BootstrapTurns {
  readonly #sources: readonly Source[]
  #at = 0
  #rounds = 0
  /** Of the sources asked since somebody answered. */
  readonly #failed = new Map<string, Turn>()

  /** @param self left out */
  constructor(sources: readonly BootstrapSource[], self: NodeId, random: Random) {
    const named = sources.map(({ name, addresses }) => ({
      name,
      next: 0,
      peers: shuffle(
        addresses
          .map(parseBootstrapAddress)
          .filter(({ id }) => id !== self)
          .map(({ id, address }): PeerSource => ({ id, addresses: [address], from: 'bootstrap' })),
        random,
      ),
    }))
    this.#sources = named.filter(({ peers }) => peers.length > 0)
  }

  /** Whether any address is known. */
  get isEmpty(): boolean {
    return this.#sources.length === 0
  }

  /** Times that every source had its turn and nobody answered, since somebody did. */
  get rounds(): number {
    return this.#rounds
  }

  /**
   * Whom to ask now: the next addresses of the source whose turn it is.
   * @param most how many at once
   * @param usable what is left out of the named sources
   * @param fromDisk the relays known from before, in a random order: asked when all named sources have failed
   */
  current(most: number, usable: (id: NodeId) => boolean, fromDisk: () => readonly PeerSource[]): readonly PeerSource[] {
    for (; this.#at < this.#sources.length; this.#at++) {
      const { peers, next } = this.#sources[this.#at]!
      const inOrder = [...peers.slice(next), ...peers.slice(0, next)].filter(({ id }) => usable(id))
      if (inOrder.length > 0) return inOrder.slice(0, most)
    }
    return fromDisk().slice(0, most)
  }

  /** What became of those that `current` gave. @param unreachable how many of them could not even be connected to */
  note(asked: readonly PeerSource[], answered: boolean, unreachable: number): void {
    if (answered) {
      this.#rounds = 0
      this.#failed.clear()
      return
    }
    const source = this.#sources[this.#at]
    const turn = { asked: asked.length, unreachable }
    if (source) {
      const next = (source.next + asked.length) % source.peers.length
      // A source of many addresses does not lose those that it was not asked for: they come in its next turn.
      source.next = next
      this.#failed.set(source.name, { name: source.name, known: source.peers.length, ...turn })
    } else if (asked.length > 0) this.#failed.set(FROM_DISK, { name: FROM_DISK, known: asked.length, ...turn })
    this.#at++
    if (this.#at > this.#sources.length) {
      this.#at = 0
      this.#rounds++
    }
  }

  /** What failed in the last round, for people: without an address. */
  explain(): string {
    const turns = [...this.#failed.values()].map(
      ({ name, known, asked, unreachable }) =>
        `${name} (${asked === known ? '' : `${asked} of `}${known} ${known === 1 ? 'address' : 'addresses'}: ${how(asked, unreachable)})`,
    )
    if (turns.length === 0) return 'no address of any node is known'
    return `nobody answered: ${turns.join(', ')}`
  }
}

function how(asked: number, unreachable: number): string {
  if (unreachable === asked) return 'not reached'
  if (unreachable === 0) return 'reached, but no view was given'
  return `${unreachable} not reached, ${asked - unreachable} gave no view`
}
