/**
 * An exit's policy in short, as its descriptor states it: which ports it lets through to most public addresses, by family.
 * Ordered, disjoint, inclusive ranges.
 */
export interface PolicySummary {
  readonly ipv4: readonly PortRange[]
  readonly ipv6: readonly PortRange[]
}

export interface PortRange {
  readonly from: number
  readonly to: number
}

/** Whether the summary lets a port through to an address of the family (any family when null: the name is not resolved yet). */
export function allowsPort(policy: PolicySummary, port: number, family: 4 | 6 | null): boolean {
  const inRanges = (ranges: readonly PortRange[]): boolean => ranges.some((range) => range.from <= port && port <= range.to)
  return (family !== 6 && inRanges(policy.ipv4)) || (family !== 4 && inRanges(policy.ipv6))
}
