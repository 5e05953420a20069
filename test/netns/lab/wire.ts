import { fileURLToPath } from 'node:url'
import { type Namespaces, shell } from './namespaces.ts'
import { Talker } from './talker.ts'

/** What an emulated wire does to the frames of each of its two directions. */
export interface WireOptions {
  /** From one end to the other, one way, ms. */
  readonly delayMs?: number
  /** Frames lost at random, 0 to 1. */
  readonly loss?: number
  /** Bits a second; a queue of `queueBytes` stands before it. */
  readonly bitsPerSecond?: number
  /** What waits for the rate; beyond it frames are lost. Default 256 KiB. */
  readonly queueBytes?: number
  /** Frames that come up to this much later than the others, so that they are overtaken, ms. */
  readonly jitterMs?: number
}

/** What a wire has carried since it is there. */
export interface WireStats {
  readonly frames: number
  readonly bytes: number
  readonly lost: number
  /** Lost because the queue was full. */
  readonly overflowed: number
}

interface End {
  readonly namespace: string
  readonly device: string
}

const place = 'wires'

/**
 * The emulated wires of a lab: pairs of TAP devices with one program between them that delays, loses and limits (this kernel's own emulator,
 * netem, is not to be had everywhere). A few ten thousand frames a second and wire.
 */
export class Wires {
  readonly #namespaces: Namespaces
  #program: Talker | null = null
  readonly #names: string[] = []

  constructor(namespaces: Namespaces) {
    this.#namespaces = namespaces
  }

  async start(): Promise<void> {
    await shell(`ip netns add ${this.#namespaces.add(place)}`)
    const file = fileURLToPath(new URL('wire-emulator.ts', import.meta.url))
    this.#program = new Talker([...this.#namespaces.wrapper(place), process.execPath, file])
    // The first answer says that it runs.
    await this.#ask({ hello: true })
  }

  /** Lays a wire between two places. */
  async add(name: string, a: End, b: End, options: WireOptions): Promise<void> {
    const n = this.#names.push(name) - 1
    await this.#ask({ add: n, options })
    const own = this.#namespaces.name(place)
    const moves = [a, b].map(({ namespace, device }, side) => `link set ${tapName(n, side)} netns ${namespace} name ${device}`)
    await shell(`ip -n ${own} -batch - <<'END'\n${moves.join('\n')}\nEND`)
  }

  /** Changes what a wire does from now on. @param name the host or home it leads to */
  async change(name: string, options: WireOptions): Promise<void> {
    await this.#ask({ change: this.#numberOf(name), options })
  }

  /** What a wire has carried, first from the place to the internet, then the other way. */
  async stats(name: string): Promise<readonly [WireStats, WireStats]> {
    const { stats } = await this.#ask({ stats: this.#numberOf(name) })
    return stats!
  }

  async stop(): Promise<void> {
    await this.#program?.stop()
    this.#program = null
  }

  #numberOf(name: string): number {
    const n = this.#names.indexOf(name)
    if (n === -1) throw new Error(`the wire to ${name} is not an emulated one: plan it with \`wire\``)
    return n
  }

  async #ask(request: WireRequest): Promise<Answer> {
    const program = this.#program
    if (program === null) throw new Error('this lab has no emulated wires')
    program.say(JSON.stringify(request))
    const answer = JSON.parse(await program.hear()) as Answer
    if (answer.error !== undefined) throw new Error(answer.error)
    return answer
  }
}

/** One line to the emulator. */
export interface WireRequest {
  readonly hello?: true
  readonly add?: number
  readonly change?: number
  readonly stats?: number
  readonly options?: WireOptions
}

/** One line back, in the order of the requests. */
export interface Answer {
  readonly error?: string
  readonly stats?: readonly [WireStats, WireStats]
}

/** The device of one side of a wire, before it is moved to its place. */
export function tapName(n: number, side: number): string {
  return `w${n}-${side}`
}
