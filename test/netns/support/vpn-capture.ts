import { randomBytes } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import type { IpNetwork } from '../../../src/base/index.ts'
import { type Program, temporaryFolder, until } from '../../support/processes.ts'
import { type Machine, type PcapRecord, PcapRecords } from '../lab/index.ts'
import { parseFrame } from './vpn-frames.ts'
import type { SentFrame } from './vpn-uplink-check.ts'

export interface Uplink {
  readonly machine: Machine
  readonly device: string
  /** Where the wire ends, and its interface there. */
  readonly peer: Machine
  readonly peerDevice: string
  /** The link's own networks. */
  readonly networks: readonly IpNetwork[]
}

/** LINKTYPE_ETHERNET */
const ethernet = 1
/** Headers are enough, with all extension headers that make sense. */
const snapBytes = 256
/** For local experiments (IEEE 802): nobody else's. */
const markerType = 0x88b5
const seenWithinMs = 10_000

/**
 * Every frame that a machine sends on its uplink, of whatever kind: what its kernel gave the wire, and what came out at the other end. Each look
 * first sends a frame of its own and waits until both ends have seen it, so nothing that was sent before is missing, and a capture that sees
 * nothing fails.
 */
export class UplinkCapture {
  readonly uplink: Uplink
  readonly #taps: readonly Tap[]
  readonly #removeFolder: () => void
  readonly #sent: SentFrame[] = []

  static async start(uplink: Uplink): Promise<UplinkCapture> {
    const folder = temporaryFolder('uplink')
    try {
      const taps = await Promise.all([
        Tap.start('machine', uplink.machine, uplink.device, 'out', folder.path),
        Tap.start('peer', uplink.peer, uplink.peerDevice, 'in', folder.path),
      ])
      return new UplinkCapture(uplink, taps, folder.remove)
    } catch (error) {
      folder.remove()
      throw error
    }
  }

  private constructor(uplink: Uplink, taps: readonly Tap[], removeFolder: () => void) {
    this.uplink = uplink
    this.#taps = taps
    this.#removeFolder = removeFolder
  }

  /** All frames until now: what is new stands behind what an earlier look gave. */
  async sent(): Promise<readonly SentFrame[]> {
    const marker = Buffer.concat([Buffer.alloc(12, 0xff), Buffer.from([markerType >> 8, markerType & 0xff]), randomBytes(46)])
    await sendFrame(this.uplink.machine, this.uplink.device, marker)
    const waiting = new Set<Tap>(this.#taps)
    await until('both ends of the uplink have seen the marker', seenWithinMs, () => {
      for (const tap of this.#taps) {
        for (const { at, frame } of tap.read()) {
          if (frame.equals(marker)) waiting.delete(tap)
          else this.#sent.push({ at, where: tap.where, frame: parseFrame(frame) })
        }
      }
      return waiting.size === 0
    })
    return [...this.#sent]
  }

  /** Fails when a frame was lost on its way into the capture. */
  async stop(): Promise<void> {
    try {
      await Promise.all(this.#taps.map((tap) => tap.stop()))
    } finally {
      this.#removeFolder()
    }
  }
}

/** One tcpdump. */
class Tap {
  readonly where: SentFrame['where']
  readonly #program: Program
  readonly #file: string
  readonly #records = new PcapRecords(ethernet)
  #readBytes = 0

  static async start(where: SentFrame['where'], machine: Machine, device: string, direction: 'in' | 'out', folder: string): Promise<Tap> {
    const file = join(folder, `${where}.pcap`)
    const listen = ['-i', device, '-Q', direction, '-n', '-s', String(snapBytes), '-B', '65536', '--immediate-mode']
    const program = machine.start('sh', ['-c', 'exec tcpdump "$@" 2>&1', 'sh', ...listen, '-U', '-Z', 'root', '-w', file])
    await program.waitFor(/listening on/, 10_000)
    return new Tap(where, program, file)
  }

  private constructor(where: SentFrame['where'], program: Program, file: string) {
    this.where = where
    this.#program = program
    this.#file = file
  }

  /** What is new. */
  read(): readonly PcapRecord[] {
    const found: PcapRecord[] = []
    const piece = Buffer.alloc(1 << 20)
    const fd = openSync(this.#file, 'r')
    try {
      for (;;) {
        const length = readSync(fd, piece, 0, piece.length, this.#readBytes)
        if (length === 0) return found
        this.#readBytes += length
        found.push(...this.#records.read(Buffer.from(piece.subarray(0, length))))
      }
    } finally {
      closeSync(fd)
    }
  }

  async stop(): Promise<void> {
    if (this.#program.exit !== null) throw new Error(`the capture at the ${this.where} ended early: ${this.#program.tail()}`)
    await this.#program.stop('SIGINT')
    const dropped = /(\d+) packets? dropped by kernel/.exec(this.#program.log)?.[1]
    if (dropped !== '0') throw new Error(`the capture at the ${this.where} has lost ${dropped ?? '?'} frames: ${this.#program.tail()}`)
  }
}

/** Puts a frame on a machine's wire, past its routes and filters. */
export async function sendFrame(machine: Machine, device: string, frame: Uint8Array): Promise<void> {
  const script = `import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
s.send(bytes.fromhex(sys.argv[2]))`
  await machine.runOk('/usr/bin/python3', ['-c', script, device, Buffer.from(frame).toString('hex')])
}
