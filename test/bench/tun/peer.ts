import { connect } from 'node:net'

/**
 * A program of the machine that knows nothing of us: moves bytes by the kernel's TCP and prints how fast.
 *
 *     node test/bench/tun/peer.ts down|up HOST PORT BYTES
 *
 * It says which way and how many in nine bytes first; the side that receives all answers nothing (down) or one byte (up).
 */
const [way, host, port, count] = process.argv.slice(2)
const bytes = Number(count)
const ask = Buffer.alloc(9)
ask[0] = way === 'down' ? 0x64 : 0x75
ask.writeBigUInt64BE(BigInt(bytes), 1)

let began = 0
let received = 0
const done = (): void => {
  const seconds = (performance.now() - began) / 1000
  console.log((bytes / 1e6 / seconds).toFixed(1))
  socket.destroy()
}
const socket = connect({
  host: host!,
  port: Number(port),
  noDelay: true,
  onread: {
    buffer: Buffer.allocUnsafe(1 << 20),
    callback: (length) => {
      received += length
      if (received >= (way === 'down' ? bytes : 1)) done()
      return true
    },
  },
})
socket.on('error', (error) => {
  console.error(error.message)
  process.exit(1)
})
socket.on('connect', () => {
  began = performance.now()
  socket.write(ask)
  if (way === 'down') return
  const piece = Buffer.alloc(1 << 18)
  let left = bytes
  const write = (): void => {
    while (left > 0) {
      const length = Math.min(left, piece.length)
      left -= length
      if (!socket.write(length === piece.length ? piece : piece.subarray(0, length))) {
        socket.once('drain', write)
        return
      }
    }
  }
  write()
})
