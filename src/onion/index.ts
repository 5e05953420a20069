export * from './cell.ts'
export * from './circuit.ts'
export { type CircuitLimits, circuitLimits } from './circuit-limits.ts'
export { type ClientCircuitOptions, createClientCircuit } from './client-circuit.ts'
export * from './extensions.ts'
export * from './handshake.ts'
export type { HopKeys } from './kdf.ts'
export * from './keyring.ts'
export * from './layers.ts'
export { isHost, isSayableTarget } from './messages.ts'
export {
  LEAST_PACKET_BYTES,
  LEAST_PACKET_MTU,
  MOST_PACKET_BYTES,
  PACKET_VERSION,
  type PacketGrant,
  type PacketTerms,
  packetLimits,
} from './packets.ts'
export { createRelayCircuit, type RelayCircuitOptions } from './relay-circuit.ts'
