import { assert, parseIp, utf8Bytes } from '../../../src/base/index.ts'
import { nativeSuite } from '../../../src/crypto/index.ts'
import { CellPacker } from '../../../src/onion/cell-packer.ts'
import { decodeDatagram, Reassembler } from '../../../src/onion/datagrams.ts'
import {
  acceptsExtensions,
  answerExtensions,
  answerHandshake,
  batchOf,
  beginHandshake,
  CELL_BYTES,
  type CellBatch,
  type CircuitMachine,
  ClientLayers,
  createClientCircuit,
  createRelayCircuit,
  decodeExtensions,
  encodeExtensions,
  finishHandshake,
  newBatch,
  OnionKeyring,
  RelayLayers,
  TAG_BYTES,
} from '../../../src/onion/index.ts'
import {
  Command,
  decodeClosed,
  decodeConnected,
  decodeCookie,
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
  PlainKind,
  putPlainCell,
  readPlainCell,
} from '../../../src/onion/messages.ts'
import { decodePacketOpen, decodePacketOpened, encodePacketOpen, encodePacketOpened } from '../../../src/onion/packets.ts'
import type { FuzzTarget } from '../fuzzer.ts'

const suite = nativeSuite()
const identity = new Uint8Array(32).fill(3)
const keyring = OnionKeyring.create(suite, identity, 0)
const relay = { id: identity, onionKey: keyring.current }
const noMessage = new Uint8Array(0)
const target = { host: 'example.com', port: 443 }
const packetTerms = { families: [4, 6] as const, mtu: 1420 }
const packetGrant = { address4: parseIp('100.64.0.2'), address6: parseIp('fd00::2'), mtu: 1420 }

/** A cell, padded or cut to its length: what the fuzzer makes has any length. */
function toCell(bytes: Uint8Array): Uint8Array {
  const cell = new Uint8Array(CELL_BYTES)
  cell.set(bytes.subarray(0, CELL_BYTES))
  return cell
}

/** A cell with these messages: command, stream, body. */
function messages(...all: readonly (readonly [number, number, Uint8Array])[]): Uint8Array {
  const packer = new CellPacker(1)
  for (const [command, stream, body] of all) packer.bytes.set(body, packer.take(0, command, stream, body.length))
  const batch = packer.finish(() => {})!
  return batch.bytes.slice(batch.start)
}

/** A cell with one message of each kind. */
function messagesCell(): Uint8Array {
  return messages(
    [Command.begin, 1, encodeTarget(target)],
    [Command.data, 1, utf8Bytes('GET / HTTP/1.1')],
    [Command.window, 1, Uint8Array.of(0, 1, 0, 0)],
    [Command.end, 1, encodeEnd('done')],
    [Command.resolve, 2, encodeName('example.com')],
    [Command.udpOpen, 3, noMessage],
    [Command.udpDatagram, 3, datagramBody()],
    [Command.udpClose, 3, noMessage],
    [Command.dns, 4, noMessage],
    [Command.packetOpen, 6, encodePacketOpen(packetTerms)],
    [Command.ping, 0, new Uint8Array(8)],
    [Command.pad, 0, new Uint8Array(8)],
  )
}

/** A cell that a client with a lease may say. */
function packetsCell(): Uint8Array {
  const packet = (length: number) => [Command.packet, 5, new Uint8Array(length)] as const
  return messages(packet(20), packet(40), packet(800), [Command.packetClose, 5, encodeEnd('done')])
}

function datagramBody(): Uint8Array {
  return new Uint8Array([0, 1, ...encodeTarget({ host: '192.0.2.1', port: 53 }), 1, 2, 3])
}

function createCell(): Uint8Array {
  return plainCell(PlainKind.create, beginHandshake(suite, relay, noMessage).request)
}

function plainCell(kind: number, handshake: Uint8Array): Uint8Array {
  const batch = newBatch(1)
  putPlainCell(batch.bytes, batch.start, kind, handshake)
  return batch.bytes.slice(batch.start)
}

/** Whole cells that begin with the tag. */
function taggedBatch(bytes: Uint8Array): CellBatch {
  const batch = batchOf(bytes.length <= CELL_BYTES ? toCell(bytes) : bytes.slice(0, bytes.length - (bytes.length % CELL_BYTES)))
  for (let i = 0; i < batch.count; i++) batch.bytes.fill(0, batch.start + i * CELL_BYTES, batch.start + i * CELL_BYTES + TAG_BYTES)
  return batch
}

function drain(machine: CircuitMachine): void {
  while (machine.pollOutput());
  while (machine.pollCells(40, 1)) while (machine.pollOutput());
}

/** An open relay, with a lease where `leases` says so, hears what a client with the right keys says. */
function relayHears(bytes: Uint8Array, leases = false): void {
  const machine = createRelayCircuit({ suite, keyring, self: identity, previous: null, servesExit: true })
  const state = beginHandshake(suite, relay, noMessage)
  machine.handleCells('client', batchOf(plainCell(PlainKind.create, state.request)), 0)
  const created = machine.pollOutput()
  assert(created?.type === 'cells', 'CREATED comes out')
  const finished = finishHandshake(suite, state, readPlainCell(created.batch.bytes, created.batch.start, PlainKind.created))
  assert(finished, 'the handshake succeeds')
  const client = new ClientLayers()
  client.addHop(suite, finished.keys)
  const say = (batch: CellBatch): void => {
    client.sealForward(batch, 0)
    machine.handleCells('client', batch, 1)
  }
  if (leases) {
    say(batchOf(messages([Command.packetOpen, 5, encodePacketOpen(packetTerms)])))
    machine.acceptPackets(5, packetGrant)
  }
  drain(machine)
  say(taggedBatch(bytes))
  drain(machine)
  machine.close('finished', 2)
  drain(machine)
  client.destroy()
}

/** A client with something of each kind open hears what its hop says. */
function clientHears(bytes: Uint8Array): void {
  const machine = createClientCircuit({ suite })
  machine.extend(relay, 0)
  const create = machine.pollOutput()
  assert(create?.type === 'cells', 'CREATE comes out')
  const request = readPlainCell(create.batch.bytes, create.batch.start, PlainKind.create)
  const answered = answerHandshake(suite, keyring, request, answerExtensions)
  assert(answered, 'the handshake succeeds')
  machine.handleCells(batchOf(plainCell(PlainKind.created, answered.reply)), 0)
  machine.open(target, 0)
  machine.resolve('example.com', 0)
  machine.openDatagrams(0)
  machine.openPackets(packetTerms, 0)
  machine.openResolver(0)
  drain(machine)
  const layers = new RelayLayers(suite, answered.keys)
  const batch = taggedBatch(bytes)
  layers.sealBackward(batch)
  machine.handleCells(batch, 1)
  drain(machine)
  machine.close('finished', 2)
  drain(machine)
  layers.destroy()
}

/** What a client with one stream, one question, one association, one lease and one stream to a resolver may hear. */
function answersCell(): Uint8Array {
  return messages(
    [Command.connected, 1, encodeConnected('2001:db8::1')],
    [Command.data, 1, utf8Bytes('HTTP/1.1 200 OK')],
    [Command.window, 1, Uint8Array.of(0, 1, 0, 0)],
    [Command.resolved, 2, resolved],
    [Command.udpDatagram, 3, datagramBody()],
    [Command.udpClose, 3, noMessage],
    [Command.packetOpened, 4, encodePacketOpened(packetGrant)],
    [Command.packet, 4, new Uint8Array(40)],
    [Command.packetClose, 4, encodeEnd('done')],
    [Command.connected, 5, noMessage],
    [Command.end, 1, encodeEnd('done')],
    [Command.ping, 0, new Uint8Array(8)],
    [Command.closed, 0, encodeClosed('finished')],
  )
}

const resolved = encodeResolved([
  { type: 'address', value: '192.0.2.1', ttlSeconds: 60 },
  { type: 'address', value: '2001:db8::1', ttlSeconds: 60 },
  { type: 'name', value: 'host.example.com', ttlSeconds: 60 },
])
const extensions = encodeExtensions([
  { type: 1, value: Uint8Array.of(1, 2, 3) },
  { type: 9, value: new Uint8Array(0) },
])

export const onionTargets: readonly FuzzTarget[] = [
  { name: 'onion/messages of a cell', decode: readMessages, seeds: () => [messagesCell(), answersCell()] },
  { name: 'onion/plain cell', decode: (bytes) => readPlainCell(toCell(bytes), 0, PlainKind.create), seeds: () => [createCell()] },
  { name: 'onion/target', decode: decodeTarget, seeds: () => [encodeTarget(target), encodeTarget({ host: '::1', port: 1 })] },
  { name: 'onion/name', decode: decodeName, seeds: () => [encodeName('example.com')] },
  { name: 'onion/CONNECTED', decode: decodeConnected, seeds: () => [encodeConnected('192.0.2.1'), encodeConnected('2001:db8::1')] },
  { name: 'onion/WINDOW', decode: decodeWindow, seeds: () => [Uint8Array.of(0, 4, 0, 0)] },
  { name: 'onion/END', decode: decodeEnd, seeds: () => [encodeEnd('reset')] },
  { name: 'onion/CLOSED', decode: decodeClosed, seeds: () => [encodeClosed('protocol')] },
  { name: 'onion/RESOLVED', decode: decodeResolved, seeds: () => [resolved, encodeResolved('resolve-failed')] },
  { name: 'onion/PING', decode: decodeCookie, seeds: () => [new Uint8Array(8)] },
  { name: 'onion/PACKET_OPEN', decode: decodePacketOpen, seeds: () => [encodePacketOpen(packetTerms)] },
  { name: 'onion/PACKET_OPENED', decode: decodePacketOpened, seeds: () => [encodePacketOpened(packetGrant)] },
  { name: 'onion/datagram', decode: decodeDatagram, seeds: () => [datagramBody().slice(2)] },
  { name: 'onion/datagram fragments', decode: fragments, seeds: () => [datagramBody()] },
  { name: 'onion/extensions', decode: (bytes) => decodeExtensions(bytes, new Set([200])), seeds: () => [extensions] },
  { name: 'onion/extensions of a peer', decode: acceptsExtensions, seeds: () => [extensions] },
  {
    name: 'onion/handshake request',
    decode: (bytes) => answerHandshake(suite, keyring, bytes, answerExtensions),
    seeds: requests,
  },
  { name: 'onion/handshake reply', decode: finish, seeds: replies },
  {
    name: 'onion/keyring file',
    decode: (bytes) => OnionKeyring.restore(suite, identity, bytes),
    seeds: () => [keyring.serialise()],
  },
  { name: 'onion/relay before CREATE', decode: relayBegins, seeds: () => [createCell()] },
  { name: 'onion/relay with a client', decode: (bytes) => relayHears(bytes), seeds: () => [messagesCell()], share: 0.1 },
  { name: 'onion/relay with a lease', decode: (bytes) => relayHears(bytes, true), seeds: () => [packetsCell()], share: 0.1 },
  { name: 'onion/client with a relay', decode: clientHears, seeds: () => [answersCell()], share: 0.1 },
]

function readMessages(bytes: Uint8Array): void {
  const cursor = new MessageCursor()
  cursor.begin(toCell(bytes), 0)
  while (cursor.next()) cursor.body()
}

/** The input's pieces of up to 40 bytes as one association's fragments. */
function fragments(bytes: Uint8Array): void {
  const reassembler = new Reassembler()
  for (let at = 0; at < bytes.length; at += 40) reassembler.add(bytes.subarray(at, at + 40))
}

function requests(): Uint8Array[] {
  return [beginHandshake(suite, relay, noMessage).request, beginHandshake(suite, relay, extensions).request]
}

function replies(): Uint8Array[] {
  return requests().map((request) => answerHandshake(suite, keyring, request, answerExtensions)!.reply)
}

function finish(bytes: Uint8Array): unknown {
  return finishHandshake(suite, beginHandshake(suite, relay, noMessage), bytes)
}

function relayBegins(bytes: Uint8Array): void {
  const machine = createRelayCircuit({ suite, keyring, self: identity, previous: null, servesExit: true })
  machine.handleCells('client', batchOf(toCell(bytes)), 0)
  drain(machine)
}
