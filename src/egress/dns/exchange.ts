import { randomInt } from 'node:crypto'
import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { connect, isIPv6, type Socket } from 'node:net'
import {
  DATAGRAM_BYTES,
  type DnsHead,
  type DnsMessage,
  type DnsQuestion,
  decodeHead,
  decodeMessage,
  encodeQuestion,
  Flag,
  FrameReader,
  frameMessage,
  isResponse,
  Rcode,
  sameQuestion,
} from '../../dns/index.ts'
import type { NameServer } from './servers.ts'

/** What one server is asked. */
export interface ExchangeAsk {
  readonly server: NameServer
  readonly question: DnsQuestion
  readonly dnssecOk: boolean
  readonly checkingDisabled: boolean
  readonly tcpTimeoutMs: number
  /** A message came that is no answer to what was asked. */
  readonly foreign: () => void
}

/** Datagrams that are no answer before it is taken for an attack: whoever guesses ids and ports can't do that with TCP. RFC 5452 §9.2 */
const MAX_FOREIGN = 8
/** A failing server may leave out the question. */
const bareRcodes: readonly number[] = [Rcode.formErr, Rcode.servFail, Rcode.notImp, Rcode.refused]

/**
 * One question to one server: by a connected UDP socket of its own, so from a port that the system picks and for that server's datagrams only, with a
 * fresh id; by TCP when the answer is truncated; without EDNS when the server does not know that. Once: `done` is called with the answer, or with null
 * when there is none to be had, and never after `stop`.
 */
export class Exchange {
  readonly #ask: ExchangeAsk
  readonly #done: (answer: DnsMessage | null) => void
  #udp: UdpSocket | null = null
  #tcp: Socket | null = null
  #slow: NodeJS.Timeout | undefined
  #over = false
  #id = 0
  #edns = true
  #foreign = 0

  constructor(ask: ExchangeAsk, done: (answer: DnsMessage | null) => void) {
    this.#ask = ask
    this.#done = done
    this.#askByUdp()
  }

  /** Gives it up. */
  stop(): void {
    this.#over = true
    this.#close()
  }

  #askByUdp(): void {
    const { host, port } = this.#ask.server
    const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4')
    this.#udp = socket
    socket.on('error', () => this.#end(null))
    socket.on('message', (bytes) => {
      if (!this.#over && this.#udp === socket) this.#receiveDatagram(bytes)
    })
    const message = this.#message()
    socket.connect(port, host, (error?: Error | null) => {
      if (this.#over || this.#udp !== socket) return
      if (error) this.#end(null)
      else socket.send(message)
    })
  }

  #receiveDatagram(bytes: Uint8Array): void {
    const head = this.#answerHead(bytes)
    if (head === null) {
      this.#ask.foreign()
      if (++this.#foreign >= MAX_FOREIGN) this.#askByTcp()
    } else if ((head.flags & Flag.truncated) !== 0) {
      this.#askByTcp()
    } else {
      this.#receive(bytes)
    }
  }

  #askByTcp(): void {
    this.#close()
    const { server, tcpTimeoutMs } = this.#ask
    const reader = new FrameReader()
    const socket = connect({ host: server.host, port: server.port, noDelay: true })
    this.#tcp = socket
    this.#slow = setTimeout(() => this.#end(null), tcpTimeoutMs)
    socket.on('error', () => this.#end(null))
    socket.on('close', () => this.#end(null))
    socket.on('data', (chunk: Uint8Array) => {
      try {
        for (const bytes of reader.push(chunk)) {
          if (this.#over || this.#tcp !== socket) return
          if (this.#answerHead(bytes) === null) this.#ask.foreign()
          else this.#receive(bytes)
        }
      } catch {
        this.#end(null)
      }
    })
    socket.write(frameMessage(this.#message()))
  }

  #receive(bytes: Uint8Array): void {
    let answer: DnsMessage | null = null
    try {
      answer = decodeMessage(bytes)
    } catch {
      // What is broken is no answer.
    }
    // RFC 6891 §7: servers of before EDNS.
    if (this.#edns && answer !== null && answer.edns === null && (answer.rcode === Rcode.formErr || answer.rcode === Rcode.notImp)) {
      this.#edns = false
      this.#close()
      this.#askByUdp()
      return
    }
    this.#end(answer)
  }

  /** The head of a message if that is the answer to what was asked. */
  #answerHead(bytes: Uint8Array): DnsHead | null {
    try {
      const head = decodeHead(bytes)
      if (head.id !== this.#id || !isResponse(head) || head.opcode !== 0) return null
      const same = head.question === null ? bareRcodes.includes(head.flags & 15) : sameQuestion(head.question, this.#ask.question)
      return same ? head : null
    } catch {
      return null
    }
  }

  #message(): Uint8Array {
    const { question, dnssecOk, checkingDisabled } = this.#ask
    this.#id = randomInt(0x1_0000)
    return encodeQuestion({
      id: this.#id,
      question,
      checkingDisabled,
      edns: this.#edns ? { udpBytes: DATAGRAM_BYTES, dnssecOk } : null,
    })
  }

  #end(answer: DnsMessage | null): void {
    if (this.#over) return
    this.stop()
    this.#done(answer)
  }

  #close(): void {
    clearTimeout(this.#slow)
    const udp = this.#udp
    const tcp = this.#tcp
    this.#udp = null
    this.#tcp = null
    // A close that is not waited for may still fail: the listener for errors stays, and looks at nothing.
    tcp?.removeAllListeners('close').destroy()
    if (udp) {
      try {
        udp.close()
      } catch {
        // It closed itself, as it does when it can't be opened.
      }
    }
  }
}
