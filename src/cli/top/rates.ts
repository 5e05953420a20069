import type { Api } from '../../control/index.ts'

/** What a node said at one moment. */
export interface Snapshot {
  /** Monotonic ms. */
  readonly at: number
  readonly status: Api.NodeStatus
  readonly circuits: readonly Api.Circuit[]
  readonly streams: readonly Api.Stream[]
}

/** Bytes a second. */
export interface Rate {
  readonly down: number
  readonly up: number
}

/** How fast everything moved between two moments. */
export interface Rates {
  /** Of this node's own traffic; null for a node that is no client, and before the second moment. */
  readonly client: Rate | null
  /** Cells for others, bytes a second; null for a node that serves none, and before the second moment. */
  readonly forwarded: number | null
  readonly circuits: ReadonlyMap<number, Rate>
  readonly streams: ReadonlyMap<string, Rate>
}

const idle: Rate = { down: 0, up: 0 }

/** @param before null at the first moment */
export function ratesBetween(before: Snapshot | null, now: Snapshot): Rates {
  // A node that was started anew counts from nothing.
  const same = before !== null && before.status.pid === now.status.pid && before.status.startedAt === now.status.startedAt ? before : null
  const seconds = same === null ? Number.POSITIVE_INFINITY : Math.max(0.001, (now.at - same.at) / 1000)
  const rate = (was: Counted | null | undefined, is: Counted): Rate => ({
    down: Math.max(0, is.bytesReceived - (was?.bytesReceived ?? 0)) / seconds,
    up: Math.max(0, is.bytesSent - (was?.bytesSent ?? 0)) / seconds,
  })
  const circuits = new Map(same?.circuits.map((circuit) => [circuit.id, circuit]))
  const streams = new Map(same?.streams.map((stream) => [streamKey(stream), stream]))
  return {
    client: same?.status.client && now.status.client ? rate(same.status.client, now.status.client) : null,
    forwarded:
      same?.status.relaying && now.status.relaying
        ? Math.max(0, now.status.relaying.bytesForwarded - same.status.relaying.bytesForwarded) / seconds
        : null,
    circuits: new Map(now.circuits.map((circuit) => [circuit.id, same === null ? idle : rate(circuits.get(circuit.id), circuit)])),
    streams: new Map(now.streams.map((stream) => [streamKey(stream), same === null ? idle : rate(streams.get(streamKey(stream)), stream)])),
  }
}

/** Names a stream among all of a node. */
export function streamKey({ circuit, id }: Pick<Api.Stream, 'circuit' | 'id'>): string {
  return `${circuit ?? '-'}/${id}`
}

interface Counted {
  readonly bytesSent: number
  readonly bytesReceived: number
}
