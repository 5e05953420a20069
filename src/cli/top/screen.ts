import type { ReadStream, WriteStream } from 'node:tty'

/** Control sequences of xterm and all that follow it. */
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l'
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l'
const HOME = '\x1b[H'
const CLEAR_LINE = '\x1b[K'
const CLEAR_BELOW = '\x1b[J'

export const ESCAPE = '\x1b'
/** ECMA-48 §5.4 control sequences, SS3 and one character, and any other character after Escape; of one that was cut off, what there is. */
const SEQUENCE = new RegExp(`${ESCAPE}(?:\\[[0-?]*[ -/]*[@-~]?|O.?|[^])?`, 'g')

/**
 * The keys in what a terminal sent. Arrows, the wheel (which a terminal sends as arrows to an alternate screen), function keys and Alt come as
 * sequences that begin as the Escape key does: they are nobody's keys here. Escape itself comes alone.
 */
export function keysOf(text: string): readonly string[] {
  if (text === ESCAPE) return [ESCAPE]
  return [...text.replaceAll(SEQUENCE, '')]
}

/** A terminal's alternate screen, drawn over in place; what was there before comes back when it is left. */
export class Screen {
  readonly #out: WriteStream
  readonly #in: ReadStream
  readonly #wasRaw: boolean
  #left = false

  /** Takes the screen. @param key told of each key as it is pressed @param resized told when there is another size */
  constructor(out: WriteStream, input: ReadStream, key: (key: string) => void, resized: () => void) {
    this.#out = out
    this.#in = input
    this.#wasRaw = input.isTTY === true && input.isRaw
    out.write(ENTER)
    out.on('resize', resized)
    if (input.isTTY) {
      input.setRawMode(true)
      input.setEncoding('utf8')
      input.on('data', (text: string | Buffer) => {
        for (const one of keysOf(String(text))) key(one)
      })
      input.resume()
    }
    // However the process ends, the terminal is given back.
    process.on('exit', this.leave)
  }

  get size(): { readonly width: number; readonly height: number } {
    return { width: this.#out.columns || 80, height: this.#out.rows || 24 }
  }

  /** Shows these lines, each no longer than the screen is wide, and nothing else. */
  draw(lines: readonly string[]): void {
    if (this.#left) return
    this.#out.write(`${HOME}${lines.map((line) => `${line}${CLEAR_LINE}`).join('\r\n')}${CLEAR_BELOW}`)
  }

  readonly leave = (): void => {
    if (this.#left) return
    this.#left = true
    process.off('exit', this.leave)
    if (this.#in.isTTY) {
      this.#in.setRawMode(this.#wasRaw)
      this.#in.pause()
    }
    this.#out.write(LEAVE)
  }
}
