import type { Random } from '../../src/base/index.ts'
import type { Asking, Way, WayHandlers } from '../../src/link/way.ts'
import type { CellBatch, ChannelEnd } from '../../src/onion/index.ts'

/** Cells that a way takes before its sender has to wait. */
const QUEUE_CELLS = 42

type Message =
  | { readonly kind: 'cells'; readonly batch: CellBatch }
  | { readonly kind: 'fin' }
  | { readonly kind: 'reset' }
  | { readonly kind: 'move' }
  | { readonly kind: 'agreed' }

/** Two ends of a connection; what is on its way arrives one message a step, when a test says so. */
export class FakePipe {
  readonly ends: readonly [FakeWay, FakeWay]
  isDead = false

  /** @param isDirect a FIN ends both directions, as on a direct link; else each has its own, as a stream's */
  constructor(rank: number, isDirect: boolean) {
    const a = new FakeWay(this, rank, isDirect)
    const b = new FakeWay(this, rank, isDirect)
    a.other = b
    b.other = a
    this.ends = [a, b]
  }

  get hasWork(): boolean {
    return this.ends.some((end) => end.hasWork)
  }

  step(random: Random): void {
    const able = this.ends.filter((end) => end.hasWork)
    able[random.int(able.length)]!.step()
  }

  /** The connection is lost: what is on its way too. Each end learns of it in a later step. */
  kill(): void {
    this.isDead = true
    for (const end of this.ends) end.lose()
  }
}

export class FakeWay implements Way {
  readonly kind: 'tls' | 'libp2p'
  readonly rank: number
  readonly pipe: FakePipe
  readonly #isDirect: boolean
  other!: FakeWay
  /** Called when the peer asks to move here. Returns whether it may. */
  onMove: (() => boolean) | null = null
  asking: Asking | null = null
  #handlers: WayHandlers | null = null
  readonly #incoming: Message[] = []
  /** What this end is told of itself, later. */
  readonly #notices: (() => void)[] = []
  #isPaused = false
  #wroteFin = false
  #readFin = false
  #isOver = false
  #hasEnded = false
  #wantsDrain = false

  constructor(pipe: FakePipe, rank: number, isDirect: boolean) {
    this.pipe = pipe
    this.rank = rank
    this.#isDirect = isDirect
    this.kind = isDirect ? 'tls' : 'libp2p'
  }

  get queuedBytes(): number {
    return 0
  }

  get queuedSince(): number | null {
    return null
  }

  get room(): number {
    if (this.#isOver || this.#wroteFin || this.#wantsDrain) return 0
    return Math.max(0, QUEUE_CELLS - this.#unread)
  }

  attach(handlers: WayHandlers): void {
    this.#handlers = handlers
  }

  send(batch: CellBatch): void {
    if (this.#isOver || this.#wroteFin) return
    this.#give({ kind: 'cells', batch })
    if (this.#unread >= QUEUE_CELLS) this.#wantsDrain = true
  }

  /** The question, before anything else. */
  ask(asking: Asking): void {
    this.asking = asking
    this.#give({ kind: 'move' })
  }

  agree(): void {
    this.#give({ kind: 'agreed' })
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
  }

  leave(): void {
    this.#fin(() => this.#handlers?.left(true))
  }

  close(): void {
    this.#fin(() => this.#end('fin'))
  }

  finish(): void {
    this.#fin(() => {})
  }

  abort(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#give({ kind: 'reset' })
  }

  lose(): void {
    this.#incoming.length = 0
    this.#notices.length = 0
    if (!this.#isOver && !(this.#wroteFin && this.#readFin)) this.#notices.push(() => this.#lost())
  }

  get hasWork(): boolean {
    return this.#notices.length > 0 || this.#isReadable
  }

  step(): void {
    const notice = this.#notices.shift()
    if (notice !== undefined) {
      notice()
      return
    }
    const message = this.#incoming.shift()!
    if (this.other.#wantsDrain && this.other.#unread <= QUEUE_CELLS / 2) {
      this.other.#wantsDrain = false
      this.other.#notices.push(() => this.other.#handlers?.drained())
    }
    if (this.#isOver) return
    switch (message.kind) {
      case 'cells':
        this.#handlers!.cells(message.batch)
        break
      case 'fin':
        this.#readFin = true
        if (this.#isDirect) this.#isOver = true
        this.#end('fin')
        break
      case 'reset':
        this.#incoming.length = 0
        if (this.asking !== null) {
          const { asking } = this
          this.asking = null
          asking.refused()
        }
        this.#lost()
        break
      case 'move':
        if (!this.onMove!()) this.abort()
        break
      case 'agreed': {
        const { asking } = this
        this.asking = null
        asking!.agreed()
      }
    }
  }

  /** Cells on their way to the peer. */
  get #unread(): number {
    let cells = 0
    for (const message of this.other.#incoming) if (message.kind === 'cells') cells += message.batch.count
    return cells
  }

  /** A reset is seen whatever else waits: it throws away what was not read. An answer never waits. */
  get #isReadable(): boolean {
    if (this.#incoming.length === 0) return false
    if (this.#incoming.at(-1)!.kind === 'reset' && this.#isPaused && this.#incoming[0]!.kind !== 'agreed') {
      this.#incoming.splice(0, this.#incoming.length - 1)
      return true
    }
    return !this.#isPaused || this.#incoming[0]!.kind !== 'cells'
  }

  #give(message: Message): void {
    if (!this.pipe.isDead) this.other.#incoming.push(message)
  }

  #fin(then: () => void): void {
    if (this.#isOver || this.#wroteFin) return
    this.#wroteFin = true
    this.#give({ kind: 'fin' })
    this.#notices.push(() => {
      if (!this.#isOver) then()
    })
  }

  #lost(): void {
    if (this.#isOver) return
    this.#isOver = true
    if (this.#hasEnded) this.#handlers?.left(false)
    else this.#end('reset')
  }

  #end(how: ChannelEnd): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#handlers?.ended(how)
  }
}
