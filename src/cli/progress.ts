import { bytesText, durationText } from './output.ts'

const WIDTH = 24
const EVERY_MS = 100

/** A progress bar on standard error, when that is a terminal. */
export class Progress {
  readonly #total: number | null
  readonly #startedAt = performance.now()
  readonly #shown = process.stderr.isTTY === true
  #drawnAt = 0
  bytes = 0

  /** @param total bytes, or null when it is not known */
  constructor(total: number | null) {
    this.#total = total
  }

  add(length: number): void {
    this.bytes += length
    const now = performance.now()
    if (!this.#shown || now - this.#drawnAt < EVERY_MS) return
    this.#drawnAt = now
    process.stderr.write(`\r${progressLine(this.bytes, this.#total, now - this.#startedAt)}\x1b[K`)
  }

  /** Takes the bar away. */
  end(): void {
    if (this.#shown && this.#drawnAt > 0) process.stderr.write('\r\x1b[K')
  }
}

/** "[=====>      ]  42 %  12.3 MB of 29.1 MB  5.20 MB/s  3 s left" */
export function progressLine(bytes: number, total: number | null, elapsedMs: number): string {
  const rate = bytes / Math.max(elapsedMs / 1000, 0.001)
  const speed = `${bytesText(rate)}/s`
  if (total === null || total === 0) return `${bytesText(bytes)}  ${speed}`
  const part = Math.min(1, bytes / total)
  const filled = Math.floor(part * WIDTH)
  const bar = `${'='.repeat(filled)}${filled < WIDTH ? '>' : ''}`.padEnd(WIDTH).slice(0, WIDTH)
  const left = rate > 0 ? `  ${durationText(Math.max(0, ((total - bytes) / rate) * 1000))} left` : ''
  return `[${bar}] ${String(Math.floor(part * 100)).padStart(3)} %  ${bytesText(bytes)} of ${bytesText(total)}  ${speed}${left}`
}
