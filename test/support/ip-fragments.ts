/** RFC 791 §3.2, RFC 8200 §4.5: a whole packet cut for a link. */
export function fragmentsOf(packet: Uint8Array, mtu: number): Uint8Array[] {
  const is4 = packet[0]! >> 4 === 4
  const headerBytes = is4 ? 20 : 40
  const extra = is4 ? 0 : 8
  const payload = packet.subarray(headerBytes)
  const step = (mtu - headerBytes - extra) & ~7
  const parts: Uint8Array[] = []
  for (let offset = 0; offset < payload.length; offset += step) {
    const data = payload.subarray(offset, offset + step)
    const more = offset + data.length < payload.length
    const part = new Uint8Array(headerBytes + extra + data.length)
    part.set(packet.subarray(0, headerBytes))
    part.set(data, headerBytes + extra)
    const view = new DataView(part.buffer)
    if (is4) {
      view.setUint16(2, part.length)
      view.setUint16(4, 0x1234)
      view.setUint16(6, (more ? 0x2000 : 0) | (offset >> 3))
      view.setUint16(10, 0)
      let sum = 0
      for (let i = 0; i < 20; i += 2) sum += view.getUint16(i)
      while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
      view.setUint16(10, ~sum & 0xffff)
    } else {
      view.setUint16(4, part.length - 40)
      part[6] = 44
      part[40] = packet[6]!
      view.setUint16(42, offset | (more ? 1 : 0))
      view.setUint32(44, 0x1234)
    }
    parts.push(part)
  }
  return parts
}
