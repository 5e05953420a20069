import { FrameReader, frameMessage } from '../../dns/index.ts'
import type { TcpConnection } from '../../netstack/index.ts'
import type { TcpUser } from './tcp-flows.ts'
import type { DnsAsker } from './tun-ingress.ts'

/** Questions of one connection under way; it is not read on beyond that (RFC 7766 §6.2.1.1 lets them be many). */
const QUESTIONS_AT_ONCE = 32
/** Answers that wait for a program that does not read them: beyond it no more questions are read. */
const ANSWER_BYTES = 256 * 1024

/** A program's DNS over TCP (RFC 7766), whatever address it thought to ask: questions may follow each other, answers come in any order. */
export class DnsConversation implements TcpUser {
  readonly #connection: TcpConnection
  readonly #dns: DnsAsker
  readonly #isolation: string
  readonly #touch: () => void
  readonly #frames = new FrameReader()
  readonly #abort = new AbortController()
  #asked: Uint8Array[] = []
  #underWay = 0
  #answers: Uint8Array[] = []
  #answerBytes = 0
  #ended = false

  constructor(connection: TcpConnection, dns: DnsAsker, isolation: string, touch: () => void) {
    this.#connection = connection
    this.#dns = dns
    this.#isolation = isolation
    this.#touch = touch
  }

  readable(): void {
    const connection = this.#connection
    while (connection.readable > 0 && this.#asked.length === 0 && this.#answerBytes < ANSWER_BYTES) {
      const piece = connection.peek()
      try {
        this.#asked.push(...this.#frames.push(piece))
      } catch {
        connection.abort()
        return
      }
      connection.consume(piece.length)
      this.#ask()
    }
    this.#endIfDone()
  }

  drained(): void {
    this.#send()
  }

  remoteEnded(): void {
    this.readable()
  }

  closed(): void {
    this.#asked = []
    this.#answers = []
    this.#abort.abort()
  }

  #ask(): void {
    while (this.#asked.length > 0 && this.#underWay < QUESTIONS_AT_ONCE) {
      this.#underWay++
      this.#dns
        .ask(this.#asked.shift()!, this.#isolation, this.#abort.signal)
        .then(
          (answer) => this.#answered(answer),
          // No answer: who asks again on a new connection may have more luck (RFC 7766 §6.2.4).
          () => this.#connection.abort(),
        )
        .finally(() => {
          this.#underWay--
          this.#ask()
          this.readable()
          this.#touch()
        })
    }
  }

  #answered(answer: Uint8Array): void {
    if (this.#abort.signal.aborted) return
    const frame = frameMessage(answer)
    this.#answers.push(frame)
    this.#answerBytes += frame.length
    this.#send()
  }

  #send(): void {
    while (this.#answers.length > 0) {
      const next = this.#answers[0]!
      const taken = this.#connection.write(next)
      this.#answerBytes -= taken
      if (taken < next.length) {
        this.#answers[0] = next.subarray(taken)
        return
      }
      this.#answers.shift()
    }
    this.readable()
  }

  #endIfDone(): void {
    if (this.#ended || !this.#connection.remoteEnded || this.#underWay > 0 || this.#asked.length > 0 || this.#answers.length > 0) return
    this.#ended = true
    this.#connection.end()
  }
}
