import {
  assert,
  equalBytes,
  MalformedError,
  NODE_KEY_BYTES,
  type NodeId,
  nodeIdFromKey,
  nodeKey,
  Reader,
  toHex,
  utf8Bytes,
  Writer,
} from '../base/index.ts'
import type { CryptoSuite } from '../crypto/index.ts'
import type { Descriptor, Reach, ServingRole, SignedDescriptor } from './descriptor.ts'
import { decodeEnvelope, type Envelope, envelopePurpose, sealEnvelope, verifyEnvelope } from './envelope.ts'
import type { PolicySummary, PortRange } from './policy.ts'
import { formatRelayAddress, parseRelayAddress, type RelayAddress } from './relay-address.ts'

/**
 * A descriptor's bytes, docs/spec/descriptor.md §2: an envelope whose payload is
 *
 *   version u8 = 1 | sequence u64 | published u64 | expires u64 | work period u32, nonce 8 | X25519 onion key 32 | bandwidth u64 | roles u8
 *   | addresses: count u8, each: 4 or 6 u8, IP 4 or 16, port u16, transport u8
 *   | reach u8: 0 direct, 1 relayed and punchable, 2 relayed only | via (1 and 2): count u8, keys 32 each | family: count u8, keys 32 each
 *   | exit policy (role exit only): for IPv4, then IPv6: count u8, each: from u16, to u16
 *   | circuit versions: count u8, u8 each | link versions: count u8, u8 each | software: length u8, text
 *   | extensions: count u8, each: type u8, length u16, bytes
 *
 * There is one encoding of each descriptor, and only that one is accepted.
 */

/** The longest descriptor, envelope included. */
export const DESCRIPTOR_BYTES_MAX = 4096
export const DESCRIPTOR_ADDRESSES_MAX = 8
export const DESCRIPTOR_VIA_MAX = 4
export const DESCRIPTOR_FAMILY_MAX = 32
export const DESCRIPTOR_PORT_RANGES_MAX = 64
export const DESCRIPTOR_VERSIONS_MAX = 16
export const DESCRIPTOR_SOFTWARE_MAX = 32
export const DESCRIPTOR_EXTENSIONS_MAX = 16
export const WORK_NONCE_BYTES = 8
/** A sequence number leaves room to count on: at most 2^53 - 1. */
const U53_MAX = Number.MAX_SAFE_INTEGER

/** What a relay says of itself before it is signed: the identity is the signer's. */
export type DescriptorFields = Omit<Descriptor, 'id'>

/** @param seed the relay's Ed25519 seed, 32 bytes. An inconsistent descriptor of our own is an assertion. */
export function signDescriptor(suite: CryptoSuite, seed: Uint8Array, fields: DescriptorFields): SignedDescriptor {
  const problem = reachProblem(fields)
  assert(problem === null, `an own descriptor ${problem}`)
  const bytes = sealEnvelope(suite, seed, purpose, encodePayload(fields))
  assert(bytes.length <= DESCRIPTOR_BYTES_MAX, 'a descriptor is at most 4096 bytes')
  const descriptor = decodePayload(decodeEnvelope(purpose, bytes))
  return { descriptor, bytes, digest: suite.sha256(bytes) }
}

/** Decodes and verifies. The result holds a copy of `bytes`. @throws MalformedError, for a wrong signature too */
export function openDescriptor(suite: CryptoSuite, bytes: Uint8Array): SignedDescriptor {
  const unverified = decodeDescriptor(bytes)
  return unverified.verify(suite)
}

/** A descriptor that has the right form; whether its identity signed it is another question. */
export interface UnverifiedDescriptor {
  readonly descriptor: Descriptor
  /** @throws MalformedError when the signature is wrong */
  verify(suite: CryptoSuite): SignedDescriptor
}

/** Decodes without verifying, for whoever has cheaper reasons to refuse it first. @throws MalformedError */
export function decodeDescriptor(borrowed: Uint8Array): UnverifiedDescriptor {
  if (borrowed.length > DESCRIPTOR_BYTES_MAX) throw malformed(`has ${borrowed.length} bytes, more than ${DESCRIPTOR_BYTES_MAX}`)
  const bytes = borrowed.slice()
  const envelope = decodeEnvelope(purpose, bytes)
  const descriptor = decodePayload(envelope)
  return {
    descriptor,
    verify: (suite) => {
      if (!verifyEnvelope(suite, purpose, envelope)) throw malformed('signature is wrong')
      return { descriptor, bytes, digest: suite.sha256(bytes) }
    },
  }
}

const purpose = envelopePurpose('shallot-relay-descriptor', '/shallot/relay-descriptor')
const VERSION = 1

const roleBits: readonly (readonly [ServingRole, number])[] = [
  ['guard', 1],
  ['middle', 2],
  ['exit', 4],
  ['relay', 8],
  ['bootstrap', 16],
]
const ALL_ROLES = 31

function encodePayload(fields: DescriptorFields): Uint8Array {
  const writer = new Writer(512)
  writer.u8(VERSION).u64(fields.sequence).u64(fields.publishedAt).u64(fields.expiresAt)
  assert(fields.work.nonce.length === WORK_NONCE_BYTES, 'a work nonce has 8 bytes')
  writer.u32(fields.work.period).bytes(fields.work.nonce)
  assert(fields.onionKey.x25519.length === 32, 'an X25519 key has 32 bytes')
  writer.bytes(fields.onionKey.x25519).u64(fields.bandwidth)
  writer.u8(roleBits.reduce((bits, [role, bit]) => (fields.roles.includes(role) ? bits | bit : bits), 0))
  writer.u8(fields.addresses.length)
  for (const text of fields.addresses) {
    const { ip, port, transport } = parseRelayAddress(text)
    writer
      .u8(ip.family)
      .bytes(ip.bytes)
      .u16(port)
      .u8(transport === 'tls' ? 1 : 0)
  }
  writeReach(writer, fields.reach)
  writeKeys(writer, fields.family)
  if (fields.exitPolicy) {
    writeRanges(writer, fields.exitPolicy.ipv4)
    writeRanges(writer, fields.exitPolicy.ipv6)
  }
  writeVersions(writer, fields.protocols.circuit)
  writeVersions(writer, fields.protocols.link)
  const software = utf8Bytes(fields.software)
  writer.u8(software.length).bytes(software)
  writeExtensions(writer, fields)
  return writer.finish()
}

function decodePayload(envelope: Envelope): Descriptor {
  const reader = new Reader('descriptor', envelope.payload)
  const version = reader.u8()
  if (version !== VERSION) throw malformed(`has version ${version}, not ${VERSION}`)
  const sequence = reader.u53()
  const publishedAt = reader.u53()
  const expiresAt = reader.u53()
  if (expiresAt <= publishedAt) throw malformed('expires before it is published')
  if (sequence === U53_MAX) throw malformed('sequence number is the last one')
  const period = reader.u32()
  const nonce = reader.bytes(WORK_NONCE_BYTES).slice()
  const x25519 = reader.bytes(32).slice()
  const bandwidth = reader.u53()
  const roles = readRoles(reader)
  const addresses = readAddresses(reader)
  const reach = readReach(reader)
  const family = readKeys(reader, DESCRIPTOR_FAMILY_MAX, 'family')
  const id = nodeIdFromKey(envelope.key)
  const problem = reachProblem({ addresses, reach, roles }, id)
  if (problem !== null) throw malformed(problem)
  const exitPolicy: PolicySummary | null = roles.includes('exit') ? { ipv4: readRanges(reader), ipv6: readRanges(reader) } : null
  const circuit = readVersions(reader, 'circuit')
  const link = readVersions(reader, 'link')
  const software = reader.text(reader.u8())
  if (!/^[A-Za-z0-9 .-]{0,32}$/.test(software)) throw malformed('software name has other characters than letters, digits, space, dot, dash')
  const { packet, leaving } = readExtensions(reader, roles)
  reader.end()
  return {
    id,
    sequence,
    publishedAt,
    expiresAt,
    onionKey: { x25519 },
    addresses,
    reach,
    roles,
    exitPolicy,
    bandwidth,
    family,
    protocols: { circuit, link, packet },
    leaving,
    software,
    work: { period, nonce },
  }
}

/**
 * What a descriptor says of its reach that can't be, or null; docs/spec/descriptor.md §2. A guard is dialled by clients, a bootstrap node by
 * newcomers and a NAT relay by those behind it: all of them directly. An exit sees where traffic goes, so a NAT relay must not carry all of it.
 */
function reachProblem({ addresses, reach, roles }: Pick<DescriptorFields, 'addresses' | 'reach' | 'roles'>, self?: NodeId): string | null {
  if (addresses.length === 0) return 'has no address'
  if (reach.kind === 'direct') return null
  if (reach.via.length === 0 || reach.via.length > DESCRIPTOR_VIA_MAX)
    return `has ${reach.via.length} NAT relays, not 1 to ${DESCRIPTOR_VIA_MAX}`
  if (self !== undefined && reach.via.includes(self)) return 'names itself as its NAT relay'
  const claimed = roles.find((role) => role === 'guard' || role === 'relay' || role === 'bootstrap')
  if (claimed) return `claims the role ${claimed} behind NAT`
  return roles.includes('exit') && !reach.punchable ? 'claims the role exit behind a NAT that nothing can be punched through' : null
}

const REACH_DIRECT = 0
const REACH_PUNCHABLE = 1
const REACH_RELAYED = 2

function writeReach(writer: Writer, reach: Reach): void {
  if (reach.kind === 'direct') {
    writer.u8(REACH_DIRECT)
    return
  }
  writer.u8(reach.punchable ? REACH_PUNCHABLE : REACH_RELAYED)
  writeKeys(writer, reach.via)
}

function readReach(reader: Reader): Reach {
  const kind = reader.u8()
  if (kind === REACH_DIRECT) return { kind: 'direct' }
  if (kind !== REACH_PUNCHABLE && kind !== REACH_RELAYED) throw malformed('is reached in an unknown way')
  return { kind: 'relayed', via: readKeys(reader, DESCRIPTOR_VIA_MAX, 'NAT relays'), punchable: kind === REACH_PUNCHABLE }
}

function readRoles(reader: Reader): ServingRole[] {
  const bits = reader.u8()
  if (bits === 0 || (bits & ~ALL_ROLES) !== 0) throw malformed('has no role, or an unknown one')
  return roleBits.filter(([, bit]) => (bits & bit) !== 0).map(([role]) => role)
}

/** One IPv4 and one IPv6 address at most, on any ports: what the caps count must not be chosen freely. */
function readAddresses(reader: Reader): string[] {
  const count = readCount(reader, DESCRIPTOR_ADDRESSES_MAX, 'addresses')
  const texts: string[] = []
  const hosts = new Map<4 | 6, Uint8Array>()
  for (let i = 0; i < count; i++) {
    const family = reader.u8()
    if (family !== 4 && family !== 6) throw malformed('address is neither IPv4 nor IPv6')
    const bytes = reader.bytes(family === 4 ? 4 : 16).slice()
    const port = reader.u16()
    const transport = reader.u8()
    if (transport > 1) throw malformed('unknown transport')
    const host = hosts.get(family)
    if (host && !equalBytes(host, bytes)) throw malformed(`has two IPv${family} addresses`)
    hosts.set(family, bytes)
    const address: RelayAddress = { ip: { family, bytes }, port, transport: transport === 1 ? 'tls' : 'libp2p' }
    const text = formatRelayAddress(address)
    parseRelayAddress(text)
    if (texts.includes(text)) throw malformed('names an address twice')
    texts.push(text)
  }
  return texts
}

function readKeys(reader: Reader, most: number, what: string): NodeId[] {
  const count = readCount(reader, most, what)
  const ids: NodeId[] = []
  let last: Uint8Array | null = null
  for (let i = 0; i < count; i++) {
    const key = reader.bytes(NODE_KEY_BYTES)
    if (last && Buffer.compare(last, key) >= 0) throw malformed(`${what} keys are not in ascending order`)
    last = key
    ids.push(nodeIdFromKey(key))
  }
  return ids
}

function writeKeys(writer: Writer, ids: readonly NodeId[]): void {
  const keys = [...new Set(ids)].map(nodeKey).sort((a, b) => Buffer.compare(a, b))
  writer.u8(keys.length)
  for (const key of keys) writer.bytes(key)
}

function readRanges(reader: Reader): PortRange[] {
  const count = readCount(reader, DESCRIPTOR_PORT_RANGES_MAX, 'port ranges')
  const ranges: PortRange[] = []
  let last = -1
  for (let i = 0; i < count; i++) {
    const from = reader.u16()
    const to = reader.u16()
    // `from` leaves a gap to the range before: touching ranges have one encoding, as one range.
    if (from === 0 || to < from || (last >= 0 && from <= last + 1)) throw malformed('port ranges are not ordered and apart')
    last = to
    ranges.push({ from, to })
  }
  return ranges
}

function writeRanges(writer: Writer, ranges: readonly PortRange[]): void {
  writer.u8(ranges.length)
  for (const { from, to } of ranges) writer.u16(from).u16(to)
}

function readVersions(reader: Reader, what: string): number[] {
  const count = readCount(reader, DESCRIPTOR_VERSIONS_MAX, `${what} versions`)
  const versions: number[] = []
  for (let i = 0; i < count; i++) {
    const version = reader.u8()
    if (i > 0 && version <= versions[i - 1]!) throw malformed(`${what} versions are not in ascending order`)
    versions.push(version)
  }
  return versions
}

function writeVersions(writer: Writer, versions: readonly number[]): void {
  const ordered = [...new Set(versions)].sort((a, b) => a - b)
  writer.u8(ordered.length)
  for (const version of ordered) writer.u8(version)
}

/** Versions of raw packets that an exit serves: u8 each, ascending; not written where there are none. */
const EXTENSION_PACKET = 1
/** The relay is leaving: no bytes; not written where it is not. */
const EXTENSION_LEAVING = 2

function writeExtensions(writer: Writer, { protocols, roles, leaving }: DescriptorFields): void {
  const versions = [...new Set(protocols.packet)].sort((a, b) => a - b)
  writer.u8((versions.length > 0 ? 1 : 0) + (leaving ? 1 : 0))
  if (versions.length > 0) {
    assert(roles.includes('exit') && versions.length <= DESCRIPTOR_VERSIONS_MAX, 'an exit serves packets, in some versions')
    writer.u8(EXTENSION_PACKET).u16(versions.length)
    for (const version of versions) writer.u8(version)
  }
  if (leaving) writer.u8(EXTENSION_LEAVING).u16(0)
}

/** Types ascend; unknown ones are room for later: kept in the signed bytes, they mean nothing here. */
function readExtensions(reader: Reader, roles: readonly ServingRole[]): { readonly packet: number[]; readonly leaving: boolean } {
  const count = readCount(reader, DESCRIPTOR_EXTENSIONS_MAX, 'extensions')
  const packet: number[] = []
  let leaving = false
  let last = -1
  for (let i = 0; i < count; i++) {
    const type = reader.u8()
    if (type <= last) throw malformed('extension types are not in ascending order')
    last = type
    const value = reader.bytes(reader.u16())
    if (type === EXTENSION_PACKET) packet.push(...readPacketVersions(value, roles))
    if (type === EXTENSION_LEAVING) {
      if (value.length > 0) throw malformed('says more than that it is leaving')
      leaving = true
    }
  }
  return { packet, leaving }
}

function readPacketVersions(value: Uint8Array, roles: readonly ServingRole[]): Uint8Array {
  if (!roles.includes('exit')) throw malformed('serves packets and is no exit')
  if (value.length === 0 || value.length > DESCRIPTOR_VERSIONS_MAX) throw malformed(`has ${value.length} packet versions`)
  if (value.some((version, i) => i > 0 && version <= value[i - 1]!)) throw malformed('packet versions are not in ascending order')
  return value
}

function readCount(reader: Reader, most: number, what: string): number {
  const count = reader.u8()
  if (count > most) throw malformed(`has ${count} ${what}, more than ${most}`)
  return count
}

function malformed(problem: string): MalformedError {
  return new MalformedError('descriptor', problem)
}

/** The digest as a map key. */
export function digestKey(digest: Uint8Array): string {
  return toHex(digest)
}
