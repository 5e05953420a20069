import { describe, expect, it } from 'vitest'
import { formatIp, parseIp, ShallotError, silentLogger } from '../../../src/base/index.ts'
import type { PacketGrant, PacketTerms, RelayCircuitMachine } from '../../../src/onion/index.ts'
import { batchOfPackets, newPortStats, type PacketBatch, type PacketPort, type PacketPortHandlers } from '../../../src/packet/index.ts'
import { ExitPackets } from '../../../src/relaying/exit-packets.ts'
import type { ExitCircuit, ExitPacketLease } from '../../../src/relaying/index.ts'

const terms: PacketTerms = { families: [4, 6], mtu: 1420 }
const numbers = (from: number, count: number): PacketBatch =>
  batchOfPackets(Array.from({ length: count }, (_, i) => new Uint8Array(40).fill(from + i)))
const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

/** A port that takes `room` packets, and a machine that takes `machineRoom`. */
class World {
  room = Number.POSITIVE_INFINITY
  machineRoom = Number.POSITIVE_INFINITY
  now = 0
  readonly sent: number[] = []
  readonly toClient: number[] = []
  readonly log: string[] = []
  handlers: PacketPortHandlers | null = null
  readonly packets: ExitPackets

  readonly port: PacketPort = {
    name: 'test',
    medium: 'ip',
    mtu: 1500,
    stats: newPortStats(),
    attach: (handlers) => {
      this.handlers = handlers
    },
    send: (batch, from = 0) => {
      let taken = 0
      for (let i = from; i < batch.count && this.room > 0; i++, taken++, this.room--) this.sent.push(batch.packet(i)[0]!)
      return taken
    },
    pause: () => void this.log.push('pause'),
    resume: () => void this.log.push('resume'),
    close: () => void this.log.push('close'),
  }

  constructor(lease: Partial<ExitPacketLease> = {}) {
    const machine = {
      acceptPackets: (_: number, { address4, address6, mtu }: PacketGrant) =>
        void this.log.push(`opened ${address4 ? formatIp(address4) : null} ${address6 ? formatIp(address6) : null} ${mtu}`),
      closePackets: (_: number, reason: string) => void this.log.push(`said ${reason}`),
      sendPackets: (_: number, batch: PacketBatch, from: number, to: number) => {
        let taken = 0
        for (let i = from; i < to && this.machineRoom > 0; i++, taken++, this.machineRoom--) this.toClient.push(batch.packet(i)[0]!)
        return taken
      },
      hasPacketRoom: () => this.machineRoom > 0,
    }
    const given = { address4: parseIp('100.64.0.2'), address6: parseIp('fd00::2'), port: this.port, ...lease }
    this.packets = new ExitPackets({
      machine: machine as unknown as RelayCircuitMachine,
      exit: { openPackets: async () => given } as unknown as ExitCircuit,
      wake: () => {},
      now: () => this.now,
      logger: silentLogger,
    })
  }
}

async function opened(lease?: Partial<ExitPacketLease>, asked = terms): Promise<World> {
  const world = new World(lease)
  await world.packets.open(1, asked)
  return world
}

describe('the packets of a lease at an exit', () => {
  it('have what was asked for of what was leased', async () => {
    expect((await opened()).log).toEqual(['opened 100.64.0.2 fd00::2 1420'])
    expect((await opened({}, { families: [6], mtu: 1515 })).log).toEqual(['opened null fd00::2 1500'])
    expect((await opened({ address4: null }, { families: [4], mtu: 1420 })).log).toEqual(['close', 'said unreachable'])
  })

  it('wait, in order, while the port is full', async () => {
    const world = await opened()
    world.room = 3
    world.packets.deliver(1, numbers(0, 5))
    world.packets.deliver(1, numbers(5, 5))
    expect(world.sent).toEqual(upTo(3))
    world.room = 4
    world.handlers!.drained()
    expect(world.sent).toEqual(upTo(7))
    world.room = 100
    world.packets.deliver(1, numbers(10, 2))
    expect(world.sent).toEqual(upTo(7))
    world.handlers!.drained()
    world.packets.deliver(1, numbers(12, 2))
    expect(world.sent).toEqual(upTo(14))
  })

  it('pause their source while the circuit has no room, and what it gave already waits', async () => {
    const world = await opened()
    world.machineRoom = 4
    world.handlers!.packets(numbers(0, 10))
    world.handlers!.packets(numbers(10, 2))
    expect(world.toClient).toEqual(upTo(4))
    expect(world.log.slice(1)).toEqual(['pause', 'pause'])
    world.machineRoom = 3
    world.packets.writable(1)
    expect(world.toClient).toEqual(upTo(7))
    expect(world.log).not.toContain('resume')
    world.machineRoom = 100
    world.packets.writable(1)
    expect(world.toClient).toEqual(upTo(12))
    expect(world.log.at(-1)).toBe('resume')
  })

  it('do not wait for longer than the circuit would let them', async () => {
    const world = await opened()
    world.machineRoom = 1
    world.handlers!.packets(numbers(0, 10))
    world.now = 101
    world.machineRoom = 100
    world.packets.writable(1)
    world.handlers!.packets(numbers(20, 1))
    expect(world.toClient).toEqual([0, 20])
    expect(world.log.at(-1)).toBe('resume')
  })

  it('end with their port, or the port with them, once', async () => {
    const failed = await opened()
    failed.handlers!.ended(new ShallotError('internal', 'the device is gone', { kind: 'host', retry: 'later' }))
    expect(failed.log.slice(1)).toEqual(['said internal', 'close'])
    const closed = await opened()
    closed.packets.close(1)
    closed.handlers!.ended(null)
    closed.packets.deliver(1, numbers(0, 1))
    closed.packets.closeAll()
    expect(closed.log.slice(1)).toEqual(['close'])
    expect(closed.sent).toEqual([])
  })
})
