import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { parseIp, Reader, Writer } from '../../src/base/index.ts'

const types = { A: 1, PTR: 12, AAAA: 28 } as const
export type RecordType = keyof typeof types

interface Zone {
  readonly type: RecordType
  readonly value: string
  readonly ttl: number
}

/** A DNS server (RFC 1035) on loopback that knows what a test tells it. A name it does not know does not exist. */
export class DnsServer {
  readonly #socket: Socket
  readonly #records = new Map<string, Zone[]>()
  /** Names that get no answer, and that get SERVFAIL. */
  readonly silent = new Set<string>()
  readonly failing = new Set<string>()
  /** Every question, as `TYPE name`. */
  readonly asked: string[] = []

  static async start(): Promise<DnsServer> {
    const socket = createSocket('udp4')
    socket.bind(0, '127.0.0.1')
    await once(socket, 'listening')
    return new DnsServer(socket)
  }

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('message', (bytes, from) => {
      const answer = this.#answer(bytes)
      if (answer) socket.send(answer, from.port, from.address)
    })
  }

  get address(): string {
    return `127.0.0.1:${this.#socket.address().port}`
  }

  add(name: string, type: RecordType, value: string, ttl = 300): void {
    const zone = this.#records.get(name) ?? []
    zone.push({ type, value, ttl })
    this.#records.set(name, zone)
  }

  close(): void {
    this.#socket.close()
  }

  #answer(question: Uint8Array): Uint8Array | null {
    const reader = new Reader('DNS question', question)
    const id = reader.u16()
    reader.bytes(10)
    const labels: string[] = []
    for (let length = reader.u8(); length > 0; length = reader.u8()) labels.push(reader.text(length))
    const number = reader.u16()
    const name = labels.join('.').toLowerCase()
    const type = (Object.keys(types) as RecordType[]).find((known) => types[known] === number)
    this.asked.push(`${type ?? number} ${name}`)
    if (this.silent.has(name)) return null
    const zone = this.#records.get(name)
    const found = (zone ?? []).filter((record) => record.type === type)
    const code = this.failing.has(name) ? 2 : zone ? 0 : 3
    const writer = new Writer()
      .u16(id)
      .u16(0x8180 | code)
      .u16(1)
      .u16(found.length)
      .u16(0)
      .u16(0)
    writeName(writer, name).u16(number).u16(1)
    for (const record of found) {
      const data = record.type === 'PTR' ? writeName(new Writer(), record.value).finish() : parseIp(record.value).bytes
      writer.u16(0xc00c).u16(types[record.type]).u16(1).u32(record.ttl).u16(data.length).bytes(data)
    }
    return writer.finish()
  }
}

function writeName(writer: Writer, name: string): Writer {
  for (const label of name.split('.')) writer.u8(label.length).bytes(Buffer.from(label))
  return writer.u8(0)
}
