import { Duplex } from 'node:stream'
import { TokenBucket } from '../base/index.ts'
import type { ExitSocket } from './backend.ts'

/** A byte rate as a bucket, or nothing when there is no limit. The burst is a quarter of a second, and never less than one read of a socket. */
export class ByteRate {
  readonly #bucket: TokenBucket | null
  readonly #now: () => number

  /** @param bytesPerSecond 0: no limit, @param now monotonic milliseconds */
  constructor(bytesPerSecond: number, now: () => number) {
    this.#bucket = bytesPerSecond === 0 ? null : new TokenBucket(bytesPerSecond, Math.max(65_536, bytesPerSecond / 4), now())
    this.#now = now
  }

  get limited(): boolean {
    return this.#bucket !== null
  }

  /** Counts bytes that have moved; the milliseconds to wait before the next. */
  spend(bytes: number): number {
    return this.#bucket?.spend(bytes, this.#now()) ?? 0
  }

  /** Whether bytes that may as well be dropped fit now. */
  take(bytes: number): boolean {
    return this.#bucket?.take(bytes, this.#now()) ?? true
  }
}

/** A socket that both ways keeps to byte rates: after each chunk it rests as long as the slowest of them says. Only made where there is a limit. */
export class ThrottledSocket extends Duplex {
  readonly #inner: ExitSocket
  readonly #rates: readonly ByteRate[]
  readonly #timers = new Set<NodeJS.Timeout>()
  #wanted = false
  #resting = false
  #reset = false

  constructor(inner: ExitSocket, rates: readonly ByteRate[]) {
    super({ allowHalfOpen: true, readableHighWaterMark: 65_536, writableHighWaterMark: 65_536 })
    this.#inner = inner
    this.#rates = rates
    inner.pause()
    inner.on('data', (chunk: Uint8Array) => this.#receive(chunk))
    inner.on('end', () => this.push(null))
    inner.on('error', (error) => this.destroy(error))
    inner.on('close', () => this.#closed())
    this.on('error', () => {})
  }

  get bytesRead(): number {
    return this.#inner.bytesRead
  }

  get bytesWritten(): number {
    return this.#inner.bytesWritten
  }

  resetAndDestroy(): this {
    this.#reset = true
    return this.destroy()
  }

  override _read(): void {
    this.#wanted = true
    if (!this.#resting) this.#inner.resume()
  }

  override _write(chunk: Uint8Array, _encoding: string, done: (error?: Error | null) => void): void {
    const rest = this.#spend(chunk.length)
    this.#inner.write(chunk, (error) => {
      if (error || rest === 0) done(error)
      else this.#after(rest, done)
    })
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#inner.end(() => done())
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    for (const timer of this.#timers) clearTimeout(timer)
    const complete = this.readableEnded && this.writableFinished
    if (this.#reset || !complete) this.#inner.resetAndDestroy()
    else this.#inner.destroy()
    done(error)
  }

  #receive(chunk: Uint8Array): void {
    this.#wanted = this.push(chunk)
    const rest = this.#spend(chunk.length)
    if (rest > 0) {
      this.#resting = true
      this.#after(rest, () => {
        this.#resting = false
        if (this.#wanted) this.#inner.resume()
      })
    }
    if (this.#resting || !this.#wanted) this.#inner.pause()
  }

  #spend(bytes: number): number {
    let rest = 0
    for (const rate of this.#rates) rest = Math.max(rest, rate.spend(bytes))
    return rest
  }

  #after(ms: number, then: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      then()
    }, ms)
    this.#timers.add(timer)
  }

  #closed(): void {
    // A close behind the orderly end of both directions is no news; any other cut something off.
    if (this.#inner.readableEnded && this.writableFinished) return
    if (!this.destroyed) this.destroy(Object.assign(new Error('the connection closed early'), { code: 'ECONNRESET' }))
  }
}
