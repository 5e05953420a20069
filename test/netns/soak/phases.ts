import type { Phase } from './soak.ts'

/** Paths from good to bad, each with its share of the bytes and how many flows carry them at once. The shares are of 100. */
const paths: readonly (Omit<Phase, 'bytes' | 'flows' | 'isLast'> & { readonly share: number })[] = [
  { name: 'a clean path, IPv4', share: 30, v6: false, atOnce: 4, faults: {} },
  { name: 'a clean path, IPv6', share: 25, v6: true, atOnce: 4, faults: {} },
  { name: '0.1 % loss, IPv4', share: 15, v6: false, atOnce: 8, faults: { loss: 0.001, reorder: 0.01, duplicate: 0.01 } },
  { name: '0.5 % loss, reordering, jitter, IPv6', share: 10, v6: true, atOnce: 16, faults: { loss: 0.005, reorder: 0.02, jitterMs: 1 } },
  {
    name: '1 % loss, reordering, duplication, 1 ms, IPv4',
    share: 10,
    v6: false,
    atOnce: 16,
    faults: { loss: 0.01, reorder: 0.03, duplicate: 0.02, delayMs: 1 },
  },
  { name: '2 % loss, 5 ms, IPv6', share: 4, v6: true, atOnce: 32, faults: { loss: 0.02, reorder: 0.02, duplicate: 0.01, delayMs: 5 } },
  { name: '3 % loss, flipped bits, IPv4', share: 3, v6: false, atOnce: 32, faults: { loss: 0.02, corrupt: 0.01, reorder: 0.05 } },
  {
    name: '5 % loss, reordering, duplication, 2 ms, IPv6',
    share: 3,
    v6: true,
    atOnce: 48,
    faults: { loss: 0.05, reorder: 0.05, reorderMs: 10, duplicate: 0.05, delayMs: 2, jitterMs: 1 },
  },
]

/** The paths with so many bytes in all, both ways together; a flow carries up to `flowBytes` each way. */
export function soakPhases(totalBytes: number, flowBytes: number): readonly Phase[] {
  return paths.map(({ share, ...path }, index) => {
    const each = (totalBytes * share) / 100 / 2
    const flows = Math.max(path.atOnce, 2 * Math.ceil(each / flowBytes / 2))
    return { ...path, flows, bytes: Math.ceil(each / flows), isLast: index === paths.length - 1 }
  })
}

/** Connections that say little and go, over a good path and a bad one. */
export function shortPhases(connections: number): readonly Phase[] {
  const half = connections / 2
  return [
    { name: 'short connections, IPv4', faults: {}, v6: false, flows: half, atOnce: 100, bytes: 400, isLast: true },
    {
      name: 'short connections, 1 % loss, IPv6',
      faults: { loss: 0.01, reorder: 0.02 },
      v6: true,
      flows: half,
      atOnce: 200,
      bytes: 400,
      isLast: true,
    },
  ]
}
