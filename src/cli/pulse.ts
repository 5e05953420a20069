import { stat } from 'node:fs/promises'

/**
 * Whether a node is well enough to give a sign of life. That the question is asked shows that the event loop turns; beyond that its parts must answer for
 * themselves, and the threads and the disk that keys and state are written with must have answered since the last time. Being cut off from the network
 * is no illness: a restart does not cure it.
 */
export class Pulse {
  readonly #dir: string
  readonly #examine: () => void
  #isWaiting = false

  /** @param examine asks the parts; throws where one is broken */
  constructor(dir: string, examine: () => void) {
    this.#dir = dir
    this.#examine = examine
  }

  /** To be asked some seconds apart. */
  isWell(): boolean {
    if (this.#isWaiting) return false
    this.#isWaiting = true
    const answered = (): void => {
      this.#isWaiting = false
    }
    stat(this.#dir).then(answered, answered)
    try {
      this.#examine()
      return true
    } catch {
      return false
    }
  }
}
