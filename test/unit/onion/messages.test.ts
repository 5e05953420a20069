import { describe, expect, it } from 'vitest'
import { CELL_BYTES, type CloseReason, type EndReason, newBatch, type ResolveAnswer } from '../../../src/onion/index.ts'
import {
  Command,
  decodeClosed,
  decodeConnected,
  decodeEnd,
  decodeName,
  decodeResolved,
  decodeTarget,
  decodeWindow,
  encodeClosed,
  encodeConnected,
  encodeEnd,
  encodeName,
  encodeResolved,
  encodeTarget,
  MessageCursor,
  MOST_TTL_SECONDS,
  PlainKind,
  putHeader,
  putPlainCell,
  putWindow,
  RESERVED_COMMANDS,
  readPlainCell,
} from '../../../src/onion/messages.ts'
import { plainMessages, rawCell } from '../../support/hostile.ts'

const malformed = expect.objectContaining({ code: 'malformed' })

function read(cell: { bytes: Uint8Array; start: number }): [number, number, Uint8Array][] {
  const cursor = new MessageCursor()
  cursor.begin(cell.bytes, cell.start)
  const all: [number, number, Uint8Array][] = []
  while (cursor.next()) all.push([cursor.command, cursor.stream, cursor.body().slice()])
  return all
}

describe('the messages of a cell', () => {
  it('follow each other up to the zeros', () => {
    const messages = [
      { command: Command.begin, stream: 0xfffe, body: new Uint8Array(20).fill(1) },
      { command: Command.data, stream: 0xfffe, body: new Uint8Array(300).fill(2) },
      { command: Command.udpOpen, stream: 1, body: new Uint8Array(0) },
      { command: Command.ping, stream: 0, body: new Uint8Array(8) },
    ]
    expect(read(plainMessages(...messages))).toEqual(messages.map(({ command, stream, body }) => [command, stream, body]))
  })

  it('may fill the cell to its last byte', () => {
    expect(read(plainMessages({ command: Command.data, stream: 5, body: new Uint8Array(1515).fill(3) }))).toEqual([
      [Command.data, 5, new Uint8Array(1515).fill(3)],
    ])
    const cell = newBatch(1)
    putHeader(cell.bytes, putHeader(cell.bytes, cell.start + 16, Command.data, 1, 1510) + 1510, Command.udpOpen, 2, 0)
    expect(read(cell).map(([command]) => command)).toEqual([Command.data, Command.udpOpen])
  })

  it('may be none at all', () => {
    expect(read(newBatch(1))).toEqual([])
  })

  it.each([
    ['a body that leaves the cell', [5, 0, 1, 5, 0xec]],
    ['an unknown command', [22, 0, 1, 0, 0]],
    ['a reserved command', [RESERVED_COMMANDS.multipath[0], 0, 1, 0, 0]],
    ['a stream command on stream 0', [5, 0, 0, 0, 1, 1]],
    ['a circuit command on a stream', [16, 0, 1, 0, 0]],
    ['a byte after the last message', [0, 0, 0, 0, 1]],
  ])('are refused: %s', (_, bytes) => {
    expect(() => read(rawCell(Uint8Array.from(bytes)))).toThrow(malformed)
  })

  it('are refused when a header leaves the cell', () => {
    const cell = newBatch(1)
    const at = putHeader(cell.bytes, cell.start + 16, Command.data, 1, 1513) + 1513
    cell.bytes[at] = Command.pad
    expect(() => read(cell)).toThrow(malformed)
  })
})

describe('a plaintext cell', () => {
  const cell = (): Uint8Array => {
    const bytes = new Uint8Array(CELL_BYTES)
    putPlainCell(bytes, 0, PlainKind.create, new Uint8Array(1312).fill(9))
    return bytes
  }
  it('holds a handshake', () => {
    expect(cell().subarray(0, 5)).toEqual(Uint8Array.of(1, 1, 0x05, 0x20, 9))
    expect(readPlainCell(cell(), 0, PlainKind.create)).toEqual(new Uint8Array(1312).fill(9))
  })
  it.each([
    ['another version', 0, 2],
    ['another kind', 1, 2],
    ['a length beyond a message', 2, 6],
    ['a padding that is not zero', 1535, 1],
  ])('is refused with %s', (_, at, value) => {
    const bytes = cell()
    bytes[at] = value
    expect(() => readPlainCell(bytes, 0, PlainKind.create)).toThrow(malformed)
  })
})

describe('bodies', () => {
  it('of BEGIN: a host and a port', () => {
    for (const target of [
      { host: 'example.com', port: 443 },
      { host: '2001:db8::1', port: 1 },
      { host: 'x'.repeat(255), port: 65_535 },
    ]) {
      expect(decodeTarget(encodeTarget(target))).toEqual(target)
    }
    for (const bytes of [
      [0, 80, 0],
      [0, 0, 1, 65],
      [0, 80, 1, 32],
      [0, 80, 1, 0x7f],
      [0, 80, 1, 0xc3],
      [0, 80, 2, 65],
      [0, 80, 1, 65, 66],
    ]) {
      expect(() => decodeTarget(Uint8Array.from(bytes))).toThrow(malformed)
    }
  })

  it('of RESOLVE: a name', () => {
    expect(decodeName(encodeName('example.com'))).toBe('example.com')
    expect(() => decodeName(new Uint8Array(0))).toThrow(malformed)
    expect(() => decodeName(new Uint8Array(256).fill(65))).toThrow(malformed)
  })

  it('of CONNECTED: an address or nothing', () => {
    for (const address of ['192.0.2.1', '2001:db8::1']) expect(decodeConnected(encodeConnected(address))).toBe(address)
    expect(decodeConnected(encodeConnected('somewhere'))).toBeNull()
    expect(() => decodeConnected(new Uint8Array(5))).toThrow(malformed)
  })

  it('of WINDOW: an amount', () => {
    const body = new Uint8Array(4)
    putWindow(body, 0, 0x12345678)
    expect(decodeWindow(body)).toBe(0x12345678)
    for (const bytes of [
      [0, 0, 0, 0],
      [0x80, 0, 0, 0],
      [0, 0, 1],
      [0, 0, 0, 1, 0],
    ])
      expect(() => decodeWindow(Uint8Array.from(bytes))).toThrow(malformed)
  })

  it('of END and CLOSED: the numbers of docs/spec/messages.md', () => {
    const ends: EndReason[] = [
      'done',
      'reset',
      'refused',
      'unreachable',
      'timeout',
      'resolve-failed',
      'policy',
      'resource-limit',
      'not-exit',
      'internal',
    ]
    ends.forEach((reason, i) => {
      expect(encodeEnd(reason)).toEqual(Uint8Array.of(i + 1))
      expect(decodeEnd(Uint8Array.of(i + 1))).toBe(reason)
    })
    expect(encodeEnd('circuit-lost')).toEqual(encodeEnd('reset'))
    const closes: CloseReason[] = [
      'requested',
      'finished',
      'protocol',
      'internal',
      'resource-limit',
      'overloaded',
      'timeout',
      'shutting-down',
      'unknown-relay',
      'not-allowed',
      'connect-failed',
      'identity-mismatch',
      'handshake-failed',
      'channel-lost',
    ]
    closes.forEach((reason, i) => {
      expect(encodeClosed(reason)).toEqual(Uint8Array.of(i + 1))
      expect(decodeClosed(Uint8Array.of(i + 1))).toBe(reason)
    })
    for (const decode of [decodeEnd, decodeClosed]) {
      for (const bytes of [[], [0], [15], [1, 1]]) expect(() => decode(Uint8Array.from(bytes))).toThrow(malformed)
    }
  })

  it('of RESOLVED: answers or a reason', () => {
    const answers: ResolveAnswer[] = [
      { type: 'address', value: '192.0.2.1', ttlSeconds: 60 },
      { type: 'address', value: '2001:db8::1', ttlSeconds: 0 },
      { type: 'name', value: 'host.example.com', ttlSeconds: MOST_TTL_SECONDS },
    ]
    expect(decodeResolved(encodeResolved(answers))).toEqual({ answers, error: null })
    expect(decodeResolved(encodeResolved('resolve-failed'))).toEqual({ answers: [], error: 'resolve-failed' })
    expect(decodeResolved(encodeResolved([]))).toEqual({ answers: [], error: 'resolve-failed' })
    expect(decodeResolved(encodeResolved('done'))).toEqual({ answers: [], error: 'internal' })
  })

  it('of RESOLVED: what does not fit is left out', () => {
    const many: ResolveAnswer[] = Array.from({ length: 40 }, (_, i) => ({
      type: 'name',
      value: `${i}.${'x'.repeat(200)}`,
      ttlSeconds: 1e9,
    }))
    const body = encodeResolved(many)
    expect(body.length).toBeLessThanOrEqual(1515)
    expect(decodeResolved(body).answers).toEqual(many.slice(0, 7).map((answer) => ({ ...answer, ttlSeconds: MOST_TTL_SECONDS })))
    const strange: ResolveAnswer[] = [
      { type: 'address', value: 'not an address', ttlSeconds: 1 },
      { type: 'name', value: 'a name', ttlSeconds: 1 },
    ]
    expect(decodeResolved(encodeResolved(strange)).error).toBe('resolve-failed')
  })
})
