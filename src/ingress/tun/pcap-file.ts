import { closeSync, createWriteStream, openSync, readSync, statSync } from 'node:fs'
import { messageOf, ShallotError } from '../../base/index.ts'
import { type PacketPort, PcapTracer } from '../../packet/index.ts'

/** Bytes that may wait for the disk before packets are left out of the capture. */
const PENDING_BYTES = 4 << 20

/** What a file of libpcap's format begins with, in either order of bytes. */
const PCAP_MAGIC = 0xa1b2_c3d4
const PCAP_MAGIC_SWAPPED = 0xd4c3_b2a1

/** A capture that is being written. */
export interface PcapFile {
  /** The port whose packets are recorded, both ways: to be used in place of the one that was given. */
  readonly port: PcapTracer
  /** Writes what waits and closes the file. The port goes on without. */
  close(): Promise<void>
}

/**
 * Records all packets of a port in a file of libpcap's format, which only this user may read. A slow or full disk never holds packets back:
 * they are left out of the capture and counted (`port.missed`). A capture that is there is replaced; any other file is not.
 * @param now wall-clock ms
 * @param maxBytes the file's largest size; default 1 GiB
 * @throws ShallotError 'pcap-not-writable'
 */
export function openPcap(port: PacketPort, path: string, now: () => number, maxBytes?: number): PcapFile {
  let fd: number
  try {
    refuseOthers(path)
    fd = openSync(path, 'w', 0o600)
  } catch (error) {
    throw new ShallotError('pcap-not-writable', `the capture can't be written to ${path}: ${messageOf(error)}`, {
      kind: 'usage',
      retry: 'never',
      cause: error,
    })
  }
  const file = createWriteStream(path, { fd, highWaterMark: PENDING_BYTES })
  let gone = false
  file.on('error', () => {
    gone = true
  })
  const sink = {
    write: (bytes: Uint8Array) => !gone && file.write(bytes),
    get ready() {
      return !gone && file.writableLength < PENDING_BYTES
    },
  }
  return {
    port: new PcapTracer(port, { sink, now, ...(maxBytes === undefined ? {} : { maxBytes }) }),
    close: () =>
      new Promise((resolve) => {
        if (gone) resolve()
        else file.end(() => resolve())
        gone = true
      }),
  }
}

/** A path that was mistyped, or set by somebody else, must not cost a file. */
function refuseOthers(path: string): void {
  const there = statSync(path, { throwIfNoEntry: false })
  if (there === undefined || !there.isFile() || there.size === 0) return
  const start = Buffer.alloc(4)
  const fd = openSync(path, 'r')
  try {
    readSync(fd, start, 0, start.length, 0)
  } finally {
    closeSync(fd)
  }
  if (![PCAP_MAGIC, PCAP_MAGIC_SWAPPED].includes(start.readUInt32BE()))
    throw new Error('a file that is no capture is there, and is not replaced')
}
