import { randomInt } from 'node:crypto'
import { type ClientService, type ClientStream, StreamError } from '../../client/index.ts'
import {
  DATAGRAM_BYTES,
  type DnsMessage,
  type DnsQuestion,
  decodeMessage,
  encodeQuestion,
  FrameReader,
  frameMessage,
  isResponse,
  Rcode,
  sameQuestion,
} from '../../dns/index.ts'

/** A question of one kind, as exits are asked it. */
export interface CircuitQuestion {
  readonly question: DnsQuestion
  readonly dnssecOk: boolean
  readonly checkingDisabled: boolean
}

export interface KeptStreamOptions {
  readonly client: ClientService
  readonly isolation: string
  readonly openTimeoutMs: number
  readonly idleTimeoutMs: number
  /** A message came that is no answer to what was asked. */
  readonly foreign: () => void
  /** It is over; questions go to another. */
  readonly closed: () => void
}

interface Pending {
  readonly asked: CircuitQuestion
  readonly resolve: (answer: DnsMessage) => void
  readonly reject: (error: StreamError) => void
}

/** Questions in a row that got no answer, with not a word on the stream meanwhile, before it is given up. */
const MAX_SILENT = 3
/** How long the other side may take to end a stream that has nothing more to say. */
const END_TIMEOUT_MS = 5000
/** A failing server may leave out the question. */
const bareRcodes: readonly number[] = [Rcode.formErr, Rcode.servFail, Rcode.notImp, Rcode.refused]

/**
 * One stream to the resolver of an exit, with many questions under way (RFC 7766). It ends when it has had none for a
 * while, and when it is lost every question on it fails with a StreamError.
 */
export class KeptStream {
  readonly #options: KeptStreamOptions
  readonly #pending = new Map<number, Pending>()
  readonly #opening = new AbortController()
  #stream: ClientStream | null = null
  #idle: NodeJS.Timeout | undefined
  #retired = false
  #over = false
  #silent = 0

  constructor(options: KeptStreamOptions) {
    this.#options = options
  }

  /** Questions under way. */
  get asking(): number {
    return this.#pending.size
  }

  /** Asks, and gives an answer to just that. @throws StreamError 'aborted' by the signal, or why the stream did not open or was lost */
  ask(asked: CircuitQuestion, signal: AbortSignal): Promise<DnsMessage> {
    clearTimeout(this.#idle)
    return new Promise((resolve, reject) => {
      if (this.#over || signal.aborted) return reject(new StreamError(signal.aborted ? 'aborted' : 'circuit-lost'))
      const id = this.#freeId()
      const forget = (): void => {
        signal.removeEventListener('abort', giveUp)
        this.#pending.delete(id)
        if (this.#pending.size === 0) this.#rest()
      }
      const giveUp = (): void => {
        forget()
        reject(new StreamError('aborted'))
        if (this.#stream !== null && ++this.#silent >= MAX_SILENT) this.#lose(new StreamError('timeout'))
      }
      signal.addEventListener('abort', giveUp, { once: true })
      this.#pending.set(id, {
        asked,
        resolve: (answer) => {
          forget()
          resolve(answer)
        },
        reject: (error) => {
          forget()
          reject(error)
        },
      })
      if (this.#stream !== null) this.#send(this.#stream, id, asked)
    })
  }

  /** Takes no more questions; ends when those under way are answered. */
  retire(): void {
    this.#retired = true
    if (this.#pending.size === 0) this.#end()
  }

  /** Ends at once: what is under way fails. */
  close(): void {
    this.#lose(new StreamError('aborted'))
  }

  /** Once, before or after the first question. Never rejects. */
  async open(): Promise<void> {
    const { client, isolation, openTimeoutMs } = this.#options
    const slow = setTimeout(() => this.#opening.abort(new StreamError('timeout')), openTimeoutMs)
    try {
      const { stream } = await client.connectResolver({ isolation, signal: this.#opening.signal })
      stream.on('error', () => {})
      if (this.#over) {
        stream.destroy()
        return
      }
      this.#use(stream)
    } catch (error) {
      this.#lose(error instanceof StreamError ? error : new StreamError('internal', undefined, { cause: error }))
    } finally {
      clearTimeout(slow)
    }
  }

  #use(stream: ClientStream): void {
    const reader = new FrameReader()
    this.#stream = stream
    stream.on('error', (error) => this.#lose(error instanceof StreamError ? error : new StreamError('circuit-lost')))
    stream.on('close', () => this.#lose(new StreamError('circuit-lost')))
    stream.on('end', () => this.#lose(new StreamError('circuit-lost')))
    stream.on('data', (chunk: Uint8Array) => {
      if (this.#over) return
      try {
        for (const message of reader.push(chunk)) this.#receive(message)
        stream.release?.(chunk)
      } catch {
        this.#lose(new StreamError('internal', 'the exit sent what is no DNS'))
      }
    })
    for (const [id, { asked }] of this.#pending) this.#send(stream, id, asked)
    if (this.#pending.size === 0) this.#rest()
  }

  #send(stream: ClientStream, id: number, { question, dnssecOk, checkingDisabled }: CircuitQuestion): void {
    stream.write(frameMessage(encodeQuestion({ id, question, checkingDisabled, edns: { udpBytes: DATAGRAM_BYTES, dnssecOk } })))
  }

  /** @throws MalformedError */
  #receive(bytes: Uint8Array): void {
    const answer = decodeMessage(bytes)
    const pending = this.#pending.get(answer.id)
    const fits =
      pending !== undefined &&
      isResponse(answer) &&
      answer.opcode === 0 &&
      (answer.question === null ? bareRcodes.includes(answer.rcode) : sameQuestion(answer.question, pending.asked.question))
    if (!fits) {
      this.#options.foreign()
      return
    }
    this.#silent = 0
    pending.resolve(answer)
  }

  #freeId(): number {
    let id = randomInt(0x1_0000)
    while (this.#pending.has(id)) id = (id + 1) & 0xffff
    return id
  }

  #rest(): void {
    if (this.#over) return
    if (this.#retired) {
      this.#end()
      return
    }
    clearTimeout(this.#idle)
    this.#idle = setTimeout(() => this.#end(), this.#options.idleTimeoutMs)
    this.#idle.unref()
  }

  /** There is nothing on it: both sides end, and the circuit is free. */
  #end(): void {
    if (this.#over) return
    this.#finish()
    const stream = this.#stream
    if (stream === null) {
      this.#opening.abort(new StreamError('aborted'))
      return
    }
    const slow = setTimeout(() => stream.destroy(), END_TIMEOUT_MS)
    slow.unref()
    stream.once('close', () => clearTimeout(slow))
    stream.end()
    stream.resume()
  }

  #lose(error: StreamError): void {
    if (this.#over) return
    this.#finish()
    this.#opening.abort(error)
    this.#stream?.destroy()
    for (const pending of [...this.#pending.values()]) pending.reject(error)
  }

  #finish(): void {
    this.#over = true
    clearTimeout(this.#idle)
    this.#options.closed()
  }
}
