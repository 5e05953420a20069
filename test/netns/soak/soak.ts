import { type ChildProcess, fork } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import type { Faults } from '../../../src/packet/index.ts'
import { openTun } from '../../../src/tun/index.ts'
import { megabytesInUse } from '../../support/memory-in-use.ts'
import type { Digests } from './flow.ts'
import type { FromKernelEnd, ToKernelEnd } from './kernel-end.ts'
import { addresses, StackEnd } from './stack-end.ts'

/** Nothing has come through for so long: it hangs. */
const STALLED_MS = 45_000
/** How long what is left of connections may stay: twice the TIME-WAIT of `StackEnd`, and retransmissions of a last FIN. */
const LEFT_MS = 15_000

/** Flows of one kind: half of them are opened by us, half by the kernel, and each carries `bytes` both ways. */
export interface Phase {
  readonly name: string
  readonly faults: Faults
  readonly v6: boolean
  readonly flows: number
  readonly atOnce: number
  /** Each way. */
  readonly bytes: number
  /** Nothing may be left of any connection once it is over. */
  readonly isLast: boolean
}

export interface PhaseResult {
  readonly name: string
  readonly flows: number
  /** What goes wrong, in words; empty when all is well. */
  readonly faults: readonly string[]
  readonly megabytes: number
  readonly seconds: number
  readonly lost: number
  readonly retransmissions: number
  /** After collection, buffers included. */
  readonly heapMegabytes: number
}

interface Running {
  ours: Digests | null
  theirs: Digests | null
}

/** Our netstack and the kernel's TCP in a process of its own, joined by a TUN. The process has entered a network of its own before. */
export class Soak {
  readonly #end: StackEnd
  readonly #child: ChildProcess
  readonly #port: number
  #nextId = 1
  #theirReceived = 0
  readonly #running = new Map<number, Running>()
  #faults: string[] = []
  #finished = 0
  #wake: () => void = () => {}

  private constructor(end: (closed: ConstructorParameters<typeof StackEnd>[2]) => StackEnd, child: ChildProcess, port: number) {
    this.#child = child
    this.#port = port
    this.#end = end((digests, reason) => {
      if (reason !== 'done') this.#fault(`ours closed by ${reason}`)
      this.#half(digests, 'ours')
    })
    child.on('message', (message: FromKernelEnd) => {
      if (message.type === 'progress') this.#theirReceived = message.bytes
      else if (message.type === 'failed') this.#fault(`the kernel's: ${message.message}`)
      else if (message.type === 'closed') {
        if (!message.whole) this.#fault('the kernel’s end is not whole')
        this.#half(message.digests, 'theirs')
      }
    })
    child.on('exit', () => this.#fault('the kernel’s end has gone'))
  }

  static async start(seed: number): Promise<Soak> {
    const tun = await openTun({ name: 'soak', mtu: 1420, addresses: [`${addresses.kernel4}/24`, `${addresses.kernel6}/64`] })
    const child = fork(new URL('kernel-end.ts', import.meta.url))
    const port = await new Promise<number>((resolve, reject) => {
      child.once('message', (message: FromKernelEnd) => message.type === 'ready' && resolve(message.port))
      child.once('exit', () => reject(new Error('the kernel’s end did not start')))
    })
    return new Soak((closed) => new StackEnd(tun, seed, closed), child, port)
  }

  get facts() {
    return this.#end.stack.facts
  }

  /** Bytes that have arrived, both ways. */
  get received(): number {
    return this.#end.received + this.#theirReceived
  }

  /** Runs one kind of flows to their end; `progress` is called once a second. */
  async run(phase: Phase, progress: (text: string) => void = () => {}): Promise<PhaseResult> {
    const begin = performance.now()
    const { lost, retransmissions } = this.#end
    this.#faults = []
    this.#finished = 0
    this.#end.setFaults(phase.faults)
    let opened = 0
    let seen = { received: this.received, finished: 0, at: begin }
    let told = begin
    while (this.#finished < phase.flows && this.#faults.length === 0) {
      while (opened < phase.flows && opened - this.#finished < phase.atOnce) this.#open(phase, opened++)
      await Promise.race([delay(200), new Promise<void>((resolve) => (this.#wake = resolve))])
      const at = performance.now()
      if (this.received !== seen.received || this.#finished !== seen.finished)
        seen = { received: this.received, finished: this.#finished, at }
      else if (at - seen.at > STALLED_MS) this.#fault(`nothing has arrived for ${STALLED_MS / 1000} s`)
      if (at - told > 1000) {
        told = at
        progress(`${phase.name}: ${this.#finished} of ${phase.flows} flows`)
      }
    }
    const seconds = (performance.now() - begin) / 1000
    return {
      name: phase.name,
      flows: this.#finished,
      faults: this.#faults,
      megabytes: (2 * phase.bytes * this.#finished) / 1e6,
      seconds,
      lost: this.#end.lost - lost,
      retransmissions: this.#end.retransmissions - retransmissions,
      heapMegabytes: megabytesInUse(),
    }
  }

  /** Waits until nothing is left of any connection; what is, in words, or null. */
  async leftovers(): Promise<string | null> {
    this.#end.setFaults({})
    for (const end = performance.now() + LEFT_MS; ; await delay(50)) {
      const { connections, halfOpen, timeWaits, timers, bufferBytes } = this.facts
      const left = { connections, halfOpen, timeWaits, timers, bufferBytes, flows: this.#running.size }
      if (Object.values(left).every((count) => count === 0)) return null
      if (performance.now() > end) return JSON.stringify(left)
    }
  }

  stop(): void {
    this.#child.removeAllListeners('exit')
    this.#child.disconnect()
    this.#end.close()
  }

  #open({ v6, bytes }: Phase, index: number): void {
    const id = this.#nextId++
    this.#running.set(id, { ours: null, theirs: null })
    if (index % 2 === 0) this.#end.dial(id, bytes, v6 ? addresses.kernel6 : addresses.kernel4, this.#port)
    else {
      const message: ToKernelEnd = { type: 'dial', id, bytes, host: v6 ? addresses.ours6 : addresses.ours4, port: 1 + (id % 60_000) }
      this.#child.send(message)
    }
  }

  #half(digests: Digests | null, side: keyof Running): void {
    const flow = digests === null ? undefined : this.#running.get(digests.id)
    if (digests === null || flow === undefined) {
      this.#fault('a flow that nobody knows')
      return
    }
    flow[side] = digests
    const { ours, theirs } = flow
    if (ours === null || theirs === null) return
    if (ours.sent !== theirs.received || theirs.sent !== ours.received) {
      this.#fault(`flow ${digests.id} is not the same on both sides (${ours.receivedBytes} and ${theirs.receivedBytes} bytes)`)
    }
    this.#running.delete(digests.id)
    this.#finished++
    this.#wake()
  }

  #fault(text: string): void {
    this.#faults.push(text)
    this.#wake()
  }
}
