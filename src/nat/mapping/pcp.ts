import { type IpAddress, ipFromBytes, MalformedError, Reader, Writer } from '../../base/index.ts'

/** The port of both protocols on the gateway. RFC 6887 §19, RFC 6886 §1.2 */
export const GATEWAY_PORT = 5351
/** RFC 6887 §7: no message is longer. */
export const ANSWER_BYTES_MAX = 1100
export const NONCE_BYTES = 12

const PCP_VERSION = 2
const PMP_VERSION = 0
const RESPONSE = 0x80
const PCP_MAP = 1
const PMP_EXTERNAL = 0
const PMP_MAP_TCP = 2
const TCP = 6
const MAPPED_PREFIX = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff)

/** What a gateway answered. `epoch`: seconds since it lost its mappings last; going back tells that it has. */
export type GatewayAnswer =
  | { readonly type: 'refused'; readonly result: number; readonly version: number; readonly epoch: number }
  | { readonly type: 'external'; readonly ip: IpAddress; readonly epoch: number }
  | {
      readonly type: 'mapped'
      readonly internalPort: number
      readonly externalPort: number
      /** Null where the protocol does not say it (NAT-PMP). */
      readonly ip: IpAddress | null
      readonly lifetimeMs: number
      readonly epoch: number
    }

export interface MapRequest {
  readonly internalPort: number
  /** The one that is wished for; with lifetime 0 the mapping is removed. */
  readonly externalPort: number
  readonly lifetimeMs: number
}

/**
 * PCP MAP (RFC 6887 §7.1, §11.1):
 * version 2, opcode 1, 2 reserved, lifetime u32 s, client address 16 · nonce 12, protocol, 3 reserved, internal u16, external u16, external address 16
 * @param client the address this host has towards the gateway
 * @param nonce 12 bytes, the same for renewing and removing
 */
export function encodePcpMap({ internalPort, externalPort, lifetimeMs }: MapRequest, client: IpAddress, nonce: Uint8Array): Uint8Array {
  return new Writer(60)
    .u8(PCP_VERSION)
    .u8(PCP_MAP)
    .u16(0)
    .u32(Math.ceil(lifetimeMs / 1000))
    .bytes(as16(client))
    .bytes(nonce)
    .u8(TCP)
    .bytes(new Uint8Array(3))
    .u16(internalPort)
    .u16(externalPort)
    .bytes(as16({ family: client.family, bytes: new Uint8Array(client.bytes.length) }))
    .finish()
}

/** Version 2, opcode 0x81, reserved, result u8, lifetime u32, epoch u32, 12 reserved, then as the request. @throws MalformedError */
export function decodePcpMap(bytes: Uint8Array, nonce: Uint8Array): GatewayAnswer {
  const reader = new Reader('PCP answer', bytes)
  const version = reader.u8()
  const opcode = reader.u8()
  // A gateway with NAT-PMP only answers in its own version (RFC 6886 §3.5).
  if (version === PMP_VERSION) return { type: 'refused', result: reader.u16(), version, epoch: reader.left >= 4 ? reader.u32() : 0 }
  reader.u8()
  const result = reader.u8()
  if (version !== PCP_VERSION || opcode !== (RESPONSE | PCP_MAP)) {
    if (version !== PCP_VERSION && (opcode & RESPONSE) !== 0 && result !== 0) return { type: 'refused', result, version, epoch: 0 }
    throw new MalformedError('PCP answer', 'is of another kind')
  }
  const lifetime = reader.u32()
  const epoch = reader.u32()
  if (result !== 0) return { type: 'refused', result, version, epoch }
  reader.bytes(12)
  if (!Buffer.from(reader.bytes(NONCE_BYTES)).equals(nonce)) throw new MalformedError('PCP answer', 'is for another request')
  if (reader.u8() !== TCP) throw new MalformedError('PCP answer', 'is for another protocol')
  reader.bytes(3)
  const internalPort = reader.u16()
  const externalPort = reader.u16()
  return { type: 'mapped', internalPort, externalPort, ip: ipFromBytes(reader.bytes(16)), lifetimeMs: lifetime * 1000, epoch }
}

/** NAT-PMP (RFC 6886 §3.2): version 0, opcode 0. */
export function encodePmpExternal(): Uint8Array {
  return Uint8Array.of(PMP_VERSION, PMP_EXTERNAL)
}

/** NAT-PMP (RFC 6886 §3.3): version 0, opcode 2, 2 reserved, internal u16, external u16, lifetime u32 s. */
export function encodePmpMap({ internalPort, externalPort, lifetimeMs }: MapRequest): Uint8Array {
  return new Writer(12)
    .u8(PMP_VERSION)
    .u8(PMP_MAP_TCP)
    .u16(0)
    .u16(internalPort)
    .u16(externalPort)
    .u32(Math.ceil(lifetimeMs / 1000))
    .finish()
}

/** Version 0, opcode + 128, result u16, epoch u32, then IPv4 address, or internal u16, external u16, lifetime u32. @throws MalformedError */
export function decodePmp(bytes: Uint8Array): GatewayAnswer {
  const reader = new Reader('NAT-PMP answer', bytes)
  const version = reader.u8()
  const opcode = reader.u8()
  const result = reader.u16()
  if (version !== PMP_VERSION || (opcode & RESPONSE) === 0) throw new MalformedError('NAT-PMP answer', 'is of another kind')
  const epoch = reader.left >= 4 ? reader.u32() : 0
  if (result !== 0) return { type: 'refused', result, version, epoch }
  if (opcode === (RESPONSE | PMP_EXTERNAL)) return { type: 'external', ip: ipFromBytes(reader.bytes(4)), epoch }
  if (opcode !== (RESPONSE | PMP_MAP_TCP)) throw new MalformedError('NAT-PMP answer', 'is of another kind')
  return { type: 'mapped', internalPort: reader.u16(), externalPort: reader.u16(), ip: null, lifetimeMs: reader.u32() * 1000, epoch }
}

/** RFC 6887 §7.4, RFC 6886 §3.5 in plain words. */
export function refusalWords(answer: GatewayAnswer & { type: 'refused' }): string {
  const pmp = ['', 'unsupported version', 'not allowed', 'no network', 'out of resources', 'unsupported request']
  const pcp = [
    '',
    'unsupported version',
    'not allowed',
    'malformed request',
    'unsupported request',
    'unsupported option',
    'malformed option',
    'no network',
    'out of resources',
    'unsupported protocol',
    'too many mappings',
    'that port cannot be had',
    'another NAT stands before it',
    'too many peers',
  ]
  return (answer.version === PMP_VERSION ? pmp : pcp)[answer.result] ?? `error ${answer.result}`
}

function as16(ip: IpAddress): Uint8Array {
  if (ip.family === 6) return ip.bytes
  const bytes = new Uint8Array(16)
  bytes.set(MAPPED_PREFIX)
  bytes.set(ip.bytes, 12)
  return bytes
}
