import { type IpAddress, type Logger, messageOf, sensitive } from '../base/index.ts'
import { HeldPackets } from '../drive/index.ts'
import {
  type EndReason,
  LEAST_PACKET_MTU,
  type PacketGrant,
  type PacketTerms,
  packetLimits,
  type RelayCircuitMachine,
} from '../onion/index.ts'
import type { PacketBatch, PacketPort } from '../packet/index.ts'
import { ExitRefusal, endReasonOf } from './exit-refusal.ts'
import type { ExitCircuit, ExitPacketLease } from './exit-service.ts'

export interface ExitPacketsModules {
  readonly machine: RelayCircuitMachine
  readonly exit: ExitCircuit
  readonly wake: () => void
  readonly now: () => number
  readonly logger: Logger
}

interface OpenLease {
  readonly opening: AbortController
  /** Null until the exit has given it. */
  port: PacketPort | null
  /** The client's packets that the port had no room for. */
  readonly outgoing: HeldPackets
  /** Packets for the client that the circuit had no room for, and since when the first of them waits. */
  readonly incoming: HeldPackets
  incomingSince: number
}

/** Joins the packet leases of one circuit to an exit's packet ports. It only carries. */
export class ExitPackets {
  readonly #m: ExitPacketsModules
  readonly #leases = new Map<number, OpenLease>()

  constructor(modules: ExitPacketsModules) {
    this.#m = modules
  }

  async open(id: number, terms: PacketTerms): Promise<void> {
    const { exit, logger, wake } = this.#m
    const lease: OpenLease = {
      opening: new AbortController(),
      port: null,
      outgoing: new HeldPackets(),
      incoming: new HeldPackets(),
      incomingSince: 0,
    }
    this.#leases.set(id, lease)
    try {
      const given = await exit.openPackets(terms.mtu, lease.opening.signal)
      if (this.#leases.get(id) !== lease) {
        given.port.close()
        return
      }
      this.#join(id, lease, given, terms)
    } catch (error) {
      logger.debug('packets not leased', { error: sensitive(messageOf(error)) })
      if (this.#leases.get(id) === lease) this.#finish(id, endReasonOf(error))
    }
    wake()
  }

  /** Packets of the client's. The batch is lent. */
  deliver(id: number, batch: PacketBatch): void {
    const lease = this.#leases.get(id)
    if (!lease?.port) return
    const taken = lease.outgoing.isEmpty ? lease.port.send(batch, 0) : 0
    if (taken < batch.count) lease.outgoing.add(batch, taken)
  }

  /** The circuit takes packets again. */
  writable(id: number): void {
    const lease = this.#leases.get(id)
    if (!lease?.port) return
    const { machine, now } = this.#m
    if (now() - lease.incomingSince > packetLimits.staleMs) lease.incoming.clear()
    lease.incoming.drain((batch, from) => machine.sendPackets(id, batch, from, batch.count, now()))
    if (machine.hasPacketRoom(id)) lease.port.resume()
  }

  /** The client gave it back. */
  close(id: number): void {
    const lease = this.#leases.get(id)
    this.#leases.delete(id)
    lease?.opening.abort()
    lease?.outgoing.clear()
    lease?.incoming.clear()
    lease?.port?.close()
  }

  closeAll(): void {
    for (const id of [...this.#leases.keys()]) this.close(id)
  }

  #join(id: number, lease: OpenLease, given: ExitPacketLease, terms: PacketTerms): void {
    const { machine, wake, now } = this.#m
    const { port } = given
    const grant = grantOf(given, terms)
    if (grant === null) {
      port.close()
      throw new ExitRefusal('unreachable', 'no family that was asked for is served')
    }
    lease.port = port
    port.attach({
      packets: (batch) => {
        const taken = lease.incoming.isEmpty ? machine.sendPackets(id, batch, 0, batch.count, now()) : 0
        if (taken < batch.count) {
          if (lease.incoming.isEmpty) lease.incomingSince = now()
          lease.incoming.add(batch, taken)
        }
        if (!machine.hasPacketRoom(id)) port.pause()
        wake()
      },
      drained: () => lease.outgoing.drain((batch, from) => port.send(batch, from)),
      ended: (error) => {
        if (this.#leases.get(id) !== lease) return
        this.#finish(id, error === null ? 'done' : endReasonOf(error))
        wake()
      },
    })
    machine.acceptPackets(id, grant)
  }

  /** Ended from this side. */
  #finish(id: number, reason: EndReason): void {
    this.#m.machine.closePackets(id, reason)
    this.close(id)
  }
}

/** Of what was leased, what was asked for; null when that is nothing. */
function grantOf({ address4, address6, port }: ExitPacketLease, { families, mtu }: PacketTerms): PacketGrant | null {
  const wanted = (address: IpAddress | null, family: 4 | 6): IpAddress | null => (families.includes(family) ? address : null)
  const grant = { address4: wanted(address4, 4), address6: wanted(address6, 6), mtu: Math.min(mtu, port.mtu) }
  return (grant.address4 === null && grant.address6 === null) || grant.mtu < LEAST_PACKET_MTU ? null : grant
}
