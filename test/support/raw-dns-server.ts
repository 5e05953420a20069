import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { type DnsMessage, decodeMessage, encodeAnswer, FrameReader, frameMessage, type NewRecord, Rcode } from '../../src/dns/index.ts'

export type Via = 'udp' | 'tcp'

/** What a server says to a question: messages, in order. `via` is how it came; answers go back the same way. */
export type Script = (asked: DnsMessage, via: Via) => readonly Uint8Array[] | Promise<readonly Uint8Array[]>

/** A DNS server on loopback, UDP and TCP on one port, that says what a test's script says: wrong, late or broken, as the test likes. */
export class RawDnsServer {
  readonly port: number
  /** What has come, in order. */
  readonly asked: { readonly asked: DnsMessage; readonly bytes: Uint8Array; readonly via: Via; readonly from: number }[] = []
  script: Script
  readonly #udp: UdpSocket
  readonly #tcp: Server
  readonly #open = new Set<Socket>()

  static async start(script: Script): Promise<RawDnsServer> {
    for (let tries = 0; ; tries++) {
      const tcp = createServer()
      tcp.listen(0, '127.0.0.1')
      await once(tcp, 'listening')
      const udp = createSocket('udp4')
      try {
        const { port } = tcp.address() as AddressInfo
        await new Promise<void>((resolve, reject) => {
          udp.once('error', reject)
          udp.bind(port, '127.0.0.1', resolve)
        })
        return new RawDnsServer(script, udp, tcp)
      } catch (error) {
        tcp.close()
        udp.close()
        if (tries > 10) throw error
      }
    }
  }

  private constructor(script: Script, udp: UdpSocket, tcp: Server) {
    this.script = script
    this.#udp = udp
    this.#tcp = tcp
    this.port = (tcp.address() as AddressInfo).port
    udp.on('message', (bytes, from) => {
      void this.#say(bytes, 'udp', from.port, (answer) => udp.send(answer, from.port, from.address))
    })
    tcp.on('connection', (socket) => {
      const reader = new FrameReader()
      this.#open.add(socket)
      socket.on('close', () => this.#open.delete(socket))
      socket.on('error', () => {})
      socket.on('data', (chunk) => {
        for (const bytes of reader.push(chunk)) {
          void this.#say(bytes, 'tcp', socket.remotePort ?? 0, (answer) => socket.write(frameMessage(answer)))
        }
      })
    })
  }

  get address(): string {
    return `127.0.0.1:${this.port}`
  }

  /** TCP connections open now. */
  get open(): number {
    return this.#open.size
  }

  /** Ends every TCP connection with a reset. */
  reset(): void {
    for (const socket of this.#open) socket.resetAndDestroy()
  }

  close(): void {
    this.reset()
    this.#udp.close()
    this.#tcp.close()
  }

  async #say(bytes: Uint8Array, via: Via, from: number, send: (answer: Uint8Array) => void): Promise<void> {
    const asked = decodeMessage(Uint8Array.from(bytes))
    this.asked.push({ asked, bytes: Uint8Array.from(bytes), via, from })
    for (const answer of await this.script(asked, via)) send(answer)
  }
}

/** An answer with records of the question's own type. */
export function dnsAnswer(asked: DnsMessage, data: readonly Uint8Array[], ttl = 300, rcode: number = Rcode.noError): Uint8Array {
  const answers: NewRecord[] = data.map((one) => ({ type: asked.question!.type, ttl, data: one }))
  return encodeAnswer(asked, { rcode, answers })
}

/** A TXT record's data: the text in pieces of at most 255 bytes. */
export function txtData(text: string): Uint8Array {
  const bytes = Buffer.from(text)
  const parts: Buffer[] = []
  for (let at = 0; at < bytes.length; at += 255) {
    const part = bytes.subarray(at, at + 255)
    parts.push(Buffer.from([part.length]), part)
  }
  return new Uint8Array(Buffer.concat(parts))
}
