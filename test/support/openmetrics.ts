/**
 * What is wrong with a page by OpenMetrics 1.0 (https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md), as far as gauges
 * and counters go; other types are refused, since nobody here makes them. Empty: nothing.
 */
export function openMetricsProblems(text: string): string[] {
  const problems: string[] = []
  const families = new Map<string, Family>()
  let family = null as Family | null
  if (!text.endsWith('# EOF\n')) problems.push('does not end with "# EOF" and a line feed')
  if (text.includes('\r')) problems.push('holds carriage returns')
  const lines = text.replace(/# EOF\n$/, '').split('\n')
  if (lines.pop() !== '') problems.push('a line is not ended')
  for (const line of lines) {
    const metadata = /^# (TYPE|HELP|UNIT) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$/.exec(line)
    if (metadata) {
      const [, kind, name, value] = metadata as unknown as [string, 'TYPE' | 'HELP' | 'UNIT', string, string]
      if (family?.name !== name) {
        if (families.has(name)) problems.push(`${name}: is torn apart`)
        family = { name, type: null, help: null, unit: null, samples: [] }
        families.set(name, family)
      }
      problems.push(...addMetadata(family, kind, value))
      continue
    }
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^}]*)\})? (\S+)$/.exec(line)
    if (!sample) {
      problems.push(`no line of the format: ${JSON.stringify(line)}`)
      continue
    }
    const [, name, labels = '', value] = sample as unknown as [string, string, string | undefined, string]
    if (family === null || name !== sampleName(family)) problems.push(`${name}: stands under ${family?.name ?? 'nothing'}`)
    problems.push(...labelProblems(name, labels))
    if (!/^-?\d+(\.\d+)?(e[+-]?\d+)?$/.test(value)) problems.push(`${name}: the value ${value}`)
    if (family?.type === 'counter' && !(Number(value) >= 0)) problems.push(`${name}: a counter below nothing`)
    const key = `${name}{${labels.split(',').sort().join(',')}}`
    if (family?.samples.includes(key)) problems.push(`${key}: twice`)
    family?.samples.push(key)
  }
  for (const { name, type, help, samples } of families.values()) {
    if (type === null || help === null) problems.push(`${name}: no ${type === null ? 'TYPE' : 'HELP'}`)
    if (samples.length === 0) problems.push(`${name}: no sample`)
    for (const suffix of ['_total', '_created', '_bucket', '_count', '_sum'])
      if (families.has(`${name}${suffix}`)) problems.push(`${name}: clashes with ${name}${suffix}`)
  }
  return problems
}

interface Family {
  readonly name: string
  type: string | null
  help: string | null
  unit: string | null
  readonly samples: string[]
}

function addMetadata(family: Family, kind: 'TYPE' | 'HELP' | 'UNIT', value: string): string[] {
  const { name, samples } = family
  const problems: string[] = []
  const field = kind.toLowerCase() as 'type' | 'help' | 'unit'
  if (samples.length > 0) problems.push(`${name}: ${kind} after samples`)
  if (family[field] !== null) problems.push(`${name}: ${kind} twice`)
  family[field] = value
  if (kind === 'TYPE' && value !== 'gauge' && value !== 'counter') problems.push(`${name}: the type ${value}`)
  if (kind === 'TYPE' && value === 'counter' && name.endsWith('_total')) problems.push(`${name}: the family of a counter has no _total`)
  if (kind === 'HELP' && /\\(?![\\n"])/.test(value)) problems.push(`${name}: a help with a bare backslash`)
  if (kind === 'UNIT' && !name.endsWith(`_${value}`)) problems.push(`${name}: does not end with its unit ${value}`)
  return problems
}

function sampleName({ name, type }: Family): string {
  return type === 'counter' ? `${name}_total` : name
}

function labelProblems(name: string, labels: string): string[] {
  if (labels === '') return []
  const names: string[] = []
  const rest = labels.replace(/([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"(,|$)/g, (_, label: string) => {
    names.push(label)
    return ''
  })
  if (rest !== '') return [`${name}: labels that can't be read: ${rest}`]
  if (new Set(names).size !== names.length) return [`${name}: a label twice`]
  return names
    .filter((label) => label.startsWith('__') || label === 'quantile' || label === 'le')
    .map((label) => `${name}: the label ${label}`)
}
