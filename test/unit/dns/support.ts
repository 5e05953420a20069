import { utf8Bytes, Writer } from '../../../src/base/index.ts'
import { CLASS_IN, encodeName, Flag } from '../../../src/dns/index.ts'

export interface RawRecord {
  /** A name as text, or bytes as they shall stand there. */
  readonly name?: string | Uint8Array
  readonly type: number
  readonly ttl?: number
  readonly class?: number
  readonly data: Uint8Array
}

/** A message as a stranger might write it. The question's name is at offset 12, for pointers. */
export function rawMessage(fields: {
  readonly id?: number
  readonly flags?: number
  readonly name?: string
  readonly type?: number
  readonly answers?: readonly RawRecord[]
  readonly authorities?: readonly RawRecord[]
  readonly additionals?: readonly RawRecord[]
}): Uint8Array {
  const { id = 1, flags = Flag.response, name = 'a.example', type = 1, answers = [], authorities = [], additionals = [] } = fields
  const writer = new Writer().u16(id).u16(flags).u16(1).u16(answers.length).u16(authorities.length).u16(additionals.length)
  writer.bytes(encodeName(name)).u16(type).u16(CLASS_IN)
  for (const record of [...answers, ...authorities, ...additionals]) {
    writer.bytes(record.name instanceof Uint8Array ? record.name : record.name === undefined ? pointer(12) : encodeName(record.name))
    writer
      .u16(record.type)
      .u16(record.class ?? CLASS_IN)
      .u32(record.ttl ?? 300)
      .u16(record.data.length)
      .bytes(record.data)
  }
  return writer.finish()
}

export function pointer(to: number): Uint8Array {
  return Uint8Array.of(0xc0 | (to >> 8), to & 0xff)
}

export function soa(ttl: number, minimum: number, name = 'example'): RawRecord {
  const data = new Writer().bytes(encodeName('ns.example')).bytes(encodeName('root.example')).u32(1).u32(2).u32(3).u32(4).u32(minimum)
  return { name, type: 6, ttl, data: data.finish() }
}

export const bytesOf = utf8Bytes
