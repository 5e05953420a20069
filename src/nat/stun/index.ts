export type { NatKind } from './classify.ts'
export { natKind } from './classify.ts'
export {
  defaultStunProbeTiming,
  defaultStunServerConfig,
  type StunProbeConfig,
  type StunProbeTiming,
  type StunServerConfig,
  type StunServerLimits,
  stunProbeConfig,
  stunServerConfig,
} from './config.ts'
export { type DatagramOpener, type DatagramSocket, openDatagrams } from './datagrams.ts'
export { formatEndpoint, parseEndpoint, sameEndpoint, sameIp } from './endpoint.ts'
export { decodeStun, encodeStun, looksLikeStun, type StunAttribute, type StunMessage } from './message.ts'
export { MAX_PROBE_SERVERS, type ProbeDepth, type StunServerAddress } from './probe.ts'
export { type FamilyReport, type NatReport, type ProbeNatOptions, probeNat, resolveStunServer, stunServersOf } from './probe-nat.ts'
export type { StunServerStats } from './responder.ts'
export { StunServer, type StunServerOptions, stunListen } from './server.ts'
